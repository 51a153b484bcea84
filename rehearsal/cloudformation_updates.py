"""CloudFormation: a stack whose creation, update or deletion fails is rolled back, and reports why.

A change adds and updates resources first and removes them last, as CloudFormation does.
"""

import contextlib
import logging
import re
from collections.abc import Callable, Iterable
from graphlib import TopologicalSorter
from typing import Any, NoReturn

from moto.cloudformation import parsing
from moto.cloudformation.exceptions import ValidationError
from moto.cloudformation.models import CloudFormationBackend, Event, Stack, cloudformation_backends
from moto.cloudformation.parsing import OutputMap, ResourceMap
from moto.s3.models import FakeBucket

from rehearsal.patches import Difference, RehearsalError, patch

log = logging.getLogger("rehearsal")

#: States in which CloudFormation takes no update.
STUCK = ("REVIEW_IN_PROGRESS", "ROLLBACK_COMPLETE", "ROLLBACK_FAILED", "UPDATE_ROLLBACK_FAILED", "DELETE_FAILED")


class ResourceFailed(Exception):
    """A resource could not be created or updated."""

    def __init__(self, verb: str, name: str, error: Exception) -> None:
        super().__init__(_reason(error))
        self.verb, self.name = verb, name


class RolledBack(Exception):
    """A change of a stack failed; the stack's status and its events show how far it was undone."""


def _reason(error: Exception) -> str:
    message = str(getattr(error, "message", None) or error)
    return message if isinstance(error, RehearsalError | ResourceFailed) else f"{type(error).__name__}: {message}"


def _report(resources: ResourceMap, name: str, body: dict[str, Any], status: str, reason: str | None = None) -> None:
    """Add an event of a resource to its stack's."""
    stack = cloudformation_backends[resources._account_id][resources._region_name].stacks.get(resources.stack_id)
    if stack:
        physical = str(getattr(resources._parsed_resources.get(name), "physical_resource_id", None) or "")
        stack.events.append(Event(stack.stack_id, stack.name, name, physical, body["Type"], status, reason, None))


def _existing(resources: ResourceMap) -> dict[str, Any]:
    """Return the resources that exist, oldest first; reading the map itself makes those that are missing."""
    names = resources._resource_json_map
    return {name: made for name, made in resources._parsed_resources.items() if name in names and made is not None}


def _use(resources: ResourceMap, template: dict[str, Any], parameters: dict[str, Any]) -> None:
    """Take bodies, parameters and conditions from a template, without making anything.

    An empty one, to which a failed creation goes back, leaves the parameters to be read.
    """
    resources._template, resources._resource_json_map = template, template.get("Resources", {})
    resources.input_parameters = parameters
    resources.load_mapping()
    if template:
        resources.resolved_parameters = {}
        resources.load_parameters()
    resources.load_conditions()


def _given_name(resources: ResourceMap, body: dict[str, Any]) -> Any:
    wanted = parsing.resource_name_property_from_type(body["Type"])
    given = (body.get("Properties") or {}).get(wanted) if wanted else None
    return parsing.clean_json(given, resources) if given else None


def mentions(part: Any) -> set[str]:
    """Return the parameters, conditions and resources to which a part of a template refers."""
    if isinstance(part, list):
        return {name for item in part for name in mentions(item)}
    if not isinstance(part, dict):
        return set()
    found = {str(part[key]) for key in ("Ref", "Condition", "DependsOn") if isinstance(part.get(key), str)}
    found.update(part["DependsOn"] if isinstance(part.get("DependsOn"), list) else [])
    if "Fn::GetAtt" in part:
        found.add(part["Fn::GetAtt"][0])
    if "Fn::If" in part:
        found.add(part["Fn::If"][0])
    text = part.get("Fn::Sub", "")
    found |= set(re.findall(r"\$\{(\w+)", text if isinstance(text, str) else text[0]))
    return found.union(*map(mentions, part.values()))


def _ordered(template: dict[str, Any], names: list[str]) -> list[str]:
    """Return the names of resources, each after those to which it refers."""
    graph = {name: sorted(mentions(template[name]) & {*names} - {name}) for name in names}
    return [*TopologicalSorter(graph).static_order()]


