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
from botocore.exceptions import ClientError

from .errors import CommandError
from .progress import progress

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
_IMAGE = re.compile(r"\d{12}\.dkr\.ecr\.[a-z0-9-]+\.amazonaws\.com(\.cn)?/[a-z0-9._/-]+(:[\w.-]+|@sha256:[0-9a-f]{64})")


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
        The endpoint failed (with AWS's reason), is busy, or took too long. What this call had created is
        removed again; an update leaves the endpoint on its earlier configuration.
    """
    s3: S3Client = boto3.client("s3")
    sagemaker: Any = boto3.client("sagemaker")
    name = wanted.endpoint_name

    url = _upload_model(s3, wanted, say)
    settings = _settings(wanted, url)
    config = f"{name}-{hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()[:12]}"

    current = _endpoint(sagemaker, name)
    status = current.get("EndpointStatus")
    if status == "InService" and current.get("EndpointConfigName") == config:
        say(f"endpoint {name} already serves {config}; nothing to do")
        return config
    if status == "Failed":
        # AWS allows nothing but deletion for an endpoint in this state.
        say(f"deleting endpoint {name}, which had failed: {current.get('FailureReason', 'no reason given')}")
        sagemaker.delete_endpoint(EndpointName=name)
        _wait(sagemaker, name, until_gone=True)
        status = None
    if status not in (None, "InService"):
        raise CommandError(f"endpoint {name} is {status}; wait until it is InService, then deploy again")

    undo: list[Callable[[], Any]] = []
    kept: list[Callable[[], Any]] = []
    try:
        if not _exists(sagemaker.describe_model, ModelName=config):
            sagemaker.create_model(ModelName=config, **settings["model"])
            undo.append(lambda: sagemaker.delete_model(ModelName=config))
            say(f"created model {config}")
        if not _exists(sagemaker.describe_endpoint_config, EndpointConfigName=config):
            variant = {**settings["variant"], "ModelName": config}
            sagemaker.create_endpoint_config(
                EndpointConfigName=config, ProductionVariants=[variant], DataCaptureConfig=settings["capture"]
            )
            undo.append(lambda: sagemaker.delete_endpoint_config(EndpointConfigName=config))
            say(f"created endpoint configuration {config}")
        if status is None:
            sagemaker.create_endpoint(EndpointName=name, EndpointConfigName=config)
            undo.append(lambda: sagemaker.delete_endpoint(EndpointName=name))
            say(f"creating endpoint {name}")
        else:
            sagemaker.update_endpoint(EndpointName=name, EndpointConfigName=config)
            # What an update rolls out must not be deleted under it; only its outcome can free it again.
            kept, undo = undo, []
            say(f"updating endpoint {name} from {current['EndpointConfigName']} to {config}")
        final = _wait(sagemaker, name)
        if status is not None and final.get("EndpointConfigName") != config:
            undo = kept
        if final.get("EndpointStatus") != "InService" or final.get("EndpointConfigName") != config:
            reason = final.get("FailureReason", "AWS gave no reason")
            raise CommandError(f"endpoint {name} is {final.get('EndpointStatus')}, not serving {config}: {reason}")
    except (CommandError, ClientError):
        # The endpoint holds its configuration, and that the model: undo in the opposite order.
        for step in reversed(undo):
            try:
                step()
            except ClientError as problem:
                say(f"could not clean up: {problem}")
        if undo:
            say("removed what this deployment had created")
        raise
    say(f"endpoint {name} is in service with {config}")
    return config


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
        There is neither an endpoint nor anything else of that name.
    """
    check_name(name)
    sagemaker: Any = boto3.client("sagemaker")
    current = _endpoint(sagemaker, name)
    own = re.compile(re.escape(name) + "-[0-9a-f]{12}")
    pages = sagemaker.get_paginator("list_endpoint_configs").paginate(NameContains=name)
    found = {item["EndpointConfigName"] for page in pages for item in page["EndpointConfigs"]}
    configs = {config for config in found if own.fullmatch(config)}
    if current:
        configs.add(current["EndpointConfigName"])
    model_pages = sagemaker.get_paginator("list_models").paginate(NameContains=name)
    models = {item["ModelName"] for page in model_pages for item in page["Models"]}
    models = {model for model in models if own.fullmatch(model)}
    if not (current or configs or models):
        raise CommandError(f"there is no endpoint {name}, and no configuration or model of it, in this region")

    if current:
        sagemaker.delete_endpoint(EndpointName=name)
        _wait(sagemaker, name, until_gone=True)
        say(f"deleted endpoint {name}")
    for config in sorted(configs):
        if _exists(sagemaker.describe_endpoint_config, EndpointConfigName=config):
            described = sagemaker.describe_endpoint_config(EndpointConfigName=config)
            models |= {v["ModelName"] for v in described["ProductionVariants"] if "ModelName" in v}
            sagemaker.delete_endpoint_config(EndpointConfigName=config)
            say(f"deleted endpoint configuration {config}")
    for model in sorted(models):
        if _exists(sagemaker.describe_model, ModelName=model):
            sagemaker.delete_model(ModelName=model)
            say(f"deleted model {model}")


def _settings(wanted: Deployment, url: str) -> dict[str, Any]:
    """Everything that the model and the configuration say, except their names."""
    return {
        "model": {
            "ExecutionRoleArn": wanted.role_arn,
            "PrimaryContainer": {"Image": wanted.image_uri, "ModelDataUrl": url},
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


def _wait(sagemaker: Any, name: str, until_gone: bool = False) -> dict[str, Any]:
    """Wait until the endpoint has settled (or is gone), and describe it."""
    started, pause = time.monotonic(), FIRST_POLL_SECONDS
    shown = 0
    with progress(f"wait for endpoint {name}", None, "seconds") as advance:
        while True:
            current = _endpoint(sagemaker, name)
            settled = current.get("EndpointStatus") in (
                "InService",
                "Failed",
                "OutOfService",
                "UpdateRollbackFailed",
            )
            if not current or (settled and not until_gone):
                return current
            waited = time.monotonic() - started
            if waited > TIMEOUT_SECONDS:
                raise CommandError(
                    f"endpoint {name} is still {current.get('EndpointStatus')} after {TIMEOUT_SECONDS:.0f} s"
                )
            advance(int(waited) - shown)
            shown = int(waited)
            time.sleep(pause)
            pause = min(2 * pause, LAST_POLL_SECONDS)
