"""Traffic for the drift check of the demo, and the results of the check."""

import io
import json
import random
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import boto3
from PIL import Image, ImageFilter

from common.errors import CommandError
from common.images import as_sent
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
    return image.filter(ImageFilter.GaussianBlur(max(image.size) / 53))


def picture(files: list[Path], seed: int) -> Image.Image:
    """Return one picture as the endpoint gets it: from the files, or drawn if there are none.

    The same seed returns the same picture. The files are taken in turns; each turn cuts other margins off, but as much.
    """
    if not files:
        return (drawing.bicycle if seed % 2 else drawing.motorcycle)(64, 48, seed)
    order = random.Random(0).sample(files, len(files))
    image = Image.open(io.BytesIO(as_sent(order[seed % len(files)].read_bytes()))).convert("RGB")
    width, height = (round(0.92 * edge) for edge in image.size)
    rng = random.Random(seed)
    left, top = rng.randint(0, image.width - width), rng.randint(0, image.height - height)
    return image.crop((left, top, left + width, top + height))


def send(endpoint: str, bucket: str, images: Iterable[Image.Image]) -> None:
    """Send images to the endpoint, and wait until all are captured.

    Raises
    ------
    CommandError
        If some are never captured.
    """
    runtime = boto3.client("sagemaker-runtime")
    wanted = _captured(bucket)
    for image in images:
        wanted += 1
        runtime.invoke_endpoint(EndpointName=endpoint, Body=drawing.encoded(image), ContentType="image/png")
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
    alarm, name, cloudwatch = "ALARM" if violations else "OK", f"{stack}-DriftAlarm", boto3.client("cloudwatch")
    wait_for(
        # moto heeds one filter, the prefix.
        lambda: (
            alarm in [each["StateValue"] for each in cloudwatch.describe_alarms(AlarmNamePrefix=name)["MetricAlarms"]]
        ),
        f"DriftAlarm is not {alarm} {LIMIT_SECONDS} s after the drift check",
    )
    return Checked(violations, alarm, f"{folder}/report.html")
