"""The drift check as it runs in production: started by the stack, on the endpoint's image, heard by operators."""

import json
import re
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from PIL import Image, ImageFilter

from demo import drawing
from tests.support.stack import STACK, Stack, deploy_endpoint, wait_for


def send(stack: Stack, seeds: range, change: Callable[[Image.Image], Image.Image] = lambda image: image) -> None:
    """Ask the endpoint about drawn vehicles, and wait until all of it is captured."""
    runtime = stack.rehearsal.client("sagemaker-runtime")
    before = captured(stack)
    for seed in seeds:
        draw = drawing.bicycle if seed % 2 else drawing.motorcycle
        body = drawing.encoded(change(draw(64, 48, seed)))
        runtime.invoke_endpoint(EndpointName="image-classifier", Body=body, ContentType="image/png")
    wait_for(lambda: captured(stack) >= before + len(seeds))


def captures(stack: Stack) -> dict[str, bytes]:
    """Return the files of captures by key."""
    s3 = stack.rehearsal.client("s3")
    pages = s3.get_paginator("list_objects_v2").paginate(Bucket=stack.bucket, Prefix="capture/")
    keys = [item["Key"] for page in pages for item in page.get("Contents", [])]
    return {key: s3.get_object(Bucket=stack.bucket, Key=key)["Body"].read() for key in keys}


def captured(stack: Stack) -> int:
    return sum(body.count(b"\n") for body in captures(stack).values())


def restore(stack: Stack, files: dict[str, bytes]) -> None:
    """Bring captures back to what they were, as time does with those of a drift that is over."""
    s3 = stack.rehearsal.client("s3")
    for key in captures(stack):
        s3.delete_object(Bucket=stack.bucket, Key=key)
    for key, body in files.items():
        s3.put_object(Bucket=stack.bucket, Key=key, Body=body)


def check(stack: Stack) -> dict[str, Any]:
    """Start the check as the schedule does, and wait for its end."""
    return stack.rehearsal.outcome(stack.rehearsal.execute(stack.outputs["MonitorWorkflowArn"], {}))


@dataclass
class Mail:
    """What the alarms' topic has sent, in order of time."""

    read: Callable[[], None]
    messages: list[dict[str, Any]] = field(default_factory=list)

    def of(self, alarm: str) -> list[dict[str, Any]]:
        """Return the messages of an alarm."""
        self.read()
        found = [message for message in self.messages if f"-{alarm}" in message.get("AlarmName", "")]
        return sorted(found, key=lambda message: message["StateChangeTime"])


@pytest.fixture(scope="module")
def mail(stack: Stack) -> Mail:
    """Subscribe a queue to the topic of alarms."""
    sqs, sns = stack.rehearsal.client("sqs"), stack.rehearsal.client("sns")
    queue = sqs.create_queue(QueueName="operators")["QueueUrl"]
    arn = sqs.get_queue_attributes(QueueUrl=queue, AttributeNames=["QueueArn"])["Attributes"]["QueueArn"]
    sns.subscribe(TopicArn=stack.outputs["AlarmTopicArn"], Protocol="sqs", Endpoint=arn)

    def read() -> None:
        while received := sqs.receive_message(QueueUrl=queue, MaxNumberOfMessages=10).get("Messages"):
            for message in received:
                sqs.delete_message(QueueUrl=queue, ReceiptHandle=message["ReceiptHandle"])
                received_mail.messages.append(json.loads(json.loads(message["Body"])["Message"]))

    received_mail = Mail(read)
    return received_mail


def test_without_a_baseline_the_check_fails_by_name(stack: Stack) -> None:
    outcome = check(stack)
    assert (outcome["status"], outcome["error"]) == ("FAILED", "NoBaseline")
    assert f"python -m monitoring baseline --stack-name {STACK} " in outcome["cause"]
    wait_for(lambda: stack.alarm("MonitorFailedAlarm") == "ALARM")


def test_an_endpoint_that_captured_nothing_is_checked_and_alarms_if_it_has_traffic(
    stack: Stack, tmp_path: Path
) -> None:
    restore(stack, {})
    for label, draw in (("bicycle", drawing.bicycle), ("motorcycle", drawing.motorcycle)):
        (tmp_path / label).mkdir()
        for seed in range(16):
            draw(64, 48, seed).save(tmp_path / label / f"{seed}.png")
    images = ("--images", str(tmp_path))
    stack.rehearsal.run(sys.executable, "-m", "monitoring", "baseline", "--stack-name", STACK, *images)
    assert check(stack)["status"] == "SUCCEEDED"
    dimensions = [
        {"Name": "EndpointName", "Value": "image-classifier"},
        {"Name": "VariantName", "Value": "AllTraffic"},
    ]
    invocations: Any = {"MetricName": "Invocations", "Dimensions": dimensions, "Value": 30, "Unit": "None"}
    stack.rehearsal.client("cloudwatch").put_metric_data(Namespace="AWS/SageMaker", MetricData=[invocations])
    wait_for(lambda: stack.alarm("CaptureAlarm") == "ALARM")


