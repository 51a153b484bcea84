"""CloudWatch Logs' filter patterns, which ``sam logs --filter`` and ``filter-log-events`` send.

Source: https://docs.aws.amazon.com/AmazonCloudWatch/latest/logs/FilterAndPatternSyntax.html
"""

import fnmatch
import functools
import json
import operator
import re
from collections.abc import Callable
from typing import Any

from moto.logs.exceptions import InvalidParameterException
from moto.logs.models import LogsBackend
from moto.logs.utils import EventMessageFilter

from rehearsal.patches import Difference, patch

Matches = Callable[[str], bool]
#: A quoted phrase, a regular expression, or a word; the mark before it makes it optional or excludes it.
TERM = re.compile(r'\s*([?-]?)(?:"((?:[^"\\]|\\.)*)"|%([^%]*)%|(\S+))')
TOKEN = re.compile(
    r"\s*(&&|\|\||\(|\)|\$(?:\.?\['[^']+'\]|\.[\w-]+|\[(?:\d+|\*)\])*|!=|>=|<=|=|>|<"
    r'|"(?:[^"\\]|\\.)*"|%[^%]*%|[^\s()&|=<>!]+)'
)
STEP = re.compile(r"\['([^']+)'\]|\.([\w-]+)|\[(\d+|\*)\]")
ORDER: dict[str, Callable[[Any, Any], bool]] = {
    ">": operator.gt,
    ">=": operator.ge,
    "<": operator.lt,
    "<=": operator.le,
}


def _invalid(why: str) -> InvalidParameterException:
    return InvalidParameterException(f"Invalid filter pattern: {why}")


@functools.lru_cache
def parse(pattern: str) -> Matches:
    """Return the test of a log line that a pattern stands for.

    Raises
    ------
    InvalidParameterException
        If CloudWatch Logs would refuse the pattern, or the rehearsal does not know this kind.
    """
    text = (pattern or "").strip()
    if text.startswith("["):
        raise _invalid("The rehearsal does not know patterns of space-delimited fields")
    if text.startswith("{"):
        if not text.endswith("}"):
            raise _invalid("If a filter pattern starts with '{' it must end with '}'")
        return _Json(text[1:-1]).parse()
    return _terms(text)


def _terms(text: str) -> Matches:
    found: dict[str, list[Matches]] = {"": [], "?": [], "-": []}
    for mark, phrase, expression, word in TERM.findall(text):
        if word and not re.fullmatch(r"\w+", word, re.ASCII):
            raise _invalid(f"Invalid character(s) in term '{word}'")
        if expression:
            found[mark].append(functools.partial(_searches, re.compile(expression)))
        else:
            wanted = word or re.sub(r"\\(.)", r"\1", phrase)
            found[mark].append(_holds(wanted))
    required, optional, excluded = found.values()

    def matches(line: str) -> bool:
        if any(test(line) for test in excluded):
            return False
        # Optional terms have no effect beside required ones.
        return all(test(line) for test in required) if required or not optional else any(t(line) for t in optional)

    return matches


def _searches(expression: re.Pattern[str], line: str) -> bool:
    return expression.search(line) is not None


def _holds(wanted: str) -> Matches:
    return lambda line: wanted in line


class _Json:
    """A condition on the fields of a line that is a JSON object: comparisons, joined by && and ||, in parentheses."""

    def __init__(self, text: str) -> None:
        self._tokens = TOKEN.findall(text)
        if "".join(self._tokens) != re.sub(r'("(?:[^"\\]|\\.)*"|%[^%]*%)|\s', r"\1", text):
            raise _invalid(text.strip())

    def parse(self) -> Matches:
        condition = self._any()
        if self._tokens:
            raise _invalid(f"Unexpected '{self._tokens[0]}'")

        def matches(line: str) -> bool:
            try:
                event = json.loads(line)
            except ValueError:
                return False
            return isinstance(event, dict) and condition(event)

        return matches

    def _take(self, *wanted: str) -> str:
        if not self._tokens or (wanted and self._tokens[0] not in wanted):
            raise _invalid(f"Expected {' or '.join(wanted) or 'more'}")
        return str(self._tokens.pop(0))

    def _any(self) -> Callable[[Any], bool]:
        parts = [self._all()]
        while self._tokens[:1] == ["||"]:
            self._take()
            parts.append(self._all())
        return lambda event: any(part(event) for part in parts)

    def _all(self) -> Callable[[Any], bool]:
        parts = [self._one()]
        while self._tokens[:1] == ["&&"]:
            self._take()
            parts.append(self._one())
        return lambda event: all(part(event) for part in parts)

    def _one(self) -> Callable[[Any], bool]:
        if self._tokens[:1] == ["("]:
            self._take()
            inner = self._any()
            self._take(")")
            return inner
        selector = self._take()
        if not selector.startswith("$"):
            raise _invalid(f"Expected a field such as $.level, not '{selector}'")
        steps = steps_of(selector)
        compare = self._take("=", "!=", *ORDER, "IS", "NOT")
        if compare == "NOT":
            self._take("EXISTS")
            return lambda event: not select(event, steps)
        if compare == "IS":
            value = {"NULL": None, "TRUE": True, "FALSE": False}[self._take("NULL", "TRUE", "FALSE")]
            return lambda event: any(found is value for found in select(event, steps))
        test = _value(compare, self._take())
        return lambda event: any(test(found) for found in select(event, steps))


def steps_of(path: str) -> list[str]:
    """Return the names and indexes of which a path such as ``$.detail.items[0]`` is made."""
    return [name or key or index for name, key, index in STEP.findall(path)]


def select(event: Any, steps: list[str]) -> list[Any]:
    """Return all that a path finds."""
    found = [event]
    for step in steps:
        deeper: list[Any] = []
        for value in found:
            if isinstance(value, dict) and step in value:
                deeper.append(value[step])
            elif isinstance(value, list) and (step == "*" or step.isdigit()):
                deeper += value if step == "*" else value[int(step) : int(step) + 1]
        found = deeper
    return found


def _value(compare: str, token: str) -> Callable[[Any], bool]:
    """Return the test of a field's value."""
    try:
        number: float | None = float(token)
    except ValueError:
        number = None
    if compare in ORDER:
        if number is None:
            raise _invalid(f"{compare} compares numbers, not {token}")
        return lambda found: (
            isinstance(found, int | float) and not isinstance(found, bool) and ORDER[compare](found, number)
        )
    if token.startswith("%"):
        expression = re.compile(f".*(?:{token[1:-1]})", re.DOTALL)
    else:
        wanted = json.loads(token) if token.startswith('"') else token
        expression = re.compile(fnmatch.translate(wanted.replace("[", "[[]").replace("?", "[?]")))

    def equal(found: Any) -> bool:
        if number is not None and isinstance(found, int | float) and not isinstance(found, bool):
            return bool(found == number)
        return isinstance(found, str) and expression.match(found) is not None

    return equal if compare == "=" else lambda found: not equal(found)


FILTERS = Difference(
    "log_filters_filter",
    "log filter patterns other than words or one quoted phrase match every line, and invalid ones are accepted",
    bug=True,
)


@patch(EventMessageFilter, "__init__", FILTERS)
def _parse_filter(original: Any, self: EventMessageFilter, pattern: str) -> None:
    self.matches = parse(pattern)  # type: ignore[assignment, method-assign]


@patch(LogsBackend, "filter_log_events", FILTERS)
def _filter_log_events(original: Any, self: LogsBackend, *request: Any) -> Any:
    parse(request[6])  # even if there are no lines
    return original(self, *request)