def _values(resources: ResourceMap, body: dict[str, Any]) -> Any:
    """Return a resource's properties with the values to which they refer."""
    return parsing.clean_json(body.get("Properties", {}), resources)


ROLLBACK = Difference(
    "failed_changes_roll_back",
    "a resource that fails answers HTTP 500, leaves the stack half changed, and a deployment waits forever",
    bug=True,
)
ORDER = Difference(
    "change_sets_check_the_stack",
    "a failed stack accepts updates, and an existing one can be created again",
    bug=True,
)
DELETION = Difference(
    "failed_deletions_keep_their_stack",
    "a stack whose deletion fails is gone, and a bucket that is not empty stays without it",
    bug=True,
)


@patch(ResourceMap, "update", ROLLBACK)
def _update(
    original: Any, resources: ResourceMap, template: dict[str, Any], parameters: dict[str, Any] | None = None
) -> None:
    """Change a stack's resources to those of another template or other parameters, or raise RolledBack."""
    old_template, old_parameters, old = resources._template, resources.input_parameters, resources._resource_json_map
    new: dict[str, Any] = template["Resources"]
    before = _existing(resources)
    changed = [name for name in resources.build_resource_diff(template, parameters)["Modify"] if name in before]
    names = {name: _given_name(resources, old[name]) for name in changed}
    attributes = {name: dict(vars(before[name])) for name in before}
    values = {name: _values(resources, old[name]) for name in before}
    touched: list[str] = []

    def change(name: str) -> None:
        touched.append(name)
        _change(resources, name)

    def undo() -> None:
        made = {name: resource for name, resource in _existing(resources).items() if name not in touched}
        _use(resources, old_template, old_parameters)
        for name in made:
            resources._parsed_resources.pop(name)
        kept = [name for name in before if name not in touched or hasattr(before[name], "replaced_by_change")]
        resources._parsed_resources.update({name: before[name] for name in kept})
        for name in [name for name in dict.fromkeys(reversed(touched)) if name not in kept]:
            _change_back(resources, name)
            if resources._parsed_resources[name] is before[name]:  # moto changes it in part, and not back
                vars(before[name]).update(attributes[name])
        for name in reversed(made):
            if made[name] is not before.get(name):
                _delete(resources, name, made[name], new[name])

    try:
        _use(resources, template, parameters or old_parameters)
        conditions = resources.lazy_condition_map
        wanted = [name for name, body in new.items() if "Condition" not in body or conditions[body["Condition"]]]
        # Another name means another resource; the former one stays until the end.
        replaced = [name for name in changed if name in wanted and _given_name(resources, new[name]) != names[name]]
        for name in replaced:
            del resources._parsed_resources[name]
        for name in _ordered(new, wanted):
            if name not in before or name in replaced:
                resources[name]
            elif name in changed or _values(resources, new[name]) != values[name]:
                change(name)
        [*OutputMap(resources, template, resources.stack_id).values()]
    except Exception as error:
        _roll_back(resources, error, undo, creating=not old_template)
    superfluous = [name for name in before if name not in wanted]
    for name in superfluous:
        del resources._parsed_resources[name]

    def clean_up(name: str) -> None:
        policy = "UpdateReplacePolicy" if name in replaced else "DeletionPolicy"
        if old[name].get(policy) == "Retain":
            _report(resources, name, old[name], "DELETE_SKIPPED")
        else:
            _delete(resources, name, before[name], old[name])

    for name, failure in _retrying(clean_up, [*reversed(superfluous), *replaced]).items():
        _report(resources, name, old[name], "DELETE_FAILED", _reason(failure))


def _retrying(work: Callable[[str], None], names: Iterable[str]) -> dict[str, Exception]:
    """Do the work for each name, again while that helps, as one may wait for another; return what failed."""
    waiting: list[str] = [*names]
    while True:
        failed: dict[str, Exception] = {}
        for name in waiting:
            try:
                work(name)
            except Exception as error:
                failed[name] = error
        if len(failed) == len(waiting):
            return failed
        waiting = [*failed]


