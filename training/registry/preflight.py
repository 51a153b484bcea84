"""Find what an account lacks before anything is created in it. Only reads."""

import json
import re
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import boto3
from botocore.exceptions import BotoCoreError, ClientError

from common.errors import CommandError
from training.deployment.endpoint import describe_endpoint
from training.deployment.image import IMAGE_URI, resolve_image
from training.deployment.settings import check_image_uri, check_role

# Of the job that checks drift (template.yaml).
_CHECK_INSTANCE = "ml.t3.medium"
# What new accounts begin with, and enough for single images.
_CONCURRENCY = 10
_RAISE = "request more: aws service-quotas request-service-quota-increase --service-code {} --quota-code {}"
_SECONDS = 30


@dataclass(frozen=True)
class Wanted:
    """What is to be created.

    Attributes
    ----------
    bucket : str
        For models and captured data.
    role_arn : str
        The container's role.
    image_uri : str
        The container's image in ECR.
    instance_type, instance_count
        Of the endpoint.
    endpoint_name : str
        Its name.
    image_bucket : str or None
        The bucket to which images are uploaded, if it exists already.
    training_instance_type : str or None
        Of training jobs, if there are to be any.
    """

    bucket: str
    role_arn: str
    image_uri: str
    instance_type: str
    instance_count: int
    endpoint_name: str
    image_bucket: str | None = None
    training_instance_type: str | None = None

    def __post_init__(self) -> None:
        check_image_uri(self.image_uri)
        check_role(self.role_arn)


@dataclass(frozen=True)
class Check:
    """A line of the result: whether something is there (None: this could not be found out), and what to do if not."""

    passed: bool | None
    what: str
    remedy: str = ""


def preflight(wanted: Wanted) -> Iterator[Check]:
    """Yield one check after the other; if there are no credentials, nothing after that."""
    session = boto3.Session()
    region = session.region_name
    if not region:
        yield Check(False, "Region: none is set", "set AWS_DEFAULT_REGION")
        return
    try:
        caller = session.client("sts").get_caller_identity()
    except (ClientError, BotoCoreError) as error:
        yield Check(False, f"credentials: {error}", "set AWS_PROFILE, or log in")
        return
    partition = caller["Arn"].split(":")[1]
    yield Check(True, f"credentials: {caller['Arn']} in {region}")

    def arn(service: str, resource: str, account: str = caller["Account"], place: str = region) -> str:
        return f"arn:{partition}:{service}:{place}:{account}:{resource}"

    def bucket_arn(path: str) -> str:
        return f"arn:{partition}:s3:::{wanted.bucket}{path}"

    image = IMAGE_URI.fullmatch(wanted.image_uri)
    assert image
    repository = arn("ecr", f"repository/{image['repository']}", image["account"], image["region"])
    container_rights = {
        bucket_arn("/models/*"): ["s3:GetObject"],
        bucket_arn("/capture/*"): ["s3:PutObject"],
        repository: ["ecr:BatchCheckLayerAvailability", "ecr:BatchGetImage", "ecr:GetDownloadUrlForLayer"],
        arn("logs", "log-group:/aws/sagemaker/Endpoints/*"): [
            *("logs:CreateLogGroup", "logs:CreateLogStream", "logs:PutLogEvents"),
        ],
        # SageMaker reads the alarms of an update with this role.
        arn("cloudwatch", f"alarm:{wanted.endpoint_name}-0"): ["cloudwatch:DescribeAlarms"],
        "*": ["ecr:GetAuthorizationToken", "cloudwatch:PutMetricData"],
    }
    name = wanted.endpoint_name
    own_rights = {
        arn("sagemaker", f"endpoint/{name}"): [
            *("sagemaker:CreateEndpoint", "sagemaker:UpdateEndpoint", "sagemaker:DescribeEndpoint"),
            *("sagemaker:InvokeEndpoint", "sagemaker:ListTags"),
        ],
        arn("sagemaker", f"endpoint-config/{name}-0"): [
            *("sagemaker:CreateEndpointConfig", "sagemaker:DescribeEndpointConfig"),
            *("sagemaker:AddTags", "sagemaker:ListTags"),
        ],
        arn("sagemaker", f"model/{name}-0"): ["sagemaker:CreateModel", "sagemaker:DescribeModel"],
        arn("cloudwatch", f"alarm:{name}-0"): [
            *("cloudwatch:PutMetricAlarm", "cloudwatch:DeleteAlarms", "cloudwatch:DescribeAlarmHistory"),
        ],
        "*": ["cloudwatch:DescribeAlarms", "application-autoscaling:DescribeScalableTargets"],
        bucket_arn(""): ["s3:ListBucket"],
        bucket_arn(f"/models/{name}/0"): ["s3:PutObject", "s3:GetObject"],
        repository: ["ecr:DescribeImages"],
        wanted.role_arn: ["iam:PassRole"],
    }
    checks: list[tuple[str, Callable[[], Iterator[Check]]]] = [
        ("role", lambda: _trust(wanted.role_arn)),
        ("rights of the role", lambda: _rights(wanted.role_arn, container_rights, "training/roles.yaml has a role")),
        (
            "rights of these credentials",
            lambda: _rights(_principal(caller["Arn"]), own_rights, "training/roles.yaml has a role for releases"),
        ),
        ("image", lambda: _image(wanted)),
        ("bucket", lambda: _bucket(wanted, region)),
        (
            "events of the image bucket",
            lambda: _events(wanted.image_bucket, region) if wanted.image_bucket else iter(()),
        ),
        ("quotas of SageMaker", lambda: _sagemaker_quotas(wanted)),
        ("quota of Lambda", lambda: _quotas("lambda", {"Concurrent executions": _CONCURRENCY})),
        ("quotas of Step Functions", _transitions),
        ("data capture", lambda: _capture(wanted.endpoint_name)),
    ]
    for subject, check in checks:
        try:
            yield from check()
        except CommandError as error:
            yield Check(False, f"{subject}: {error}")
        except (ClientError, BotoCoreError, OSError, ValueError) as error:
            yield Check(None, f"{subject}: could not be checked: {error}")


