"""Model packages: find them, approve or reject them, and find the one in service."""

import re
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import boto3
from botocore.exceptions import ClientError

from common.errors import CommandError
from common.model_data import model_data_url, unpack
from serving.model import Model
from training.deployment.endpoint import describe_endpoint

_NAME = re.compile(r"(?:arn:aws[a-z-]*:sagemaker:[a-z0-9-]+:\d{12}:model-package/)?([a-z0-9][a-z0-9-]*)/([1-9]\d*)")
#: https://docs.aws.amazon.com/sagemaker/latest/APIReference/API_UpdateModelPackage.html
MAX_DESCRIPTION = 1024


@dataclass(frozen=True)
class Served:
    """A model to compare with: its description for people, and where its ``model.tar.gz`` is."""

    name: str
    data_url: str


def short_name(arn: str) -> str:
    """Return ``GROUP/VERSION`` of a model package's ARN."""
    return arn.partition(":model-package/")[2]


def list_packages(sagemaker: Any, group: str) -> list[dict[str, Any]]:
    """Return the summaries of a group's model packages, the newest first; none if there is no such group."""
    pages = sagemaker.get_paginator("list_model_packages").paginate(ModelPackageGroupName=group)
    try:
        found = [item for page in pages for item in page["ModelPackageSummaryList"]]
    except ClientError as error:
        if is_unknown(error):
            return []
        raise
    return sorted(found, key=lambda item: int(item["ModelPackageVersion"]), reverse=True)


def find_package(sagemaker: Any, name: str) -> dict[str, Any]:
    """Describe a model package by its ARN or as ``GROUP/VERSION``.

    Raises
    ------
    CommandError
        The name has another form, or there is no such package.
    """
    match = _NAME.fullmatch(name)
    if not match:
        raise CommandError(f"{name!r} is not a model package; expected GROUP/VERSION, such as image-classifier/3")
    group, version = match[1], int(match[2])
    packages = list_packages(sagemaker, group)
    for item in packages:
        if item["ModelPackageVersion"] == version:
            return dict(sagemaker.describe_model_package(ModelPackageName=item["ModelPackageArn"]))
    versions = ", ".join(str(item["ModelPackageVersion"]) for item in packages) or "none"
    raise CommandError(f"there is no model package {group}/{version} in this region; versions of {group}: {versions}")


def decide(name: str, approved: bool, reason: str | None, report: Callable[[str], None] = print) -> None:
    """Approve or reject a model package.

    Parameters
    ----------
    name : str
        ``GROUP/VERSION`` or the ARN.
    approved : bool
        Whether the model may be deployed.
    reason : str or None
        Becomes the approval description; None keeps the present one.
    report : callable
        Called with a line for the result.

    Raises
    ------
    CommandError
        There is no such package; or a rejected one is to be approved without a reason.
    """
    sagemaker: Any = boto3.client("sagemaker")
    package = find_package(sagemaker, name)
    shown, before = short_name(package["ModelPackageArn"]), package.get("ModelApprovalStatus")
    status = "Approved" if approved else "Rejected"
    if before == status and reason is None:
        report(f"model package {shown} is {status} already; nothing to do")
        return
    if approved and before == "Rejected" and not reason:
        why = package.get("ApprovalDescription", "no reason was recorded")
        raise CommandError(f"model package {shown} was rejected: {why}; approve it with --reason, which is recorded")
    set_status(sagemaker, package["ModelPackageArn"], status, reason)
    report(f"model package {shown} is {status} (before: {before})")


def set_status(sagemaker: Any, arn: str, status: str, reason: str | None) -> None:
    """Set a package's approval status, and the description if there is a reason."""
    described = {"ApprovalDescription": shorten(reason, MAX_DESCRIPTION)} if reason else {}
    sagemaker.update_model_package(ModelPackageArn=arn, ModelApprovalStatus=status, **described)


def shorten(text: str, length: int) -> str:
    """Return a text on one line, of at most this length."""
    line = " ".join(text.split())
    return line if len(line) <= length else f"{line[: length - 1]}…"


def find_served(sagemaker: Any, endpoint_name: str) -> Served | None:
    """Return the model in service behind an endpoint; without one, the newest approved package of its group."""
    endpoint = describe_endpoint(sagemaker, endpoint_name)
    if endpoint.get("EndpointStatus") in ("InService", "Updating", "RollingBack", "SystemUpdating"):
        config = sagemaker.describe_endpoint_config(EndpointConfigName=endpoint["EndpointConfigName"])
        model = config["ProductionVariants"][0]["ModelName"]
        return Served(f"{model} in service behind {endpoint_name}", model_data_url(sagemaker, model))
    for item in list_packages(sagemaker, endpoint_name):
        if item.get("ModelApprovalStatus") == "Approved":
            package = sagemaker.describe_model_package(ModelPackageName=item["ModelPackageArn"])
            (container,) = package["InferenceSpecification"]["Containers"]
            return Served(f"{short_name(item['ModelPackageArn'])} approved last", container["ModelDataUrl"])
    return None


def unpack_approved(name: str, folder: Path) -> tuple[Path, str]:
    """Write the ONNX file of an approved model package into a folder.

    Parameters
    ----------
    name : str
        ``GROUP/VERSION`` or the ARN.
    folder : pathlib.Path
        An empty folder.

    Returns
    -------
    tuple
        The file, and the URI of the package's image.

    Raises
    ------
    CommandError
        There is no such package, or it is not approved.
    """
    package = find_package(boto3.client("sagemaker"), name)
    shown, status = short_name(package["ModelPackageArn"]), package.get("ModelApprovalStatus")
    if status != "Approved":
        raise CommandError(f"model package {shown} is {status}; approve it with: python -m training approve {shown}")
    (container,) = package["InferenceSpecification"]["Containers"]
    return unpack(container["ModelDataUrl"], folder), str(container["Image"])


def load_model(url: str) -> Model:
    """Load the model of a ``model.tar.gz``."""
    with tempfile.TemporaryDirectory() as folder:
        return Model(unpack(url, Path(folder)))


def is_unknown(error: ClientError) -> bool:
    """Return whether an error says that a model package or group does not exist."""
    detail = error.response.get("Error", {})
    # SageMaker has no specific error code for it.
    return detail.get("Code") in ("ResourceNotFound", "ValidationException") and bool(
        re.search("does not exist|not found|could not find", detail.get("Message", ""), re.IGNORECASE)
    )
