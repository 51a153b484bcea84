"""Deploy a model to a SageMaker endpoint, and remove it.

Models and endpoint configurations are named after a hash of their settings. Running the same command twice is therefore
one deployment, and a name never stands for two different things.
"""

import base64
import gzip
import hashlib
import io
import json
import re
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import boto3
from botocore.exceptions import BotoCoreError, ClientError

from common.command import explain_aws, has_expired
from common.errors import CommandError
from training.deployment.autoscaling import find_scaling, remove_scaling
from training.deployment.endpoint import (
    SETTLED,
    delete_endpoint,
    describe_endpoint,
    exists,
    is_transient,
    rollout_ended,
    tags_of,
    target_config,
    wait_for_endpoint,
)
from training.deployment.guard import alarm_names, alarms_of, delete_alarms, tripped_alarms
from training.deployment.image import resolve_image
from training.deployment.rollout import (
    REPLACES,
    RolledBackError,
    return_to,
    settle_scaling,
    start_update,
    wanted_scaling,
    without_shadow,
)
from training.deployment.settings import Deployment, as_shadow, check_name, sagemaker_settings
from training.deployment.smoke import Smoke, read_known_images

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

_MOST_NAMED = 3
_RUN_AGAIN = "run the same command again to continue"


def pack(model: Path) -> bytes:
    """Create ``model.tar.gz``, which SageMaker unpacks into ``/opt/ml/model``: equal models, equal bytes.

    Parameters
    ----------
    model : pathlib.Path
        The ONNX file; it becomes ``model.onnx``. An archive, as a training job leaves it, is returned as it is.
    """
    if model.name.endswith(".tar.gz"):
        return model.read_bytes()
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


