"""CloudWatch: metrics that log lines, queues and workflows produce."""

import datetime
import json
import logging
import time
from typing import Any

from moto.cloudwatch.models import (
    CloudWatchBackend,
    MetricDatum,
    cloudwatch_backends,
)
from moto.logs.models import LogsBackend
from moto.sqs.models import SQSBackend, sqs_backends
from moto.stepfunctions.parser.backend.execution import BaseExecutionWorkerCommunication

from rehearsal.patches import gap, replace
from rehearsal.sqs import age_of_oldest

log = logging.getLogger("rehearsal")

#: A queue's depth is recorded when it changes, and else as often as this.
QUEUE_METRIC_SECONDS = 30


@gap("log lines in CloudWatch's embedded metric format become no metrics")
def log_lines_become_metrics() -> None:
    """Put the metrics that a line holds; a line that only looks like one is reported, and stays a line."""

    def logging_metrics(original: Any) -> Any:
        def put_log_events(
            backend: LogsBackend, log_group_name: str, log_stream_name: str, log_events: list[dict[str, Any]]
        ) -> Any:
            answer = original(backend, log_group_name, log_stream_name, log_events)
            for message in (event["message"] for event in log_events):
                if message.startswith("{") and '"CloudWatchMetrics"' in message:
                    try:
                        _put_embedded(cloudwatch_backends[backend.account_id][backend.region_name], json.loads(message))
                    except (ValueError, KeyError, TypeError, AttributeError):
                        log.exception("%s has a line with metrics that cannot be read: %s", log_group_name, message)
            return answer

        return put_log_events

    replace(LogsBackend, "put_log_events", logging_metrics)


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


@gap("queues and workflows count nothing, so that alarms on AWS's own metrics never hear of them")
def queues_and_workflows_count() -> None:
    """Record each message sent, and how each execution ended."""

    def sending(original: Any) -> Any:
        def send_message(backend: SQSBackend, queue_name: str, *rest: Any, **more: Any) -> Any:
            sent = original(backend, queue_name, *rest, **more)
            _count(backend, "AWS/SQS", "NumberOfMessagesSent", {"Name": "QueueName", "Value": queue_name})
            return sent

        return send_message

    def ending(original: Any) -> Any:
        def terminated(communication: BaseExecutionWorkerCommunication) -> None:
            original(communication)
            execution: Any = communication.execution
            name = f"Executions{execution.exec_status.name.title().replace('_', '')}"
            dimension = {"Name": "StateMachineArn", "Value": execution.state_machine.arn}
            _count(execution, "AWS/States", name, dimension)

        return terminated

    replace(SQSBackend, "send_message", sending)
    replace(BaseExecutionWorkerCommunication, "terminated", ending)


def _count(of: Any, namespace: str, name: str, dimension: dict[str, str]) -> None:
    """Record that something happened once in the account and region of ``of``."""
    backend = cloudwatch_backends[of.account_id][of.region_name]
    backend.metric_data.append(MetricDatum(namespace, name, 1, [dimension], None, "Count"))


def measure_queues(backend: CloudWatchBackend, depths: dict[str, tuple[int, float]]) -> None:
    """Record how many messages wait in each queue, and for how long, which moto does not; alarms on queues need it."""
    for queue in [*sqs_backends[backend.account_id][backend.region_name].queues.values()]:
        depth, (known, then) = queue.approximate_number_of_messages, depths.get(queue.queue_arn, (-1, 0.0))
        if depth != known or time.monotonic() - then > QUEUE_METRIC_SECONDS:
            depths[queue.queue_arn] = depth, time.monotonic()
            dimensions = [{"Name": "QueueName", "Value": queue.name}]
            name, age = "ApproximateNumberOfMessagesVisible", "ApproximateAgeOfOldestMessage"
            backend.metric_data.append(MetricDatum("AWS/SQS", name, depth, dimensions, None, "Count"))
            backend.metric_data.append(MetricDatum("AWS/SQS", age, age_of_oldest(queue), dimensions, None, "Seconds"))
