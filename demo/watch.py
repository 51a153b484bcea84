"""Traffic for the drift check of the demo, and the results of the check."""

import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import boto3
from PIL import Image, ImageFilter

from demo import drawing

#: Only a hang takes this long.
LIMIT_SECONDS = 600


@dataclass(frozen=True)
class Checked:
    """The results of one check: the drifted features, the alarm's state, and the report's address."""

    violations: list[str]
    alarm: str
    report: str


class WatchError(Exception):
    """A check did not finish; the message says why."""


def out_of_focus(image: Image.Image) -> Image.Image:
    """Return the picture blurred, as by a lens out of focus."""
    return image.filter(ImageFilter.GaussianBlur(1.2))


def send(endpoint: str, bucket: str, seeds: range, change: Callable[[Image.Image], Image.Image] | None = None) -> None:
    """Send drawn vehicles to the endpoint, and wait until all are captured.

    Raises
    ------
    WatchError
        If some are never captured.
    """
    runtime = boto3.client("sagemaker-runtime")
    wanted = _captured(bucket) + len(seeds)
    for seed in seeds:
        draw = drawing.bicycle if seed % 2 else drawing.motorcycle
        image = draw(64, 48, seed)
        body = drawing.encoded(change(image) if change else image)
        runtime.invoke_endpoint(EndpointName=endpoint, Body=body, ContentType="image/png")
    deadline = time.monotonic() + LIMIT_SECONDS
    while _captured(bucket) < wanted:
        if time.monotonic() > deadline:
            raise WatchError("The endpoint did not capture everything that was sent")
        time.sleep(0.2)


def _captured(bucket: str) -> int:
    s3 = boto3.client("s3")
    found = s3.list_objects_v2(Bucket=bucket, Prefix="capture/").get("Contents", [])
    return sum(s3.get_object(Bucket=bucket, Key=item["Key"])["Body"].read().count(b"\n") for item in found)


def check(outputs: dict[str, str], stack: str) -> Checked:
    """Start the drift check as its schedule does, and wait for its end and for the alarm.

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
            raise WatchError(f"The drift check did not end in {LIMIT_SECONDS} s")
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