def deploy(deployment: Deployment, report: Callable[[str], None] = print) -> str:
    """Create the endpoint, or update it under guard, and wait until it serves this model.

    An update starts a new fleet. Alarms watch it, and known images are sent to it; if an alarm goes off, SageMaker
    returns to the old fleet. A shadow is added to the model in service instead, which goes on to answer all requests;
    a later deployment of any model ends the shadow.

    If an earlier call with the same settings was interrupted, continue to wait for its endpoint.

    Parameters
    ----------
    deployment : Deployment
        The settings.
    report : callable
        Called with a line for each step.

    Returns
    -------
    str
        Name of the endpoint configuration in service; the model has the same name.

    Raises
    ------
    RolledBackError
        The update was taken back: an alarm went off, or the new fleet did not start.
    CommandError
        SageMaker cannot run the image, or the endpoint failed (with AWS's reason) or is busy. Resources that
        this call created are removed again, except those that an endpoint uses or is changing to: after a rollback
        the endpoint keeps its earlier configuration, and if the wait ended early, everything stays.
    """
    # Only SageMaker may describe the algorithm's image.
    image = deployment.image_uri if deployment.is_built_in else resolve_image(deployment.image_uri)
    sagemaker: Any = boto3.client("sagemaker")
    name = deployment.endpoint_name
    if image != deployment.image_uri:
        report(f"{deployment.image_uri} is {image.partition('@')[2]}")

    known = read_known_images(deployment.known_images, deployment.model) if deployment.known_images else []
    current = describe_endpoint(sagemaker, name)
    if current.get("EndpointStatus") == "Updating" and "PendingDeploymentSummary" not in current:
        report(f"waiting while the number of instances of {name} changes")
        current = wait_for_endpoint(
            sagemaker, name, lambda seen: seen.get("EndpointStatus") != "Updating" or "PendingDeploymentSummary" in seen
        )
    status = current.get("EndpointStatus")
    if deployment.shadow and status not in ("InService", "Updating"):
        raise CommandError(f"endpoint {name} is {status or 'not there'}; --shadow needs a model in service")
    url = upload_model(deployment.bucket, deployment.endpoint_name, deployment.model, report)
    settings = sagemaker_settings(deployment, image, url)
    if deployment.shadow:
        (variant,) = current["ProductionVariants"]
        present = sagemaker.describe_endpoint_config(EndpointConfigName=without_shadow(sagemaker, current))
        # The same command does nothing the second time, though the endpoint may have scaled in between.
        (variant,) = current.get("ShadowProductionVariants") or [variant]
        settings = as_shadow(settings, present, deployment.instance_count or variant["DesiredInstanceCount"])
    config = f"{name}-{hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()[:12]}"

    if status == "InService" and current.get("EndpointConfigName") == config:
        settle_scaling(sagemaker, current, wanted_scaling(deployment), report)
        delete_alarms(alarm_names(config))
        report(f"endpoint {name} already serves {config}; nothing to do")
        return config
    if status == "InService" and (tripped := tripped_alarms(config)):
        # An earlier call was interrupted, and did not see this.
        delete_alarms(alarm_names(config))
        raise RolledBackError(
            f"the last update of endpoint {name} to {config} was rolled back: {_sentence(tripped)}; "
            "to try again, run the same command again"
        )
    if status == "Failed":
        # AWS only allows deletion of an endpoint in this state.
        report(f"deleting endpoint {name}, which had failed: {current.get('FailureReason', 'no reason given')}")
    if status in ("Failed", "Deleting"):
        delete_endpoint(sagemaker, name, status)
        current, status = {}, None

    undo: list[Callable[[], Any]] = []
    if status in (None, "InService"):
        try:
            _create_model(sagemaker, config, settings, undo, report)
            if status is None:
                report(f"creating endpoint {name}")
                sagemaker.create_endpoint(EndpointName=name, EndpointConfigName=config)
            else:
                report(f"updating endpoint {name} from {current['EndpointConfigName']} to {config}")
                for shadow in current.get("ShadowProductionVariants", []):
                    report(f"{shadow['VariantName']}, which gets a copy of the requests, ends with that")
                undo.append(lambda: delete_alarms(alarm_names(config)))
                undo.append(lambda: settle_scaling(sagemaker, current, None, report))
                start_update(sagemaker, deployment, current, config, report)
        except KeyboardInterrupt:
            raise CommandError(f"interrupted; nothing was removed, {_RUN_AGAIN}") from None
        except (ClientError, BotoCoreError) as error:
            if not isinstance(error, ClientError) or is_transient(error) or has_expired(error):
                raise CommandError(f"AWS: {explain_aws(error)}; nothing was removed, {_RUN_AGAIN}") from error
            # The SDK retries a request whose response was lost, and AWS then rejects the retry.
            if target_config(describe_endpoint(sagemaker, name)) != config:
                _clean_up(undo, report)
                raise
    elif target_config(current) == config:
        report(f"endpoint {name} is {status} with {config} already")
        current = {}
    else:
        raise CommandError(f"endpoint {name} is {status}; wait until it is InService, then deploy again")

    smoke = Smoke(name, config, deployment.model, known)
    final = wait_for_endpoint(sagemaker, name, rollout_ended(config, current), smoke.send)
    final_status = final.get("EndpointStatus")
    serves = final_status == "InService" and final.get("EndpointConfigName") == config
    tripped = {} if serves else tripped_alarms(config)
    if final_status == "InService":
        delete_alarms(alarm_names(config))
        settle_scaling(sagemaker, final, wanted_scaling(deployment), report)
    if serves:
        smoke.check()
        if smoke.wrong:
            # The update has ended before an alarm could go off.
            reason = f"{config} answers known images wrongly: {'; '.join(smoke.wrong[:_MOST_NAMED])}"
            arn = sagemaker.describe_endpoint_config(EndpointConfigName=config)["EndpointConfigArn"]
            old = tags_of(sagemaker, arn).get(REPLACES)
            if old is None:
                raise CommandError(f"endpoint {name} is in service, but {reason}; remove it, or deploy another model")
            return_to(sagemaker, final, old, report)
            _clean_up(undo, report)
            raise RolledBackError(f"endpoint {name} was rolled back to {old}: {reason}")
        report(f"endpoint {name} is in service with {config}")
        if deployment.shadow:
            shadow = settings["variant"]["VariantName"]
            report(f"the model in service is the same, and {shadow} gets a copy of its requests")
            report(f"compare their answers with: python -m training compare --endpoint-name {name}")
            report(f"end the shadow with: python -m training rollback --endpoint-name {name}")
        return config
    # A configuration must stay while an endpoint has it, or is changing to it:
    # https://docs.aws.amazon.com/sagemaker/latest/APIReference/API_DeleteEndpointConfig.html
    if status is None and final_status == "Failed":
        _clean_up([*undo, lambda: delete_endpoint(sagemaker, name, final_status)], report)
    elif final_status in (None, "InService"):
        _clean_up(undo, report)
    reason = _sentence(tripped) or final.get("FailureReason") or "AWS gave no reason"
    if smoke.wrong:
        reason += f" ({'; '.join(smoke.wrong[:_MOST_NAMED])})"
    if final_status == "InService":
        raise RolledBackError(f"endpoint {name} was rolled back to {final['EndpointConfigName']}: {reason}")
    raise CommandError(f"endpoint {name} is {final_status or 'gone'}, not serving {config}: {reason}")


def _sentence(tripped: dict[str, str]) -> str:
    return "; ".join(f"alarm {name} went off: {reason}" for name, reason in tripped.items())


