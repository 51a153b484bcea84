"""CloudFormation: types of resources that moto lacks, or updates otherwise than AWS."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import boto3
from moto.cloudformation import parsing
from moto.core.common_models import CloudFormationModel
from moto.events.models import EventBus
from moto.s3.models import FakeBucket
from moto.sns.models import Topic

from rehearsal.patches import Difference, RehearsalError, configure, patch

#: Types whose resources are only recorded, each with the reason.
RECORDED_TYPES = {
    "AWS::S3::BucketPolicy": "moto obeys Deny and ignores its conditions: TLS-only would lock everyone out",
    "AWS::SQS::QueuePolicy": "moto enforces no queue policies",
    "AWS::SNS::TopicPolicy": "moto enforces no topic policies",
    "AWS::ApiGatewayV2::Api": "HTTP APIs answer no requests here; what is behind them can be invoked",
    "AWS::ApiGatewayV2::Stage": "as its API",
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


UNKNOWN = Difference(
    "unknown_types_fail",
    "resources of types that moto does not know are skipped silently: the deployment succeeds without them",
)
API = Difference(
    "resources_are_created_by_their_api",
    "alarms, schedules and subscriptions are skipped by CloudFormation, and a dashboard's body is not checked",
)
TOPICS = Difference(
    "topics_survive_updates",
    "an update of a topic deletes it with all subscriptions and creates another one, and GetAtt knows no TopicArn",
    bug=True,
)


@configure(UNKNOWN)
def _record_types() -> None:
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


@patch(parsing, "resource_class_from_type", UNKNOWN)
def _resource_class_from_type(original: Any, resource_type: str) -> Any:
    found = original(resource_type)
    if found is None and resource_type not in parsing.NULL_MODELS:
        raise RehearsalError(f"moto cannot create {resource_type}; add a patch to rehearsal/, or leave it out")
    return found


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


@configure(API)
def _make_types() -> None:
    for type_name, api in API_TYPES.items():
        kind = {"api": api, "cloudformation_type": staticmethod(lambda type_name=type_name: type_name)}
        type(type_name.replace("::", ""), (ApiResource, CloudFormationModel), kind)


@patch(Topic, "update_from_cloudformation_json", TOPICS)
def _update_topic(original: Any, original_resource: Topic, cloudformation_json: Any, **rest: Any) -> Topic:
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


@patch(Topic, "get_cfn_attribute", TOPICS)
def _get_topic_attribute(original: Any, self: Topic, attribute_name: str) -> Any:
    return self.arn if attribute_name == "TopicArn" else original(self, attribute_name)


@patch(Topic, "has_cfn_attr", TOPICS)
def _has_topic_attribute(original: Any, attr: str) -> bool:
    return attr in ("TopicName", "TopicArn")


@patch(
    FakeBucket,
    "create_from_cloudformation_json",
    Difference("buckets_notify_eventbridge", "CloudFormation's NotificationConfiguration of a bucket is dropped"),
)
def _create_bucket(original: Any, name: str, cloudformation_json: Any, *rest: Any, **more: Any) -> FakeBucket:
    bucket: FakeBucket = original(name, cloudformation_json, *rest, **more)
    wanted = cloudformation_json["Properties"].get("NotificationConfiguration", {})
    if set(wanted) - {"EventBridgeConfiguration"}:
        raise RehearsalError(f"The rehearsal supports only EventBridge notifications, not {sorted(wanted)}")
    if wanted.get("EventBridgeConfiguration", {}).get("EventBridgeEnabled", bool(wanted)):
        bucket.set_notification_configuration({"EventBridgeConfiguration": {}})
    return bucket


@configure(Difference("event_buses_have_a_name", "Ref of an event bus is a Python object's address", bug=True))
def _name_event_buses() -> None:
    EventBus.physical_resource_id = property(lambda bus: bus.name)  # type: ignore[attr-defined]
