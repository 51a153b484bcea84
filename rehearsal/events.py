"""EventBridge: checks of event patterns, and what a rule sends to its targets."""

import datetime
import ipaddress
import json
import logging
import re
import uuid
from collections.abc import Callable
from typing import Any

from moto.core.responses import ActionResult
from moto.events.exceptions import InvalidEventPatternException, ValidationException
from moto.events.models import EventPattern, EventPatternParser, EventsBackend, Rule
from moto.events.responses import EventsHandler
from moto.sqs.models import sqs_backends
from moto.stepfunctions.parser.models import stepfunctions_parser_backends

from rehearsal.logs import select, steps_of
from rehearsal.patches import Difference, RehearsalError, patch

log = logging.getLogger("rehearsal")

PLACEHOLDER = re.compile(r"<([\w.-]+)>")
QUOTED = re.compile(r'"(?:[^"\\]|\\.)*"')
IGNORE_CASE = "equals-ignore-case"


def _reject(reason: str) -> None:
    raise InvalidEventPatternException(reason=reason)


def _is_text(name: str) -> Callable[[Any], None]:
    def check(value: Any) -> None:
        if isinstance(value, dict) and list(value) == [IGNORE_CASE] and name in ("prefix", "suffix"):
            value = value[IGNORE_CASE]
        if not isinstance(value, str):
            _reject(f"{name} match pattern must be a string")
        if name == "wildcard" and "**" in value:
            _reject(f"Consecutive wildcard characters at pos {value.index('**') + 1}")

    return check


def _is_range(value: Any) -> None:
    if not isinstance(value, list):
        _reject("Value of numeric must be an array.")
    if len(value) not in (2, 4) or (len(value) == 4 and (value[0][0], value[2][0]) not in ((">", "<"), ("<", ">"))):
        _reject(f"Bad numeric range operator: {value[-2] if len(value) > 1 else value}")
    for sign, number in zip(value[::2], value[1::2], strict=True):
        if sign not in ("=", ">", ">=", "<", "<=") or isinstance(number, bool) or not isinstance(number, int | float):
            _reject(f"Value of {sign} must be numeric")


def _is_network(value: Any) -> None:
    try:
        ipaddress.ip_network(value, strict=False)
    except ValueError:
        _reject(f"Malformed CIDR: {value}")


def _is_excluded(value: Any) -> None:
    inner = value if isinstance(value, dict) else {}
    for name, items in inner.items():
        if name not in ("prefix", "suffix", "wildcard", IGNORE_CASE):
            _reject(f"Unsupported anything-but pattern: {name}")
        for item in items if isinstance(items, list) else [items]:
            if not isinstance(item, str) or (not item and name in ("prefix", "suffix")):
                _reject(f"{name} match pattern must be a string")
    if not inner and any(
        isinstance(item, bool) or not isinstance(item, str | int | float)
        for item in (value if isinstance(value, list) else [value])
    ):
        _reject("Value of anything-but must be an array or single string/number value.")


OPERATORS: dict[str, Callable[[Any], None]] = {
    "prefix": _is_text("prefix"),
    "suffix": _is_text("suffix"),
    "wildcard": _is_text("wildcard"),
    IGNORE_CASE: _is_text(IGNORE_CASE),
    "exists": lambda value: None if isinstance(value, bool) else _reject("exists match pattern must be true or false"),
    "numeric": _is_range,
    "cidr": _is_network,
    "anything-but": _is_excluded,
}


def _check_operators(pattern: Any) -> None:
    for value in pattern.values() if isinstance(pattern, dict) else ():
        for item in value if isinstance(value, list) else [value]:
            if isinstance(value, dict) or (isinstance(item, dict) and "$or" in pattern and pattern["$or"] is value):
                _check_operators(item)
            elif isinstance(item, dict):
                for name, operand in item.items():
                    if name not in OPERATORS:
                        _reject(f"Unrecognized match type {name}")
                    OPERATORS[name](operand)


PATTERNS = Difference(
    "event_patterns_are_checked",
    "event patterns with unknown operators or wrong operands are accepted, and TestEventPattern returns nothing",
    bug=True,
)


@patch(EventPatternParser, "parse", PATTERNS)
def _parse(original: Any, self: EventPatternParser) -> Any:
    pattern = original(self)
    _check_operators(pattern)
    return pattern


@patch(EventsHandler, "test_event_pattern", PATTERNS)
def _test_event_pattern(original: Any, self: EventsHandler) -> ActionResult:
    pattern, event = self._get_param("EventPattern"), self._get_param("Event")
    return ActionResult({"Result": bool(EventPattern.load(pattern).matches_event(json.loads(event)))})


