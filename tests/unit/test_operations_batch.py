"""Results of batch runs: what counts how, also when child executions failed, and how many children run at once."""

import json
from collections.abc import Iterator
from typing import Any

import boto3
import pytest
from moto import mock_aws

from common import storage
from common.errors import CommandError
from common.stack import Stack, find_execution
from operations.batch import NOT_RUN, Summary, concurrency, results, start

BUCKET = "images"
RUN = {"mapRunArn": "arn:aws:states:us-east-1:123456789012:mapRun:batch/Prefix:0a1b"}
OUTPUTS = {"ImageBucketName": BUCKET, "BatchWorkflowArn": "arn:aws:states:us-east-1:123456789012:stateMachine:b"}
OUTPUTS["WorkflowArn"] = "arn:aws:states:us-east-1:123456789012:stateMachine:w"


@pytest.fixture
def stack(monkeypatch: pytest.MonkeyPatch) -> Iterator[Stack]:
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    storage._s3.cache_clear()
    with mock_aws():
        boto3.client("s3").create_bucket(Bucket=BUCKET)
        yield Stack("stack", OUTPUTS, {"BatchSize": "20", "EndpointName": "endpoint"})
    storage._s3.cache_clear()


def put(name: str, rows: list[Any], files: dict[str, list[Any]]) -> None:
    key = f"batches/monday/0a1b/{name}_0.jsonl"
    body = "".join(f"{json.dumps(row)}\n" for row in rows)
    boto3.client("s3").put_object(Bucket=BUCKET, Key=key, Body=body.encode())
    files[name] = [{"Key": key, "Size": len(body)}]


def test_images_of_failed_and_pending_children_count_as_not_run(stack: Stack) -> None:
    files: dict[str, list[Any]] = {"SUCCEEDED": [], "FAILED": [], "PENDING": []}
    address = {"s3_bucket": BUCKET, "s3_key": "a"}
    items = [{"s3_bucket": BUCKET, "s3_key": key} for key in ("b", "folder/")]
    put("SUCCEEDED", [{**address, "outcome": "accepted"}, {"outcome": "failed", "error": "InvalidEvent"}], files)
    put("FAILED", [{"Input": json.dumps({"Items": items}), "Error": "States.Runtime"}], files)
    put("PENDING", [{"Input": json.dumps({"Items": items[:1]})}], files)
    manifest = json.dumps({"ResultFiles": files})
    boto3.client("s3").put_object(Bucket=BUCKET, Key="batches/monday/0a1b/manifest.json", Body=manifest.encode())
    summary = Summary()
    for result in results(stack, RUN, "monday"):
        summary.add(result)
    assert summary.outcomes == {"accepted": 1, "failed": 3, "skipped": 1}
    assert summary.errors == {"InvalidEvent": 1, NOT_RUN: 2}
    assert summary.failed == [items[0], items[0]], "what has no address cannot be tried again"
    assert summary.failed_share == 0.75


def test_a_run_without_results_is_explained(stack: Stack) -> None:
    with pytest.raises(CommandError, match="does not exist"):
        list(results(stack, RUN, "monday"))


@pytest.mark.parametrize(
    ("instances", "rate", "seconds", "children"), [(1, 50, 0.5, 1), (4, 50, 0.5, 5), (10, 200, 0.4, 40), (1, 1, 0.1, 1)]
)
def test_children_keep_the_endpoint_busy(
    stack: Stack, instances: int, rate: float, seconds: float, children: int
) -> None:
    sagemaker = boto3.client("sagemaker")
    container = {"Image": "123456789012.dkr.ecr.us-east-1.amazonaws.com/i:1"}
    sagemaker.create_model(
        ModelName="m", ExecutionRoleArn="arn:aws:iam::123456789012:role/r", PrimaryContainer=container
    )
    variant: Any = {"VariantName": "v", "ModelName": "m", "InstanceType": "ml.m5.large"}
    variants = [{**variant, "InitialInstanceCount": instances}]
    sagemaker.create_endpoint_config(EndpointConfigName="c", ProductionVariants=variants)
    sagemaker.create_endpoint(EndpointName="endpoint", EndpointConfigName="c")
    assert concurrency(stack, rate, seconds) == children
    # Neither idle nor throttled: images in work at once are at most what the endpoint takes, but for a single child.
    assert children == 1 or children * 20 <= instances * rate * seconds < (children + 1) * 20


@pytest.mark.parametrize("manifest", ["list.csv", "batches/list.txt"])
def test_a_manifest_that_the_workflow_cannot_read_is_rejected(stack: Stack, manifest: str) -> None:
    with pytest.raises(CommandError, match="below batches/"):
        start(stack, {"manifest": manifest}, 50, 0.5, None)


def test_an_express_execution_has_no_history(stack: Stack) -> None:
    with pytest.raises(CommandError, match="Express"):
        find_execution(stack, "arn:aws:states:us-east-1:123456789012:express:w:name:id")
