"""CloudFormation: templates are expanded and their defaults read as CloudFormation does."""

import json
import logging
from collections.abc import Callable
from typing import Any

from moto.cloudformation.models import CloudFormationBackend, Stack
from samtranslator.translator.transform import transform

from rehearsal.patches import RehearsalError, gap, replace

log = logging.getLogger("rehearsal")

SERVERLESS = "AWS::Serverless-2016-10-31"


class _NoManagedPolicies:
    """Stands where the transform looks up managed policies by name."""

    def load(self) -> dict[str, str]:
        raise RehearsalError("The rehearsal knows no managed policies by name; write their ARN, or the statements")


def _change_templates(change: Callable[[dict[str, Any], dict[str, Any]], dict[str, Any]]) -> None:
    """Apply a change to every template, with its parameters, before CloudFormation sees it."""

    def changing(original: Any) -> Any:
        def create(backend: CloudFormationBackend, *, template: str, parameters: dict[str, Any], **rest: Any) -> Any:
            changed = json.dumps(change(Stack.parse_template(template), parameters))
            return original(backend, template=changed, parameters=parameters, **rest)

        return create

    replace(CloudFormationBackend, "create_change_set", changing)
    replace(CloudFormationBackend, "create_stack", changing)


@gap("moto does not know the AWS::Serverless transform")
def templates_are_expanded() -> None:
    """Expand it with the library that AWS itself uses, wherever a template comes in."""

    def expand(body: dict[str, Any], parameters: dict[str, Any]) -> dict[str, Any]:
        transforms = body.get("Transform", [])
        if SERVERLESS not in ([transforms] if isinstance(transforms, str) else transforms):
            return body
        defaults = {name: slot["Default"] for name, slot in body.get("Parameters", {}).items() if "Default" in slot}
        body.pop("Transform")
        expanded: dict[str, Any] = transform(body, {**defaults, **parameters}, _NoManagedPolicies())
        return expanded

    _change_templates(expand)


@gap("a parameter's default of 0.7 becomes 0: moto turns numbers into whole ones, and keeps fractions of texts only")
def number_defaults_keep_their_fraction() -> None:
    """Turn every default into text, as CloudFormation does."""

    def turn(body: dict[str, Any], _: dict[str, Any]) -> dict[str, Any]:
        for slot in body.get("Parameters", {}).values():
            if isinstance(slot.get("Default"), int | float):
                slot["Default"] = json.dumps(slot["Default"])
        return body

    _change_templates(turn)
