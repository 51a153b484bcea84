"""CloudFormation: the SAM transform, and numbers as defaults of parameters."""

import json
from typing import Any

from moto.cloudformation.models import CloudFormationBackend, Stack
from samtranslator.translator.transform import transform

from rehearsal.patches import Difference, RehearsalError, patch

SERVERLESS = "AWS::Serverless-2016-10-31"


class _NoManagedPolicies:
    """Looks up managed policies by name for the transform."""

    def load(self) -> dict[str, str]:
        raise RehearsalError("The rehearsal knows no managed policies by name; write their ARN, or the statements")


EXPANDED = Difference("templates_are_expanded", "moto does not know the AWS::Serverless transform")
DEFAULTS = Difference(
    "number_defaults_keep_their_fraction",
    "a parameter's default of 0.7 becomes 0: moto turns numbers into integers, and keeps fractions of strings only",
    bug=True,
)


@patch(CloudFormationBackend, "create_change_set", EXPANDED)
@patch(CloudFormationBackend, "create_stack", EXPANDED)
def _expand(original: Any, self: CloudFormationBackend, *, template: str, parameters: Any, **rest: Any) -> Any:
    body = Stack.parse_template(template)
    transforms = body.get("Transform", [])
    if SERVERLESS in ([transforms] if isinstance(transforms, str) else transforms):
        defaults = {name: slot["Default"] for name, slot in body.get("Parameters", {}).items() if "Default" in slot}
        body.pop("Transform")
        body = transform(body, {**defaults, **parameters}, _NoManagedPolicies())
    return original(self, template=json.dumps(body), parameters=parameters, **rest)


@patch(CloudFormationBackend, "create_change_set", DEFAULTS)
@patch(CloudFormationBackend, "create_stack", DEFAULTS)
def _write_defaults(original: Any, self: CloudFormationBackend, *, template: str, **rest: Any) -> Any:
    """Turn every default into a string, as CloudFormation does."""
    body = Stack.parse_template(template)
    for slot in body.get("Parameters", {}).values():
        if isinstance(slot.get("Default"), int | float):
            slot["Default"] = json.dumps(slot["Default"])
    return original(self, template=json.dumps(body), **rest)
