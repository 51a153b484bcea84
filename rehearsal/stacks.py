"""CloudFormation, EventBridge and Step Functions: what an unmodified ``sam deploy`` needs beyond moto."""

import datetime
import json
import logging
import re
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import boto3
from moto.cloudformation import parsing
from moto.cloudformation.models import ChangeSet, CloudFormationBackend, Stack
from moto.core.common_models import CloudFormationModel
from moto.core.config import default_user_config
from moto.events.models import EventBus
from moto.logs.models import LogGroup
from moto.s3.models import FakeBucket, s3_backends
from moto.sns.models import Topic
from moto.stepfunctions import models as states
from moto.stepfunctions.parser.asl.component.common.error_name.error_name import ErrorName
from moto.stepfunctions.parser.asl.component.state.fail import state_fail
from moto.stepfunctions.parser.backend.execution_worker import ExecutionWorker
from moto.stepfunctions.parser.models import StepFunctionsParserBackend, stepfunctions_parser_backends
from moto.utilities.utils import get_partition
from samtranslator.translator.transform import transform

from rehearsal.gaps import RehearsalError, gap, replace

log = logging.getLogger("rehearsal")

SERVERLESS = "AWS::Serverless-2016-10-31"
#: Types whose resources are only recorded: who may do what is not enforced here.
RECORDED_TYPES = {
    "AWS::S3::BucketPolicy": "moto obeys Deny and ignores its conditions: TLS-only would lock everyone out",
    "AWS::SQS::QueuePolicy": "moto enforces no queue policies",
    "AWS::SNS::TopicPolicy": "moto enforces no topic policies",
}


@dataclass(frozen=True)
class Api:
    """The calls of a service that make, change and remove resources of one type."""

    service: str
    create: str
    update: str | None
    remove: Callable[[Any, Any], Any]
    #: The property that names the resource, and is what ``Ref`` gives; without one, ``Ref`` gives the ARN.
    name: str | None
    arn: str


#: Types whose properties are the parameters of their service's API, word for word.
API_TYPES = {
    "AWS::CloudWatch::Alarm": Api(
        service="cloudwatch",
        create="put_metric_alarm",
        update="put_metric_alarm",
        remove=lambda client, alarm: client.delete_alarms(AlarmNames=[alarm.name]),
        name="AlarmName",
        arn="arn:aws:cloudwatch:{region}:{account}:alarm:{name}",
    ),
    "AWS::CloudWatch::Dashboard": Api(
        service="cloudwatch",
        create="put_dashboard",
        update="put_dashboard",
        remove=lambda client, dashboard: client.delete_dashboards(DashboardNames=[dashboard.name]),
        name="DashboardName",
        arn="arn:aws:cloudwatch::{account}:dashboard/{name}",
    ),
    "AWS::Scheduler::Schedule": Api(
        service="scheduler",
        create="create_schedule",
        update="update_schedule",
        remove=lambda client, schedule: client.delete_schedule(Name=schedule.name, GroupName=schedule.group),
        name="Name",
        arn="arn:aws:scheduler:{region}:{account}:schedule/{group}/{name}",
    ),
    "AWS::SNS::Subscription": Api(
        service="sns",
        create="subscribe",
        update=None,
        remove=lambda client, subscription: client.unsubscribe(SubscriptionArn=subscription.arn),
        name=None,
        arn="",
    ),
}


class _NoManagedPolicies:
    """Stands where the transform looks up managed policies by name; this project's roles use none."""

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


@gap("a change set without changes is taken for a change, as previous values are numbers and new ones texts")
def unchanged_stacks_stay_unchanged() -> None:
    """Compare parameters as text."""

    def comparing(original: Any) -> Any:
        def has_parameters(stack: Stack, other_parameters: dict[str, Any]) -> bool:
            current = {name: str(value) for name, value in stack.resource_map.resolved_parameters.items()}
            return all(current.get(name) == str(value) for name, value in other_parameters.items())

        return has_parameters

    replace(Stack, "has_parameters", comparing)


@gap("resources of types that moto does not know are skipped in silence: a deploy succeeds without them")
def unknown_types_fail() -> None:
    """Refuse them, but for the few whose absence changes nothing here."""

    def record(cls: Any, resource_name: str, *_: Any, **__: Any) -> CloudFormationModel:
        resource = cls()
        resource.physical_resource_id = resource_name
        return resource

    for type_name in RECORDED_TYPES:
        # CloudFormation finds its models as the direct subclasses of this class.
        type(
            type_name.replace("::", ""),
            (CloudFormationModel,),
            {
                "cloudformation_type": staticmethod(lambda type_name=type_name: type_name),
                "cloudformation_name_type": staticmethod(lambda: None),
                "create_from_cloudformation_json": classmethod(record),
                "update_from_cloudformation_json": classmethod(lambda cls, original_resource, **_: original_resource),
                "delete_from_cloudformation_json": classmethod(lambda cls, *_: None),
            },
        )

    def refusing(original: Any) -> Any:
        def resource_class_from_type(resource_type: str) -> Any:
            found = original(resource_type)
            if found is None and resource_type not in parsing.NULL_MODELS:
                raise RehearsalError(f"moto cannot create {resource_type}; add a gap to rehearsal/, or leave it out")
            return found

        return resource_class_from_type

    replace(parsing, "resource_class_from_type", refusing)


