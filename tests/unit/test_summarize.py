"""The batch workflow's summary counts as ``python -m operations batch summarize`` does."""

import json
from typing import Any

import boto3
import pytest
from moto import mock_aws

from operations.batch import NOT_RUN, Summary, results
from src.summarize import app
from tests.unit.test_operations_batch import BUCKET, RUN, put, stack  # noqa: F401  (a fixture)


def test_function_and_command_count_alike(stack: Any, monkeypatch: pytest.MonkeyPatch) -> None:  # noqa: F811
    s3 = boto3.client("s3")
    monkeypatch.setattr(app, "s3", s3)
    files: dict[str, list[Any]] = {"SUCCEEDED": [], "FAILED": [], "PENDING": []}
    address = {"s3_bucket": BUCKET, "s3_key": "a"}
    done = [{**address, "outcome": outcome} for outcome in ("accepted", "accepted", "unsure", "skipped")]
    failed = [{**address, "outcome": "failed", "error": error} for error in ("UnsupportedImage", "States.Timeout")]
    put("SUCCEEDED", [*done, *failed], files)
    put("FAILED", [{"Input": json.dumps({"Items": [address, {**address, "s3_key": "folder/"}]})}], files)
    key = "batches/monday/0a1b/manifest.json"
    s3.put_object(Bucket=BUCKET, Key=key, Body=json.dumps({"ResultFiles": files}).encode())
    counted = app.lambda_handler({"Bucket": BUCKET, "Key": key}, None)
    summary = Summary()
    for result in results(stack, RUN, "monday"):
        summary.add(result)
    assert {name: counted[name] for name in summary.outcomes} == summary.outcomes
    assert counted["errors"] == summary.errors == {"UnsupportedImage": 1, "States.Timeout": 1, NOT_RUN: 1}
    assert counted["failed_share"] == summary.failed_share == 0.5
    written = s3.get_object(Bucket=BUCKET, Key="batches/monday/0a1b/summary.json")["Body"].read()
    assert json.loads(written) == counted


def test_nothing_to_do_is_no_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    with mock_aws():
        s3 = boto3.client("s3", "us-east-1")
        monkeypatch.setattr(app, "s3", s3)
        s3.create_bucket(Bucket=BUCKET)
        s3.put_object(Bucket=BUCKET, Key="r/manifest.json", Body=b'{"ResultFiles": {"SUCCEEDED": []}}')
        assert app.lambda_handler({"Bucket": BUCKET, "Key": "r/manifest.json"}, None)["failed_share"] == 0
