"""A timeline of one image from moto's logs, buckets and endpoint; a short workflow stands for the real one."""

import base64
import datetime
import hashlib
import json
import time
import uuid
from collections.abc import Callable, Iterator
from typing import Any

import boto3
import pytest
from botocore.stub import Stubber
from moto import mock_aws

from common import storage
from common.errors import CommandError
from common.stack import Stack, find_execution, find_latest
from operations.__main__ import main
from operations.trace import collect, show
from tests.support.stack import wait_for

BUCKET, KEY = "images", "incoming/a.png"
ROLE = "arn:aws:iam::123456789012:role/r"
NAMES = ("serialize", "classify", "filter")


@pytest.fixture
def stack(monkeypatch: pytest.MonkeyPatch) -> Iterator[Stack]:
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    with mock_aws(config={"stepfunctions": {"execute_state_machine": True}}):
        storage._s3.cache_clear()
        boto3.client("s3").create_bucket(Bucket=BUCKET)
        for name in NAMES:
            boto3.client("logs").create_log_group(logGroupName=f"/aws/lambda/classifier-{name}")
            boto3.client("logs").create_log_stream(logGroupName=f"/aws/lambda/classifier-{name}", logStreamName="s")
        outputs = {"EndpointName": "image-classifier", "ModelBucketName": BUCKET}
        yield Stack("classifier", outputs, {})
        storage._s3.cache_clear()


def run(
    stack: Stack, etag: str, sure: bool = True, last: dict[str, Any] | None = None, name: str = "first", key: str = KEY
) -> str:
    """Run a workflow that answers as the real one does; return its execution's ARN."""
    answer = {
        "s3_bucket": BUCKET,
        "s3_key": key,
        "source": {"etag": etag},
        "inferences": [0.9, 0.05],
        "label": "bicycle",
        "confidence": 0.9,
        "endpoint": "image-classifier",
    }
    cause = json.dumps({"errorMessage": "below the threshold"})
    unsure = {"Type": "Fail", "Error": "ThresholdNotMet", "Cause": cause}
    definition = {
        "StartAt": "Classify",
        "States": {
            "Classify": {"Type": "Pass", "Result": answer, "Next": "Last"},
            "Last": last or ({"Type": "Pass", "End": True} if sure else unsure),
        },
    }
    states = boto3.client("stepfunctions")
    workflow = states.create_state_machine(name="workflow", definition=json.dumps(definition), roleArn=ROLE)
    stack.outputs["WorkflowArn"] = f"{workflow['stateMachineArn']}:live"  # callers use the alias
    event = json.dumps({"s3_bucket": BUCKET, "s3_key": key})
    arn = states.start_execution(stateMachineArn=workflow["stateMachineArn"], name=name, input=event)["executionArn"]
    if not last:
        wait(arn)
    return arn


def wait(arn: str) -> None:
    """Wait for an execution's end."""
    wait_for(lambda: boto3.client("stepfunctions").describe_execution(executionArn=arn)["status"] != "RUNNING")


def put_image(content: bytes) -> str:
    return boto3.client("s3").put_object(Bucket=BUCKET, Key=KEY, Body=content)["ETag"].strip('"')


def log(function: str, at: float | None = None, **line: Any) -> None:
    event = {"timestamp": int((at or time.time()) * 1000), "message": json.dumps(line)}
    boto3.client("logs").put_log_events(
        logGroupName=f"/aws/lambda/classifier-{function}", logStreamName="s", logEvents=[event]
    )


def create_endpoint() -> None:
    client = boto3.client("sagemaker")
    client.create_model(ModelName="m", ExecutionRoleArn=ROLE, PrimaryContainer={"Image": "i"})
    client.create_endpoint_config(
        EndpointConfigName="c",
        ProductionVariants=[
            {"VariantName": "AllTraffic", "ModelName": "m", "InitialInstanceCount": 1, "InstanceType": "ml.m5.xlarge"}
        ],
        DataCaptureConfig={
            "EnableCapture": True,
            "InitialSamplingPercentage": 100,
            "DestinationS3Uri": f"s3://{BUCKET}/capture",
            "CaptureOptions": [{"CaptureMode": "Input"}, {"CaptureMode": "Output"}],
        },
    )
    client.create_endpoint(EndpointName="image-classifier", EndpointConfigName="c")


