"""Application Auto Scaling of an endpoint's variant, by target tracking."""

from dataclasses import dataclass
from typing import Any

import boto3

from training.deployment.settings import VARIANT

#: Requests a second that one worker answers with the committed network: ``python -m benchmarks.endpoint`` at 8
#: connections (benchmarks/README.md), rounded down to hundreds.
WORKER_RPS = 200
#: Workers that count on an ml.m5.xlarge. It runs four, on two cores with two hyperthreads each.
WORKERS = 2
#: AWS recommends to begin with it: https://docs.aws.amazon.com/sagemaker/latest/dg/endpoint-scaling-loadtest.html
SAFETY_FACTOR = 0.5
#: Invocations of one instance in a minute above which instances are added, by AWS's formula on that page.
DEFAULT_TARGET = int(WORKER_RPS * WORKERS * SAFETY_FACTOR * 60)
POLICY = "target-tracking"
# Adding an instance takes minutes; removing one too early would add it again.
_OUT_SECONDS, _IN_SECONDS = 60, 300


@dataclass(frozen=True)
class Scaling:
    """The least and the most instances, and the invocations of one instance in a minute that are aimed at."""

    least: int
    most: int
    target: float


def _variant(endpoint: str) -> dict[str, Any]:
    return {
        "ServiceNamespace": "sagemaker",
        "ResourceId": f"endpoint/{endpoint}/variant/{VARIANT}",
        "ScalableDimension": "sagemaker:variant:DesiredInstanceCount",
    }


def find_scaling(endpoint: str) -> Scaling | None:
    """Return how the endpoint is scaled, or None if it is not."""
    client: Any = boto3.client("application-autoscaling")
    variant = _variant(endpoint)
    targets = client.describe_scalable_targets(
        ServiceNamespace=variant["ServiceNamespace"],
        ResourceIds=[variant["ResourceId"]],
        ScalableDimension=variant["ScalableDimension"],
    )["ScalableTargets"]
    if not targets:
        return None
    policies = client.describe_scaling_policies(**variant)["ScalingPolicies"]
    values = [
        policy["TargetTrackingScalingPolicyConfiguration"]["TargetValue"]
        for policy in policies
        if "TargetTrackingScalingPolicyConfiguration" in policy
    ]
    return Scaling(targets[0]["MinCapacity"], targets[0]["MaxCapacity"], values[0] if values else DEFAULT_TARGET)


def apply_scaling(endpoint: str, scaling: Scaling) -> None:
    """Set how the endpoint is scaled."""
    client: Any = boto3.client("application-autoscaling")
    client.register_scalable_target(**_variant(endpoint), MinCapacity=scaling.least, MaxCapacity=scaling.most)
    client.put_scaling_policy(
        **_variant(endpoint),
        PolicyName=f"{endpoint}-{POLICY}",
        PolicyType="TargetTrackingScaling",
        TargetTrackingScalingPolicyConfiguration={
            "TargetValue": scaling.target,
            "PredefinedMetricSpecification": {"PredefinedMetricType": "SageMakerVariantInvocationsPerInstance"},
            "ScaleOutCooldown": _OUT_SECONDS,
            "ScaleInCooldown": _IN_SECONDS,
        },
    )


def remove_scaling(endpoint: str) -> None:
    """Deregister the endpoint's variant, which also deletes its policies and their alarms."""
    client: Any = boto3.client("application-autoscaling")
    client.deregister_scalable_target(**_variant(endpoint))