def _change(resources: ResourceMap, name: str) -> None:
    body = resources._resource_json_map[name]
    where = {"account_id": resources._account_id, "region_name": resources._region_name}
    resources._parsed_resources[name] = parsing.parse_and_update_resource(name, body, resources, **where)


def _change_back(resources: ResourceMap, name: str) -> None:
    try:
        _change(resources, name)
    except Exception:  # the failed change has removed it
        log.exception("%s is made again", name)
        resources._parsed_resources.pop(name)
        resources[name]


def _delete(resources: ResourceMap, name: str, resource: Any, body: dict[str, Any]) -> None:
    if isinstance(resource, FakeBucket) and resource.keys:
        raise RehearsalError(f"The bucket {resource.name} you tried to delete is not empty")
    resources._delete_resource(resource, body)
    _report(resources, name, body, "DELETE_COMPLETE")


def _undo_creation(resources: ResourceMap) -> None:
    bodies, made = resources._resource_json_map, _existing(resources)
    _use(resources, {}, resources.input_parameters)
    for name in reversed(made):
        _delete(resources, name, resources._parsed_resources.pop(name), bodies[name])


def _roll_back(resources: ResourceMap, error: Exception, undo: Callable[[], None], creating: bool) -> NoReturn:
    """Undo a change, report why, and raise RolledBack."""
    log.error("Stack failed", exc_info=error)
    stack = cloudformation_backends[resources._account_id][resources._region_name].stacks[resources.stack_id]
    kind, reason = "ROLLBACK" if creating else "UPDATE_ROLLBACK", _reason(error)
    if isinstance(error, ResourceFailed):
        body = resources._resource_json_map[error.name]
        _report(resources, error.name, body, f"{error.verb.upper()}_FAILED", reason)
        reason = f"The following resource(s) failed to {error.verb}: [{error.name}]. "
    stack._add_stack_event(f"{kind}_IN_PROGRESS", f"{reason}Rollback requested by user." if creating else reason)
    try:
        undo()
        stack.status = f"{kind}_COMPLETE"
    except Exception as failure:
        log.exception("Rollback failed")
        stack.status, reason = f"{kind}_FAILED", _reason(failure)
    stack._add_stack_event(stack.status, reason if stack.status.endswith("FAILED") else None)
    raise RolledBack(reason) from error


@patch(parsing, "parse_and_create_resource", ROLLBACK)
def _create_resource(original: Any, name: str, body: dict[str, Any], resources: ResourceMap, **where: Any) -> Any:
    return _reported("create", original, name, body, resources, **where)


@patch(parsing, "parse_and_update_resource", ROLLBACK)
def _update_resource(original: Any, name: str, body: dict[str, Any], resources: ResourceMap, **where: Any) -> Any:
    return _reported("update", original, name, body, resources, **where)


def _reported(verb: str, work: Any, name: str, body: dict[str, Any], resources: ResourceMap, **where: Any) -> Any:
    try:
        made = work(name, body, resources, **where)
        if isinstance(made, Stack) and made.status.endswith(("ROLLBACK_COMPLETE", "FAILED")):
            reason = next(e.resource_status_reason for e in reversed(made.events) if e.resource_status_reason)
            Stack.delete_from_cloudformation_json(made.stack_id, body, **where)
            raise RehearsalError(f"Embedded stack {made.stack_id} was not successfully {verb}d: {reason}")
    except ResourceFailed:  # one that this resource needs
        raise
    except Exception as error:
        raise ResourceFailed(verb, name, error) from error
    if made is not None:
        _report(resources, name, body, f"{verb.upper()}_COMPLETE")
    return made


@patch(ResourceMap, "create", ROLLBACK)
def _create(original: Any, self: ResourceMap, template: dict[str, Any]) -> Any:
    try:
        return original(self, template)
    except Exception as error:
        _roll_back(self, error, lambda: _undo_creation(self), creating=True)