def put_captures(*inference_ids: str) -> None:
    now = datetime.datetime.now(datetime.UTC)
    lines = []
    for number, inference_id in enumerate(inference_ids):
        data = base64.b64encode(b"image").decode()
        lines.append(
            {
                "captureData": {
                    "endpointInput": {"observedContentType": "image/png", "data": data, "encoding": "BASE64"},
                    "endpointOutput": {"data": f"[0.{number}, 0.05]", "encoding": "JSON"},
                },
                "eventMetadata": {
                    "eventId": f"event-{number}",
                    "inferenceId": inference_id,
                    "inferenceTime": f"{now:%Y-%m-%dT%H:%M:%SZ}",
                },
            }
        )
    key = f"capture/image-classifier/AllTraffic/{now:%Y/%m/%d/%H}/x.jsonl"
    boto3.client("s3").put_object(Bucket=BUCKET, Key=key, Body="\n".join(map(json.dumps, lines)).encode())


def test_a_complete_timeline(stack: Stack, png: Callable[..., bytes], capsys: pytest.CaptureFixture[str]) -> None:
    etag = put_image(png())
    arn = run(stack, etag, sure=False)
    for name in NAMES:
        log(name, level="INFO", message=f"said {name}", service=name, execution_id=arn, s3_key=KEY, extra=1)
    log("serialize", level="INFO", message="of another one", execution_id=arn.replace("first", "second"))
    log("filter", _aws={}, execution_id=arn, Accepted=1)
    create_endpoint()
    put_captures("other", "first-2", "first")
    name = hashlib.sha256(png()).hexdigest()[:16]
    record = {"label": "motorcycle", "reviewer": "ada", "reviewed_at": "2100-01-01T00:00:00+00:00"}
    storage.write(f"s3://{BUCKET}/labels/{name}.json", json.dumps(record).encode(), "application/json")

    timeline = collect(stack, "first")
    assert timeline == json.loads(json.dumps(timeline)) == collect(stack, arn)
    assert (timeline["execution"]["status"], timeline["execution"]["error"]) == ("FAILED", "ThresholdNotMet")
    assert timeline["execution"]["cause"] == "below the threshold"
    assert [state["name"] for state in timeline["states"]] == ["Classify", "Last"]
    assert all(state["seconds"] >= 0 for state in timeline["states"])
    assert timeline["object"]["as_serialized"] is True and timeline["object"]["bytes"] == len(png())
    assert [(line["function"], line["message"]) for line in timeline["logs"]] == [(n, f"said {n}") for n in NAMES]
    assert timeline["logs"][0]["fields"] == {"extra": 1}
    assert (timeline["capture"]["event_id"], timeline["capture"]["probabilities"]) == ("event-2", [0.2, 0.05])
    assert (timeline["review"]["label"], timeline["review"]["reviewer"]) == ("motorcycle", "ada")
    assert timeline["missing"] == []

    show(timeline)
    out = capsys.readouterr().out
    order = ["S3", "Classify", "said filter", "labelled motorcycle by ada", "ThresholdNotMet: below"]
    places = [out.index(text) for text in order]
    assert places == sorted(places)
    # Recorded to the second, its time is before its question's.
    assert out.index("Classify") < out.index("captured image/png of 5 bytes; probabilities 0.200, 0.050")


def test_an_image_is_traced_by_its_key(stack: Stack) -> None:
    key = 'incoming/ä "b".png'
    arns = [run(stack, "an-etag", name=name, key=key) for name in ("first", "second")]
    now = time.time()
    for days, arn in ((3, arns[0]), (2, arns[1])):
        log("serialize", at=now - days * 86400, execution_id=arn, s3_key=key)
    log("serialize", execution_id=arns[0].replace("first", "other"), s3_key=f"{key}.png")
    assert find_execution(stack, key)["name"] == "second"
    assert find_latest(stack) == arns[1]
    for missing in ("incoming/b", "incoming/never.png", "ä"):
        with pytest.raises(CommandError, match="has no execution"):
            find_execution(stack, missing)


def test_what_is_not_there_is_said(stack: Stack, capsys: pytest.CaptureFixture[str]) -> None:
    run(stack, "an-etag", sure=False)
    boto3.client("logs").delete_log_group(logGroupName="/aws/lambda/classifier-filter")
    timeline = collect(stack, "first")
    assert timeline["object"] is timeline["capture"] is timeline["review"] is None and timeline["logs"] == []
    said = "\n".join(timeline["missing"])
    for text in (
        f"s3://{BUCKET}/{KEY} does not exist, or not any more",
        "none from serialize",
        "no log group /aws/lambda/classifier-filter",
        "endpoint image-classifier does not exist",
        "review: labels are stored by the image's content",
    ):
        assert text in said
    show(timeline)
    out = capsys.readouterr().out
    assert "ThresholdNotMet: below" in out and all(text in out for text in timeline["missing"])


