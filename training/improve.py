"""Improve the model in service with reviewed images: stage, train, register, deploy, with stops for decisions.

Nothing is remembered between two runs except what these steps write. A round begins when labels are staged. It ends
when its model is rejected, in service, or overtaken by a model that was approved later.
"""

import hashlib
import json
import shutil
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import boto3

from common.errors import CommandError
from common.labels import NEITHER
from common.manifest import MANIFEST, read_manifest
from common.stack import Stack, find_stack
from common.storage import read
from training.dataset.reviewed import ReviewedSource
from training.dataset.staged import StagedSource
from training.dataset.staging import stage
from training.deployment.deploy import deploy
from training.deployment.endpoint import describe_endpoint
from training.deployment.rollout import RolledBackError, without_shadow
from training.deployment.settings import Deployment
from training.jobs.built_in import is_algorithm
from training.provenance import data_checksum
from training.registry.packages import find_served, list_packages, short_name, unpack_approved
from training.registry.register import Registration, find_provenance, register

#: Compared before and after.
FIGURES = ("accuracy", "coverage", "selective_accuracy", "other_passing")
_TARGET_ACCURACY = _CONFIDENCE_LEVEL = 0.95


@dataclass(frozen=True)
class Improvement:
    """The settings that the user gave.

    Attributes
    ----------
    stack_name : str
        Names the endpoint, the bucket, the labels and the threshold.
    data : pathlib.Path
        A staged folder, to which the reviewed images are added. Its test images judge the model.
    out : pathlib.Path
        Folder for the new staged folder and the model.
    network : str
        The network to train.
    epochs, folds : int or None
        None: as in its recipe.
    gate : pathlib.Path
        The file of limits.
    known_images : pathlib.Path or None
        As for `Deployment`.
    baking_seconds, max_latency_ms : int
        As for `Deployment`.
    """

    stack_name: str
    data: Path
    out: Path
    network: str
    epochs: int | None
    folds: int | None
    gate: Path
    known_images: Path | None
    baking_seconds: int
    max_latency_ms: int

    @property
    def staged(self) -> Path:
        """The folder of old and reviewed images."""
        return self.out / "staged"

    @property
    def model(self) -> Path:
        """The new model."""
        return self.out / "model" / "model.onnx"


def improve(wanted: Improvement, report: Callable[[str], None] = print) -> int:
    """Take the steps that are open, until a person must decide or the new model is in service.

    Parameters
    ----------
    wanted : Improvement
        The settings.
    report : callable
        Called with a line for each step. The last two are a sentence and the next command.

    Returns
    -------
    int
        0, or 1 if the gate has rejected the model of this call.

    Raises
    ------
    RolledBackError
        The update was taken back. The same call tries it again, unless the model is rejected.
    CommandError
        There is no such stack or endpoint, or a step failed. The same call continues with that step.
    """
    stack = find_stack(wanted.stack_name)
    sagemaker: Any = boto3.client("sagemaker")
    name = stack.output("EndpointName")
    if not describe_endpoint(sagemaker, name):
        raise CommandError(f"there is no endpoint {name} to improve; create it with: python -m training deploy")
    if is_algorithm(_settings_in_service(sagemaker, name)["image_uri"]):
        raise CommandError(f"endpoint {name} serves the built-in algorithm, with which no model can be compared")
    if _is_open(sagemaker, name, wanted):
        package = _find_package(sagemaker, name, wanted.staged)
    else:
        if not _stage_labels(wanted, stack, report):
            return 0
        package = None
    if package is None:
        train_once(wanted, report)
        settings = _settings_in_service(sagemaker, name)
        registration = Registration(
            name,
            stack.output("ModelBucketName"),
            settings["image_uri"],
            wanted.model,
            str(wanted.staged),
            wanted.gate,
            float(stack.parameter("Threshold")),
            _TARGET_ACCURACY,
            _CONFIDENCE_LEVEL,
        )
        register(registration, report)
        package = _find_package(sagemaker, name, wanted.staged)
        assert package
    shown = short_name(package["ModelPackageArn"])
    _report_figures(package, report)
    if package["ModelApprovalStatus"] == "Rejected":
        why = package.get("ApprovalDescription", "no reason was recorded")
        report(f"{shown} is rejected: {why}; review more images, then run this command again")
        report(f"next: {_review(stack)}")
        return 1
    if package["ModelApprovalStatus"] != "Approved":
        report(f"{shown} passed the gate and waits for a decision; after it, run this command again")
        report(f"next: python -m training approve {shown}")
        return 0
    with tempfile.TemporaryDirectory() as folder:
        model, image = unpack_approved(shown, Path(folder))
        settings = _settings_in_service(sagemaker, name) | {"image_uri": image, "model": model}
        guard = {key: getattr(wanted, key) for key in ("known_images", "baking_seconds", "max_latency_ms")}
        try:
            deploy(Deployment(name, stack.output("ModelBucketName"), **guard, **settings), report)
        except RolledBackError:
            report(f"{shown} was taken back; reject it, or run this command again to try again")
            report(f"next: python -m training reject {shown}")
            raise
    report(f"{shown} is in service; the next round begins with a review")
    report(f"next: {_review(stack)}")
    return 0


