"""SQS's moves of dead letters and its metrics, and CloudWatch Logs' searches."""

import datetime
import time
from functools import partial
from typing import Any

from tests.conformance.behaviours import DOCS, World, behaviour, error_of, not_rehearsed
from tests.support.stack import wait_for

MOVES = "sqs/test_sqs_move_task"
LOGS = "logs/test_logs_filter_events"
PATTERNS = f"{DOCS}AmazonCloudWatch/latest/logs/FilterAndPatternSyntax.html"


def _dead_letters(world: World, name: str, *bodies: str) -> tuple[str, str]:
    """Return the ARNs of a queue and of its dead-letter queue, in which messages lie."""
    sqs = world.client("sqs")
    address = world.queue(f"{name}-dead")
    policy = f'{{"deadLetterTargetArn": "{world.queue_arn(f"{name}-dead")}", "maxReceiveCount": 1}}'
    world.queue(name, RedrivePolicy=policy)
    for body in bodies:
        sqs.send_message(QueueUrl=address, MessageBody=body)
    return world.queue_arn(name), world.queue_arn(f"{name}-dead")


@behaviour(
    "Queues",
    "StartMessageMoveTask without a destination sends dead letters back to their queue",
    MOVES,
    (
        ["a", "b"],
        {"Status": "COMPLETED", "ApproximateNumberOfMessagesMoved": 2, "ApproximateNumberOfMessagesToMove": 2},
        False,
    ),
)
def _(world: World) -> Any:
    _, dead = _dead_letters(world, "moved", "a", "b")
    world.client("sqs").start_message_move_task(SourceArn=dead)
    (listed,) = world.client("sqs").list_message_move_tasks(SourceArn=dead)["Results"]
    facts = {
        key: listed[key] for key in ("Status", "ApproximateNumberOfMessagesMoved", "ApproximateNumberOfMessagesToMove")
    }
    return sorted(world.messages("moved", 2)), facts, "DestinationArn" in listed


@behaviour("Queues", "StartMessageMoveTask to another queue", MOVES, (["a"], True))
def _(world: World) -> Any:
    _, dead = _dead_letters(world, "elsewhere", "a")
    world.queue("destination")
    destination = world.queue_arn("destination")
    world.client("sqs").start_message_move_task(SourceArn=dead, DestinationArn=destination)
    (listed,) = world.client("sqs").list_message_move_tasks(SourceArn=dead)["Results"]
    return world.messages("destination"), listed["DestinationArn"] == destination


@behaviour(
    "Queues",
    "a moved message is a new one: its age begins again",
    f"{DOCS}AWSSimpleQueueService/latest/SQSDeveloperGuide/sqs-configure-dead-letter-queue-redrive.html",
    (True, True),
)
def _(world: World) -> Any:
    sqs = world.client("sqs")
    _, dead = _dead_letters(world, "renewed")
    before = sqs.send_message(QueueUrl=world.queue("renewed-dead"), MessageBody="a")["MessageId"]
    time.sleep(0.05)
    moved = time.time() * 1000
    sqs.start_message_move_task(SourceArn=dead)
    received = {"QueueUrl": world.queue("renewed"), "MessageSystemAttributeNames": ["SentTimestamp"]}
    (message,) = sqs.receive_message(**received)["Messages"]
    return message["MessageId"] != before, float(message["Attributes"]["SentTimestamp"]) >= int(moved)


@behaviour(
    "Queues",
    "StartMessageMoveTask of a queue that is no dead-letter queue",
    MOVES,
    ("InvalidParameterValue", "Source queue must be configured as a Dead Letter Queue."),
)
def _(world: World) -> Any:
    world.queue("alive")
    return error_of(lambda: world.client("sqs").start_message_move_task(SourceArn=world.queue_arn("alive")))


@behaviour(
    "Queues",
    "StartMessageMoveTask to a queue that does not exist",
    MOVES,
    ("ResourceNotFoundException", "The resource that you specified for the DestinationArn parameter doesn't exist."),
)
def _(world: World) -> Any:
    _, dead = _dead_letters(world, "nowhere")
    move = {"SourceArn": dead, "DestinationArn": world.queue_arn("none")}
    return error_of(lambda: world.client("sqs").start_message_move_task(**move))


