"""Application Auto Scaling of an endpoint's variant, by target tracking."""

from dataclasses import dataclass
from typing import Any

import boto3

from training.deployment.settings import VARIANT

#: Invocations of one instance in a minute at which another is added; docs/decisions.md derives it.
DEFAULT_TARGET = 3000
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