def _is_open(sagemaker: Any, name: str, wanted: Improvement) -> bool:
    """Return whether an earlier call has staged labels whose model is neither decided nor in service."""
    if not (wanted.staged / MANIFEST).is_file():
        return False
    package = _find_package(sagemaker, name, wanted.staged)
    if package is None:
        # Other images in the folder begin a new round.
        same = data_checksum(wanted.data) in [each["sha256"] for each in read_manifest(wanted.staged).sources]
        return same and bool(_new_labels(wanted))
    served = find_served(sagemaker, name)
    (container,) = package["InferenceSpecification"]["Containers"]
    if package["ModelApprovalStatus"] == "Rejected" or (served and served.data_url == container["ModelDataUrl"]):
        return False
    version = package["ModelPackageVersion"]
    return not any(
        item["ModelPackageVersion"] > version and item.get("ModelApprovalStatus") == "Approved"
        for item in list_packages(sagemaker, name)
    )


def _find_package(sagemaker: Any, group: str, staged: Path) -> dict[str, Any] | None:
    """Describe the newest model package that was trained on a staged folder."""
    data = data_checksum(staged)
    for item in list_packages(sagemaker, group):
        package = dict(sagemaker.describe_model_package(ModelPackageName=item["ModelPackageArn"]))
        if package.get("CustomerMetadataProperties", {}).get("data_sha256") == data:
            return package
    return None


def _stage_labels(wanted: Improvement, stack: Stack, report: Callable[[str], None]) -> bool:
    """Stage the reviewed images beside the others; return whether there are new ones."""
    before = read_manifest(wanted.data)
    if before.labels != stack.labels:
        mine, theirs = ",".join(before.labels), ",".join(stack.labels)
        raise CommandError(f"{wanted.data} has the labels {mine}, and stack {stack.name} has {theirs}")
    last = _contents(wanted.staged)
    try:
        reviewed = [ReviewedSource(stack.labels_uri)]
    except CommandError:  # it has no reviews
        reviewed = []
    if reviewed:
        stage([StagedSource(wanted.data)], before.labels, wanted.staged, None, reviewed)
        new = _new_labels(wanted)
        if new and _contents(wanted.staged) != last:
            counts = ", ".join(f"{new.count(label)} {label}" for label in (*before.labels, NEITHER))
            report(f"staged {counts} from {stack.labels_uri} beside {wanted.data}, in {wanted.staged}")
            return True
    attributes = boto3.client("sqs").get_queue_attributes(
        QueueUrl=stack.output("ReviewQueueUrl"), AttributeNames=["ApproximateNumberOfMessages"]
    )["Attributes"]
    report(
        f"there are no new labels in {stack.labels_uri}, and about {attributes['ApproximateNumberOfMessages']} images "
        "wait for review; label them, then run this command again"
    )
    report(f"next: {_review(stack)}")
    return False


