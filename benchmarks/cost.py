"""Estimate the cost per image: ``python -m benchmarks.cost``.

List prices of us-east-1 in US dollars, read in November 2026 from the services' price pages
(https://aws.amazon.com/step-functions/pricing/, …/lambda/pricing/, …/eventbridge/pricing/, …/s3/pricing/,
…/sagemaker/ai/pricing/, …/cloudwatch/pricing/, …/sqs/pricing/), without free tiers. Steps are counted in the workflow's
definition, alarms and dashboards in the template; durations are those of a warm x86 function of the same size, rounded
up. X-Ray's samples (about $0.25 per million images) are not included.
"""

import json
import sys
from pathlib import Path
from typing import Any

from samtranslator.yaml_helper import yaml_parse

from common.command import quietly

PER_TRANSITION = 25.00 / 1e6
PER_LAMBDA_REQUEST = 0.20 / 1e6
PER_GB_SECOND = 0.0000166667
PER_EVENT = 1.00 / 1e6
PER_S3_PUT, PER_S3_GET = 0.005 / 1e3, 0.0004 / 1e3
PER_LOG_GB = 0.50
PER_QUEUE_REQUEST = 0.40 / 1e6
ENDPOINT_HOUR = 0.23
#: Memory in GB (template.yaml) and seconds of each function.
FUNCTIONS = {"serialize": (1.0, 0.10), "classify": (0.5, 0.10), "filter": (0.25, 0.01)}
#: Bytes of logs that the three functions write per image.
LOG_BYTES = 6_000
#: Per month: one metric, one metric in an alarm, one dashboard. Per hour: the drift check's instance.
METRIC_MONTH, ALARM_METRIC_MONTH, DASHBOARD_MONTH, CHECK_HOUR = 0.30, 0.10, 3.00, 0.05
#: Metrics of the functions (8, and three by label) and of the drift check (3, and one by feature), with two labels.
METRICS = 8 + 3 * 2 + 3 + 11
#: Hours per month in which the instance of an hourly drift check runs.
CHECK_HOURS = 24 * 30 * 5 / 60
ROOT = Path(__file__).parents[1]


def transitions(states: dict[str, dict[str, Any]], start: str, review: bool) -> int:
    """Count the states that one image passes."""
    count, name = 0, start
    while True:
        count += 1
        state = states[name]
        catchers = [catcher for catcher in state.get("Catch", []) if "ThresholdNotMet" in catcher["ErrorEquals"]]
        if review and catchers:
            name = str(catchers[0]["Next"])
        elif "Next" in state:
            name = str(state["Next"])
        else:
            return count


def main() -> None:
    """Print the cost of an accepted image, of one below the threshold, of the endpoint, and of monitoring."""
    definition = json.loads((ROOT / "statemachine" / "classify.asl.json").read_text())
    functions = sum(PER_LAMBDA_REQUEST + memory * seconds * PER_GB_SECOND for memory, seconds in FUNCTIONS.values())
    # The upload's own event is charged like any other.
    storage = PER_S3_PUT + PER_S3_GET + PER_EVENT + LOG_BYTES / 1e9 * PER_LOG_GB
    for name, review, handed_on in (("accepted", False, PER_EVENT), ("to review", True, PER_QUEUE_REQUEST)):
        steps = transitions(definition["States"], definition["StartAt"], review)
        total = steps * PER_TRANSITION + functions + storage + handed_on
        print(
            f"{name:>9}: ${total * 1e6:.0f} per million images: "
            f"${steps * PER_TRANSITION * 1e6:.0f} for {steps} states, ${functions * 1e6:.0f} for functions, "
            f"${(storage + handed_on) * 1e6:.0f} for storage, logs and messages"
        )
    print(f"endpoint: ${ENDPOINT_HOUR:.2f} an hour for each ml.m5.xlarge, ${ENDPOINT_HOUR * 24 * 30:.0f} a month")
    resources = yaml_parse((ROOT / "template.yaml").read_text())["Resources"].values()
    alarms = [each["Properties"] for each in resources if each["Type"] == "AWS::CloudWatch::Alarm"]
    alarm_metrics = sum(sum("MetricStat" in query for query in alarm.get("Metrics", [])) or 1 for alarm in alarms)
    dashboards = sum(each["Type"] == "AWS::CloudWatch::Dashboard" for each in resources)
    monitoring = METRICS * METRIC_MONTH + alarm_metrics * ALARM_METRIC_MONTH + dashboards * DASHBOARD_MONTH
    print(
        f"watching: ${monitoring + CHECK_HOURS * CHECK_HOUR:.0f} a month: ${monitoring:.0f} for {METRICS} metrics, "
        f"{len(alarms)} alarms and {dashboards} dashboards, ${CHECK_HOURS * CHECK_HOUR:.0f} for an hourly drift check"
    )


if __name__ == "__main__":
    sys.exit(quietly(main))
