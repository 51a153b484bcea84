"""Alarms that watch the new fleet of an update; SageMaker rolls the update back if one goes off.

They exist during an update only: one on errors, one on latency, one on missing traffic, one on wrong answers to the
known images. CloudWatch starts the new fleet's metrics with its first request, so that an alarm on errors stays silent
without traffic.
"""

import re
from typing import Any

import boto3

from training.deployment.settings import VARIANT

#: Namespace of what `python -m training deploy` itself measures.
NAMESPACE = "ImageClassifier/Deployments"
#: SageMaker's metrics have one value a minute.
PERIOD_SECONDS = 60
MAX_ERROR_RATE = 0.01
_KINDS = ("errors", "latency", "no-traffic", "wrong-answers")


def fleet(endpoint: str, config: str) -> list[dict[str, str]]:
    """Return the dimensions of a configuration's own metrics."""
    return [{"Name": "EndpointName", "Value": endpoint}, {"Name": "EndpointConfigName", "Value": config}]


def alarm_names(config: str) -> list[str]:
    """Return the names of the alarms of a configuration's update."""
    return [f"{config}-{kind}" for kind in _KINDS]


def create_alarms(endpoint: str, config: str, max_latency_ms: int) -> list[str]:
    """Create the alarms on a configuration's new fleet, or set them again; return their names."""
    cloudwatch: Any = boto3.client("cloudwatch")
    names = errors, latency, no_traffic, wrong = alarm_names(config)
    new_fleet = [*fleet(endpoint, config), {"Name": "VariantName", "Value": VARIANT}]
    common: dict[str, Any] = {"EvaluationPeriods": 1, "TreatMissingData": "notBreaching"}
    metric: dict[str, Any] = {"Period": PERIOD_SECONDS, "Namespace": "AWS/SageMaker", "Dimensions": new_fleet}
    cloudwatch.put_metric_alarm(
        AlarmName=errors,
        AlarmDescription=f"In the new fleet of {endpoint} more than {MAX_ERROR_RATE:.0%} of the requests fail.",
        MetricName="Invocation5XXErrors",
        Statistic="Average",
        ComparisonOperator="GreaterThanThreshold",
        Threshold=MAX_ERROR_RATE,
        **metric,
        **common,
    )
    cloudwatch.put_metric_alarm(
        AlarmName=latency,
        AlarmDescription=f"The new model of {endpoint} takes more than {max_latency_ms} ms on average.",
        MetricName="ModelLatency",
        Statistic="Average",
        ComparisonOperator="GreaterThanThreshold",
        Threshold=max_latency_ms * 1000.0,  # microseconds
        **metric,
        **common,
    )

    def total(name: str, namespace: str, dimensions: list[dict[str, str]]) -> Any:
        metric = {"Namespace": namespace, "MetricName": name, "Dimensions": dimensions}
        return {"Metric": metric, "Period": PERIOD_SECONDS, "Stat": "Sum"}

    # A minute in which test requests were sent and none was received counts as 0; one without either has no value.
    # Two minutes: SageMaker's values may arrive later than ours.
    cloudwatch.put_metric_alarm(
        AlarmName=no_traffic,
        AlarmDescription=f"Requests are sent to {endpoint}, and none of them reaches the new fleet.",
        Metrics=[
            {
                "Id": "received",
                "MetricStat": total("Invocations", "AWS/SageMaker", new_fleet),
                "ReturnData": False,
            },
            {
                "Id": "sent",
                "MetricStat": total("TestRequests", NAMESPACE, fleet(endpoint, config)),
                "ReturnData": False,
            },
            {"Id": "traffic", "Expression": "SUM([received, 0 * sent])", "ReturnData": True},
        ],
        ComparisonOperator="LessThanThreshold",
        Threshold=1.0,
        **{**common, "EvaluationPeriods": 2},
    )
    cloudwatch.put_metric_alarm(
        AlarmName=wrong,
        AlarmDescription=f"The new model of {endpoint} answers known images wrongly.",
        MetricName="WrongAnswers",
        Statistic="Sum",
        ComparisonOperator="GreaterThanThreshold",
        Threshold=0.0,
        **{**metric, "Namespace": NAMESPACE, "Dimensions": fleet(endpoint, config)},
        **common,
    )
    return names


def tripped_alarms(config: str) -> dict[str, str]:
    """Return the alarms of a configuration's update that have gone off, each with its description."""
    cloudwatch: Any = boto3.client("cloudwatch")
    found = {}
    for alarm in cloudwatch.describe_alarms(AlarmNames=alarm_names(config))["MetricAlarms"]:
        name, since = alarm["AlarmName"], alarm["AlarmConfigurationUpdatedTimestamp"]
        # By the end of a rollback it may be over.
        history = cloudwatch.describe_alarm_history(AlarmName=name, HistoryItemType="StateUpdate", StartDate=since)
        past = [item["HistorySummary"] for item in history["AlarmHistoryItems"]]
        if alarm["StateValue"] == "ALARM" or any(summary.endswith("to ALARM") for summary in past):
            found[name] = alarm["AlarmDescription"].rstrip(".")
    return found


def alarms_of(endpoint: str) -> list[str]:
    """Return the names of the alarms that deployments of an endpoint have left."""
    cloudwatch: Any = boto3.client("cloudwatch")
    pages = cloudwatch.get_paginator("describe_alarms").paginate(AlarmNamePrefix=f"{endpoint}-")
    names = [alarm["AlarmName"] for page in pages for alarm in page["MetricAlarms"]]
    own = re.compile(f"{re.escape(endpoint)}-[0-9a-f]{{12}}-({'|'.join(_KINDS)})")
    return [name for name in names if own.fullmatch(name)]


def delete_alarms(names: list[str]) -> None:
    """Delete alarms; names without an alarm are no error."""
    cloudwatch: Any = boto3.client("cloudwatch")
    # Of a request with an unknown name, CloudWatch deletes nothing.
    for name in names:
        try:
            cloudwatch.delete_alarms(AlarmNames=[name])
        except cloudwatch.exceptions.ResourceNotFound:
            continue
