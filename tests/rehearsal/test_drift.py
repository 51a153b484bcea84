"""The drift check as it runs in production: started by the stack, on the endpoint's image, heard by operators."""

import io
import json
import sys
from collections.abc import Callable
from typing import Any

import pytest
from PIL import Image, ImageFilter

from demo import drawing
from tests.stack import Stack, deploy_endpoint, wait_for


def send(stack: Stack, seeds: range, change: Callable[[Image.Image], Image.Image] = lambda image: image) -> None:
    """Ask the endpoint about drawn vehicles, and wait until all of it is captured."""
    runtime = stack.rehearsal.client("sagemaker-runtime")
    before = captured(stack)
    for seed in seeds:
        draw = drawing.bicycle if seed % 2 else drawing.motorcycle
        buffer = io.BytesIO()
        change(draw(64, 48, seed)).save(buffer, "PNG")
        runtime.invoke_endpoint(EndpointName="image-classifier", Body=buffer.getvalue(), ContentType="image/png")
    wait_for(lambda: captured(stack) >= before + len(seeds))


def captured(stack: Stack) -> int:
    s3 = stack.rehearsal.client("s3")
    found = s3.list_objects_v2(Bucket=stack.bucket, Prefix="capture/").get("Contents", [])
    bodies = [s3.get_object(Bucket=stack.bucket, Key=item["Key"])["Body"].read() for item in found]
    return sum(body.count(b"\n") for body in bodies)


def check(stack: Stack) -> dict[str, Any]:
    """Start the check as the schedule does, and wait for its end."""
    return stack.rehearsal.outcome(stack.rehearsal.execute(stack.outputs["MonitorWorkflowArn"], {}))


@pytest.fixture(scope="module")
def mail(stack: Stack) -> Callable[[], list[dict[str, Any]]]:
    """Subscribe to the topic of alarms; return a reader of what has come since it was last asked."""
    sqs, sns = stack.rehearsal.client("sqs"), stack.rehearsal.client("sns")
    queue = sqs.create_queue(QueueName="operators")["QueueUrl"]
    arn = sqs.get_queue_attributes(QueueUrl=queue, AttributeNames=["QueueArn"])["Attributes"]["QueueArn"]
    sns.subscribe(TopicArn=stack.outputs["AlarmTopicArn"], Protocol="sqs", Endpoint=arn)

    def read() -> list[dict[str, Any]]:
        messages = sqs.receive_message(QueueUrl=queue, MaxNumberOfMessages=10).get("Messages", [])
        for message in messages:
            sqs.delete_message(QueueUrl=queue, ReceiptHandle=message["ReceiptHandle"])
        return [json.loads(json.loads(message["Body"])["Message"]) for message in messages]

    return read


def test_without_a_baseline_the_check_fails_by_name(stack: Stack) -> None:
    outcome = check(stack)
    assert (outcome["status"], outcome["error"]) == ("FAILED", "NoBaseline")
    assert "python -m monitoring baseline" in outcome["cause"]
    wait_for(lambda: stack.alarm("MonitorFailedAlarm") == "ALARM")


def test_clean_traffic_stays_green_and_drifted_traffic_is_named_and_heard(
    stack: Stack, mail: Callable[[], list[dict[str, Any]]]
) -> None:
    bucket = f"s3://{stack.bucket}"
    send(stack, range(100))
    stack.rehearsal.run(
        *(sys.executable, "-m", "monitoring", "baseline", "--captures", f"{bucket}/capture"),
        *("--output", f"{bucket}/monitoring/baseline/image-classifier"),
    )
    send(stack, range(100, 140))
    assert check(stack)["status"] == "SUCCEEDED"
    wait_for(lambda: stack.alarm("DriftAlarm") == "OK")
    assert not [message for message in mail() if "report" in message or message.get("NewStateValue") == "ALARM"]

    send(stack, range(140, 340), lambda image: image.filter(ImageFilter.GaussianBlur(1.2)))
    assert check(stack)["status"] == "SUCCEEDED"
    wait_for(lambda: stack.alarm("DriftAlarm") == "ALARM")
    heard: list[dict[str, Any]] = []

    def hear() -> bool:
        heard.extend(mail())
        return len(heard) >= 2

    wait_for(hear)
    (told,) = [message for message in heard if "report" in message]
    assert "sharpness" in {violation["feature_name"] for violation in told["violations"]}
    (raised,) = [message for message in heard if message.get("NewStateValue") == "ALARM"]
    assert "DriftAlarm" in raised["AlarmName"]
    key = told["report"].removeprefix(f"{bucket}/")
    page = stack.rehearsal.client("s3").get_object(Bucket=stack.bucket, Key=key)["Body"].read().decode()
    assert "sharpness" in page


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
