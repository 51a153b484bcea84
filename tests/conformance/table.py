"""Write docs/conformance.md: ``python -m tests.conformance.table``."""

from itertools import groupby
from pathlib import Path

from tests.conformance import alarms, events, maps, queues, registry, stacks, workflows  # noqa: F401  (each enters its behaviours)
from tests.conformance.behaviours import BEHAVIOURS

HEAD = """\
# How far the rehearsal does as AWS

Written by `python -m tests.conformance.table`; `tests/conformance` checks each line against a running rehearsal. A line
that says "as AWS" fails its test when the rehearsal answers anything else, and a line that says how it differs fails
when that is no longer true. "Not rehearsed" is refused in one sentence, in the form of the service's own errors.

What AWS does is taken from its documentation, where an address is given, and else from answers of AWS that the
LocalStack contributors recorded for their own tests (<https://github.com/localstack/localstack>, Apache-2.0; the names
of its test files are given).

No recording settles, and no documentation says: how EventBridge's input transformer escapes a quotation mark inside
quotes, and whether the keys in S3's events to EventBridge are percent-encoded. The rehearsal escapes the former as JSON
does, and sends keys as they are.
"""


def document() -> str:
    """Return the page."""
    states = [entry.state.partition(":")[0] for entry in BEHAVIOURS]
    counts = ", ".join(f"{states.count(state)} {state}" for state in ("as AWS", "differs", "not rehearsed"))
    lines = [HEAD, f"{len(states)} behaviours: {counts}."]
    for area, entries in groupby(BEHAVIOURS, key=lambda entry: entry.area):
        lines += [f"\n## {area}\n", "| behaviour | AWS's answer | here |", "|---|---|---|"]
        for entry in entries:
            source = f"[documentation]({entry.source})" if entry.source.startswith("https://") else entry.source
            lines.append(f"| {_cell(entry.name)} | {_cell(source)} | {_cell(entry.state)} |")
    return "\n".join(lines) + "\n"


def _cell(text: str) -> str:
    return text.replace("|", "\\|")


if __name__ == "__main__":
    (Path(__file__).parents[2] / "docs" / "conformance.md").write_text(document())
