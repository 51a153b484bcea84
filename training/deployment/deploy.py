"""Bring a trained model behind a SageMaker endpoint, and take it away again.

Models and endpoint configurations are named after a hash of everything they say. The same command twice is
therefore one deployment, and a name never stands for two different things.
"""

import base64
import gzip
import hashlib
import io
import json
import re
import tarfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import boto3
from botocore.exceptions import BotoCoreError, ClientError, ConnectionError, HTTPClientError

from common.errors import CommandError
from common.progress import progress

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

# The name must stay the same over updates of one endpoint.
VARIANT = "AllTraffic"
# An endpoint takes minutes on AWS, and a second on a laptop: ask often at first, then seldom.
FIRST_POLL_SECONDS, LAST_POLL_SECONDS = 0.5, 10.0
# SageMaker itself gives up on a container after at most an hour.
TIMEOUT_SECONDS = 3900.0

# Names of configurations are "NAME-" and 12 hexadecimal digits, and have at most 63 characters.
_MAX_NAME = 50
# Endpoint ARNs come back in lower case, so a name in capitals would not match its own permissions.
_NAME = re.compile(r"[a-z0-9](-*[a-z0-9]){0,62}")
_BUCKET = re.compile(r"[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]")
_ROLE = re.compile(r"arn:aws[a-z-]*:iam::\d{12}:role/[\w+=,.@/-]+")
_IMAGE = re.compile(
    r"((?P<account>\d{12})\.dkr\.ecr\.(?P<region>[a-z0-9-]+)\.amazonaws\.com(\.cn)?/(?P<repository>[a-z0-9._/-]+))"
    r"(:(?P<tag>[\w.-]+)|@(?P<digest>sha256:[0-9a-f]{64}))"
)
# SageMaker refuses OCI manifests and image indexes as an "Unsupported manifest media type":
# https://github.com/aws/amazon-sagemaker-feedback/issues/180
_MANIFEST = "application/vnd.docker.distribution.manifest.v2+json"

# The states that end by themselves are not among these:
# https://docs.aws.amazon.com/sagemaker/latest/APIReference/API_DescribeEndpoint.html
_SETTLED = ("InService", "Failed", "OutOfService", "UpdateRollbackFailed")
_GO_ON = "AWS goes on without this command; run it again to go on waiting"
_GO_ON_LATER = "run the same command again to go on"


@dataclass(frozen=True)
class Deployment:
    """What the user asked for; checked when it is made.

    Raises
    ------
    CommandError
        A value that AWS would refuse, or that would be regretted later.
    """

    endpoint_name: str
    bucket: str
    role_arn: str
    image_uri: str
    model: Path
    instance_type: str = "ml.m5.xlarge"
    instance_count: int = 1
    capture_percentage: int = 100

    def __post_init__(self) -> None:
        check_name(self.endpoint_name)
        if not _BUCKET.fullmatch(self.bucket):
            raise CommandError(f"--bucket {self.bucket!r} is not a bucket's name; leave s3:// and any path away")
        if not _ROLE.fullmatch(self.role_arn):
            raise CommandError(
                f"--role-arn {self.role_arn!r} is not a role; it reads arn:aws:iam::123456789012:role/NAME"
            )
        if not _IMAGE.fullmatch(self.image_uri):
            raise CommandError(
                f"--image-uri {self.image_uri!r} is not an image in ECR with a tag or digest; it reads "
                "123456789012.dkr.ecr.REGION.amazonaws.com/NAME:TAG"
            )
        if not self.model.is_file():
            raise CommandError(f"--model {self.model} does not exist; make it with: python -m training train")
        if not self.instance_type.startswith("ml."):
            raise CommandError(f"--instance-type {self.instance_type!r}: SageMaker's types begin with ml.")
        if self.instance_count < 1:
            raise CommandError(f"--instance-count {self.instance_count}: at least one instance is needed")
        if not 0 <= self.capture_percentage <= 100:
            raise CommandError(f"--capture-percentage {self.capture_percentage} is not between 0 and 100")


