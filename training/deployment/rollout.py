"""Update an endpoint under guard, and return it to the configuration that it had before.

What must outlast an interruption is in tags: the configuration that another one replaced, and the autoscaling of an
endpoint whose instance type is changing.
"""

from collections.abc import Callable
from typing import Any

import boto3

from common.errors import CommandError
from training.deployment.autoscaling import DEFAULT_TARGET, Scaling, apply_scaling, find_scaling, remove_scaling
from training.deployment.endpoint import describe_endpoint, exists, rollout_ended, tags_of, wait_for_endpoint
from training.deployment.guard import create_alarms
from training.deployment.settings import Deployment, check_name

#: Exit code of `deploy` when SageMaker has taken the update back.
EXIT_ROLLED_BACK = 3
REPLACES, SUSPENDED = "replaces", "suspended-autoscaling"
#: AWS documents up to 50 % of the fleet as a canary.
_CANARY_PART = 10
_MAX_EXECUTION_SECONDS = 3600


class RolledBackError(CommandError):
    """An update was taken back; the endpoint serves what it served before."""


def update_request(
    endpoint: str, config: str, instances: int, baking_seconds: int, alarms: list[str], retains_count: bool = True
) -> dict[str, Any]:
    """Build the request that updates an endpoint: a canary first where there are two instances or more.

    Parameters
    ----------
    endpoint, config : str
        The endpoint and its new configuration.
    instances : int
        The size of the new fleet.
    baking_seconds : int
        How long the alarms watch each step; the old fleet is kept as long again, ready to take the traffic back.
    alarms : list of str
        Alarms that roll the update back.
    retains_count : bool
        Whether the number of instances stays as it is, instead of the configuration's.
    """
    routing: dict[str, Any] = {"Type": "ALL_AT_ONCE", "WaitIntervalInSeconds": baking_seconds}
    if instances >= 2:
        size = {"Type": "INSTANCE_COUNT", "Value": max(1, instances // _CANARY_PART)}
        routing |= {"Type": "CANARY", "CanarySize": size}
    request = retaining(endpoint, config, retains_count)
    request["DeploymentConfig"] = {
        "BlueGreenUpdatePolicy": {
            "TrafficRoutingConfiguration": routing,
            "TerminationWaitInSeconds": baking_seconds,
            "MaximumExecutionTimeoutInSeconds": _MAX_EXECUTION_SECONDS,
        },
        "AutoRollbackConfiguration": {"Alarms": [{"AlarmName": name} for name in alarms]},
    }
    return request


def retaining(endpoint: str, config: str, retains_count: bool = True) -> dict[str, Any]:
    """Build the request for a new configuration that keeps what scaling has changed since the old one.

    Data capture is one of the properties that would be kept otherwise.
    """
    excluded = ["DataCaptureConfig", *([] if retains_count else ["DesiredInstanceCount"])]
    return {
        "EndpointName": endpoint,
        "EndpointConfigName": config,
        "RetainAllVariantProperties": True,
        "ExcludeRetainedVariantProperties": [{"VariantPropertyType": kind} for kind in excluded],
    }


def without_shadow(sagemaker: Any, current: dict[str, Any]) -> str:
    """Return the name of a described endpoint's configuration, or of the one that its shadow was added to."""
    name = str(current["EndpointConfigName"])
    if current.get("ShadowProductionVariants"):
        described = sagemaker.describe_endpoint_config(EndpointConfigName=name)
        old = tags_of(sagemaker, described["EndpointConfigArn"]).get(REPLACES)
        if old and exists(sagemaker.describe_endpoint_config, EndpointConfigName=old):
            return old
    return name


def start_update(
    sagemaker: Any, deployment: Deployment, current: dict[str, Any], config: str, report: Callable[[str], None]
) -> None:
    """Ask SageMaker to update the described endpoint, guarded by alarms; a shadow needs none."""
    name = deployment.endpoint_name
    # A rollback must not start a shadow again.
    old = without_shadow(sagemaker, current)
    if old != config:
        arn = sagemaker.describe_endpoint_config(EndpointConfigName=config)["EndpointConfigArn"]
        sagemaker.add_tags(ResourceArn=arn, Tags=[{"Key": REPLACES, "Value": old}])
    if deployment.shadow:
        # AWS does not document a canary for a new shadow, and callers keep the model that they have.
        sagemaker.update_endpoint(**retaining(name, config))
        return
    scaling = _suspend_for(sagemaker, current, config, report)
    (variant,) = current.get("ProductionVariants", [{}])
    retains = deployment.instance_count is None or scaling is not None
    wanted = deployment.instance_count or deployment.min_instances or 1
    instances = variant.get("DesiredInstanceCount", wanted) if retains else wanted
    alarms = create_alarms(name, config, deployment.max_latency_ms)
    sagemaker.update_endpoint(
        **update_request(name, config, instances, deployment.baking_seconds, alarms, retains),
    )


def _suspend_for(sagemaker: Any, current: dict[str, Any], config: str, report: Callable[[str], None]) -> Scaling | None:
    """Return the scaling of an endpoint, and suspend it if a configuration has another instance type."""
    name = current["EndpointName"]
    scaling = find_scaling(name)
    if scaling:
        # https://docs.aws.amazon.com/sagemaker/latest/dg/endpoint-scaling-update.html
        types = [_instance_type(sagemaker, each) for each in (current["EndpointConfigName"], config)]
        if types[0] != types[1]:
            value = f"{scaling.least}:{scaling.most}:{scaling.target:g}"
            sagemaker.add_tags(ResourceArn=current["EndpointArn"], Tags=[{"Key": SUSPENDED, "Value": value}])
            remove_scaling(name)
            report(f"suspended autoscaling of {name}, because its instance type changes")
    return scaling


def _instance_type(sagemaker: Any, config: str) -> str:
    described = sagemaker.describe_endpoint_config(EndpointConfigName=config)
    return str(described["ProductionVariants"][0]["InstanceType"])


def settle_scaling(
    sagemaker: Any, current: dict[str, Any], wanted: Scaling | None, report: Callable[[str], None]
) -> None:
    """Scale an endpoint that is in service as wanted, or else as before its instance type changed."""
    name, arn = current["EndpointName"], current["EndpointArn"]
    suspended = tags_of(sagemaker, arn).get(SUSPENDED)
    if suspended and wanted is None:
        least, most, target = suspended.split(":")
        wanted = Scaling(int(least), int(most), float(target))
    if wanted and find_scaling(name) != wanted:
        apply_scaling(name, wanted)
        report(
            f"{name} has {wanted.least} to {wanted.most} instances, for {wanted.target:g} invocations each in a minute"
        )
    if suspended:
        sagemaker.delete_tags(ResourceArn=arn, TagKeys=[SUSPENDED])


def wanted_scaling(deployment: Deployment) -> Scaling | None:
    """Return the scaling that the user asked for."""
    if deployment.max_instances is None:
        return None
    target = float(deployment.target_invocations or DEFAULT_TARGET)
    return Scaling(deployment.min_instances or 1, deployment.max_instances, target)


def rollback(name: str, report: Callable[[str], None] = print) -> str:
    """Return an endpoint to the configuration that its present one replaced, and wait until it serves it.

    If the endpoint has a shadow, this ends the shadow, and the model in service stays.

    The traffic moves at once and without alarms: that configuration has served before.

    Parameters
    ----------
    name : str
        The endpoint.
    report : callable
        Called with a line for each step.

    Returns
    -------
    str
        Name of the configuration in service.

    Raises
    ------
    CommandError
        There is no such endpoint, it is busy, no earlier configuration is recorded, or it does not start.
    """
    check_name(name)
    sagemaker: Any = boto3.client("sagemaker")
    current = describe_endpoint(sagemaker, name)
    if not current:
        raise CommandError(f"there is no endpoint {name} in this region")
    now, status = current["EndpointConfigName"], current["EndpointStatus"]
    described = sagemaker.describe_endpoint_config(EndpointConfigName=now)
    old = tags_of(sagemaker, described["EndpointConfigArn"]).get(REPLACES)
    pending = current.get("PendingDeploymentSummary", {}).get("EndpointConfigName")
    if not old or not exists(sagemaker.describe_endpoint_config, EndpointConfigName=old):
        raise CommandError(f"endpoint {name} serves {now}, and no earlier configuration is recorded; deploy the model")
    if status == "InService":
        earlier = sagemaker.describe_endpoint_config(EndpointConfigName=old)
        # Otherwise a second rollback would go on to what was replaced before. To end a shadow is no rollback.
        if not described.get("ShadowProductionVariants"):
            sagemaker.delete_tags(ResourceArn=earlier["EndpointConfigArn"], TagKeys=[REPLACES])
    elif pending != old:
        raise CommandError(f"endpoint {name} is {status}; wait until it is InService, then roll back")
    return_to(sagemaker, current, old, report)
    return old


def return_to(sagemaker: Any, current: dict[str, Any], old: str, report: Callable[[str], None]) -> None:
    """Return the described endpoint to an earlier configuration, unless it is on the way, and wait.

    Raises
    ------
    CommandError
        The endpoint does not serve it in the end.
    """
    name, status = current["EndpointName"], current["EndpointStatus"]
    if status == "InService":
        _suspend_for(sagemaker, current, old, report)
        report(f"returning endpoint {name} from {current['EndpointConfigName']} to {old}")
        sagemaker.update_endpoint(**retaining(name, old))
    final = wait_for_endpoint(sagemaker, name, rollout_ended(old, current if status == "InService" else {}))
    settle_scaling(sagemaker, final, None, report)
    if final.get("EndpointStatus") != "InService" or final.get("EndpointConfigName") != old:
        reason = final.get("FailureReason", "AWS gave no reason")
        raise CommandError(f"endpoint {name} is {final.get('EndpointStatus', 'gone')}, not serving {old}: {reason}")
    report(f"endpoint {name} is in service with {old}")