def transform(target: dict[str, Any], event: dict[str, Any], rule_arn: str, rule_name: str) -> str:
    """Return what a rule sends to a target.

    Source: https://docs.aws.amazon.com/eventbridge/latest/userguide/eb-transform-target-input.html

    Raises
    ------
    RehearsalError
        If EventBridge would deliver nothing.
    """
    if "Input" in target:
        return str(target["Input"])
    if "InputPath" in target:
        found = select(event, steps_of(target["InputPath"]))
        if not found:
            raise RehearsalError(f"The event has nothing at {target['InputPath']}")
        return json.dumps(found[0])
    if "InputTransformer" not in target:
        return json.dumps(event)
    now = f"{datetime.datetime.now(datetime.UTC):%Y-%m-%dT%H:%M:%SZ}"
    whole = {"detailType" if key == "detail-type" else key: item for key, item in event.items() if key != "detail"}
    values: dict[str, Any] = {
        "aws.events.rule-arn": rule_arn,
        "aws.events.rule-name": rule_name,
        "aws.events.event.ingestion-time": now,
        "aws.events.event": whole,
        "aws.events.event.json": event,
    }
    for name, path in target["InputTransformer"].get("InputPathsMap", {}).items():
        values[name] = next(iter(select(event, steps_of(path))), "")
    template = target["InputTransformer"]["InputTemplate"].strip()

    def quoted(found: re.Match[str]) -> str:
        return PLACEHOLDER.sub(lambda placeholder: inside(values[placeholder[1]]), found[0])

    def inside(value: Any) -> str:
        if isinstance(value, dict | list):
            if template.startswith("{"):
                raise RehearsalError("EventBridge drops events whose transformer puts an object or a list in quotes")
            return json.dumps(value, separators=(",", ":")).replace('"', "")
        return json.dumps(value)[1:-1] if isinstance(value, str) else json.dumps(value)

    if not template.startswith(("{", "[", '"')) and not PLACEHOLDER.fullmatch(template):
        raise RehearsalError("EventBridge drops events whose transformer makes neither JSON nor a quoted text")
    parts, end = [], 0
    for text in QUOTED.finditer(template):
        parts += [template[end : text.start()], quoted(text)]
        end = text.end()
    parts.append(template[end:])
    for place in range(0, len(parts), 2):
        parts[place] = PLACEHOLDER.sub(lambda name: json.dumps(values[name[1]]), parts[place])
    return "".join(parts)


TARGETS = Difference(
    "rules_reach_their_targets",
    "rules start no workflows, and ignore Input, InputPath and parts of an InputTransformer",
    bug=True,
)


@patch(Rule, "send_to_targets", TARGETS)
def _send_to_targets(original: Any, self: Rule, original_event: Any, transform_input: bool = True) -> None:
    if self.state == "DISABLED" or not self.event_pattern.matches_event(original_event):
        return
    event = json.loads(json.dumps(original_event, default=str))
    event.pop("ingestion-time", None)
    if isinstance(event.get("time"), int | float):
        moment = datetime.datetime.fromtimestamp(event["time"], datetime.UTC)
        event["time"] = f"{moment:%Y-%m-%dT%H:%M:%SZ}"
    others = []
    for target in self.targets:
        if ":states:" not in target["Arn"] and (":sqs:" not in target["Arn"] or "SqsParameters" in target):
            others.append(target)
            continue
        try:
            _deliver(self, target, transform(target, event, self.arn, self.name))
        except Exception:  # S3's handler would hide it
            log.exception("Rule %s could not reach %s", self.name, target["Arn"])
    if others:
        every, self.targets = self.targets, others
        try:
            original(self, original_event, transform_input)
        finally:
            self.targets = every


@patch(EventsBackend, "put_targets", TARGETS)
def _put_targets(original: Any, self: EventsBackend, name: str, event_bus_arn: str | None, targets: Any) -> Any:
    for target in targets:
        _check_target(target)
    return original(self, name, event_bus_arn, targets)


def _deliver(rule: Rule, target: dict[str, Any], text: str) -> None:
    if ":states:" in target["Arn"]:
        backend = stepfunctions_parser_backends[rule.account_id][rule.region_name]
        # As long as EventBridge's names, which do not fit into an inference id.
        backend.start_execution(target["Arn"], f"{uuid.uuid4()}_{uuid.uuid4()}", text)
    else:
        sqs_backends[rule.account_id][rule.region_name].send_message(target["Arn"].rsplit(":", 1)[-1], text)


def _check_target(target: dict[str, Any]) -> None:
    if len({"Input", "InputPath", "InputTransformer"} & set(target)) > 1:
        raise ValidationException(
            f"Only one of Input, InputPath, or InputTransformer must be provided for target {target['Id']}."
        )
    transformer = target.get("InputTransformer", {})
    for name in PLACEHOLDER.findall(transformer.get("InputTemplate", "")):
        if name not in transformer.get("InputPathsMap", {}) and not name.startswith("aws.events."):
            raise ValidationException(f"InputTemplate for target {target['Id']} contains invalid placeholder {name}.")
