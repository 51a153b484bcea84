"""SageMaker: how an update moves an endpoint's traffic, and which alarms take it back.

Source: https://docs.aws.amazon.com/sagemaker/latest/dg/deployment-guardrails.html
"""

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from moto.cloudwatch.models import cloudwatch_backends
from moto.sagemaker.exceptions import ValidationError

ALARM_POLL_SECONDS = 0.1
DEFAULT_TIMEOUT_SECONDS = 28800
#: Of a fleet's instances, in percent: the smallest and the largest part of each way to shift traffic.
SIZES = {"CANARY": ("CanarySize", 0, 50), "LINEAR": ("LinearStepSize", 10, 50)}


@dataclass(frozen=True)
class Plan:
    """The steps of an update: fractions of the traffic, the waits after each and after the last, and the alarms."""

    shares: tuple[float, ...] = (1.0,)
    wait: float = 0.0
    termination_wait: float = 0.0
    timeout: float = DEFAULT_TIMEOUT_SECONDS
    alarms: tuple[str, ...] = ()

    def watch(self, seconds: float, began: float, account: str, region: str) -> str | None:
        """Wait, and return early with the reason to roll back: an alarm, or the update takes too long."""
        end = time.monotonic() + seconds
        while True:
            known = cloudwatch_backends[account][region].alarms
            tripped = [name for name in self.alarms if name in known and known[name].state_value == "ALARM"]
            if tripped:
                return f"The update was rolled back because of alarms in state ALARM: {', '.join(tripped)}."
            if time.monotonic() - began > self.timeout:
                return f"The update was rolled back because it took more than {self.timeout:.0f} seconds."
            if time.monotonic() >= end:
                return None
            time.sleep(ALARM_POLL_SECONDS)


def read_plan(config: dict[str, Any] | None, instances: int, has_alarm: Callable[[str], bool]) -> Plan:
    """Return the plan of a DeploymentConfig for a fleet of a number of instances.

    Raises
    ------
    ValidationError
        AWS documents that it refuses this, or the rehearsal does not support it.
    """
    if not config:
        return Plan()

    def check(valid: bool, message: str) -> None:
        if not valid:
            raise ValidationError(message)

    check("RollingUpdatePolicy" not in config, "The rehearsal shifts traffic by BlueGreenUpdatePolicy, not in batches")
    policy = config.get("BlueGreenUpdatePolicy") or {"TrafficRoutingConfiguration": {"Type": "ALL_AT_ONCE"}}
    routing = policy["TrafficRoutingConfiguration"]
    kind, wait = routing["Type"], routing.get("WaitIntervalInSeconds", 0)
    shares: tuple[float, ...] = (1.0,)
    if kind in SIZES:
        name, least, most = SIZES[kind]
        check(name in routing, f"{name} is required for traffic routing of type {kind}")
        size = routing[name]
        part = size["Value"] / (100 if size["Type"] == "CAPACITY_PERCENT" else instances)
        check(
            least <= 100 * part <= most,
            f"{name} must be between {least}% and {most}% of the variant's {instances} instances",
        )
        step = max(part, 1 / instances) if kind == "CANARY" else part
        shares = (step, 1.0) if kind == "CANARY" else (*(step * n for n in range(1, int(1 / step) + 1)),)
        shares = shares if shares[-1] >= 1.0 - 1e-9 else (*shares, 1.0)
    termination, timeout = policy.get("TerminationWaitInSeconds", 0), policy.get("MaximumExecutionTimeoutInSeconds")
    waits = len(shares) * wait + termination
    check(
        timeout is None or timeout > waits,
        f"MaximumExecutionTimeoutInSeconds must be greater than the sum of all waits ({waits})",
    )
    alarms = tuple(alarm["AlarmName"] for alarm in (config.get("AutoRollbackConfiguration") or {}).get("Alarms", []))
    for alarm in alarms:
        check(has_alarm(alarm), f"The alarm {alarm} does not exist")
    return Plan(shares, wait, termination, timeout or DEFAULT_TIMEOUT_SECONDS, alarms)
