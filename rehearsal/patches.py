"""What moto lacks, as a list: each gap that the rehearsal fills is one named entry that says why.

An entry can be deleted when the pinned moto closes its gap; ``python -m rehearsal gaps`` prints the list.
"""

from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from importlib.metadata import version
from typing import Any

#: The only release whose internals the entries are known to fit.
MOTO = "5.2.5"
#: The modules that register patches. Of two patches of the same function, the later one gets the earlier one.
MODULES = (
    "sagemaker_endpoints",
    "stepfunctions_executions",
    "stepfunctions_tasks",
    "logs",
    "lambda_",
    "sagemaker_jobs",
    "scheduler",
    "cloudformation_parameters",
    "sqs",
    "cloudformation_updates",
    "events",
    "cloudwatch_alarms",
    "cloudwatch_metrics",
    "cloudformation_transform",
    "cloudformation_resources",
    "cloudformation_changes",
    "s3",
)


@dataclass(frozen=True)
class Gap:
    """One difference between moto and AWS, and the function that closes it."""

    name: str
    reason: str
    fill: Callable[[], None]


GAPS: list[Gap] = []


class RehearsalError(Exception):
    """The rehearsal cannot do what was asked; it fails loudly instead of pretending."""


def gap(reason: str) -> Callable[[Callable[[], None]], Callable[[], None]]:
    """Enter a function that changes moto into the list of gaps, with the reason for it."""

    def enter(fill: Callable[[], None]) -> Callable[[], None]:
        GAPS.append(Gap(fill.__name__, reason, fill))
        return fill

    return enter


def replace(owner: Any, name: str, make: Callable[[Any], Any]) -> None:
    """Put ``make(original)`` in the place of ``owner.name``, class methods included.

    Raises
    ------
    AttributeError
        If moto has nothing of this name, so that a gap cannot miss its target in silence.
    """
    original = getattr(owner, name)
    replacement = make(original)
    setattr(
        owner,
        name,
        classmethod(lambda _, *a, **k: replacement(*a, **k)) if hasattr(original, "__self__") else replacement,
    )


def load() -> None:
    """Import every module that registers patches."""
    for name in MODULES:
        import_module(f"rehearsal.{name}")


def fill_gaps() -> None:
    """Close every gap in this process.

    Raises
    ------
    RehearsalError
        If another release of moto is installed.
    """
    if version("moto") != MOTO:
        raise RehearsalError(f"The patches fit moto {MOTO}, found {version('moto')}; install moto=={MOTO}")
    for entry in GAPS:
        entry.fill()
