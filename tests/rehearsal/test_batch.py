"""Batches of images through the deployed stack: nothing is lost, whatever fails."""

import contextlib
import io
import json
import re
import sys
import uuid
from pathlib import Path
from typing import Any

import pytest

from demo import drawing
from rehearsal.injection import inject
from tests.support.stack import REPOSITORY, STACK, Stack, wait_for

#: Errors of the services behind an image, each in every twentieth request.
FAULTS = [
    {"service": service, "operation": operation, "probability": 0.05, "code": code, "status": status}
    for service, operation, code, status in (
        ("lambda", "Invoke", "ServiceException", 500),
        ("s3", "GetObject", "SlowDown", 503),
        ("sagemaker-runtime", "InvokeEndpoint", "ServiceUnavailable", 503),
        ("stepfunctions", "StartSyncExecution", "InternalFailure", 500),
        ("events", "PutEvents", "InternalException", 500),
        ("sqs", "SendMessage", "ServiceUnavailable", 503),
    )
]


def batch(stack: Stack, *arguments: str, code: int = 0) -> str:
    """Run ``python -m operations batch``; return what it printed."""
    command = (sys.executable, "-m", "operations", "batch", *arguments, "--stack-name", STACK)
    done = stack.rehearsal.run(*command, check=False)
    assert done.returncode == code, done.stdout + done.stderr
    return done.stdout + done.stderr


def fill(stack: Stack, count: int) -> str:
    """Upload images, a folder, and what is no image; return their prefix."""
    prefix = f"batch-{uuid.uuid4().hex[:8]}/"
    for number in range(count):
        make = (drawing.bicycle, drawing.motorcycle, drawing.house)[number % 3]
        stack.put(f"{prefix}{number:03}.png", make(64, 64, number))
    stack.put(prefix, b"")
    stack.put(f"{prefix}notes “of” a day.png", b"no image")
    return prefix


def counts(said: str) -> tuple[int, int, int]:
    """Return how many images got a prediction, failed, and were skipped, as a summary says."""
    by_name = {name: int(number) for number, name in re.findall(r"(\d+) (accepted|unsure|failed|skipped)", said)[:4]}
    return by_name["accepted"] + by_name["unsure"], by_name["failed"], by_name["skipped"]


def outcomes(stack: Stack, name: str) -> list[dict[str, Any]]:
    """Return the results of a run as its files hold them."""
    s3 = stack.rehearsal.client("s3")
    listed = s3.list_objects_v2(Bucket=stack.bucket, Prefix=f"batches/{name}/")["Contents"]
    keys = [item["Key"] for item in listed if "SUCCEEDED" in item["Key"]]
    texts = [s3.get_object(Bucket=stack.bucket, Key=key)["Body"].read().decode() for key in keys]
    lines = [line for text in texts for line in text.splitlines()]
    assert all(len(line.encode()) <= 1024 for line in lines)
    return [json.loads(line) for line in lines]


def test_a_prefix_then_its_failures_then_a_csv(stack: Stack) -> None:
    prefix, name = fill(stack, 30), f"run-{uuid.uuid4().hex[:8]}"
    functions, classify = stack.rehearsal.client("lambda"), stack.outputs["ClassifyFunctionName"]
    # Twenty images at once, and eight sandboxes: Lambda throttles, and the chain tries again.
    functions.put_function_concurrency(FunctionName=classify, ReservedConcurrentExecutions=8)
    inject(stack.rehearsal.running.endpoint_url, FAULTS)
    try:
        said = batch(stack, "start", "--prefix", prefix, "--name", name, "--wait")
    finally:
        functions.delete_function_concurrency(FunctionName=classify)
        met = inject(stack.rehearsal.running.endpoint_url, [])
    assert sum(fault["count"] for fault in met)
    assert counts(said) == (30, 1, 1) and "1 UnsupportedImage" in said
    assert "32 keys given, 32 results, 0 differences" in batch(stack, "reconcile", name)
    batch(stack, "summarize", name, "--max-failed", "0.01", code=1)
    reviewed = reviews(stack, prefix)
    unsure = {result["s3_key"]: result for result in outcomes(stack, name) if result["outcome"] == "unsure"}
    assert unsure and set(unsure) == set(reviewed) and all(reviewed[key]["execution_id"] for key in reviewed)
    assert all(unsure[key]["execution_id"] == reviewed[key]["execution_id"] for key in unsure)

    manifest, again = f"batches/{name}-failed.jsonl", f"{name}-again"
    batch(stack, "summarize", name, "--failed-manifest", manifest)
    said = batch(stack, "start", "--manifest", manifest, "--name", again, "--wait", code=1)
    assert counts(said) == (0, 1, 0) and "1 UnsupportedImage" in said
    rows = "s3_bucket,s3_key\n" + "".join(f"{stack.bucket},{prefix}{number:03}.png\n" for number in (0, 1, 999))
    stack.put(f"batches/{name}.csv", rows.encode())
    said = batch(stack, "start", "--manifest", f"batches/{name}.csv", "--name", f"{name}-csv", "--wait", code=1)
    assert counts(said) == (2, 1, 0) and "1 ObjectNotFound" in said
    assert "0 differences" in batch(stack, "reconcile", f"{name}-csv")
    # The same image has the same id in each run.
    ids = [
        {r["s3_key"]: r["image_id"] for r in outcomes(stack, run) if r["outcome"] == "accepted"}
        for run in (name, f"{name}-csv")
    ]
    assert ids[1].items() <= ids[0].items()


