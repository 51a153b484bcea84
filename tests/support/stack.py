"""Ways to drive a stack that runs in a rehearsal, shared by the workflow and the rehearsal tests."""

import io
import json
import os
import subprocess
import sys
import time
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import boto3
from botocore.config import Config
from PIL import Image

from demo.drawing import encoded
from rehearsal.environment import redirected
from rehearsal.lifecycle import Running

REPOSITORY = Path(__file__).parents[2]
STACK = "image-classifier-rehearsal"
#: Of SageMaker's built-in image classification: https://docs.aws.amazon.com/sagemaker/latest/dg-ecr-paths/ecr-us-east-1.html
ALGORITHM_URI = "811284229777.dkr.ecr.us-east-1.amazonaws.com/image-classification:1"
IMAGE_URI = "123456789012.dkr.ecr.us-east-1.amazonaws.com/image-classifier:latest"
ROLE = "arn:aws:iam::123456789012:role/rehearsal"
ENVIRONMENT = ("--config-env", "rehearsal")
#: Only what hangs takes this long; how fast the machine is must not matter.
HANG_SECONDS = 300


class Rehearsal:
    """A rehearsal that is up, with clients and commands that go to it."""

    def __init__(self, running: Running) -> None:
        self.running = running
        self.environment = redirected(os.environ, running.port, running.region)

    def client(self, service: str, read_timeout: float = HANG_SECONDS) -> Any:
        """Return a client of an AWS service."""
        return boto3.client(  # type: ignore[call-overload]
            service,
            endpoint_url=self.running.endpoint_url,
            region_name=self.running.region,
            aws_access_key_id="rehearsal",
            aws_secret_access_key="rehearsal",
            config=Config(
                connect_timeout=HANG_SECONDS,
                read_timeout=read_timeout,
                retries={"total_max_attempts": 1},
                inject_host_prefix=False,
            ),
        )

    def run(self, *command: str, check: bool = True, cwd: Path = REPOSITORY) -> subprocess.CompletedProcess[str]:
        """Run a command as a user would type it; fail with all it said if it fails."""
        done = subprocess.run(command, cwd=cwd, env=self.environment, capture_output=True, text=True, check=False)
        assert not check or done.returncode == 0, f"{' '.join(command)}\n{done.stdout}\n{done.stderr}"
        return done

    def execute(self, workflow: str, event: Any) -> str:
        """Start an execution; return its ARN."""
        started = self.client("stepfunctions").start_execution(stateMachineArn=workflow, input=json.dumps(event))
        return str(started["executionArn"])

    def outcome(self, execution: str) -> dict[str, Any]:
        """Wait for an execution's end; return its description."""
        states = self.client("stepfunctions")
        return dict(
            wait_for(lambda: (d := states.describe_execution(executionArn=execution))["status"] != "RUNNING" and d)
        )


@dataclass
class Stack:
    """The deployed stack, with its outputs."""

    rehearsal: Rehearsal
    outputs: dict[str, str]
    said: str

    @property
    def bucket(self) -> str:
        return self.outputs["ImageBucketName"]

    def put(self, key: str, image: Image.Image | bytes, file_format: str = "PNG") -> dict[str, str]:
        content = image if isinstance(image, bytes) else encoded(image, file_format)
        self.rehearsal.client("s3").put_object(Bucket=self.bucket, Key=key, Body=content)
        return {"s3_bucket": self.bucket, "s3_key": key}

    def classify(self, event: Any) -> dict[str, Any]:
        return self.rehearsal.outcome(self.rehearsal.execute(self.outputs["WorkflowArn"], event))

    def alarm(self, name: str) -> str:
        """Return an alarm's state, by its name in the template."""
        alarms = self.rehearsal.client("cloudwatch").describe_alarms(AlarmNamePrefix=f"{STACK}-{name}")
        return str(alarms["MetricAlarms"][0]["StateValue"])


def create_function(rehearsal: Rehearsal, name: str, source: str, **settings: Any) -> str:
    """Create a function of one file, ``app.py``, with a role of the same name; return its ARN.

    Its time limit is Lambda's highest, for what hangs, unless ``settings`` have another ``Timeout``.
    """
    allow = {"Effect": "Allow", "Principal": {"Service": "lambda.amazonaws.com"}, "Action": "sts:AssumeRole"}
    policy = json.dumps({"Statement": [allow]})
    role = rehearsal.client("iam").create_role(RoleName=name, AssumeRolePolicyDocument=policy)["Role"]["Arn"]
    package = io.BytesIO()
    with zipfile.ZipFile(package, "w") as archive:
        archive.writestr("app.py", source)
    created = rehearsal.client("lambda").create_function(
        FunctionName=name,
        Runtime="python3.13",
        Handler="app.lambda_handler",
        Role=role,
        Code={"ZipFile": package.getvalue()},
        **{"Timeout": 900, **settings},
    )
    return str(created["FunctionArn"])


def deploy_endpoint(
    rehearsal: Rehearsal, bucket: str, *more: str, image_uri: str = IMAGE_URI, check: bool = True
) -> subprocess.CompletedProcess[str]:
    """Run ``python -m training deploy`` for the stack's endpoint; an update waits for nothing."""
    names = ("--endpoint-name", "image-classifier", "--bucket", bucket, "--role-arn", ROLE, "--image-uri", image_uri)
    now = ("--baking-seconds", "0")
    return rehearsal.run(sys.executable, "-m", "training", "deploy", *names, *now, *more, check=check)


def empty(rehearsal: Rehearsal, bucket: str) -> None:
    """Delete all objects of a bucket. Remove the endpoint before, which captures into it."""
    client = rehearsal.client("s3")
    for page in client.get_paginator("list_objects_v2").paginate(Bucket=bucket):
        for item in page.get("Contents", []):
            client.delete_object(Bucket=bucket, Key=item["Key"])


def wait_for(look: Callable[[], Any]) -> Any:
    """Look until there is something to see; return it."""
    deadline = time.monotonic() + HANG_SECONDS
    while not (seen := look()):
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.05)
    return seen
