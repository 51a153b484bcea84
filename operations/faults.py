"""List the failure queue, and remove messages of it that cannot be fixed."""

import datetime
import sys
from collections import Counter
from typing import TYPE_CHECKING, Any

from common.command import console, name_cell, printable
from common.stack import Stack, parse_object
from operations.queue import work_off

if TYPE_CHECKING:
    from mypy_boto3_sqs.type_defs import MessageTypeDef


def show_faults(stack: Stack) -> None:
    """Print the messages of the failure queue, oldest first, and how many there are of each error."""
    from rich.table import Table

    faults: list[tuple[int, dict[str, Any]]] = []

    def keep(message: "MessageTypeDef") -> bool:
        faults.append((int(message["Attributes"]["SentTimestamp"]), parse_object(message["Body"])))
        return False

    work_off(stack.output("FailureQueueUrl"), "list faults", "messages", "removed", keep)
    if not faults:
        print("no faults")
        return
    table = Table("failed", "error", "key", "execution", box=None, pad_edge=False)
    for column in table.columns[:2]:
        column.no_wrap = True
    for milliseconds, fault in sorted(faults, key=lambda item: item[0]):
        table.add_row(
            f"{datetime.datetime.fromtimestamp(milliseconds / 1000, datetime.UTC):%Y-%m-%d %H:%M}",
            name_cell(error_of(fault), "red"),
            name_cell(str(fault.get("s3_key", ""))),
            name_cell(str(fault.get("execution_id", "")).rpartition(":")[2]),
        )
    console().print(table)
    _print_counts(Counter(error_of(fault) for _, fault in faults))


def drop_faults(stack: Stack, error: str) -> int:
    """Delete the messages of one error from the failure queue.

    Parameters
    ----------
    stack : Stack
        The stack of the failure queue.
    error : str
        The error's name, as `show_faults` prints it.

    Returns
    -------
    int
        The exit code: 0, or 1 if there was no such message.

    Raises
    ------
    CommandError
        It was interrupted; the message has the number of removed messages.
    """
    others: Counter[str] = Counter()

    def handle(message: "MessageTypeDef") -> bool:
        found = error_of(parse_object(message["Body"]))
        if found == error:
            return True
        others[found] += 1
        return False

    done, ended = work_off(stack.output("FailureQueueUrl"), "remove faults", "messages", "removed", handle)
    print(f"{done} removed")
    if others:
        print("left: ", end="")
        _print_counts(others)
    if not ended:
        print("SQS did not return all faults: run this command again", file=sys.stderr)
    return 0 if done else 1


def error_of(fault: dict[str, Any]) -> str:
    """Return the name of a fault: its error, or the status of an execution that Step Functions ended."""
    return str(fault.get("error") or fault.get("status") or "unknown")


def _print_counts(counts: Counter[str]) -> None:
    print(", ".join(f"{count} {printable(name)}" for name, count in counts.most_common()))
