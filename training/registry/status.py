"""What runs behind each endpoint: instances, model, capture, alarms, the last update, and the cost."""

import datetime
import re
from collections.abc import Callable
from functools import partial
from typing import Any

import boto3
from botocore.exceptions import ClientError
from rich.table import Table
from rich.text import Text

from common.command import console
from common.errors import CommandError
from common.model_data import model_data_url
from training.deployment.endpoint import describe_endpoint
from training.registry.packages import list_packages, short_name
from training.registry.prices import INSTANCE_HOURS, READ_ON

FIGURES = ("accuracy", "coverage", "selective_accuracy", "other_passing")

NOT_PERMITTED = "not permitted"

Status = dict[str, Any]


def get_status(endpoint_name: str | None = None) -> list[Status]:
    """Describe each variant, shadows too, of one endpoint, or of all in this region. Only reads.

    Returns
    -------
    list of dict
        Plain values, ready for JSON. None stands for what does not exist, and ``"not permitted"`` for what these
        credentials may not read.

    Raises
    ------
    CommandError
        There is no endpoint of that name.
    """
    sagemaker: Any = boto3.client("sagemaker")
    if endpoint_name:
        endpoint = describe_endpoint(sagemaker, endpoint_name)
        if not endpoint:
            raise CommandError(f"there is no endpoint {endpoint_name} in this region")
        return _describe(sagemaker, endpoint)
    pages = sagemaker.get_paginator("list_endpoints").paginate(SortBy="Name", SortOrder="Ascending")
    found: list[Status] = []
    for item in (item for page in pages for item in page["Endpoints"]):

        def describe(name: str = item["EndpointName"]) -> list[Status]:
            endpoint = describe_endpoint(sagemaker, name)
            return _describe(sagemaker, endpoint) if endpoint else []

        described = _permitted(describe)
        found += [_listed(item)] if described == NOT_PERMITTED else described
    return found


def _listed(item: dict[str, Any]) -> Status:
    """Return the status of an endpoint that these credentials may list, but not describe."""
    hidden = ("variant", "shadow", "configuration", "instance_type", "scaling", "package", "capture", "alarms")
    changed = item["LastModifiedTime"].isoformat(timespec="seconds")
    return {
        "endpoint": item["EndpointName"],
        "status": item["EndpointStatus"],
        **dict.fromkeys(hidden, NOT_PERMITTED),
        "instances": {"now": None, "wanted": None},
        "last_update": {"time": changed, "outcome": NOT_PERMITTED, "reason": None},
        "dollars_per_hour": None,
    }


def _describe(sagemaker: Any, endpoint: dict[str, Any]) -> list[Status]:
    name = endpoint["EndpointName"]
    config = sagemaker.describe_endpoint_config(EndpointConfigName=endpoint["EndpointConfigName"])
    kinds = ("ProductionVariants", "ShadowProductionVariants")
    running = {variant["VariantName"]: variant for kind in kinds for variant in endpoint.get(kind, [])}
    shared = {
        "capture": _capture(endpoint),
        "alarms": _permitted(partial(_alarms, name, endpoint)),
        "last_update": _last_update(endpoint, _newest_config(sagemaker, name, endpoint["EndpointConfigName"])),
    }
    variants = []
    shadows = config.get("ShadowProductionVariants", [])
    for configured in [*config["ProductionVariants"], *shadows]:
        variant = running.get(configured["VariantName"], {})
        instance_type = configured.get("InstanceType")
        now = variant.get("CurrentInstanceCount")
        price = INSTANCE_HOURS.get(str(instance_type))
        variants.append(
            {
                "endpoint": name,
                "status": endpoint["EndpointStatus"],
                "variant": configured["VariantName"],
                "configuration": endpoint["EndpointConfigName"],
                "shadow": configured in shadows,
                "instance_type": instance_type,
                "instances": {"now": now, "wanted": variant.get("DesiredInstanceCount")},
                "scaling": _permitted(partial(_limits, name, configured["VariantName"])),
                "package": _permitted(partial(package_of, sagemaker, name, configured["ModelName"])),
                **shared,
                "dollars_per_hour": round(price * now, 3) if price and now is not None else None,
            }
        )
    return variants


def _permitted(look: Callable[[], Any]) -> Any:
    """Return what a call finds, or that it is not permitted: one missing right must not hide all the rest."""
    try:
        return look()
    except ClientError as error:
        if error.response["Error"]["Code"] in ("AccessDenied", "AccessDeniedException"):
            return NOT_PERMITTED
        raise


def _limits(endpoint: str, variant: str) -> dict[str, int] | None:
    targets = boto3.client("application-autoscaling").describe_scalable_targets(
        ServiceNamespace="sagemaker", ResourceIds=[f"endpoint/{endpoint}/variant/{variant}"]
    )["ScalableTargets"]
    return {"least": targets[0]["MinCapacity"], "most": targets[0]["MaxCapacity"]} if targets else None


def package_of(sagemaker: Any, endpoint: str, model: str) -> dict[str, Any] | None:
    """Find the model package with the same ``model.tar.gz`` as a model: the newest approved one, or else the newest."""
    try:
        address = model_data_url(sagemaker, model)
    except CommandError:
        return None
    packages = list_packages(sagemaker, endpoint)
    for item in sorted(packages, key=lambda item: item.get("ModelApprovalStatus") != "Approved"):
        package = sagemaker.describe_model_package(ModelPackageName=item["ModelPackageArn"])
        if address in [each.get("ModelDataUrl") for each in package["InferenceSpecification"]["Containers"]]:
            properties = package.get("CustomerMetadataProperties", {})
            return {
                "name": short_name(item["ModelPackageArn"]),
                "approval": package.get("ModelApprovalStatus"),
                "approval_description": package.get("ApprovalDescription"),
                "commit": package.get("MetadataProperties", {}).get("CommitId"),
                **{name: float(properties[name]) for name in FIGURES if name in properties},
            }
    return None