@patch(CloudFormationBackend, "create_stack", ROLLBACK)
def _create_stack(original: Any, self: CloudFormationBackend, **given: Any) -> Stack:
    try:
        return original(self, **given)
    except (ResourceFailed, RolledBack) as error:
        stack = self.get_stack(given["name"])
        if isinstance(error, ResourceFailed):  # exports are made before the rest
            with contextlib.suppress(RolledBack):
                _roll_back(stack.resource_map, error, lambda: _undo_creation(stack.resource_map), creating=True)
        stack.output_map = OutputMap(stack.resource_map, {}, stack.stack_id)
        return stack


@patch(Stack, "update", ROLLBACK)
def _update_stack(original: Any, self: Stack, *rest: Any, **more: Any) -> None:
    template, body = self.template, self.template_dict
    _refuse_if_stuck(self)
    try:
        original(self, *rest, **more)
    except RolledBack:
        self.template, self.template_dict = template, body


@patch(CloudFormationBackend, "execute_change_set", ROLLBACK)
def _execute(original: Any, self: CloudFormationBackend, change_set_name: str, stack_name: str | None = None) -> None:
    change_set = self.describe_change_set(change_set_name)
    assert change_set is not None
    try:
        original(self, change_set_name, stack_name)
        _register_exports(self, change_set.stack)
    except RolledBack:
        change_set.execution_status = "EXECUTE_FAILED"
        change_set.stack.template = change_set.stack.template or change_set.template


def _register_exports(backend: CloudFormationBackend, stack: Stack) -> None:
    for name in [name for name, known in backend.exports.items() if known.exporting_stack_id == stack.stack_id]:
        del backend.exports[name]
    backend.exports.update({export.name: export for export in stack.exports})


def _refuse_if_stuck(stack: Stack) -> None:
    if stack.status in STUCK:
        raise ValidationError(message=f"Stack:{stack.stack_id} is in {stack.status} state and can not be updated.")


@patch(CloudFormationBackend, "create_change_set", ORDER)
def _create_change_set(original: Any, self: CloudFormationBackend, *, stack_name: str, **given: Any) -> Any:
    for stack in [stack for stack in self.stacks.values() if stack_name in (stack.name, stack.stack_id)]:
        if given["change_set_type"] == "UPDATE":
            _refuse_if_stuck(stack)
        elif stack.status == "REVIEW_IN_PROGRESS":  # no change set was executed
            del self.stacks[stack.stack_id]
        else:
            raise ValidationError(
                message=f"Stack [{stack_name}] already exists and cannot be created again with the changeSet "
                f"[{given['change_set_name']}]."
            )
    return original(self, stack_name=stack_name, **given)


@patch(
    Stack,
    "stack_resources",
    Difference(
        "reading_a_stack_creates_nothing", "reading a stack's resources creates those that are missing", bug=True
    ),
)
def _stack_resources(original: Any, self: Stack) -> list[Any]:
    return [*_existing(self.resource_map).values()]


@patch(CloudFormationBackend, "delete_stack", DELETION)
def _try_deletion(original: Any, self: CloudFormationBackend, name_or_stack_id: str) -> None:
    with contextlib.suppress(ValidationError):  # deleting a stack that does not exist succeeds
        stack = self.get_stack(name_or_stack_id)
        if stack.stack_id in self.stacks:
            _delete_stack(self, stack, original)


def _delete_stack(backend: CloudFormationBackend, stack: Stack, delete: Any) -> None:
    _register_exports(backend, stack)  # moto removes them one by one
    try:
        for bucket in _existing(stack.resource_map).values():
            if isinstance(bucket, FakeBucket) and bucket.keys:
                raise RehearsalError(f"The bucket {bucket.name} you tried to delete is not empty")
        delete(backend, stack.stack_id)
    except Exception as error:
        log.exception("Stack %s cannot be deleted", stack.name)
        stack.output_map = OutputMap(stack.resource_map, {}, stack.stack_id)
        _register_exports(backend, stack)
        backend.stacks[stack.stack_id] = stack
        stack.status = "DELETE_FAILED"
        stack._add_stack_event("DELETE_FAILED", _reason(error))
