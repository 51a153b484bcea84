"""Evaluate a model, judge it, and register it as a model package of its endpoint."""

import hashlib
import json
import re
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import boto3
from botocore.exceptions import ClientError

from common.errors import CommandError
from common.image_sets import find_sets
from common.storage import join, parse_s3, write
from serving.model import Model
from training.deployment.deploy import upload_model
from training.deployment.image import resolve_image
from training.deployment.settings import check_image_uri, check_name
from training.evaluation.evaluate import describe_set
from training.evaluation.metrics import METRICS, compute_metrics
from training.evaluation.predictions import predict
from training.provenance import commit
from training.registry.gate import Paired, compare, judge, read_gate
from training.registry.packages import MAX_DESCRIPTION, Served, find_served, load_model, set_status, short_name, shorten

# https://docs.aws.amazon.com/sagemaker/latest/APIReference/API_CreateModelPackage.html
_MAX_VALUE = 256


@dataclass(frozen=True)
class Registration:
    """The settings that the user gave.

    Attributes
    ----------
    endpoint_name : str
        The model package group has the same name.
    bucket : str
        For the model and its evaluation.
    image_uri : str
        The container's image in ECR.
    model : pathlib.Path
        The ONNX file.
    data : str
        The images to judge by, as ``python -m training evaluate --data`` takes them.
    gate : pathlib.Path
        The file of limits.
    threshold : float
        Lowest confidence that passes.
    target_accuracy, confidence_level : float
        As for `training.evaluation.threshold.recommend_threshold`.
    """

    endpoint_name: str
    bucket: str
    image_uri: str
    model: Path
    data: str
    gate: Path
    threshold: float
    target_accuracy: float
    confidence_level: float

    def __post_init__(self) -> None:
        check_name(self.endpoint_name)
        parse_s3(f"s3://{self.bucket}")
        check_image_uri(self.image_uri)


@dataclass(frozen=True)
class Registered:
    """A model package, its metrics and comparison, and the reasons to reject it; without any, it waits for approval."""

    arn: str
    metrics: dict[str, Any]
    comparison: list[Paired]
    reasons: list[str]