not_rehearsed(
    "Queues", "CancelMessageMoveTask", MOVES, lambda world: world.client("sqs").cancel_message_move_task(TaskHandle="a")
)


def _metric(world: World, name: str, queue: str, statistic: str) -> float:
    now = datetime.datetime.now(datetime.UTC)
    span = {"StartTime": now - datetime.timedelta(hours=1), "EndTime": now + datetime.timedelta(minutes=1)}
    found = world.client("cloudwatch").get_metric_statistics(
        Namespace="AWS/SQS",
        MetricName=name,
        Dimensions=[{"Name": "QueueName", "Value": queue}],
        Period=7200,
        Statistics=[statistic],
        **span,
    )["Datapoints"]
    return float(sum(point[statistic] for point in found))


@behaviour("Queues", "NumberOfMessagesSent", "cloudwatch/test_cloudwatch (aws_sqs_metrics)", 1.0)
def _(world: World) -> Any:
    world.client("sqs").send_message(QueueUrl=world.queue("counted-once"), MessageBody="a")
    return _metric(world, "NumberOfMessagesSent", "counted-once", "Sum")


@behaviour(
    "Queues",
    "ApproximateAgeOfOldestMessage grows while a message waits",
    f"{DOCS}AWSSimpleQueueService/latest/SQSDeveloperGuide/sqs-available-cloudwatch-metrics.html",
    True,
)
def _(world: World) -> Any:
    sqs = world.client("sqs")
    sqs.send_message(QueueUrl=world.queue("aging"), MessageBody="a")
    time.sleep(1.5)
    sqs.send_message(QueueUrl=world.queue("aging"), MessageBody="b")
    return wait_for(lambda: _metric(world, "ApproximateAgeOfOldestMessage", "aging", "Maximum") >= 1)


@behaviour(
    "Queues",
    "SentMessageSize",
    "cloudwatch/test_cloudwatch (aws_sqs_metrics)",
    5.0,
    differs="not measured, as all metrics of SQS but the three that alarms here use",
)
def _(world: World) -> Any:
    world.client("sqs").send_message(QueueUrl=world.queue("sized"), MessageBody="12345")
    return _metric(world, "SentMessageSize", "sized", "Maximum")


# --- Logs -----------------------------------------------------------------------------------------------------------


def _search(world: World, **asked: Any) -> Any:
    logs = world.client("logs")

    def make() -> str:
        logs.create_log_group(logGroupName="searched")
        logs.create_log_stream(logGroupName="searched", logStreamName="a")
        lines = ('{"level": "ERROR"}', "START in/a.png", "END")
        now = int(time.time() * 1000)
        events = [{"timestamp": now, "message": line} for line in lines]
        logs.put_log_events(logGroupName="searched", logStreamName="a", logEvents=events)
        return "searched"

    return logs.filter_log_events(logGroupName=world.once("log group", make), **asked)


def _found(world: World, pattern: str) -> int:
    return len(_search(world, filterPattern=pattern)["events"])


@behaviour(
    "Logs", "a word, a quoted phrase, either of two, all but one, and a condition on JSON", PATTERNS, [1, 1, 2, 2, 1]
)
def _(world: World) -> Any:
    patterns = ("START", '"in/a.png"', "?START ?END", "-END", '{ $.level = "ERROR" }')
    return [_found(world, pattern) for pattern in patterns]


@behaviour("Logs", "a word with a slash or a dot needs quotes", PATTERNS, ["InvalidParameterException"] * 2)
def _(world: World) -> Any:
    return [error_of(partial(_found, world, pattern))[0] for pattern in ("in/a", "a.png")]


@behaviour(
    "Logs",
    "a limit over 10,000",
    LOGS,
    (
        "InvalidParameterException",
        "1 validation error detected: Value '10001' at 'limit' failed to satisfy constraint: "
        "Member must have value less than or equal to 10000",
    ),
)
def _(world: World) -> Any:
    return error_of(lambda: _search(world, limit=10001))


@behaviour(
    "Logs",
    "a token that nobody gave out",
    LOGS,
    ("InvalidParameterException", "The specified nextToken is invalid."),
    differs="nothing is found",
)
def _(world: World) -> Any:
    return error_of(lambda: _search(world, nextToken="a"))


not_rehearsed(
    "Logs",
    "patterns of space-delimited fields",
    PATTERNS,
    lambda world: _found(world, "[ip, user]"),
)
