"""CloudFormation: what a template demands of its parameters.

AWS documents the constraints at
https://docs.aws.amazon.com/AWSCloudFormation/latest/TemplateReference/parameters-section-structure.html.
"""

import re
from typing import Any

from moto.cloudformation.exceptions import ValidationError
from moto.cloudformation.models import CloudFormationBackend, Stack

from rehearsal.patches import gap, replace

NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?")


def check(slots: dict[str, Any], given: dict[str, Any]) -> None:
    """Check the values of a template's parameters, defaults included.

    Raises
    ------
    ValidationError
        If one is unknown or missing, or breaks a constraint; the message is CloudFormation's.
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
        if broken := next((said for item in items if (said := _broken(name, slot, item, numeric))), None):
            description = slot.get("ConstraintDescription")
            said = f"Parameter {name} failed to satisfy constraint: {description}" if description else broken
            raise ValidationError(message=said)


def _broken(name: str, slot: dict[str, Any], item: str, numeric: bool) -> str | None:
    """Return how CloudFormation says that a value breaks a constraint; None if it breaks none."""
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
    """Return a template's value as the text that CloudFormation makes of it; a former value may be a list."""
    if isinstance(value, list):
        return ",".join(map(_text, value))
    return str(value).lower() if isinstance(value, bool) else str(value)


@gap("parameters may break every constraint of the template, and a list cannot keep its former value")
def parameters_are_checked() -> None:
    """Check them before anything is made of a template."""

    def checking(original: Any) -> Any:
        def create(backend: CloudFormationBackend, *, template: str, parameters: dict[str, Any], **rest: Any) -> Any:
            texts = {name: _text(value) for name, value in parameters.items()}
            check(Stack.parse_template(template).get("Parameters") or {}, texts)
            return original(backend, template=template, parameters=texts, **rest)

        return create

    def updating(original: Any) -> Any:
        def update(stack: Stack, template: str, role_arn: Any = None, parameters: Any = None, tags: Any = None) -> None:
            texts = {name: _text(value) for name, value in (parameters or {}).items()}
            check(Stack.parse_template(template).get("Parameters") or {}, texts)
            original(stack, template, role_arn, texts, tags)

        return update

    replace(CloudFormationBackend, "create_change_set", checking)
    replace(CloudFormationBackend, "create_stack", checking)
    replace(Stack, "update", updating)
