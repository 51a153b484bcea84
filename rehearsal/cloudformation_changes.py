"""CloudFormation: what a change set changes."""

import logging
import re
from typing import Any

from moto.cloudformation import parsing
from moto.cloudformation.models import ChangeSet, Stack
from moto.logs.models import LogGroup

from rehearsal.patches import gap, replace

log = logging.getLogger("rehearsal")


@gap("a change set without changes is taken for a change, as previous values are numbers and new ones texts")
def unchanged_stacks_stay_unchanged() -> None:
    """Compare parameters as text."""

    def comparing(original: Any) -> Any:
        def has_parameters(stack: Stack, other_parameters: dict[str, Any]) -> bool:
            current = {name: str(value) for name, value in stack.resource_map.resolved_parameters.items()}
            return all(current.get(name) == str(value) for name, value in other_parameters.items())

        return has_parameters

    replace(Stack, "has_parameters", comparing)


@gap("a change set leaves the stack's outputs, template, parameters and tags as they were")
def change_sets_update_their_stack() -> None:
    """Rebuild them after a change set was applied."""

    def applying(original: Any) -> Any:
        def apply(change_set: ChangeSet) -> None:
            stack = change_set.stack
            original(change_set)
            stack.template, stack.template_dict = change_set.template, change_set.template_dict
            stack.parameters = change_set.parameters
            stack.tags = change_set.tags or stack.tags
            stack.description = change_set.template_dict.get("Description")
            stack.output_map = stack._create_output_map()

        return apply

    replace(ChangeSet, "apply", applying)


def _mentions(part: Any) -> set[str]:
    """Return the parameters, conditions and resources that a part of a template names."""
    if isinstance(part, list):
        return {name for item in part for name in _mentions(item)}
    if not isinstance(part, dict):
        return set()
    found = {str(part[key]) for key in ("Ref", "Condition") if isinstance(part.get(key), str)}
    if "Fn::If" in part:
        found.add(part["Fn::If"][0])
    text = part.get("Fn::Sub", "")
    found |= set(re.findall(r"\$\{(\w+)", text if isinstance(text, str) else text[0]))
    return found.union(*map(_mentions, part.values()))


@gap("a changed parameter misses resources that name it in Fn::Sub or a condition, and forgets those without an update")
def changed_parameters_reach_every_resource() -> None:
    """Update all that depend on it."""

    def differing(original: Any) -> Any:
        def build_resource_diff(
            resources: parsing.ResourceMap, other_template: dict[str, Any], parameters: dict[str, Any] | None = None
        ) -> dict[str, Any]:
            differences: dict[str, Any] = original(resources, other_template, parameters)
            known = resources.resolved_parameters
            changed = {name for name, value in (parameters or {}).items() if str(known.get(name)) != str(value)}
            conditions = other_template.get("Conditions", {})
            for _ in conditions:  # one may be made of others
                changed |= {name for name, body in conditions.items() if _mentions(body) & changed}
            modified = differences["Modify"]
            for name, body in other_template["Resources"].items():
                if name in resources._resource_json_map and name not in modified and _mentions(body) & changed:
                    modified.append(name)
            return differences

        return build_resource_diff

    def updating(original: Any) -> Any:
        def update(name: str, resource_json: dict[str, Any], resources: parsing.ResourceMap, **rest: Any) -> Any:
            updated = original(name, resource_json, resources, **rest)
            if updated is None and isinstance(group := resources[name], LogGroup):
                days = parsing.clean_json(resource_json["Properties"].get("RetentionInDays"), resources)
                group.set_retention_policy(days)
            # What moto cannot update must not be forgotten: others may name it.
            return updated or resources[name]

        return update

    replace(parsing.ResourceMap, "build_resource_diff", differing)
    replace(parsing, "parse_and_update_resource", updating)