def test_an_image_that_was_replaced_is_said_to_be_another_one(stack: Stack, png: Callable[..., bytes]) -> None:
    etag = put_image(png())
    run(stack, etag)
    put_image(png(40, 40))
    timeline = collect(stack, "first")
    assert timeline["object"]["as_serialized"] is False and timeline["review"] is None
    assert "review: not requested" in timeline["missing"]  # it was accepted, wherever its image is


@pytest.mark.parametrize(
    ("status", "failures", "said"),
    [
        ("FAILED", ["UnsupportedImage"], "rejected by serialize"),
        ("ABORTED", [], "never serialized"),
        ("RUNNING", [], "not yet serialized"),
    ],
)
def test_an_object_that_was_not_serialized_has_its_reason(
    stack: Stack,
    png: Callable[..., bytes],
    capsys: pytest.CaptureFixture[str],
    status: str,
    failures: list[str],
    said: str,
) -> None:
    put_image(png())
    run(stack, "an-etag")
    timeline = collect(stack, "first")
    # moto runs no Lambda functions that could refuse.
    timeline["execution"]["status"] = status
    timeline["states"] = [{**timeline["states"][0], "name": "Serialize", "failures": failures}]
    timeline["object"]["as_serialized"] = None
    show(timeline)
    assert f"bytes stored, {said}" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("enabled", "ids", "reason"),
    [
        (False, (), "captures no data"),
        (True, (), "holds no captures of endpoint image-classifier"),
        (True, ("other",), "(50% of the requests are captured; records arrive after minutes)"),
    ],
)
def test_a_missing_capture_has_its_reason(
    stack: Stack, monkeypatch: pytest.MonkeyPatch, enabled: bool, ids: tuple[str, ...], reason: str
) -> None:
    run(stack, "an-etag")
    if ids:
        put_captures(*ids)
    now = datetime.datetime.now(datetime.UTC)
    capture: dict[str, Any] = {
        "EnableCapture": enabled,
        "CaptureStatus": "Started" if enabled else "Stopped",
        "KmsKeyId": "k",
    }
    capture |= {"CurrentSamplingPercentage": 50, "DestinationS3Uri": f"s3://{BUCKET}/capture"}
    described: dict[str, Any] = {
        "EndpointName": "image-classifier",
        "EndpointArn": "arn:aws:sagemaker:us-east-1:123456789012:endpoint/x",
    }
    described |= {"EndpointStatus": "InService", "CreationTime": now, "LastModifiedTime": now}
    client, real = boto3.client("sagemaker"), boto3.client
    monkeypatch.setattr(boto3, "client", lambda name: client if name == "sagemaker" else real(name))
    with Stubber(client) as stub:
        # moto does not say the percentage that is in force.
        stub.add_response("describe_endpoint", {**described, "DataCaptureConfig": capture})
        timeline = collect(stack, "first")
    (said,) = [text for text in timeline["missing"] if text.startswith("capture:")]
    assert reason in said


def test_an_image_that_waits_for_review_is_said_to_wait(stack: Stack, png: Callable[..., bytes]) -> None:
    run(stack, put_image(png()), sure=False)
    (said,) = [text for text in collect(stack, "first")["missing"] if text.startswith("review:")]
    assert said == "review: none yet: it is in the review queue or its dead-letter queue, or was dismissed"


def test_a_running_execution_has_a_timeline_so_far(stack: Stack, capsys: pytest.CaptureFixture[str]) -> None:
    arn = run(stack, "an-etag", last={"Type": "Wait", "Seconds": 3600, "End": True})
    timeline = wait_for(lambda: len((told := collect(stack, "first"))["states"]) == 2 and told)
    boto3.client("stepfunctions").stop_execution(executionArn=arn)
    assert timeline["execution"]["status"] == "RUNNING" and timeline["states"][1]["seconds"] is None
    show(timeline)
    out = capsys.readouterr().out
    assert "Last (still running)" in out and "RUNNING: no result yet" in out


