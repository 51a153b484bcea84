"""Traffic for the drift check of the demo, and the result of the check."""

import io
import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import boto3
from PIL import Image, ImageFilter

from demo import drawing

#: Limit for a step that hangs.
LIMIT_SECONDS = 600


@dataclass(frozen=True)
class Checked:
    """The result of one check: drifted features, the alarm's state, and the report's key."""

    violations: list[str]
    alarm: str
    report: str


class WatchError(Exception):
    """A check did not complete; the message has the reason."""


def out_of_focus(image: Image.Image) -> Image.Image:
    """Blur an image slightly, like a lens out of focus."""
    return image.filter(ImageFilter.GaussianBlur(1.2))


def send(endpoint: str, bucket: str, seeds: range, change: Callable[[Image.Image], Image.Image] | None = None) -> None:
    """Send drawn vehicles to the endpoint, and wait until all requests are captured.

    Raises
    ------
    WatchError
        If some are not captured in time.
    """
    runtime = boto3.client("sagemaker-runtime")
    expected = _captured(bucket) + len(seeds)
    for seed in seeds:
        draw = drawing.bicycle if seed % 2 else drawing.motorcycle
        image = draw(64, 48, seed)
        buffer = io.BytesIO()
        (change(image) if change else image).save(buffer, "PNG")
        runtime.invoke_endpoint(EndpointName=endpoint, Body=buffer.getvalue(), ContentType="image/png")
    deadline = time.monotonic() + LIMIT_SECONDS
    while _captured(bucket) < expected:
        if time.monotonic() > deadline:
            raise WatchError("The endpoint did not capture all requests")
        time.sleep(0.2)


def _captured(bucket: str) -> int:
    s3 = boto3.client("s3")
    found = s3.list_objects_v2(Bucket=bucket, Prefix="capture/").get("Contents", [])
    return sum(s3.get_object(Bucket=bucket, Key=item["Key"])["Body"].read().count(b"\n") for item in found)


def check(outputs: dict[str, str], stack: str) -> Checked:
    """Start the drift check as its schedule does; wait for its end, and for the alarm to follow.

    Raises
    ------
    WatchError
        If it fails, or does not end in time.
    """
    states = boto3.client("stepfunctions")
    execution = states.start_execution(stateMachineArn=outputs["MonitorWorkflowArn"], input="{}")["executionArn"]
    deadline = time.monotonic() + LIMIT_SECONDS
    while (described := states.describe_execution(executionArn=execution))["status"] == "RUNNING":
        if time.monotonic() > deadline:
            raise WatchError(f"The drift check did not end within {LIMIT_SECONDS} s")
        time.sleep(0.1)
    if described["status"] != "SUCCEEDED":
        raise WatchError(f"The drift check failed: {described.get('error')}: {described.get('cause')}")
    folder = json.loads(described["output"])["check"]["folder"]
    body = boto3.client("s3").get_object(Bucket=outputs["ModelBucketName"], Key=f"{folder}/constraint_violations.json")
    violations = [violation["feature_name"] for violation in json.loads(body["Body"].read())["violations"]]
    cloudwatch = boto3.client("cloudwatch")
    while True:
        (alarm,) = cloudwatch.describe_alarms(AlarmNamePrefix=f"{stack}-DriftAlarm")["MetricAlarms"]
        if alarm["StateValue"] == ("ALARM" if violations else "OK") or time.monotonic() > deadline:
            return Checked(violations, alarm["StateValue"], f"{folder}/report.html")
        time.sleep(0.1)


def fetch(bucket: str, key: str, path: Path) -> None:
    """Copy a report from S3."""
    path.write_bytes(boto3.client("s3").get_object(Bucket=bucket, Key=key)["Body"].read())