def check_name(name: str) -> None:
    """Refuse an endpoint name that would not work.

    Raises
    ------
    CommandError
        Other characters than lower-case letters, digits and inner hyphens, or more than 50 of them.
    """
    if not _NAME.fullmatch(name) or len(name) > _MAX_NAME:
        raise CommandError(
            f"--endpoint-name {name!r}: use at most {_MAX_NAME} lower-case letters, digits and hyphens inside"
        )


def pack(model: Path) -> bytes:
    """Make ``model.tar.gz`` as SageMaker unpacks it into ``/opt/ml/model``: equal models, equal bytes.

    Parameters
    ----------
    model : pathlib.Path
        The ONNX file; it becomes ``model.onnx``.
    """
    content = model.read_bytes()
    # TarInfo's defaults are fixed: time 0, no owner.
    member = tarfile.TarInfo("model.onnx")
    member.size = len(content)
    file = io.BytesIO()
    with (
        gzip.GzipFile(filename="", mode="wb", fileobj=file, mtime=0) as packed,
        tarfile.open(fileobj=packed, mode="w", format=tarfile.USTAR_FORMAT) as tar,
    ):
        tar.addfile(member, io.BytesIO(content))
    return file.getvalue()


def deploy(wanted: Deployment, say: Callable[[str], None] = print) -> str:
    """Create the endpoint, or update it in place, and wait until it answers from the wanted model.

    If an earlier call with the same settings was interrupted, go on waiting for the endpoint that it left.

    Parameters
    ----------
    wanted : Deployment
        What to run, and where.
    say : callable
        Takes each line of what happened.

    Returns
    -------
    str
        Name of the endpoint configuration in service; the model has the same name.

    Raises
    ------
    CommandError
        SageMaker cannot run the image, or the endpoint failed (with AWS's reason) or is busy. What this call had
        created is removed again, except what an endpoint has or is changing to: an update that was rolled back
        leaves the endpoint on its earlier configuration, and waiting that ended early leaves everything.
    """
    image = _resolve_image(wanted.image_uri)
    s3: S3Client = boto3.client("s3")
    sagemaker: Any = boto3.client("sagemaker")
    name = wanted.endpoint_name
    if image != wanted.image_uri:
        say(f"{wanted.image_uri} is {image.partition('@')[2]}")

    url = _upload_model(s3, wanted, say)
    settings = _settings(wanted, image, url)
    config = f"{name}-{hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()[:12]}"

    current = _endpoint(sagemaker, name)
    status = current.get("EndpointStatus")
    if status == "InService" and current.get("EndpointConfigName") == config:
        say(f"endpoint {name} already serves {config}; nothing to do")
        return config
    if status == "Failed":
        # AWS allows nothing but deletion for an endpoint in this state.
        say(f"deleting endpoint {name}, which had failed: {current.get('FailureReason', 'no reason given')}")
    if status in ("Failed", "Deleting"):
        _delete_endpoint(sagemaker, name, status)
        current, status = {}, None

    undo: list[Callable[[], Any]] = []
    if status in (None, "InService"):
        try:
            _create_model(sagemaker, config, settings, undo, say)
            if status is None:
                say(f"creating endpoint {name}")
                sagemaker.create_endpoint(EndpointName=name, EndpointConfigName=config)
            else:
                say(f"updating endpoint {name} from {current['EndpointConfigName']} to {config}")
                sagemaker.update_endpoint(EndpointName=name, EndpointConfigName=config)
        except KeyboardInterrupt:
            raise CommandError(f"interrupted; nothing was removed, {_GO_ON_LATER}") from None
        except (ClientError, BotoCoreError) as error:
            if not isinstance(error, ClientError) or _is_transient(error) or _has_expired(error):
                raise CommandError(f"{_reason(error)}; nothing was removed, {_GO_ON_LATER}") from error
            # The SDK repeats a request whose answer got lost, and AWS then refuses the repetition.
            if _target(_endpoint(sagemaker, name)) != config:
                _clean_up(undo, say)
                raise
    elif _target(current) == config:
        say(f"endpoint {name} is {status} with {config} already")
        current = {}
    else:
        raise CommandError(f"endpoint {name} is {status}; wait until it is InService, then deploy again")

    final = _wait(sagemaker, name, _rollout(config, current))
    final_status = final.get("EndpointStatus")
    if final_status == "InService" and final.get("EndpointConfigName") == config:
        say(f"endpoint {name} is in service with {config}")
        return config
    # A configuration must stay while an endpoint has it, or is changing to it:
    # https://docs.aws.amazon.com/sagemaker/latest/APIReference/API_DeleteEndpointConfig.html
    if status is None and final_status == "Failed":
        _clean_up([*undo, lambda: _delete_endpoint(sagemaker, name, final_status)], say)
    elif final_status in (None, "InService"):
        _clean_up(undo, say)
    reason = final.get("FailureReason", "AWS gave no reason")
    raise CommandError(f"endpoint {name} is {final_status or 'gone'}, not serving {config}: {reason}")


