"""CloudFormation: change sets."""

from typing import Any

from moto.cloudformation import parsing
from moto.cloudformation.models import ChangeSet, Stack
from moto.logs.models import LogGroup

from rehearsal.cloudformation_updates import mentions
from rehearsal.patches import Difference, patch

UNCHANGED = Difference(
    "unchanged_stacks_stay_unchanged",
    "a change set without changes counts as a change if a parameter is a number: moto compares it with a string",
    bug=True,
)
APPLIED = Difference(
    "change_sets_update_their_stack",
    "a change set leaves the stack's outputs, template, parameters and tags as they were",
    bug=True,
)
PARAMETERS = Difference(
    "changed_parameters_reach_every_resource",
    "a changed parameter does not update resources that use it in Fn::Sub or a condition, and resources that moto "
    "cannot update vanish from the stack",
    bug=True,
)


@patch(Stack, "has_parameters", UNCHANGED)
def _has_parameters(original: Any, self: Stack, other_parameters: dict[str, Any]) -> bool:
    current = {name: str(value) for name, value in self.resource_map.resolved_parameters.items()}
    return all(current.get(name) == str(value) for name, value in other_parameters.items())


@patch(ChangeSet, "apply", APPLIED)
def _apply(original: Any, self: ChangeSet) -> None:
    stack = self.stack
    original(self)
    stack.template, stack.template_dict = self.template, self.template_dict
    stack.parameters = self.parameters
    stack.tags = self.tags or stack.tags
    stack.description = self.template_dict.get("Description")
    stack.output_map = stack._create_output_map()


@patch(parsing.ResourceMap, "build_resource_diff", PARAMETERS)
def _build_resource_diff(
    original: Any,
    self: parsing.ResourceMap,
    other_template: dict[str, Any],
    parameters: dict[str, Any] | None = None,
) -> dict[str, Any]:
    differences: dict[str, Any] = original(self, other_template, parameters)
    known = self.resolved_parameters
    changed = {name for name, value in (parameters or {}).items() if str(known.get(name)) != str(value)}
    conditions = other_template.get("Conditions", {})
    for _ in conditions:  # a condition may use others
        changed |= {name for name, body in conditions.items() if mentions(body) & changed}
    modified = differences["Modify"]
    for name, body in other_template["Resources"].items():
        if name in self._resource_json_map and name not in modified and mentions(body) & changed:
            modified.append(name)
    return differences


@patch(parsing, "parse_and_update_resource", PARAMETERS)
def _update(original: Any, name: str, body: dict[str, Any], resources: parsing.ResourceMap, **rest: Any) -> Any:
    updated = original(name, body, resources, **rest)
    if updated is None and isinstance(group := resources[name], LogGroup):
        group.set_retention_policy(parsing.clean_json(body["Properties"].get("RetentionInDays"), resources))
    # Keep what moto cannot update: other resources may refer to it.
    return updated or resources[name]