def _contents(staged: Path) -> set[tuple[str, str, str]]:
    """Return the images of a staged folder, with label and split."""
    images = read_manifest(staged).images if (staged / MANIFEST).is_file() else []
    return {(entry.sha256, entry.label, entry.split) for entry in images}


def _new_labels(wanted: Improvement) -> list[str]:
    """Return the labels of the images that a review has added or changed."""
    known = {(entry.sha256, entry.label) for entry in read_manifest(wanted.data).images}
    return [entry.label for entry in read_manifest(wanted.staged).images if (entry.sha256, entry.label) not in known]


def _review(stack: Stack) -> str:
    return f"python -m operations review --stack-name {stack.name}"


def train_once(wanted: Improvement, report: Callable[[str], None]) -> None:
    """Train on the staged images, unless the model at hand comes from them.

    Raises
    ------
    CommandError
        This environment has no torch, or as for `training.fit.train.train`.
    """
    if wanted.model.is_file():
        digest = hashlib.sha256(wanted.model.read_bytes()).hexdigest()
        if find_provenance(wanted.model, digest)["data_sha256"] == data_checksum(wanted.staged):
            report(f"{wanted.model} was trained on these images")
            return
    try:
        from training.fit.network import load_recipe
        from training.fit.train import train
    except ModuleNotFoundError as error:
        raise CommandError(
            f"train needs {error.name}; run the same command in an environment with: pip install -r "
            "training/requirements.txt"
        ) from error
    chosen: dict[str, Any] = {
        key: value for key, value in (("epochs", wanted.epochs), ("folds", wanted.folds)) if value
    }
    recipe = replace(load_recipe(wanted.network), **chosen)
    checkpoints = wanted.out / "checkpoints"
    wanted.model.parent.mkdir(parents=True, exist_ok=True)
    train(wanted.staged, wanted.model, recipe, 0, _TARGET_ACCURACY, _CONFIDENCE_LEVEL, checkpoints)
    shutil.rmtree(checkpoints)
    report(f"trained {wanted.model}")


def _settings_in_service(sagemaker: Any, name: str) -> dict[str, Any]:
    """Return the settings of a `Deployment` that the endpoint has, except the model and the number of instances."""
    endpoint = describe_endpoint(sagemaker, name)
    # A shadow's configuration captures what its comparison needs.
    config = sagemaker.describe_endpoint_config(EndpointConfigName=without_shadow(sagemaker, endpoint))
    variant = config["ProductionVariants"][0]
    model = sagemaker.describe_model(ModelName=variant["ModelName"])
    capture = config.get("DataCaptureConfig", {})
    return {
        "role_arn": model["ExecutionRoleArn"],
        "image_uri": model["PrimaryContainer"]["Image"],
        "instance_type": variant["InstanceType"],
        "capture_percentage": capture["InitialSamplingPercentage"] if capture.get("EnableCapture") else 0,
        "network_isolation": model.get("EnableNetworkIsolation", False),
        "kms_key": config.get("KmsKeyId"),
    }


def _report_figures(package: dict[str, Any], report: Callable[[str], None]) -> None:
    """Report what the gate measured with the model in service and with the new one, on the same images."""
    evaluation = json.loads(read(package["ModelMetrics"]["ModelQuality"]["Statistics"]["S3Uri"]))
    ((_, after),) = evaluation["sets"].items()
    before = (evaluation["compared_with"] or {}).get("metrics") or {}
    report(f"{after['n']} test images with a label, {after['other_n']} without: in service, then the new model")
    for figure in FIGURES:
        report(f"  {figure:<18}  {_shown(before.get(figure))}  {_shown(after[figure])}")


def _shown(value: float | None) -> str:
    return "    –" if value is None else f"{value:.3f}"