def test_an_inference_id_that_is_the_end_of_a_name_leads_to_its_execution(stack: Stack) -> None:
    """Executions that EventBridge's rules start have names like this one; an inference id has 64 characters."""
    name = f"{uuid.uuid4()}_{uuid.uuid4()}"
    arn = run(stack, "an-etag", name=name)
    create_endpoint()
    put_captures(name[-64:])
    for asked in (name, arn, name[-64:]):
        timeline = collect(stack, asked)
        assert timeline["execution"]["arn"] == arn and timeline["capture"]["event_id"] == "event-0"
    for asked in (name[-63:], "x" * 64):
        with pytest.raises(CommandError, match=f"has no execution '{asked}'"):
            collect(stack, asked)


def test_an_execution_is_looked_for_on_every_page(stack: Stack, monkeypatch: pytest.MonkeyPatch) -> None:
    workflow = stack.outputs["WorkflowArn"] = "arn:aws:states:us-east-1:123456789012:stateMachine:workflow"
    now, name = datetime.datetime.now(datetime.UTC), "0" * 9 + "1" * 64
    arn = f"{workflow.replace('stateMachine', 'execution')}:{name}"
    common = {"stateMachineArn": workflow, "status": "SUCCEEDED", "startDate": now}
    first = {**common, "executionArn": arn[:-1], "name": name[:-1]}
    client = boto3.client("stepfunctions")
    monkeypatch.setattr(boto3, "client", lambda _: client)
    with Stubber(client) as stub:
        stub.add_client_error("describe_execution", "ExecutionDoesNotExist")
        asked = {"stateMachineArn": workflow, "maxResults": 1000}
        stub.add_response("list_executions", {"executions": [first], "nextToken": "next"}, asked)
        second = {**common, "executionArn": arn, "name": name}
        stub.add_response("list_executions", {"executions": [second]}, {**asked, "nextToken": "next"})
        stub.add_response("describe_execution", {**common, "executionArn": arn}, {"executionArn": arn})
        assert find_execution(stack, name[-64:])["executionArn"] == arn


@pytest.mark.parametrize("denied", ["the record of a review", "the object"])
def test_what_is_denied_is_said_and_the_rest_is_told(
    stack: Stack, png: Callable[..., bytes], monkeypatch: pytest.MonkeyPatch, denied: str
) -> None:
    run(stack, put_image(png()), sure=False)
    client, real = boto3.client("s3"), boto3.client
    if denied == "the object":
        monkeypatch.setattr(boto3, "client", lambda name: client if name == "s3" else real(name))
    else:
        client = storage._s3()
    with Stubber(client) as stub:
        if denied == "the object":
            stub.add_client_error("head_object", "403", "Forbidden", http_status_code=403)
        else:
            stub.add_client_error("get_object", "AccessDenied", "Access Denied", http_status_code=403)
        timeline = collect(stack, "first")
    assert timeline["execution"]["error"] == "ThresholdNotMet" and timeline["review"] is None
    (said,) = [text for text in timeline["missing"] if "s3:ListBucket" in text]
    assert said.startswith("object: " if denied == "the object" else "review: ")


def test_what_an_uploader_wrote_cannot_command_the_terminal(
    stack: Stack, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    hostile = "a\x1b]0;title\x07\x9b2J\u202eb\nc\x7f\x85d"
    cause = json.dumps({"errorMessage": hostile})
    arn = run(stack, "an-etag", last={"Type": "Fail", "Error": "Error", "Cause": cause}, key=f"incoming/{hostile}.png")
    wait(arn)
    log("serialize", level="INFO", message=hostile, execution_id=arn, extra=hostile)
    timeline = collect(stack, "first")
    show(timeline)
    out = capsys.readouterr().out
    assert r"Error: a\x1b]0;title\x07\x9b2J\u202eb\nc\x7f\x85d" in out and out.count("title") >= 5
    assert all(character.isprintable() or character == "\n" for character in out)
    monkeypatch.setattr("common.stack.find_stack", lambda name: stack)
    assert main(["trace", "first", "--stack-name", "classifier", "--json"]) == 0
    out = capsys.readouterr().out
    assert json.loads(out)["execution"]["cause"] == hostile
    assert all(character.isprintable() or character == "\n" for character in out.replace("\x7f", ""))


def test_an_unknown_id_is_one_clear_line(
    stack: Stack, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    run(stack, "an-etag")
    monkeypatch.setattr("common.stack.find_stack", lambda name: stack)
    assert main(["trace", "nobody", "--stack-name", "classifier"]) == 1
    error = capsys.readouterr().err
    assert error.startswith("error: ") and "no execution 'nobody'" in error and error.count("\n") == 1
    assert main(["trace", "first", "--stack-name", "classifier", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["execution"]["status"] == "SUCCEEDED"