def remove(name: str, say: Callable[[str], None] = print) -> None:
    """Delete an endpoint, and the configurations and models that `deploy` made for it.

    Parameters
    ----------
    name : str
        The endpoint.
    say : callable
        Takes one line per deleted thing.

    Raises
    ------
    CommandError
        There is neither an endpoint nor anything else of that name; or the waiting for its end was cut short, and
        the same call goes on with it.
    """
    check_name(name)
    sagemaker: Any = boto3.client("sagemaker")
    current = _endpoint(sagemaker, name)
    own = re.compile(re.escape(name) + "-[0-9a-f]{12}")
    pages = sagemaker.get_paginator("list_endpoint_configs").paginate(NameContains=name)
    found = {item["EndpointConfigName"] for page in pages for item in page["EndpointConfigs"]}
    configs = {config for config in found if own.fullmatch(config)}
    model_pages = sagemaker.get_paginator("list_models").paginate(NameContains=name)
    models = {item["ModelName"] for page in model_pages for item in page["Models"]}
    models = {model for model in models if own.fullmatch(model)}
    if not (current or configs or models):
        raise CommandError(f"there is no endpoint {name}, and no configuration or model of it, in this region")

    if current:
        status = current["EndpointStatus"]
        if status not in (*_SETTLED, "Deleting"):
            say(f"endpoint {name} is {status}; waiting, as AWS deletes no endpoint in this state")
            current = _wait(sagemaker, name, lambda seen: seen.get("EndpointStatus") in (None, *_SETTLED, "Deleting"))
            status = current.get("EndpointStatus")
        _delete_endpoint(sagemaker, name, status)
        say(f"deleted endpoint {name}")
    for config in sorted(configs):
        sagemaker.delete_endpoint_config(EndpointConfigName=config)
        say(f"deleted endpoint configuration {config}")
    for model in sorted(models):
        sagemaker.delete_model(ModelName=model)
        say(f"deleted model {model}")


def _resolve_image(uri: str) -> str:
    """Return an image by its digest; refuse one that SageMaker cannot run."""
    parts = _IMAGE.fullmatch(uri)
    assert parts
    ecr = boto3.client("ecr")
    here = ecr.meta.region_name
    if parts["region"] != here:
        # https://docs.aws.amazon.com/sagemaker/latest/APIReference/API_ContainerDefinition.html
        raise CommandError(
            f"the image {uri} is in {parts['region']}, and an endpoint in {here} needs it in {here}: push it there"
        )
    try:
        found = ecr.describe_images(
            registryId=parts["account"],
            repositoryName=parts["repository"],
            imageIds=[{"imageDigest": parts["digest"]} if parts["digest"] else {"imageTag": parts["tag"]}],
        )
    except ClientError as error:
        code = error.response["Error"]["Code"]
        if code in ("RepositoryNotFoundException", "ImageNotFoundException"):
            raise CommandError(f"ECR has no image {uri}; build and push it with: make image") from error
        if code == "AccessDeniedException":
            raise CommandError(
                f"these credentials may not describe the image {uri}; they need ecr:DescribeImages, for another "
                "account's repository in its policy too"
            ) from error
        raise
    image = found["imageDetails"][0]
    media_type = image.get("imageManifestMediaType", "of an unknown type")
    if media_type != _MANIFEST:
        raise CommandError(
            f"SageMaker cannot run the image {uri}: its manifest is {media_type}, and only {_MANIFEST} works; "
            "build and push it again with: make image"
        )
    return f"{parts[1]}@{image['imageDigest']}"


