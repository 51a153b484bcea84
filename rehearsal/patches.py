"""The differences between moto and AWS that the rehearsal removes, and the patches of moto that remove them.

A module registers its patches when it is imported; only :func:`apply` changes moto. ``python -m rehearsal patches``
lists the differences. Delete one, with its patches, when the pinned moto no longer has it.
"""

import functools
import inspect
from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from importlib.metadata import version
from typing import Any, TypeVar

#: The only release of moto whose internals the patches are known to fit.
MOTO = "5.2.5"
#: The modules with patches. Of two patches of the same function, the later one gets the earlier one as the original.
MODULES = (
    "sagemaker_endpoints",
    "sagemaker_scaling",
    "stepfunctions_executions",
    "stepfunctions_tasks",
    "stepfunctions_maps",
    "stepfunctions_express",
    "logs",
    "lambda_",
    "sagemaker_jobs",
    "sagemaker_registry",
    "sagemaker_training",
    "iam",
    "scheduler",
    "cloudformation_parameters",
    "sqs",
    "cloudformation_updates",
    "events",
    "cloudwatch_alarms",
    "cloudwatch_metrics",
    "cloudformation_transform",
    "cloudformation_resources",
    "cloudformation_versions",
    "cloudformation_changes",
    "s3",
)

Function = TypeVar("Function", bound=Callable[..., Any])


class RehearsalError(Exception):
    """The rehearsal cannot do what was asked; it fails loudly instead of pretending."""


@dataclass(frozen=True)
class Difference:
    """A way in which moto differs from AWS."""

    name: str
    reason: str
    #: Whether moto contradicts AWS's documentation: tests/rehearsal/moto_bugs/NAME.py. Otherwise it does not
    #: implement something, or only the rehearsal needs the patch.
    bug: bool = False


#: Each patch with the difference that it removes, in the order in which they are applied.
PATCHES: list[tuple[Difference, Callable[[], object]]] = []


def patch(owner: Any, name: str, difference: Difference) -> Callable[[Function], Function]:
    """Register a function that takes the place of ``owner.name``, which it gets as its first argument."""
    return _register(difference, functools.partial(replace, owner, name))


def add(owner: Any, name: str, difference: Difference) -> Callable[[Function], Function]:
    """Register a function as ``owner.name``, which moto does not have."""
    return _register(difference, functools.partial(extend, owner, name))


def configure(difference: Difference) -> Callable[[Function], Function]:
    """Register a function that changes moto in another way; it is called once."""
    return _register(difference, lambda function: function())


def _register(difference: Difference, apply_to: Callable[[Any], object]) -> Callable[[Function], Function]:
    def register(function: Function) -> Function:
        PATCHES.append((difference, functools.partial(apply_to, function)))
        return function

    return register


def replace(owner: Any, name: str, function: Callable[..., Any]) -> None:
    """Put a function in the place of a function, method, property or class, which it gets as its first argument.

    Raises
    ------
    AttributeError
        If moto has nothing of this name.
    """
    kind, original = inspect.getattr_static(owner, name), getattr(owner, name)
    if isinstance(kind, property):
        setattr(owner, name, property(functools.partial(function, kind.fget)))
        return

    def replacement(*arguments: Any, **named: Any) -> Any:
        return function(original, *arguments, **named)

    # The original of a class method is bound to its class.
    setattr(owner, name, staticmethod(replacement) if isinstance(kind, classmethod | staticmethod) else replacement)


def extend(owner: Any, name: str, function: Callable[..., Any]) -> None:
    """Add a function to a class.

    Raises
    ------
    RehearsalError
        If moto has it by now.
    """
    if hasattr(owner, name):
        raise RehearsalError(f"moto now has {owner.__name__}.{name}: delete its patch")
    setattr(owner, name, function)


def load() -> None:
    """Import every module with patches."""
    for name in MODULES:
        import_module(f"rehearsal.{name}")


def apply() -> None:
    """Apply every patch in this process.

    Raises
    ------
    RehearsalError
        If another release of moto is installed.
    """
    if version("moto") != MOTO:
        raise RehearsalError(f"The patches fit moto {MOTO}, found {version('moto')}; install moto=={MOTO}")
    load()
    for _, apply_one in PATCHES:
        apply_one()