def _trust(role_arn: str) -> Iterator[Check]:
    name = role_arn.rpartition("/")[2]
    try:
        role = boto3.client("iam").get_role(RoleName=name)["Role"]
    except ClientError as error:
        if error.response["Error"]["Code"] != "NoSuchEntity":
            raise
        yield Check(False, f"role: there is no role {name}", "deploy training/roles.yaml")
        return
    trust: Any = role["AssumeRolePolicyDocument"]
    trusted = any(
        statement["Effect"] == "Allow"
        and "sts:AssumeRole" in _list(statement.get("Action"))
        and "sagemaker.amazonaws.com" in _list(statement.get("Principal", {}).get("Service"))
        for statement in _list(trust["Statement"])
    )
    yield Check(
        trusted,
        f"role {name}: SageMaker {'may' if trusted else 'may not'} assume it",
        "allow sts:AssumeRole to sagemaker.amazonaws.com in its trust policy",
    )


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [] if value is None else [value]


def _principal(caller: str) -> str | None:
    """Return the ARN whose policies decide: a session has that of its role, with its path. None for the root user."""
    if match := re.fullmatch(r"arn:[^:]+:sts::\d+:assumed-role/([^/]+)/.*", caller):
        return str(boto3.client("iam").get_role(RoleName=match[1])["Role"]["Arn"])
    return None if caller.endswith(":root") else caller


def _rights(principal: str | None, rights: dict[str, list[str]], remedy: str) -> Iterator[Check]:
    """Check that a principal may do all actions on each resource, as SageMaker and S3 ask for them."""
    if principal is None:
        yield Check(True, "rights: the root user may do everything", "")
        return
    simulate = boto3.client("iam").get_paginator("simulate_principal_policy")
    context: Any = [
        {"ContextKeyName": key, "ContextKeyValues": [value], "ContextKeyType": "string"}
        for key, value in (
            ("iam:PassedToService", "sagemaker.amazonaws.com"),
            ("kms:ViaService", f"s3.{boto3.Session().region_name}.amazonaws.com"),
        )
    ]
    denied = []
    for resource, actions in rights.items():
        pages = simulate.paginate(
            PolicySourceArn=principal, ActionNames=actions, ResourceArns=[resource], ContextEntries=context
        )
        results = [result for page in pages for result in page["EvaluationResults"]]
        denied += [f"{each['EvalActionName']} on {resource}" for each in results if each["EvalDecision"] != "allowed"]
    name = principal.rpartition("/")[2]
    if not denied:
        yield Check(True, f"rights of {name}: {sum(map(len, rights.values()))} actions allowed")
    for each in denied:
        yield Check(False, f"rights of {name}: {each} is denied", f"allow it; {remedy}")


def _image(wanted: Wanted) -> Iterator[Check]:
    resolved = resolve_image(wanted.image_uri)
    digest = resolved.partition("@")[2]
    yield Check(True, f"image: {digest} has a manifest that SageMaker takes")
    parts = IMAGE_URI.fullmatch(wanted.image_uri)
    assert parts
    ecr = boto3.client("ecr")
    place = {"registryId": parts["account"], "repositoryName": parts["repository"]}
    (found,) = ecr.batch_get_image(**place, imageIds=[{"imageDigest": digest}])["images"]
    config = json.loads(found["imageManifest"])["config"]["digest"]
    url = ecr.get_download_url_for_layer(**place, layerDigest=config)["downloadUrl"]
    with urllib.request.urlopen(url, timeout=_SECONDS) as answer:
        architecture = json.load(answer)["architecture"]
    # Graviton's types have a g after the generation: ml.m6g.large, ml.c7gn.xlarge.
    expected = "arm64" if re.match(r"ml\.[a-z]+\dg", wanted.instance_type) else "amd64"
    yield Check(
        architecture == expected,
        f"image: its architecture is {architecture}, and {wanted.instance_type} is {expected}",
        "build it for the other one, or choose another --instance-type",
    )