def _create_model(
    sagemaker: Any, name: str, settings: dict[str, Any], undo: list[Callable[[], Any]], say: Callable[[str], None]
) -> None:
    """Create the model and the configuration of this name, unless they exist."""
    if not _exists(sagemaker.describe_model, ModelName=name):
        sagemaker.create_model(ModelName=name, **settings["model"])
        undo.append(lambda: sagemaker.delete_model(ModelName=name))
        say(f"created model {name}")
    if not _exists(sagemaker.describe_endpoint_config, EndpointConfigName=name):
        sagemaker.create_endpoint_config(
            EndpointConfigName=name,
            ProductionVariants=[{**settings["variant"], "ModelName": name}],
            DataCaptureConfig=settings["capture"],
        )
        undo.append(lambda: sagemaker.delete_endpoint_config(EndpointConfigName=name))
        say(f"created endpoint configuration {name}")


def _clean_up(undo: list[Callable[[], Any]], say: Callable[[str], None]) -> None:
    """Remove what was created, the last first: the endpoint holds its configuration, and that the model."""
    try:
        for step in reversed(undo):
            step()
    except (CommandError, ClientError, BotoCoreError) as problem:
        say(f"could not clean up: {problem}")
    else:
        if undo:
            say("removed what this deployment had created")


def _delete_endpoint(sagemaker: Any, name: str, status: str | None) -> None:
    """Delete an endpoint, unless that has begun, and wait until it is gone."""
    if status not in (None, "Deleting"):
        sagemaker.delete_endpoint(EndpointName=name)
    _wait(sagemaker, name, lambda current: not current)


def _settings(wanted: Deployment, image: str, url: str) -> dict[str, Any]:
    """Everything that the model and the configuration say, except their names."""
    return {
        "model": {
            "ExecutionRoleArn": wanted.role_arn,
            "PrimaryContainer": {"Image": image, "ModelDataUrl": url},
        },
        "variant": {
            "VariantName": VARIANT,
            "InstanceType": wanted.instance_type,
            "InitialInstanceCount": wanted.instance_count,
            "InitialVariantWeight": 1.0,
        },
        "capture": {
            "EnableCapture": wanted.capture_percentage > 0,
            "InitialSamplingPercentage": wanted.capture_percentage,
            # Where the stack's drift check may read.
            "DestinationS3Uri": f"s3://{wanted.bucket}/capture",
            "CaptureOptions": [{"CaptureMode": "Input"}, {"CaptureMode": "Output"}],
            # Content types that are not listed, the images, are captured as base64.
            "CaptureContentTypeHeader": {"JsonContentTypes": ["application/json"]},
        },
    }


def _upload_model(s3: "S3Client", wanted: Deployment, say: Callable[[str], None]) -> str:
    archive = pack(wanted.model)
    digest = hashlib.sha256(archive)
    key = f"models/{wanted.endpoint_name}/{digest.hexdigest()}/model.tar.gz"
    url = f"s3://{wanted.bucket}/{key}"
    try:
        s3.head_bucket(Bucket=wanted.bucket)
    except ClientError as error:
        raise CommandError(
            f"bucket {wanted.bucket} does not exist, or these credentials may not use it: {error}"
        ) from error
    # The key is the content's hash, so whatever has the key has the content.
    if _exists(s3.head_object, Bucket=wanted.bucket, Key=key):
        say(f"{url} is there already")
        return url
    checksum = base64.b64encode(digest.digest()).decode()
    s3.put_object(Bucket=wanted.bucket, Key=key, Body=archive, ChecksumSHA256=checksum)
    say(f"uploaded {wanted.model} ({len(archive):,} bytes packed) to {url}")
    return url


