"""The state machine that starts the workflow for an upload: once for each, whatever is announced twice or throttled."""

import json
import uuid
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from tests.support.stack import REPOSITORY, ROLE, Rehearsal, wait_for

BUCKET = "uploads-of-the-starter"
PASS = {"StartAt": "Only", "States": {"Only": {"Type": "Pass", "End": True}}}
WAIT = {"StartAt": "Only", "States": {"Only": {"Type": "Wait", "Seconds": 3600, "End": True}}}


def upload(**changes: Any) -> dict[str, Any]:
    """Return what S3 says of an upload."""
    told = {"key": 'incoming/"a" {b}.png', "size": 7, "etag": "0", "sequencer": "00617F08299329D189", **changes}
    return {"version": "0", "bucket": {"name": "images"}, "object": told}


class Starter:
    """A starter with a failure queue, and a workflow that may not exist yet."""

    def __init__(self, rehearsal: Rehearsal, change: Callable[[dict[str, Any]], None] = lambda states: None) -> None:
        self.rehearsal, self.name = rehearsal, f"workflow-{uuid.uuid4().hex[:8]}"
        self.states = rehearsal.client("stepfunctions")
        self.failures = rehearsal.client("sqs").create_queue(QueueName=self.name)["QueueUrl"]
        self.workflow = f"arn:aws:states:us-east-1:123456789012:stateMachine:{self.name}"
        text = (REPOSITORY / "statemachine" / "start.asl.json").read_text()
        values = {"Partition": "aws", "WorkflowArn": self.workflow, "FailureQueueUrl": self.failures}
        for name, value in values.items():
            text = text.replace(f"${{{name}}}", value)
        assert "${" not in text
        definition = json.loads(text)
        change(definition["States"])
        self.arn = self._create(f"starter-{self.name}", definition, "EXPRESS")

    def _create(self, name: str, definition: dict[str, Any], kind: str) -> str:
        made = self.states.create_state_machine(name=name, definition=json.dumps(definition), roleArn=ROLE, type=kind)
        return str(made["stateMachineArn"])

    def create_workflow(self, definition: dict[str, Any]) -> None:
        assert self._create(self.name, definition, "STANDARD") == self.workflow

    def announce(self, event: dict[str, Any]) -> dict[str, Any]:
        return dict(self.states.start_sync_execution(stateMachineArn=self.arn, input=json.dumps(event)))

    def executions(self) -> list[dict[str, Any]]:
        pages = self.states.get_paginator("list_executions").paginate(stateMachineArn=self.workflow)
        return [execution for page in pages for execution in page["executions"]]

    def messages(self) -> list[dict[str, Any]]:
        received = self.rehearsal.client("sqs").receive_message(QueueUrl=self.failures, MaxNumberOfMessages=10)
        return [json.loads(message["Body"]) for message in received.get("Messages", [])]


@pytest.mark.parametrize("definition", [PASS, WAIT], ids=["ended", "running"])
def test_an_upload_that_is_announced_again_starts_nothing(rehearsal: Rehearsal, definition: dict[str, Any]) -> None:
    starter = Starter(rehearsal)
    starter.create_workflow(definition)
    assert starter.announce(upload())["status"] == "SUCCEEDED"
    (execution,) = starter.executions()
    if definition is PASS:
        rehearsal.outcome(execution["executionArn"])
    # S3's second event of an upload may name another request.
    for again in (upload(), {**upload(), "request-id": "another"}):
        assert starter.announce(again)["status"] == "SUCCEEDED"
    assert starter.executions()[0]["executionArn"] == execution["executionArn"] and len(starter.executions()) == 1
    described = starter.states.describe_execution(executionArn=execution["executionArn"])
    assert json.loads(described["input"]) == upload(), "serialize gets the whole event"
    # The name is the request's id in the captured data, which may have 64 characters.
    assert len(execution["name"]) == 64 and not starter.messages()
    if definition is WAIT:
        starter.states.stop_execution(executionArn=execution["executionArn"])


def test_every_upload_starts_an_execution_even_of_the_same_bytes(rehearsal: Rehearsal) -> None:
    starter = Starter(rehearsal)
    starter.create_workflow(PASS)
    events = [
        upload(),
        upload(sequencer="00617F08299329D18A"),
        upload(key="incoming/b.png"),
        {**upload(), "bucket": {"name": "others"}},
        upload(**{"version-id": "v"}, sequencer="00617F08299329D18B"),
    ]
    without = upload()
    del without["object"]["sequencer"]
    events += [without, {**without, "object": {**without["object"], "etag": "1"}}]
    for event in events:
        answer = starter.announce(event)
        assert answer["status"] == "SUCCEEDED", answer
    assert len(starter.executions()) == len(events) and not starter.messages()


def test_an_upload_that_cannot_start_an_execution_reaches_the_failure_queue(rehearsal: Rehearsal) -> None:
    def hurry(states: dict[str, Any]) -> None:
        states["Start workflow"]["Retry"][1] |= {"MaxAttempts": 1}

    starter = Starter(rehearsal, hurry)
    answer = starter.announce(upload())
    assert (answer["status"], answer["error"]) == ("FAILED", "StepFunctions.StateMachineDoesNotExistException")
    (message,) = starter.messages()
    assert message == {
        "execution_id": answer["executionArn"],
        "s3_bucket": "images",
        "s3_key": upload()["object"]["key"],
        "error": answer["error"],
        "cause": answer["cause"],
    }


@pytest.fixture
def burst(rehearsal: Rehearsal) -> Iterator[Starter]:
    """A starter that a rule calls for each upload to a bucket; it tries for as long as Express allows."""

    def persist(states: dict[str, Any]) -> None:
        states["Start workflow"]["Retry"][1] |= {"MaxAttempts": 99}

    starter = Starter(rehearsal, persist)
    s3, events = rehearsal.client("s3"), rehearsal.client("events")
    s3.create_bucket(Bucket=BUCKET)
    s3.put_bucket_notification_configuration(Bucket=BUCKET, NotificationConfiguration={"EventBridgeConfiguration": {}})
    pattern = {"source": ["aws.s3"], "detail-type": ["Object Created"], "detail": {"bucket": {"name": [BUCKET]}}}
    events.put_rule(Name=BUCKET, EventPattern=json.dumps(pattern), State="ENABLED")
    target = {"Id": "starter", "Arn": starter.arn, "RoleArn": ROLE, "InputPath": "$.detail"}
    events.put_targets(Rule=BUCKET, Targets=[target])
    yield starter
    events.remove_targets(Rule=BUCKET, Ids=["starter"])
    events.delete_rule(Name=BUCKET)


def test_a_burst_that_cannot_start_at_once_starts_completely(rehearsal: Rehearsal, burst: Starter) -> None:
    """Every first attempt fails, as the workflow does not exist yet; a throttled one fails with another name."""
    keys = [f"incoming/{number:03}.png" for number in range(50)]
    s3 = rehearsal.client("s3")
    for key in keys:
        s3.put_object(Bucket=BUCKET, Key=key, Body=b"image")
    burst.create_workflow(PASS)
    started = wait_for(lambda: len(found := burst.executions()) >= len(keys) and found)
    texts = [burst.states.describe_execution(executionArn=each["executionArn"])["input"] for each in started]
    assert sorted(json.loads(text)["object"]["key"] for text in texts) == keys
    assert not burst.messages()