def remove(name: str, report: Callable[[str], None] = print) -> None:
    """Delete an endpoint, and its scaling, configurations, models and alarms that `deploy` made.

    Parameters
    ----------
    name : str
        The endpoint.
    report : callable
        Called with a line for each deleted resource.

    Raises
    ------
    CommandError
        There is no endpoint, configuration or model of that name; or the wait ended early, and the same call
        continues it.
    """
    check_name(name)
    sagemaker: Any = boto3.client("sagemaker")
    current = describe_endpoint(sagemaker, name)
    own = re.compile(re.escape(name) + "-[0-9a-f]{12}")
    pages = sagemaker.get_paginator("list_endpoint_configs").paginate(NameContains=name)
    found = {item["EndpointConfigName"] for page in pages for item in page["EndpointConfigs"]}
    configs = {config for config in found if own.fullmatch(config)}
    model_pages = sagemaker.get_paginator("list_models").paginate(NameContains=name)
    models = {item["ModelName"] for page in model_pages for item in page["Models"]}
    models = {model for model in models if own.fullmatch(model)}
    alarms = alarms_of(name)
    if not (current or configs or models or alarms):
        raise CommandError(f"there is no endpoint {name}, and no configuration or model of it, in this region")

    if current:
        if find_scaling(name):
            remove_scaling(name)
            report(f"deregistered the autoscaling of {name}")
        status = current["EndpointStatus"]
        if status not in (*SETTLED, "Deleting"):
            report(f"endpoint {name} is {status}; waiting, because AWS cannot delete an endpoint in this state")
            current = wait_for_endpoint(
                sagemaker, name, lambda seen: seen.get("EndpointStatus") in (None, *SETTLED, "Deleting")
            )
            status = current.get("EndpointStatus")
        delete_endpoint(sagemaker, name, status)
        report(f"deleted endpoint {name}")
    for config in sorted(configs):
        sagemaker.delete_endpoint_config(EndpointConfigName=config)
        report(f"deleted endpoint configuration {config}")
    for model in sorted(models):
        sagemaker.delete_model(ModelName=model)
        report(f"deleted model {model}")
    for alarm in alarms:
        delete_alarms([alarm])
        report(f"deleted alarm {alarm}")


def _create_model(
    sagemaker: Any, name: str, settings: dict[str, Any], undo: list[Callable[[], Any]], report: Callable[[str], None]
) -> None:
    """Create the model and the configuration of this name, unless they exist."""
    if not exists(sagemaker.describe_model, ModelName=name):
        sagemaker.create_model(ModelName=name, **settings["model"])
        undo.append(lambda: sagemaker.delete_model(ModelName=name))
        report(f"created model {name}")
    if not exists(sagemaker.describe_endpoint_config, EndpointConfigName=name):
        own = [{**settings["variant"], "ModelName": name}]
        present = settings.get("present")
        sagemaker.create_endpoint_config(
            EndpointConfigName=name,
            ProductionVariants=present or own,
            DataCaptureConfig=settings["capture"],
            **({"ShadowProductionVariants": own} if present else {}),
            **settings.get("volume", {}),
        )
        undo.append(lambda: sagemaker.delete_endpoint_config(EndpointConfigName=name))
        report(f"created endpoint configuration {name}")


def _clean_up(undo: list[Callable[[], Any]], report: Callable[[str], None]) -> None:
    """Remove created resources in reverse order: the endpoint uses its configuration, which uses the model."""
    try:
        for step in reversed(undo):
            step()
    except (CommandError, ClientError, BotoCoreError) as problem:
        report(f"could not clean up: {problem}")
    else:
        if undo:
            report("removed the resources that this deployment had created")


def upload_model(bucket: str, endpoint_name: str, model: Path, report: Callable[[str], None]) -> str:
    """Upload a model's archive, unless it is there; return its address, which contains the archive's hash."""
    s3: S3Client = boto3.client("s3")
    archive = pack(model)
    digest = hashlib.sha256(archive)
    key = f"models/{endpoint_name}/{digest.hexdigest()}/model.tar.gz"
    url = f"s3://{bucket}/{key}"
    try:
        s3.head_bucket(Bucket=bucket)
    except ClientError as error:
        raise CommandError(f"bucket {bucket} does not exist, or these credentials cannot use it: {error}") from error
    # The key contains the hash of the content, so an object with this key has this content.
    if exists(s3.head_object, Bucket=bucket, Key=key):
        report(f"{url} already exists")
        return url
    checksum = base64.b64encode(digest.digest()).decode()
    s3.put_object(Bucket=bucket, Key=key, Body=archive, ChecksumSHA256=checksum)
    report(f"uploaded {model} ({len(archive):,} bytes packed) to {url}")
    return url