def _exists(describe: Callable[..., Any], **what: str) -> bool:
    try:
        describe(**what)
    except ClientError as error:
        if _is_missing(error):
            return False
        raise
    return True


def _is_missing(error: ClientError) -> bool:
    # SageMaker has no error code of its own for what does not exist.
    detail = error.response.get("Error", {})
    return detail.get("Code") in ("404", "NoSuchKey", "ResourceNotFound") or (
        detail.get("Code") == "ValidationException" and "Could not find" in detail.get("Message", "")
    )


def _endpoint(sagemaker: Any, name: str) -> dict[str, Any]:
    """Describe the endpoint; an empty dictionary when there is none."""
    try:
        return dict(sagemaker.describe_endpoint(EndpointName=name))
    except ClientError as error:
        if _is_missing(error):
            return {}
        raise


def _target(endpoint: dict[str, Any]) -> str | None:
    """Return the name of the configuration that an endpoint has, or is changing to."""
    return endpoint.get("PendingDeploymentSummary", endpoint).get("EndpointConfigName")


def _rollout(config: str, before: dict[str, Any]) -> Callable[[dict[str, Any]], bool]:
    """Return a test that takes descriptions of an endpoint: has the change from ``before`` ended, well or not?"""
    begun = False

    def has_ended(current: dict[str, Any]) -> bool:
        nonlocal begun
        if not current:
            return begun or bool(before)
        status = current["EndpointStatus"]
        # Right after the request AWS may still describe the endpoint as it was, which looks like a change that was
        # rolled back.
        begun = begun or status != "InService" or current.get("LastModifiedTime") != before.get("LastModifiedTime")
        return status in _SETTLED and (begun or current["EndpointConfigName"] == config)

    return has_ended


def _wait(sagemaker: Any, name: str, has_ended: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
    """Describe the endpoint until that is what was waited for; an empty dictionary when it is gone."""
    started, pause = time.monotonic(), FIRST_POLL_SECONDS
    status, shown = "not described yet", 0
    try:
        with progress(f"wait for endpoint {name}", None, "seconds") as advance:
            while True:
                try:
                    current = _endpoint(sagemaker, name)
                    if has_ended(current):
                        return current
                    status = current.get("EndpointStatus", status)
                except (ClientError, BotoCoreError) as error:
                    if not _is_transient(error):
                        raise CommandError(f"endpoint {name} is {status}, but {_reason(error)}; {_GO_ON}") from error
                waited = time.monotonic() - started
                if waited > TIMEOUT_SECONDS:
                    raise CommandError(f"endpoint {name} is still {status} after {TIMEOUT_SECONDS:.0f} s; {_GO_ON}")
                advance(int(waited) - shown)
                shown = int(waited)
                time.sleep(pause)
                pause = min(2 * pause, LAST_POLL_SECONDS)
    except KeyboardInterrupt:
        raise CommandError(f"interrupted while endpoint {name} is {status}; {_GO_ON}") from None


def _code(error: Exception) -> str:
    return str(error.response["Error"]["Code"]) if isinstance(error, ClientError) else ""


def _is_transient(error: Exception) -> bool:
    """Whether the same request may succeed a little later."""
    if not isinstance(error, ClientError):
        return isinstance(error, ConnectionError | HTTPClientError)
    status = error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
    return (
        status >= 500
        or "Throttl" in _code(error)
        or _code(error) in ("TooManyRequestsException", "RequestLimitExceeded")
    )


def _has_expired(error: Exception) -> bool:
    """Whether the credentials were good before, and are no longer."""
    return _code(error) in ("ExpiredToken", "ExpiredTokenException", "RequestExpired")


def _reason(error: Exception) -> str:
    return "the AWS credentials have expired: renew them" if _has_expired(error) else f"AWS: {error}"