def reviews(stack: Stack, prefix: str) -> dict[str, dict[str, Any]]:
    """Return the review messages about images below a prefix, by key, and delete them."""
    sqs, queue = stack.rehearsal.client("sqs"), stack.outputs["ReviewQueueUrl"]
    found: dict[str, dict[str, Any]] = {}
    while messages := sqs.receive_message(QueueUrl=queue, MaxNumberOfMessages=10).get("Messages", []):
        for message in messages:
            body = json.loads(message["Body"])
            if body["s3_key"].startswith(prefix):
                assert re.fullmatch("[0-9a-f]{32}", body["image_id"])
                found[body["s3_key"]] = body
                sqs.delete_message(QueueUrl=queue, ReceiptHandle=message["ReceiptHandle"])
    return found


def test_a_stopped_run_is_redriven_and_every_key_has_one_result(stack: Stack) -> None:
    prefix, name = fill(stack, 70), f"run-{uuid.uuid4().hex[:8]}"
    states = stack.rehearsal.client("stepfunctions")
    arn = batch(stack, "start", "--prefix", prefix, "--name", name, "--rate", "1").strip()

    def run() -> dict[str, Any]:
        listed = states.list_map_runs(executionArn=arn)["mapRuns"]
        return dict(states.describe_map_run(mapRunArn=listed[0]["mapRunArn"])) if listed else {}

    wait_for(lambda: run() and run()["executionCounts"]["succeeded"])
    states.stop_execution(executionArn=arn)
    wait_for(lambda: run()["status"] == "ABORTED")
    said = batch(stack, "summarize", name, code=1)
    assert said.startswith("ABORTED: 72 keys") and "NotRun" in said
    assert "72 keys given, 72 results, 0 differences" in batch(stack, "reconcile", name)
    batch(stack, "redrive", name)
    said = batch(stack, "follow", name)
    assert said.startswith("SUCCEEDED: 72 keys") and counts(said) == (70, 1, 1)
    assert "72 keys given, 72 results, 0 differences" in batch(stack, "reconcile", name)


def test_wrong_arguments_are_explained(stack: Stack) -> None:
    assert "below batches/" in batch(stack, "start", "--manifest", "elsewhere/list.csv", code=1)
    assert "has no execution 'none'" in batch(stack, "follow", "none", code=1)


def test_the_documented_synchronous_call(stack: Stack, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = (REPOSITORY / "docs" / "batch.md").read_text()
    (snippet,) = re.findall(r"^```python\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
    for name, value in stack.rehearsal.environment.items():
        monkeypatch.setenv(name, value)
    monkeypatch.chdir(tmp_path)
    for key, picture in {"a.jpg": drawing.bicycle(64, 64), "unsure.jpg": drawing.house(64, 64)}.items():
        stack.put(f"sync/{key}", picture, "JPEG")
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        for key in ("a.jpg", "unsure.jpg", "none.jpg"):
            exec(snippet.replace('"image-classifier"', f'"{STACK}"').replace("photos/a.jpg", f"sync/{key}"), {})
    first, second, third = printed.getvalue().splitlines()
    assert first.startswith("bicycle ")
    assert (second.split(":")[0], third.split(":")[0]) == ("ThresholdNotMet", "ObjectNotFound")