def register(wanted: Registration, report: Callable[[str], None] = print) -> Registered:
    """Evaluate and judge a model, and create a model package, which is rejected if the model does not pass.

    Parameters
    ----------
    wanted : Registration
        The settings.
    report : callable
        Called with a line for each step.

    Returns
    -------
    Registered
        The package and the judgement.

    Raises
    ------
    CommandError
        A model, image or file is missing, or SageMaker cannot run the image; or the labels differ from those of the
        model in service. Nothing is registered then.
    """
    gate = read_gate(wanted.gate)
    model = Model(wanted.model)
    image = resolve_image(wanted.image_uri)
    sagemaker: Any = boto3.client("sagemaker")
    served = find_served(sagemaker, wanted.endpoint_name)
    opponent = _load(served, model.labels) if served else None

    ((name, found),) = find_sets([wanted.data], model.labels).items()
    mine = predict(name, found.images, model, corrupted=False)
    comparison: list[Paired] = []
    before = None
    if served and opponent:
        theirs = predict(f"{name} by the model in service", found.images, opponent, corrupted=False)
        comparison = compare(mine, theirs, len(model.labels), wanted.threshold)
        before = compute_metrics(theirs.probabilities, theirs.targets, wanted.threshold)
    described = describe_set(mine, model.labels, wanted.threshold, wanted.target_accuracy, wanted.confidence_level)
    del described["robustness"]  # the images were not corrupted
    metrics = {metric: described[metric] for metric in METRICS}
    reasons = judge(metrics, comparison, gate)
    report(", ".join(f"{metric} {'–' if value is None else value}" for metric, value in metrics.items()))
    report(f"compared with {served.name}" if served else "nothing to compare with: no model in service, none approved")
    for each in comparison:
        report(f"  {each}")

    url = upload_model(wanted.bucket, wanted.endpoint_name, wanted.model, report)
    folder = url.rpartition("/")[0]
    evaluation = {
        "model_sha256": model.sha256,
        "labels": model.labels,
        "threshold": wanted.threshold,
        "compared_with": asdict(served) | {"metrics": before} if served else None,
        "comparison": [asdict(each) for each in comparison],
        "gate": asdict(gate),
        "rejected_because": reasons,
        "sets": {name: described},
    }
    content = json.dumps(evaluation, indent=1, allow_nan=False).encode()
    address = join(folder, f"evaluation-{hashlib.sha256(content).hexdigest()[:12]}.json")
    write(address, content, "application/json")
    report(f"uploaded the evaluation to {address}")

    facts = find_provenance(wanted.model, model.sha256)
    metadata = {
        **{metric: str(value) for metric, value in metrics.items() if value is not None},
        "threshold": str(wanted.threshold),
        "labels": " ".join(model.labels),
        "model_sha256": model.sha256,
        "data_sha256": facts["data_sha256"] or "unknown",
        "compared_with": served.name if served else "none",
    }
    arn = _create(
        sagemaker,
        wanted.endpoint_name,
        {
            "ModelPackageDescription": shorten(f"{wanted.model.name}: {_summary(metrics)}", MAX_DESCRIPTION),
            "InferenceSpecification": {
                "Containers": [{"Image": image, "ModelDataUrl": url}],
                "SupportedContentTypes": ["image/png", "image/jpeg"],
                "SupportedResponseMIMETypes": ["application/json"],
            },
            # CreateModelPackage takes no reason, and what is rejected must never wait for approval.
            "ModelApprovalStatus": "Rejected" if reasons else "PendingManualApproval",
            "ModelMetrics": {"ModelQuality": {"Statistics": {"ContentType": "application/json", "S3Uri": address}}},
            "CustomerMetadataProperties": {key: _as_metadata(value) for key, value in metadata.items()},
            **({"MetadataProperties": {"CommitId": facts["commit"]}} if facts["commit"] else {}),
        },
    )
    if reasons:
        set_status(sagemaker, arn, "Rejected", f"Does not pass {wanted.gate.name}: {'; '.join(reasons)}")
    report(f"registered {short_name(arn)} as {'Rejected' if reasons else 'PendingManualApproval'}")
    return Registered(arn, metrics, comparison, reasons)


def _load(served: Served, labels: list[str]) -> Model:
    """Load the model in service, which must have the same labels."""
    model = load_model(served.data_url)
    if model.labels != labels:
        raise CommandError(
            f"the model has the labels {','.join(labels)}, and {served.name} has {','.join(model.labels)}; "
            "give an endpoint with other labels another --endpoint-name"
        )
    return model


def find_provenance(path: Path, sha256: str) -> dict[str, str | None]:
    """Return the commit and the data's checksum that ``train`` wrote beside the model, if they are this model's."""
    try:
        metrics = json.loads((path.parent / "metrics.json").read_text())
    except (OSError, ValueError):
        metrics = {}
    own = metrics.get("model_sha256") == sha256
    return {
        "commit": metrics.get("commit") if own and metrics.get("commit") else commit(),
        "data_sha256": metrics.get("data_sha256") if own else None,
    }


def _create(sagemaker: Any, group: str, package: dict[str, Any]) -> str:
    try:
        sagemaker.create_model_package_group(
            ModelPackageGroupName=group, ModelPackageGroupDescription=f"Models of the endpoint {group}"
        )
    except ClientError as error:
        if "already exists" not in error.response["Error"]["Message"]:
            raise
    return str(sagemaker.create_model_package(ModelPackageGroupName=group, **package)["ModelPackageArn"])


def _as_metadata(value: str) -> str:
    """Return a value with AWS's few characters: letters, digits, spaces and ``_.:/=+-@``, without a comma."""
    return re.sub(r"[^\w .:/=+@-]", "-", value)[:_MAX_VALUE]


def _summary(metrics: dict[str, Any]) -> str:
    shown = ("accuracy", "coverage", "selective_accuracy", "other_passing")
    return ", ".join(f"{name} {metrics[name]}" for name in shown if metrics[name] is not None)
