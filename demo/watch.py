"""Traffic for the drift check of the demo, and the results of the check."""

import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

import boto3
from PIL import Image, ImageFilter

from common.errors import CommandError
from demo import drawing

Found = TypeVar("Found")

#: Only a hang takes this long.
LIMIT_SECONDS = 600


@dataclass(frozen=True)
class Checked:
    """The results of one check: the drifted features, the alarm's state, and the report's address."""

    violations: list[str]
    alarm: str
    report: str


def wait_for(find: Callable[[], Found | None], failure: str) -> Found:
    """Poll until a function returns something, and return that.

    Raises
    ------
    CommandError
        If it takes longer than `LIMIT_SECONDS`; its message is ``failure``.
    """
    deadline = time.monotonic() + LIMIT_SECONDS
    while not (found := find()):
        if time.monotonic() > deadline:
            raise CommandError(failure)
        time.sleep(0.05)
    return found


def out_of_focus(image: Image.Image) -> Image.Image:
    """Return the picture blurred, as by a lens out of focus."""
    return image.filter(ImageFilter.GaussianBlur(1.2))


def send(endpoint: str, bucket: str, seeds: range, change: Callable[[Image.Image], Image.Image] | None = None) -> None:
    """Send drawn vehicles to the endpoint, and wait until all are captured.

    Raises
    ------
    CommandError
        If some are never captured.
    """
    runtime = boto3.client("sagemaker-runtime")
    wanted = _captured(bucket) + len(seeds)
    for seed in seeds:
        draw = drawing.bicycle if seed % 2 else drawing.motorcycle
        image = draw(64, 48, seed)
        body = drawing.encoded(change(image) if change else image)
        runtime.invoke_endpoint(EndpointName=endpoint, Body=body, ContentType="image/png")
    wait_for(lambda: _captured(bucket) >= wanted, "The endpoint did not capture everything that was sent")


def _captured(bucket: str) -> int:
    s3 = boto3.client("s3")
    found = s3.list_objects_v2(Bucket=bucket, Prefix="capture/").get("Contents", [])
    return sum(s3.get_object(Bucket=bucket, Key=item["Key"])["Body"].read().count(b"\n") for item in found)


def check(outputs: dict[str, str], stack: str) -> Checked:
    """Start the drift check as its schedule does, and wait for its end and for the alarm.

    Raises
    ------
    CommandError
        If it fails, or does not end in time.
    """
    states = boto3.client("stepfunctions")
    execution = states.start_execution(stateMachineArn=outputs["MonitorWorkflowArn"], input="{}")["executionArn"]
    described = wait_for(
        lambda: seen if (seen := states.describe_execution(executionArn=execution))["status"] != "RUNNING" else None,
        f"The drift check did not end in {LIMIT_SECONDS} s",
    )
    if described["status"] != "SUCCEEDED":
        raise CommandError(f"The drift check failed: {described.get('error')}: {described.get('cause')}")
    folder = json.loads(described["output"])["check"]["folder"]
    body = boto3.client("s3").get_object(Bucket=outputs["ModelBucketName"], Key=f"{folder}/constraint_violations.json")
    violations = [violation["feature_name"] for violation in json.loads(body["Body"].read())["violations"]]
    alarm, cloudwatch = "ALARM" if violations else "OK", boto3.client("cloudwatch")
    wait_for(
        lambda: cloudwatch.describe_alarms(AlarmNamePrefix=f"{stack}-DriftAlarm", StateValue=alarm)["MetricAlarms"],
        f"DriftAlarm is not {alarm} {LIMIT_SECONDS} s after the drift check",
    )
    return Checked(violations, alarm, f"{folder}/report.html")