def _capture(endpoint: dict[str, Any]) -> dict[str, Any] | None:
    summary = endpoint.get("DataCaptureConfig")
    if not summary:
        return None
    return {
        "status": summary["CaptureStatus"],
        "percentage": summary["CurrentSamplingPercentage"],
        "destination": summary["DestinationS3Uri"],
    }


def _alarms(name: str, endpoint: dict[str, Any]) -> dict[str, str]:
    """Return the state of each alarm that watches the endpoint, or that rolls its updates back."""
    rollback = endpoint.get("LastDeploymentConfig", {}).get("AutoRollbackConfiguration", {}).get("Alarms", [])
    names = {each["AlarmName"] for each in rollback}
    dimension = {"Name": "EndpointName", "Value": name}
    found = {}
    for page in boto3.client("cloudwatch").get_paginator("describe_alarms").paginate(AlarmTypes=["MetricAlarm"]):
        for alarm in page["MetricAlarms"]:
            parts = [query.get("MetricStat", {}).get("Metric", {}) for query in alarm.get("Metrics", [])]
            watched = [*alarm.get("Dimensions", []), *(each for part in parts for each in part.get("Dimensions", []))]
            if dimension in watched or alarm["AlarmName"] in names:
                found[alarm["AlarmName"]] = str(alarm["StateValue"])
    # `deploy` deletes its alarms after an update, and AWS keeps their names.
    missing = sorted(names) if "PendingDeploymentSummary" in endpoint else []
    return {**dict.fromkeys(missing, "does not exist"), **found}


def _newest_config(sagemaker: Any, endpoint: str, current: str) -> str | None:
    """Return the newest configuration that `deploy` made for an endpoint; shadows that have ended do not count."""
    pages = sagemaker.get_paginator("list_endpoint_configs").paginate(
        NameContains=endpoint, SortBy="CreationTime", SortOrder="Descending"
    )
    names = (item["EndpointConfigName"] for page in pages for item in page["EndpointConfigs"])
    own = (name for name in names if re.fullmatch(re.escape(endpoint) + "-[0-9a-f]{12}", name))

    def counts(name: str) -> bool:
        described = sagemaker.describe_endpoint_config
        return name == current or not described(EndpointConfigName=name).get("ShadowProductionVariants")

    return next(filter(counts, own), None)


def _last_update(endpoint: dict[str, Any], newest: str | None) -> dict[str, Any]:
    """Return when the endpoint changed last, and how that ended."""
    status, reason = endpoint["EndpointStatus"], endpoint.get("FailureReason")
    pending = endpoint.get("PendingDeploymentSummary")
    # A rollback leaves the earlier configuration in service:
    # https://docs.aws.amazon.com/sagemaker/latest/dg/deployment-guardrails-configuration.html
    if pending:
        outcome = f"{status} to {pending['EndpointConfigName']}"
    elif status == "InService":
        outcome = "failed and was rolled back" if reason else "succeeded"
        # AWS does not give a reason for every rollback.
        if not reason and newest not in (None, endpoint["EndpointConfigName"]):
            outcome = f"went back: {newest} is newer and not in service"
    else:
        outcome = status
    return {"time": endpoint["LastModifiedTime"].isoformat(timespec="seconds"), "outcome": outcome, "reason": reason}


def print_table(found: list[Status]) -> None:
    """Print one table with a column for each variant."""
    if not found:
        print("There is no endpoint in this region.")
        return
    table = Table("", *(f"{each['endpoint']} / {each['variant']}" for each in found))
    rows = [_shown(each) for each in found]
    for name in rows[0]:
        table.add_row(name, *(Text(row[name]) for row in rows))
    console().print(table)


def _shown(status: Status) -> dict[str, str]:
    scaling, package, capture, alarms = (status[name] for name in ("scaling", "package", "capture", "alarms"))
    now, wanted, kind = status["instances"]["now"], status["instances"]["wanted"], status["instance_type"]
    limits = f"{scaling['least']} to {scaling['most']}" if isinstance(scaling, dict) else scaling or "fixed"
    figures = [f"{name} {package[name]:g}" for name in FIGURES if name in package] if isinstance(package, dict) else []
    update, cost = status["last_update"], status["dollars_per_hour"]
    changed = datetime.datetime.fromisoformat(update["time"]).astimezone()
    return {
        "status": status["status"],
        "role": kind
        if kind == NOT_PERMITTED
        else "shadow: gets a copy of the requests, and its answers are only captured"
        if status["shadow"]
        else "answers the requests",
        "instances": kind
        if kind == NOT_PERMITTED
        else f"{'?' if now is None else now} now"
        + (f", {wanted} wanted" if wanted not in (None, now) else "")
        + f" ({limits}), {kind}",
        "model package": f"{package['name']}, {package['approval']}"
        if isinstance(package, dict)
        else package or "not registered",
        "figures": "\n".join(figures) or "–",
        "configuration": status["configuration"],
        "capture": f"{capture['status']}, {capture['percentage']}%\n{capture['destination']}"
        if isinstance(capture, dict)
        else capture or "off",
        "alarms": alarms
        if isinstance(alarms, str)
        else "\n".join(f"{state}: {name}" for name, state in alarms.items()) or "none",
        "last update": f"{changed:%Y-%m-%d %H:%M}, {update['outcome']}"
        + (f"\n{update['reason']}" if update["reason"] else ""),
        "cost": (kind if kind == NOT_PERMITTED else "unknown for this type")
        if cost is None
        else f"${cost:g} an hour (list price of us-east-1, {READ_ON})",
    }