def _typed(shape: Any, value: Any) -> Any:
    """Turn a template's value, in which any number may be a text, into what an API's parameter takes."""
    if shape.type_name == "structure" and isinstance(value, dict):
        return {key: _typed(shape.members[key], v) if key in shape.members else v for key, v in value.items()}
    if shape.type_name == "list" and isinstance(value, list):
        return [_typed(shape.member, item) for item in value]
    if shape.type_name == "boolean":
        return str(value).lower() == "true"
    convert = {"integer": int, "long": int, "float": float, "double": float, "string": str}.get(shape.type_name)
    return convert(value) if convert else value


class ApiResource:
    """A resource that CloudFormation makes by its service's API, which checks every property on the way."""

    api: Api

    def __init__(self, resource_name: str, properties: dict[str, Any], account: str, region: str) -> None:
        self.properties = properties
        self.name = str(properties.get(self.api.name or "", resource_name))
        self.group = properties.get("GroupName", "default")
        self.arn = self.api.arn.format(region=region, account=account, name=self.name, group=self.group)
        self._client = boto3.client(self.api.service, region_name=region)  # type: ignore[call-overload]

    def _call(self, operation: str) -> None:
        named = {self.api.name: self.name} if self.api.name else {"ReturnSubscriptionArn": True}
        model = self._client.meta.service_model.operation_model(self._client.meta.method_to_api_mapping[operation])
        answer = getattr(self._client, operation)(**_typed(model.input_shape, {**self.properties, **named}))
        self.arn = answer.get("SubscriptionArn", self.arn)

    @classmethod
    def create_from_cloudformation_json(
        cls, resource_name: str, cloudformation_json: Any, account_id: str, region_name: str, **_: Any
    ) -> "ApiResource":
        """Make a resource."""
        resource = cls(resource_name, cloudformation_json["Properties"], account_id, region_name)
        resource._call(cls.api.create)
        return resource

    @classmethod
    def update_from_cloudformation_json(
        cls, original_resource: "ApiResource", cloudformation_json: Any, account_id: str, region_name: str, **_: Any
    ) -> "ApiResource":
        """Change a resource, or put another one in its place when that takes another name."""
        changed = cls(original_resource.name, cloudformation_json["Properties"], account_id, region_name)
        if cls.api.update and (changed.name, changed.group) == (original_resource.name, original_resource.group):
            changed._call(cls.api.update)
        else:
            original_resource.delete()
            changed._call(cls.api.create)
        return changed

    def delete(self, *_: Any) -> None:
        """Remove the resource."""
        self.api.remove(self._client, self)

    @property
    def physical_resource_id(self) -> str:
        """What ``Ref`` gives."""
        return self.name if self.api.name else self.arn

    def get_cfn_attribute(self, name: str) -> str:
        """Return what ``Fn::GetAtt`` gives."""
        if name != "Arn":
            raise RehearsalError(f"{self.api.service} resources have no attribute {name} here, only Arn")
        return self.arn


@gap("alarms, schedules and subscriptions are skipped by CloudFormation, and a dashboard's body is not checked")
def resources_are_made_by_their_api() -> None:
    """Make them by the calls that anyone would use."""
    for type_name, api in API_TYPES.items():
        kind = {"api": api, "cloudformation_type": staticmethod(lambda type_name=type_name: type_name)}
        type(type_name.replace("::", ""), (ApiResource, CloudFormationModel), kind)


@gap("an update of a topic deletes it with all subscriptions, and makes another one; GetAtt knows no TopicArn")
def topics_survive_updates() -> None:
    """Change the topic and its own subscriptions where they are."""

    def updating(original: Any) -> Any:
        def update(original_resource: Topic, cloudformation_json: Any, **rest: Any) -> Topic:
            topic, properties = original_resource, cloudformation_json["Properties"]
            if properties.get("TopicName", topic.name) != topic.name:
                replaced: Topic = original(original_resource=topic, cloudformation_json=cloudformation_json, **rest)
                return replaced
            wanted = [(item["Endpoint"], item["Protocol"]) for item in properties.get("Subscription", [])]
            for item in getattr(topic, "subscription", []):
                found = topic.sns_backend._find_subscription(topic.arn, item["Endpoint"], item["Protocol"])
                if found and (found.endpoint, found.protocol) not in wanted:
                    topic.sns_backend.unsubscribe(found.arn)
            for endpoint, protocol in wanted:
                topic.sns_backend.subscribe(topic.arn, endpoint, protocol)
            topic.display_name = properties.get("DisplayName", "")
            topic.kms_master_key_id = properties.get("KmsMasterKeyId", "")
            topic.subscription = properties.get("Subscription", [])  # type: ignore[attr-defined]
            return topic

        return update

    def attribute(original: Any) -> Any:
        return lambda topic, name: topic.arn if name == "TopicArn" else original(topic, name)

    replace(Topic, "update_from_cloudformation_json", updating)
    replace(Topic, "get_cfn_attribute", attribute)
    replace(Topic, "has_cfn_attr", lambda original: lambda name: name in ("TopicName", "TopicArn"))


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


