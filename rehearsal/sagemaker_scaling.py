"""Application Auto Scaling: the number of an endpoint's instances follows its load.

Every scalable target is evaluated once a second, by its load in the minute that ends now, as alarms are
(:mod:`rehearsal.cloudwatch_alarms`). AWS adds instances after three minutes above the target. It removes them after
fifteen below, which the rehearsal leaves out: only a lower maximum removes instances.
"""

import datetime
import logging
import math
import threading
import time
from typing import Any

from moto.applicationautoscaling.exceptions import AWSValidationException
from moto.applicationautoscaling.models import (
    ApplicationAutoscalingBackend,
    FakeScalableTarget,
    applicationautoscaling_backends,
)
from moto.cloudwatch.models import MetricDatum, cloudwatch_backends
from moto.core.utils import utcnow
from moto.sagemaker.models import sagemaker_backends

from rehearsal.patches import Difference, patch
from rehearsal.sagemaker_endpoints import SCALED, endpoints

log = logging.getLogger("rehearsal")

EVALUATION_SECONDS = 1.0
METRIC, LOAD = "SageMakerVariantInvocationsPerInstance", "InvocationsPerInstance"
#: For target tracking: https://docs.aws.amazon.com/autoscaling/application/APIReference/API_TargetTrackingScalingPolicyConfiguration.html
COOLDOWN_SECONDS = 300

SCALING = Difference(
    "endpoints_are_scaled",
    "scalable targets need no endpoint, leave their policies behind, and change no number of instances",
)


def start() -> None:
    """Evaluate every scalable target of this process from now on, about once a second."""
    threading.Thread(target=_watch, daemon=True).start()


@patch(ApplicationAutoscalingBackend, "register_scalable_target", SCALING)
def _register(
    original: Any, self: ApplicationAutoscalingBackend, namespace: str, r_id: str, *rest: Any, **named: Any
) -> Any:
    if namespace == "sagemaker":
        _, name, _, variant = (*r_id.split("/"), "", "", "")[:4]
        endpoint = sagemaker_backends[self.account_id][self.region_name].endpoints.get(name)
        known = [each["VariantName"] for each in endpoint.production_variants] if endpoint else []
        if variant not in known:
            raise AWSValidationException(f"Could not find endpoint or variant {r_id}.")
    return original(self, namespace, r_id, *rest, **named)


@patch(ApplicationAutoscalingBackend, "deregister_scalable_target", SCALING)
def _deregister(original: Any, self: ApplicationAutoscalingBackend, namespace: str, r_id: str, dimension: str) -> None:
    original(self, namespace, r_id, dimension)
    self.policies = {key: each for key, each in self.policies.items() if each.resource_id != r_id}


@patch(ApplicationAutoscalingBackend, "put_scaling_policy", SCALING)
def _put_policy(original: Any, self: ApplicationAutoscalingBackend, *arguments: Any, **named: Any) -> Any:
    policy = original(self, *arguments, **named)
    if policy.service_namespace == "sagemaker":
        key = next(key for key, each in self.policies.items() if each is policy)
        metric = (policy._policy_body or {}).get("PredefinedMetricSpecification", {}).get("PredefinedMetricType")
        if policy.resource_id not in self.targets.get(policy.scalable_dimension, {}):
            del self.policies[key]
            raise AWSValidationException(f"No scalable target registered for {policy.resource_id}")
        if policy.policy_type != "TargetTrackingScaling" or metric != METRIC:
            del self.policies[key]
            raise AWSValidationException(f"The rehearsal scales by target tracking of {METRIC}")
    return policy


def _watch() -> None:
    changed: dict[str, float] = {}
    while True:
        time.sleep(EVALUATION_SECONDS)
        for backend in [
            backend for regions in [*applicationautoscaling_backends.values()] for backend in regions.values()
        ]:
            for target in [*backend.targets.get(SCALED, {}).values()]:
                try:
                    _scale(backend, target, changed)
                except Exception:  # scale the others
                    log.exception("%s could not be scaled", target.resource_id)


def _scale(backend: ApplicationAutoscalingBackend, target: FakeScalableTarget, changed: dict[str, float]) -> None:
    _, name, _, variant = target.resource_id.split("/")
    endpoint = sagemaker_backends[backend.account_id][backend.region_name].endpoints.get(name)
    if endpoint is None or endpoint.endpoint_status != "InService":  # scaling waits for the end of an update
        return
    count = endpoint.production_variants[0]["CurrentInstanceCount"]
    wanted = count
    for policy in [*backend.policies.values()]:
        if policy.resource_id == target.resource_id:
            body: dict[str, Any] = policy._policy_body
            cooldown = body.get("ScaleOutCooldown", COOLDOWN_SECONDS)
            load = _load(backend, name, variant)
            if load > body["TargetValue"] and time.monotonic() - changed.get(name, -math.inf) >= cooldown:
                wanted = max(wanted, math.ceil(count * load / body["TargetValue"]))
    wanted = min(max(wanted, int(target.min_capacity or 0)), int(target.max_capacity or count))
    if wanted != count:
        changed[name] = time.monotonic()
        endpoints().resize(endpoint, wanted)


def _load(backend: ApplicationAutoscalingBackend, endpoint: str, variant: str) -> float:
    """Return the invocations of each instance in the last minute."""
    wanted = {("EndpointName", endpoint), ("VariantName", variant)}
    since = utcnow() - datetime.timedelta(minutes=1)
    return sum(
        datum.value
        for datum in reversed(cloudwatch_backends[backend.account_id][backend.region_name].metric_data)
        if isinstance(datum, MetricDatum)
        and datum.name == LOAD
        and datum.timestamp.replace(tzinfo=None) > since
        and {(dimension.name, dimension.value) for dimension in datum.dimensions} == wanted
    )