@pytest.fixture(scope="module")
def clean(stack: Stack, mail: Mail, tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """Make a baseline, and check traffic like it; return all that is captured then."""
    restore(stack, {})
    send(stack, range(100))
    stack.rehearsal.run(sys.executable, "-m", "monitoring", "baseline", "--stack-name", STACK)
    send(stack, range(100, 140))
    by_hand = ("--stack-name", STACK, "--newest", "40", "--output", str(tmp_path_factory.mktemp("check")))
    stack.rehearsal.run(sys.executable, "-m", "monitoring", "check", *by_hand)
    assert check(stack)["status"] == "SUCCEEDED"
    wait_for(lambda: stack.alarm("DriftAlarm") == "OK")
    return captures(stack)


@pytest.fixture(scope="module")
def drifted(stack: Stack, clean: dict[str, bytes]) -> dict[str, bytes]:
    """Send blurred images, and check them twice; return what was captured before."""
    send(stack, range(140, 340), lambda image: image.filter(ImageFilter.GaussianBlur(1.2)))
    assert check(stack)["status"] == "SUCCEEDED"
    wait_for(lambda: stack.alarm("DriftAlarm") == "ALARM")
    assert check(stack)["status"] == "SUCCEEDED"
    return clean


def report(stack: Stack, message: dict[str, Any]) -> str:
    """Return the page whose address a message has."""
    (key,) = re.findall(rf"s3://{stack.bucket}/(\S+\.html)", message["AlarmDescription"])
    page = stack.rehearsal.client("s3").get_object(Bucket=stack.bucket, Key=key)
    assert page["ContentType"].startswith("text/html")
    return str(page["Body"].read().decode())


def test_drift_is_told_once_when_it_begins_with_its_report(stack: Stack, mail: Mail, drifted: dict[str, bytes]) -> None:
    def begun() -> list[dict[str, Any]]:
        return [message for message in mail.of("DriftAlarm") if message["NewStateValue"] == "ALARM"]

    (message,) = wait_for(begun)
    assert "sharpness" in report(stack, message)
    assert "No drift detected" not in report(stack, message)


def test_an_endpoint_that_captures_nothing_is_a_fault(stack: Stack) -> None:
    deploy_endpoint(stack.rehearsal, stack.bucket, "--capture-percentage", "0")
    try:
        assert check(stack)["error"] == "DataCaptureOff"
    finally:
        deploy_endpoint(stack.rehearsal, stack.bucket)


def test_an_endpoint_that_is_not_there_is_a_fault(stack: Stack) -> None:
    stack.rehearsal.run(sys.executable, "-m", "training", "remove", "--endpoint-name", "image-classifier")
    try:
        outcome = check(stack)
        assert outcome["status"] == "FAILED"
        assert "image-classifier" in outcome["cause"]
    finally:
        deploy_endpoint(stack.rehearsal, stack.bucket)


def test_drift_is_told_once_more_when_it_ends(stack: Stack, mail: Mail, drifted: dict[str, bytes]) -> None:
    cloudwatch = stack.rehearsal.client("cloudwatch")
    (alarm,) = cloudwatch.describe_alarms(AlarmNamePrefix=f"{STACK}-DriftAlarm")["MetricAlarms"]
    names = [
        *("AlarmName", "AlarmDescription", "AlarmActions", "OKActions", "Namespace", "MetricName", "Dimensions"),
        *("Statistic", "EvaluationPeriods", "Threshold", "ComparisonOperator", "TreatMissingData"),
    ]
    # The check before this one, which found drift, is no minute ago.
    cloudwatch.put_metric_alarm(**{name: alarm[name] for name in names}, Period=10)
    restore(stack, drifted)
    assert check(stack)["status"] == "SUCCEEDED"
    wait_for(lambda: mail.of("DriftAlarm")[-1]["NewStateValue"] == "OK")
    states = [message["NewStateValue"] for message in mail.of("DriftAlarm")]
    assert states in (["ALARM", "OK"], ["OK", "ALARM", "OK"]), "OK may come first: the alarm's first data"
    assert "No drift detected" in report(stack, mail.of("DriftAlarm")[-1])
    assert all("AlarmName" in message for message in mail.messages), "the workflow sends nothing beside the alarm"