def _bucket(wanted: Wanted, region: str) -> Iterator[Check]:
    s3 = boto3.client("s3")
    try:
        found = s3.head_bucket(Bucket=wanted.bucket)
    except ClientError as error:
        if error.response["Error"]["Code"] not in ("404", "NoSuchBucket"):
            raise
        yield Check(False, f"bucket {wanted.bucket}: does not exist", f"aws s3 mb s3://{wanted.bucket}")
        return
    place = found.get("BucketRegion", region)
    yield Check(place == region, f"bucket {wanted.bucket}: is in {place}", f"use a bucket in {region}")
    default: Any = {"SSEAlgorithm": "AES256"}  # of S3, where nothing is set
    try:
        (rule,) = s3.get_bucket_encryption(Bucket=wanted.bucket)["ServerSideEncryptionConfiguration"]["Rules"]
        default = rule.get("ApplyServerSideEncryptionByDefault", default)
    except ClientError as error:
        if error.response["Error"]["Code"] != "ServerSideEncryptionConfigurationNotFoundError":
            raise
    key = default.get("KMSMasterKeyID")
    method = f"{default.get('SSEAlgorithm')} and the key {key}" if key else default.get("SSEAlgorithm")
    yield Check(True, f"bucket {wanted.bucket}: encrypted with {method}")
    if key and key.startswith("arn:"):
        rights = {key: ["kms:Decrypt", "kms:GenerateDataKey"]}
        yield from _rights(wanted.role_arn, rights, f"deploy training/roles.yaml with KmsKeyArn={key}")


def _events(bucket: str, region: str) -> Iterator[Check]:
    """Check that uploads to a bucket reach the workflow, which is in this account and Region."""
    # A bucket's events go to the default bus of its owner and Region, which takes no events of another account:
    # https://docs.aws.amazon.com/eventbridge/latest/userguide/eb-event-bus-perms.html
    s3 = boto3.client("s3")
    pages = s3.get_paginator("list_buckets").paginate(Prefix=bucket)
    found: dict[str, Any] = {item["Name"]: item for page in pages for item in page["Buckets"]}
    place = found.get(bucket, {}).get("BucketRegion", region)
    if bucket not in found or place != region:
        where = f"is in {place}" if bucket in found else "this account has none of that name"
        remedy = f"use a bucket of this account in {region}: S3 sends events to the bucket's own account and Region"
        yield Check(False, f"bucket {bucket}: {where}", remedy)
        return
    enabled = "EventBridgeConfiguration" in s3.get_bucket_notification_configuration(Bucket=bucket)
    yield Check(
        enabled,
        f"bucket {bucket}: events to EventBridge are {'on' if enabled else 'off'}",
        "turn them on in the bucket's properties; without them uploads start nothing",
    )


def _sagemaker_quotas(wanted: Wanted) -> Iterator[Check]:
    # An update starts new instances beside the old ones.
    needed = {f"{wanted.instance_type} for endpoint usage": 2 * wanted.instance_count}
    needed[f"{_CHECK_INSTANCE} for processing job usage"] = 1
    if wanted.training_instance_type:
        needed[f"{wanted.training_instance_type} for training job usage"] = 1
        needed[f"{wanted.training_instance_type} for spot training job usage"] = 1
    yield from _quotas("sagemaker", needed)


def _transitions() -> Iterator[Check]:
    """Check that no quota on state transitions is 0; their names differ by service release."""
    found = [quota for quota in _all_quotas("states") if re.search("state ?transition", quota["QuotaName"], re.I)]
    if not found:
        yield Check(None, "quotas of Step Functions: none is about state transitions")
    for quota in found:
        yield _judged("states", quota, 1)


def _quotas(service: str, needed: dict[str, int]) -> Iterator[Check]:
    found = {quota["QuotaName"]: quota for quota in _all_quotas(service)}
    for name, least in needed.items():
        if name in found:
            yield _judged(service, found[name], least)
        else:
            yield Check(None, f"quota of {service}: there is none named {name!r}", "look for it in Service Quotas")


def _judged(service: str, quota: dict[str, Any], least: int) -> Check:
    return Check(
        quota["Value"] >= least,
        f"quota of {service}: {quota['QuotaName']} is {quota['Value']:g}, needed {least}",
        _RAISE.format(service, quota["QuotaCode"]) + f" --desired-value {least}",
    )


def _all_quotas(service: str) -> list[dict[str, Any]]:
    """Return the defaults of a service's quotas, replaced by the values that this account has of its own."""
    client: Any = boto3.client("service-quotas")
    merged: dict[str, dict[str, Any]] = {}
    for operation in ("list_aws_default_service_quotas", "list_service_quotas"):
        for page in client.get_paginator(operation).paginate(ServiceCode=service):
            merged |= {quota["QuotaCode"]: quota for quota in page["Quotas"]}
    return list(merged.values())


def _capture(endpoint_name: str) -> Iterator[Check]:
    summary = describe_endpoint(boto3.client("sagemaker"), endpoint_name).get("DataCaptureConfig")
    if summary and summary["EnableCapture"]:
        yield Check(True, f"data capture: {summary['CaptureStatus']} on {endpoint_name}")
    else:
        yield Check(
            None,
            "data capture: AWS has no call that says whether this account may use it",
            "if deploy is refused because of it: --capture-percentage 0, and no drift check",
        )
