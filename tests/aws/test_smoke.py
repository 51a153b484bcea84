"""One pass through the whole system in an AWS account: deploy, send the sample events, look at the outcomes, clean up.

``make test-aws IMAGE=…`` runs it with your credentials and Region, and without tests/conftest.py, which takes those
away.
"""

import json
import os
import secrets
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import boto3
import pytest
from botocore.exceptions import ClientError

REPOSITORY = Path(__file__).parents[2]
EVENTS = REPOSITORY / "build" / "events-smoke"
IMAGE = os.environ.get("TEST_AWS_IMAGE", "")
#: For hangs only: captured data and events arrive within minutes.
HANG_SECONDS = 1200
#: Characters that URLs, templates and event buses change on the way.
ODD_KEY = 'incoming/a b+c%20d&"é.png'

pytestmark = pytest.mark.skipif(
    not IMAGE, reason="deploys to an AWS account: run make test-aws IMAGE=…, with the image that make image pushed"
)


def run(*command: str) -> None:
    """Run a command as a user would type it; fail with all that it printed."""
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    done = subprocess.run(
        command, cwd=REPOSITORY, env={**os.environ, "PATH": path}, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, f"{' '.join(command)}\n{done.stdout}\n{done.stderr}"


def wait_for(look: Callable[[], Any]) -> Any:
    """Look until there is something to see; return it."""
    deadline = time.monotonic() + HANG_SECONDS
    while not (seen := look()):
        assert time.monotonic() < deadline, f"nothing came in {HANG_SECONDS} s"
        time.sleep(2)
    return seen


def deploy(stack: str, *more: str) -> dict[str, str]:
    """Deploy a template with SAM CLI, and with no settings of samconfig.toml; return the stack's outputs."""
    options = ("--resolve-s3", "--capabilities", "CAPABILITY_IAM", "--no-confirm-changeset", "--config-env", "none")
    run("sam", "deploy", "--stack-name", stack, *options, *more)
    (described,) = boto3.client("cloudformation").describe_stacks(StackName=stack)["Stacks"]
    return {output["OutputKey"]: output["OutputValue"] for output in described["Outputs"]}


def remove_endpoint(name: str) -> None:
    """Remove the endpoint, if there is one."""
    try:
        run(sys.executable, "-m", "training", "remove", "--endpoint-name", name)
    except AssertionError as error:
        if "there is no endpoint" not in str(error):
            raise


def delete_stack(stack: str) -> None:
    """Empty a stack's buckets and delete it; there may be none, or one whose creation failed."""
    try:
        resources = boto3.client("cloudformation").describe_stack_resources(StackName=stack)["StackResources"]
    except ClientError as error:
        if "does not exist" in str(error):
            return
        raise
    for resource in resources:
        if resource["ResourceType"] == "AWS::S3::Bucket" and resource["ResourceStatus"] != "DELETE_COMPLETE":
            boto3.resource("s3").Bucket(resource["PhysicalResourceId"]).object_versions.delete()
    run("sam", "delete", "--no-prompts", "--config-env", "none", "--stack-name", stack)


def delete_logs(endpoint: str) -> None:
    """Delete the log group that SageMaker makes for an endpoint, and keeps."""
    logs = boto3.client("logs")
    for group in logs.describe_log_groups(logGroupNamePrefix=f"/aws/sagemaker/Endpoints/{endpoint}")["logGroups"]:
        logs.delete_log_group(logGroupName=group["logGroupName"])


def clean_up(name: str) -> None:
    """Remove all that was made under a name; fail with whatever could not be removed."""
    problems = []
    for step in (
        lambda: remove_endpoint(name),
        lambda: delete_stack(f"{name}-roles"),
        lambda: delete_stack(name),
        lambda: delete_logs(name),
    ):
        try:
            step()
        except (AssertionError, ClientError) as error:
            problems.append(str(error))
    assert not problems, "\n".join([f"Not all of {name} was removed:", *problems])


@pytest.fixture(scope="module")
def outputs() -> Iterator[dict[str, str]]:
    """Deploy stack, role and endpoint under a name of their own; remove them at the end, whatever happens."""
    name = f"smoke-{secrets.token_hex(4)}"
    try:
        run("sam", "build")
        # AWS documents that a rate starts at once: one drift check, which finds no endpoint yet.
        found = deploy(name, "--parameter-overrides", f"EndpointName={name}", 'MonitorSchedule="rate(30 days)"')
        bucket = found["ModelBucketName"]
        repository = IMAGE.partition("/")[2].partition("@")[0].partition(":")[0]
        values = (f"Bucket={bucket}", f"ImageRepository={repository}")
        roles = deploy(f"{name}-roles", "--template-file", "training/roles.yaml", "--parameter-overrides", *values)
        role = roles["EndpointRoleArn"]
        where = ("--endpoint-name", name, "--bucket", bucket, "--role-arn", role, "--image-uri", IMAGE)
        run(sys.executable, "-m", "training", "deploy", *where)
        run(sys.executable, "events/prepare.py", "--stack-name", name, "--out", str(EVENTS))
        yield found
    finally:
        clean_up(name)


def execute(workflow: str, event: str) -> dict[str, Any]:
    """Start the workflow with a sample event; return the execution at its end."""
    text = (EVENTS / event).read_text()
    return ended(boto3.client("stepfunctions").start_execution(stateMachineArn=workflow, input=text)["executionArn"])


def ended(arn: str) -> dict[str, Any]:
    """Wait for an execution's end; return its description."""
    states = boto3.client("stepfunctions")
    return dict(wait_for(lambda: (e := states.describe_execution(executionArn=arn))["status"] != "RUNNING" and e))


def message(queue: str) -> dict[str, Any]:
    """Return the body of a message in a queue."""
    sqs = boto3.client("sqs")
    received = wait_for(lambda: sqs.receive_message(QueueUrl=queue, WaitTimeSeconds=10).get("Messages"))
    return dict(json.loads(received[0]["Body"]))


@pytest.mark.parametrize(
    ("event", "error"),
    [
        ("serialize", None),
        ("serialize-invalid-event", "InvalidEvent"),
        ("serialize-missing-object", "ObjectNotFound"),
        ("serialize-not-an-image", "UnsupportedImage"),
        ("classify", None),
        ("classify-not-an-image", "InvalidInference"),
        ("filter-accepted", None),
        ("filter-invalid-inference", "InvalidInference"),
        ("filter-unsure", "ThresholdNotMet"),
    ],
)
def test_a_function_answers_its_sample_event(outputs: dict[str, str], event: str, error: str | None) -> None:
    function = outputs[f"{event.partition('-')[0].title()}FunctionName"]
    answer = boto3.client("lambda").invoke(FunctionName=function, Payload=(EVENTS / f"{event}.json").read_bytes())
    payload = json.load(answer["Payload"])
    assert payload.get("errorType") == error, payload


def test_an_image_that_the_model_is_sure_of_is_accepted(outputs: dict[str, str]) -> None:
    execution = execute(outputs["WorkflowArn"], "workflow.json")
    assert execution["status"] == "SUCCEEDED", execution.get("cause")
    assert json.loads(execution["output"])["label"] == "bicycle"


def test_an_unsure_image_fails_and_waits_for_review(outputs: dict[str, str]) -> None:
    execution = execute(outputs["WorkflowArn"], "workflow-unsure.json")
    assert (execution["status"], execution.get("error")) == ("FAILED", "ThresholdNotMet")
    assert message(outputs["ReviewQueueUrl"])["execution_id"] == execution["executionArn"]


def test_a_missing_image_fails_by_name_and_is_kept(outputs: dict[str, str]) -> None:
    execution = execute(outputs["WorkflowArn"], "serialize-missing-object.json")
    assert (execution["status"], execution.get("error")) == ("FAILED", "ObjectNotFound")
    assert message(outputs["FailureQueueUrl"])["execution_id"] == execution["executionArn"]


def test_an_upload_starts_one_execution_whatever_its_name(
    outputs: dict[str, str], capsys: pytest.CaptureFixture[str]
) -> None:
    s3, states = boto3.client("s3"), boto3.client("stepfunctions")
    bucket, workflow = outputs["ImageBucketName"], outputs["WorkflowArn"]
    before = {item["executionArn"] for item in states.list_executions(stateMachineArn=workflow)["executions"]}
    s3.put_object(Bucket=bucket, Key="incoming/folder/")  # as the console creates a folder
    s3.put_object(Bucket=bucket, Key=ODD_KEY, Body=(REPOSITORY / "events" / "images" / "bicycle.png").read_bytes())

    def started() -> list[dict[str, Any]]:
        listed = states.list_executions(stateMachineArn=workflow)["executions"]
        return [ended(item["executionArn"]) for item in listed if item["executionArn"] not in before]

    (execution,) = wait_for(started)
    # What S3 announced is in the execution's input: the answer to a question that AWS's documents leave open.
    key = json.loads(execution["input"])["object"]["key"]
    with capsys.disabled():
        print(f"\nEventBridge announced {ODD_KEY!r} as {key!r}, {'as it is' if key == ODD_KEY else 'encoded'}")
    assert execution["status"] == "SUCCEEDED", execution.get("cause")
    assert json.loads(execution["output"])["s3_key"] == ODD_KEY


def test_what_the_endpoint_answered_is_captured(outputs: dict[str, str]) -> None:
    s3, bucket = boto3.client("s3"), outputs["ModelBucketName"]
    prefix = f"capture/{outputs['EndpointName']}/"
    found = wait_for(lambda: s3.list_objects_v2(Bucket=bucket, Prefix=prefix).get("Contents"))
    line = s3.get_object(Bucket=bucket, Key=found[0]["Key"])["Body"].read().splitlines()[0]
    captured = json.loads(line)["captureData"]
    assert captured["endpointInput"]["data"] and captured["endpointOutput"]["data"]
