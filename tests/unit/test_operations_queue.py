"""Renewing old messages: none is lost, whatever happens between two calls of SQS."""

import json
from collections.abc import Iterator
from typing import Any

import boto3
import pytest
from moto import mock_aws
from moto.sqs.models import sqs_backends

from common.errors import CommandError
from common.stack import Stack
from operations import queue
from operations.__main__ import main
from operations.queue import renew


@pytest.fixture
def stack(monkeypatch: pytest.MonkeyPatch) -> Iterator[Stack]:
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    monkeypatch.setattr(queue, "WAIT_SECONDS", 0)
    with mock_aws():
        sqs = boto3.client("sqs")
        outputs = {}
        for output, name in {"ReviewQueueUrl": "reviews", "FailureQueueUrl": "faults"}.items():
            made = sqs.create_queue(QueueName=name, Attributes={"MessageRetentionPeriod": "1209600"})
            outputs[output] = made["QueueUrl"]
        yield Stack("s", outputs, {})


def put(stack: Stack, output: str, body: str, young: bool = False) -> None:
    """Send a message. Old is what was sent before the command starts: young ones are of an hour later."""
    url = stack.output(output)
    attribute: Any = {"StringValue": body, "DataType": "String"}
    sent = boto3.client("sqs").send_message(QueueUrl=url, MessageBody=body, MessageAttributes={"mark": attribute})
    for message in messages(url) if young else ():
        if message.id == sent["MessageId"]:
            message.sent_timestamp += 3_600_000


def messages(url: str) -> list[Any]:
    """Return what moto holds of a queue."""
    return list(sqs_backends["123456789012"]["us-east-1"].queues[url.rsplit("/", 1)[-1]]._messages)


def bodies(stack: Stack, output: str) -> list[str]:
    """Return what a queue shows at this moment."""
    return sorted(message.body for message in messages(stack.output(output)) if message.visible)


def test_old_messages_become_young_ones_and_young_ones_stay(stack: Stack, capsys: pytest.CaptureFixture[str]) -> None:
    for number in range(23):
        put(stack, "ReviewQueueUrl", f"{number:02}", young=number < 14)
    put(stack, "FailureQueueUrl", "fault")
    before = {message.id: message.body for message in messages(stack.output("ReviewQueueUrl"))}
    renew(stack, 0)
    assert bodies(stack, "ReviewQueueUrl") == [f"{number:02}" for number in range(23)]
    assert bodies(stack, "FailureQueueUrl") == ["fault"]
    copies = [message for message in messages(stack.output("ReviewQueueUrl")) if message.id not in before]
    assert sorted(message.body for message in copies) == [f"{number:02}" for number in range(14, 23)]
    assert all(message.message_attributes["mark"] for message in copies)
    said = capsys.readouterr().out
    assert "9 reviews renewed; the queue holds about 23" in said and "1 faults renewed; the queue holds about 1" in said
    renew(stack, 7)
    assert "0 reviews renewed" in capsys.readouterr().out


@pytest.mark.parametrize("call", ["SendMessage", "DeleteMessage"])
@pytest.mark.parametrize("when", ["before", "after"])
def test_whatever_breaks_off_no_message_is_lost(
    stack: Stack, monkeypatch: pytest.MonkeyPatch, call: str, when: str
) -> None:
    put(stack, "ReviewQueueUrl", "first")
    put(stack, "ReviewQueueUrl", "second")
    sqs, real = boto3.client("sqs"), boto3.client

    def interrupt(**_: Any) -> None:
        raise KeyboardInterrupt

    event = {"before": "before-call", "after": "after-call"}[when]
    sqs.meta.events.register(f"{event}.sqs.{call}", interrupt)
    monkeypatch.setattr(boto3, "client", lambda name: sqs if name == "sqs" else real(name))
    with pytest.raises(CommandError, match="interrupted; 0 renewed, the rest stays in the queue"):
        renew(stack, 0)
    assert set(bodies(stack, "ReviewQueueUrl")) == {"first", "second"}, "each is there, and visible at once"


@pytest.mark.parametrize("days", ["-1", "14", "x", "nan"])
def test_days_are_checked(days: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        main(["renew", "--stack-name", "s", "--days", days])
    assert "is not a number of days" in capsys.readouterr().err


def test_the_command_renews_the_queues_of_a_stack(
    stack: Stack, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    outputs = {name: {"Value": url} for name, url in stack.outputs.items()}
    boto3.client("cloudformation").create_stack(
        StackName="classifier",
        TemplateBody=json.dumps({"Resources": {"Topic": {"Type": "AWS::SNS::Topic"}}, "Outputs": outputs}),
    )
    put(stack, "ReviewQueueUrl", "old")
    assert main(["renew", "--stack-name", "classifier"]) == 0
    assert "0 reviews renewed" in capsys.readouterr().out, "it is younger than a week"
    assert main(["renew", "--stack-name", "classifier", "--days", "0"]) == 0
    assert "1 reviews renewed" in capsys.readouterr().out