@gap("CloudFormation's NotificationConfiguration of a bucket is dropped")
def buckets_notify_eventbridge() -> None:
    """Apply its EventBridgeConfiguration; refuse other notifications."""

    def notifying(original: Any) -> Any:
        def create(resource_name: str, cloudformation_json: Any, *rest: Any, **more: Any) -> FakeBucket:
            bucket: FakeBucket = original(resource_name, cloudformation_json, *rest, **more)
            wanted = cloudformation_json["Properties"].get("NotificationConfiguration", {})
            if set(wanted) - {"EventBridgeConfiguration"}:
                raise RehearsalError(f"Only EventBridge notifications are rehearsed, not {sorted(wanted)}")
            if wanted.get("EventBridgeConfiguration", {}).get("EventBridgeEnabled", bool(wanted)):
                bucket.set_notification_configuration({"EventBridgeConfiguration": {}})
            return bucket

        return create

    replace(FakeBucket, "create_from_cloudformation_json", notifying)


@gap("Ref of an event bus is a Python object's address")
def event_buses_have_a_name() -> None:
    """Make it the bus's name."""
    EventBus.physical_resource_id = property(lambda bus: bus.name)  # type: ignore[attr-defined]


@gap("workflows are not executed unless a setting says so, and CloudFormation creates them where nothing executes them")
def workflows_are_executed() -> None:
    """Use the executing back end, also for what CloudFormation creates, with its definition's substitutions."""
    default_user_config["stepfunctions"]["execute_state_machine"] = True
    states.stepfunctions_backends = stepfunctions_parser_backends  # type: ignore[assignment]

    def define(cloudformation_json: Any, account_id: str, region_name: str) -> None:
        properties = cloudformation_json["Properties"]
        if properties.get("StateMachineType", "STANDARD") != "STANDARD":
            raise RehearsalError("The rehearsal executes Standard workflows only, not Express ones")
        if "DefinitionS3Location" in properties:
            location = properties["DefinitionS3Location"]
            backend = s3_backends[account_id][get_partition(region_name)]
            stored = backend.get_object(location["Bucket"], location["Key"])
            if stored is None:
                raise RehearsalError(f"No workflow definition at s3://{location['Bucket']}/{location['Key']}")
            properties["DefinitionString"] = stored.value.decode()
        text = properties["DefinitionString"]
        for name, value in properties.get("DefinitionSubstitutions", {}).items():
            text = text.replace(f"${{{name}}}", str(value))
        left = re.findall(r"\$\{\w+\}", text)
        if left:
            raise RehearsalError(f"The workflow's definition has no value for {', '.join(sorted(set(left)))}")
        properties["DefinitionString"] = text

    def creating(original: Any) -> Any:
        def create(name: str, cloudformation_json: Any, account_id: str, region_name: str, **rest: Any) -> Any:
            define(cloudformation_json, account_id, region_name)
            return original(name, cloudformation_json, account_id, region_name, **rest)

        return create

    def updating(original: Any) -> Any:
        def update(**arguments: Any) -> Any:
            define(arguments["cloudformation_json"], arguments["account_id"], arguments["region_name"])
            return original(**arguments)

        return update

    replace(states.StateMachine, "create_from_cloudformation_json", creating)
    replace(states.StateMachine, "update_from_cloudformation_json", updating)


@gap("StartExecution without a name fails")
def executions_get_a_name() -> None:
    """Give such an execution a UUID, as AWS does."""

    def naming(original: Any) -> Any:
        def start_execution(
            backend: StepFunctionsParserBackend,
            state_machine_arn: str,
            name: str | None = None,
            *rest: Any,
            **more: Any,
        ) -> Any:
            return original(backend, state_machine_arn, name or str(uuid.uuid4()), *rest, **more)

        return start_execution

    replace(StepFunctionsParserBackend, "start_execution", naming)


@gap("an execution's start in the context object is no text, on which every function of the States Language fails")
def executions_know_when_they_started() -> None:
    """Make it the text that AWS gives, with milliseconds and in UTC."""

    def making(original: Any) -> Any:
        def environment(worker: ExecutionWorker) -> Any:
            made = original(worker)
            execution = made.states.context_object.context_object_data["Execution"]
            started = execution["StartTime"].astimezone(datetime.UTC)
            execution["StartTime"] = f"{started.isoformat(timespec='milliseconds').removesuffix('+00:00')}Z"
            return made

        return environment

    replace(ExecutionWorker, "_get_evaluation_environment", making)


@gap("a Fail state refuses to repeat an error of the States Language itself, such as States.Timeout")
def failures_keep_their_name() -> None:
    """Let a Fail state end with any error's name, as AWS does where it comes from ErrorPath."""
    replace(state_fail, "CustomErrorName", lambda original: ErrorName)
