"""CloudWatch: metrics that log lines, queues, workflows and endpoints produce."""

import datetime
import json
import logging
import time
from typing import Any

from moto.cloudwatch.models import CloudWatchBackend, MetricDatum, cloudwatch_backends
from moto.core.utils import utcnow
from moto.logs.models import LogsBackend
from moto.sqs.models import SQSBackend, sqs_backends
from moto.stepfunctions.parser.backend.execution import BaseExecutionWorkerCommunication

from rehearsal.patches import Difference, patch
from rehearsal.sqs import age_of_oldest

log = logging.getLogger("rehearsal")

#: How often a queue's depth is recorded while it does not change.
QUEUE_METRIC_SECONDS = 30


COUNTED = Difference(
    "queues_and_workflows_record_metrics",
    "queues and workflows record no metrics, so alarms on AWS's own metrics get no data",
)


@patch(
    LogsBackend,
    "put_log_events",
    Difference("log_lines_become_metrics", "log lines in CloudWatch's embedded metric format become no metrics"),
)
def _put_log_events(
    original: Any, self: LogsBackend, log_group_name: str, log_stream_name: str, log_events: list[dict[str, Any]]
) -> Any:
    answer = original(self, log_group_name, log_stream_name, log_events)
    for message in (event["message"] for event in log_events):
        if message.startswith("{") and '"CloudWatchMetrics"' in message:
            try:
                _put_embedded(cloudwatch_backends[self.account_id][self.region_name], json.loads(message))
            except (ValueError, KeyError, TypeError, AttributeError):  # the line stays
                log.exception("Cannot read the metrics in a log line of %s: %s", log_group_name, message)
    return answer


def _put_embedded(backend: CloudWatchBackend, line: dict[str, Any]) -> None:
    # https://docs.aws.amazon.com/AmazonCloudWatch/latest/monitoring/CloudWatch_Embedded_Metric_Format_Specification.html
    taken = datetime.datetime.fromtimestamp(line["_aws"]["Timestamp"] / 1000, datetime.UTC).replace(tzinfo=None)
    for directive in line["_aws"]["CloudWatchMetrics"]:
        for names in directive.get("Dimensions") or [[]]:
            dimensions = [{"Name": name, "Value": str(line[name])} for name in names]
            for metric in directive["Metrics"]:
                value = line[metric["Name"]]
                values = [float(item) for item in (value if isinstance(value, list) else [value])]
                datum = {"MetricName": metric["Name"], "Values": values, "Timestamp": taken}
                datum |= {"Unit": metric.get("Unit", "None"), "Dimensions": dimensions}
                backend.put_metric_data(directive["Namespace"], [datum])


@patch(SQSBackend, "send_message", COUNTED)
def _send_message(original: Any, self: SQSBackend, queue_name: str, *rest: Any, **more: Any) -> Any:
    sent = original(self, queue_name, *rest, **more)
    _count(self, "AWS/SQS", "NumberOfMessagesSent", {"Name": "QueueName", "Value": queue_name})
    return sent


@patch(BaseExecutionWorkerCommunication, "terminated", COUNTED)
def _terminated(original: Any, self: BaseExecutionWorkerCommunication) -> None:
    original(self)
    execution: Any = self.execution
    name = f"Executions{execution.exec_status.name.title().replace('_', '')}"
    _count(execution, "AWS/States", name, {"Name": "StateMachineArn", "Value": execution.state_machine.arn})


def _count(of: Any, namespace: str, name: str, dimension: dict[str, str]) -> None:
    """Record that something happened once in the account and region of ``of``."""
    backend = cloudwatch_backends[of.account_id][of.region_name]
    backend.metric_data.append(MetricDatum(namespace, name, 1, [dimension], None, "Count"))


def measure_invocation(
    account: str, region: str, dimensions: dict[str, str], status: int, microseconds: float, instances: int
) -> None:
    """Record an endpoint's invocation, with and without the configuration among the dimensions.

    Source: https://docs.aws.amazon.com/sagemaker/latest/dg/monitoring-cloudwatch.html; the third dimension, and that it
    is there for the new fleet and the old one: deployment-guardrails-configuration.html.
    """
    backend, now = cloudwatch_backends[account][region], utcnow()
    values = {
        "Invocations": (1.0, "None"),
        "InvocationsPerInstance": (1.0 / instances, "None"),
        "Invocation4XXErrors": (float(400 <= status < 500), "None"),
        "Invocation5XXErrors": (float(status >= 500), "None"),
        "ModelLatency": (microseconds, "Microseconds"),
    }
    every = [{"Name": name, "Value": value} for name, value in dimensions.items()]
    for part in (every[:2], every):
        for name, (value, unit) in values.items():
            backend.metric_data.append(MetricDatum("AWS/SageMaker", name, value, part, now, unit))


def measure_queues(backend: CloudWatchBackend, depths: dict[str, tuple[int, float]]) -> None:
    """Record the number of messages in each queue and the age of the oldest, for alarms on queues."""
    for queue in [*sqs_backends[backend.account_id][backend.region_name].queues.values()]:
        depth, (known, then) = queue.approximate_number_of_messages, depths.get(queue.queue_arn, (-1, 0.0))
        if depth != known or time.monotonic() - then > QUEUE_METRIC_SECONDS:
            depths[queue.queue_arn] = depth, time.monotonic()
            dimensions = [{"Name": "QueueName", "Value": queue.name}]
            name, age = "ApproximateNumberOfMessagesVisible", "ApproximateAgeOfOldestMessage"
            backend.metric_data.append(MetricDatum("AWS/SQS", name, depth, dimensions, None, "Count"))
            backend.metric_data.append(MetricDatum("AWS/SQS", age, age_of_oldest(queue), dimensions, None, "Seconds"))
