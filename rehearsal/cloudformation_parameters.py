"""CloudFormation: constraints of parameters.

AWS documents the constraints at
https://docs.aws.amazon.com/AWSCloudFormation/latest/TemplateReference/parameters-section-structure.html.
"""

import re
from typing import Any

from moto.cloudformation.exceptions import ValidationError
from moto.cloudformation.models import CloudFormationBackend, Stack

from rehearsal.patches import Difference, patch

NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?")


def check(slots: dict[str, Any], given: dict[str, Any]) -> None:
    """Check the values of a template's parameters, defaults included.

    Raises
    ------
    ValidationError
        If one is unknown or missing, or violates a constraint; the message is CloudFormation's.
    """
    if unknown := [name for name in given if name not in slots]:
        raise ValidationError(message=f"Parameters: [{', '.join(unknown)}] do not exist in the template")
    if not all("Type" in slot for slot in slots.values()):
        raise ValidationError(message="Template format error: Every Parameters object must contain a Type member.")
    values = {name: given.get(name, slot.get("Default")) for name, slot in slots.items()}
    if missing := [name for name, value in values.items() if value is None]:
        raise ValidationError(message=f"Parameters: [{', '.join(missing)}] must have values")
    for name, slot in slots.items():
        text, kind = _text(values[name]), slot["Type"]
        items = text.split(",") if kind == "CommaDelimitedList" or kind.startswith("List<") else [text]
        numeric = kind in ("Number", "List<Number>")
        if numeric and not all(NUMBER.fullmatch(item.strip()) for item in items):
            raise ValidationError(message=f"Parameter '{name}' must be a number")
        if broken := next((found for item in items if (found := _broken(name, slot, item, numeric))), None):
            description = slot.get("ConstraintDescription")
            message = f"Parameter {name} failed to satisfy constraint: {description}" if description else broken
            raise ValidationError(message=message)


def _broken(name: str, slot: dict[str, Any], item: str, numeric: bool) -> str | None:
    """Return CloudFormation's message about the constraint that a value violates; None if there is none."""
    if "AllowedValues" in slot and item not in map(_text, slot["AllowedValues"]):
        return f"Parameter '{name}' must be one of AllowedValues"
    pattern = slot.get("AllowedPattern")
    if pattern is not None and not _matches(name, _text(pattern), item):
        return f"Parameter '{name}' must match pattern {pattern}"
    if numeric and float(item) < float(slot.get("MinValue", "-inf")):
        return f"Parameter '{name}' must be a number not less than {_text(slot['MinValue'])}"
    if numeric and float(item) > float(slot.get("MaxValue", "inf")):
        return f"Parameter '{name}' must be a number not greater than {_text(slot['MaxValue'])}"
    if slot["Type"] == "String" and len(item) < int(slot.get("MinLength", 0)):
        return f"Parameter '{name}' must contain at least {_text(slot['MinLength'])} characters"
    if slot["Type"] == "String" and len(item) > int(slot.get("MaxLength", len(item))):
        return f"Parameter '{name}' must contain at most {_text(slot['MaxLength'])} characters"
    return None


def _matches(name: str, pattern: str, item: str) -> bool:
    try:
        return re.fullmatch(pattern, item) is not None
    except re.error as error:  # CloudFormation's expressions are Java's
        raise ValidationError(
            message=f"The rehearsal cannot read {name}'s AllowedPattern {pattern}: {error}"
        ) from error


def _text(value: Any) -> str:
    """Return a template's value as CloudFormation's string; a previous value may be a list."""
    if isinstance(value, list):
        return ",".join(map(_text, value))
    return str(value).lower() if isinstance(value, bool) else str(value)


CONSTRAINTS = Difference(
    "parameters_are_checked",
    "parameters may violate every constraint of the template, and a list cannot keep its previous value",
    bug=True,
)


@patch(CloudFormationBackend, "create_change_set", CONSTRAINTS)
@patch(CloudFormationBackend, "create_stack", CONSTRAINTS)
def _create(
    original: Any, self: CloudFormationBackend, *, template: str, parameters: dict[str, Any], **rest: Any
) -> Any:
    return original(self, template=template, parameters=_checked(template, parameters), **rest)


@patch(Stack, "update", CONSTRAINTS)
def _update(
    original: Any, self: Stack, template: str, role_arn: Any = None, parameters: Any = None, tags: Any = None
) -> None:
    original(self, template, role_arn, _checked(template, parameters or {}), tags)


def _checked(template: str, parameters: dict[str, Any]) -> dict[str, str]:
    texts = {name: _text(value) for name, value in parameters.items()}
    check(Stack.parse_template(template).get("Parameters") or {}, texts)
    return texts
