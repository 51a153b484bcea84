"""Copying a staged folder to S3."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import boto3
import pytest
from botocore.exceptions import ClientError
from moto import mock_aws

from common.errors import CommandError
from common.storage import parse_s3
from training.dataset import upload as module
from training.dataset.upload import Uploaded, upload

BUCKET = "images"


@pytest.fixture(autouse=True)
def s3(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    monkeypatch.setenv("AWS_DEFAULT_REGION", "eu-west-1")
    with mock_aws():
        client = boto3.client("s3")
        client.create_bucket(Bucket=BUCKET, CreateBucketConfiguration={"LocationConstraint": "eu-west-1"})
        yield client


@pytest.fixture
def staged(tmp_path: Path) -> Path:
    images = []
    for i in range(5):
        path = f"train/bicycle/{i}.png"
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_bytes(b"image %d" % i)
        images.append({"path": path, "label": "bicycle", "split": "train", "sha256": "", "source": ""})
    fields: dict[str, Any] = {"labels": [], "neither_limit": None, "sources": [], "counts": {}}
    fields |= {"duplicates": 0, "unreadable": []}
    (tmp_path / "manifest.json").write_text(json.dumps({**fields, "images": images}))
    return tmp_path


def keys(s3: Any) -> set[str]:
    return {item["Key"] for item in s3.list_objects_v2(Bucket=BUCKET).get("Contents", [])}


def test_everything_arrives_and_a_second_run_sends_nothing(s3: Any, staged: Path) -> None:
    assert upload(staged, BUCKET, "data/v1") == Uploaded(sent=6, unchanged=0)
    assert keys(s3) == {f"data/v1/train/bicycle/{i}.png" for i in range(5)} | {"data/v1/manifest.json"}
    head = s3.head_object(Bucket=BUCKET, Key="data/v1/train/bicycle/0.png")
    assert head["ContentType"] == "image/png"
    assert upload(staged, BUCKET, "data/v1") == Uploaded(sent=0, unchanged=6)


def test_only_what_changed_is_sent_again(s3: Any, staged: Path) -> None:
    upload(staged, BUCKET, "")
    # Of the same size, so that comparing sizes alone would miss it.
    (staged / "train/bicycle/3.png").write_bytes(b"image X")
    assert upload(staged, BUCKET, "") == Uploaded(sent=1, unchanged=5)
    assert s3.get_object(Bucket=BUCKET, Key="train/bicycle/3.png")["Body"].read() == b"image X"


def test_under_kms_the_checksum_decides(s3: Any, staged: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    upload(staged, BUCKET, "a")
    real = module._etags
    monkeypatch.setattr(module, "_etags", lambda *args: dict.fromkeys(real(*args), "not an MD5"))
    assert upload(staged, BUCKET, "a") == Uploaded(sent=0, unchanged=6)
    (staged / "train/bicycle/3.png").write_bytes(b"image X")
    assert upload(staged, BUCKET, "a") == Uploaded(sent=1, unchanged=5)


@pytest.mark.parametrize(("failing", "arrived"), [("3.png", 4), ("manifest.json", 5)])
def test_failures_are_named_and_leave_no_manifest(
    s3: Any, staged: Path, monkeypatch: pytest.MonkeyPatch, failing: str, arrived: int
) -> None:
    real = module._send

    def send(client: Any, bucket: str, key: str, path: Path, present: dict[str, str]) -> bool:
        if key.endswith(failing):
            raise ClientError({"Error": {"Code": "AccessDenied", "Message": "no"}}, "PutObject")
        return real(client, bucket, key, path, present)

    monkeypatch.setattr(module, "_send", send)
    with pytest.raises(CommandError, match=f"1 of 6 objects.*{failing}.*AccessDenied"):
        upload(staged, BUCKET, "data")
    assert "data/manifest.json" not in keys(s3)
    assert len(keys(s3)) == arrived


def test_a_missing_bucket_is_said(staged: Path) -> None:
    with pytest.raises(CommandError, match="NoSuchBucket"):
        upload(staged, "another-bucket", "x")


def test_s3_addresses() -> None:
    assert parse_s3("s3://bucket/a/b/") == ("bucket", "a/b")
    assert parse_s3("s3://bucket") == ("bucket", "")
    for text in ("bucket/a", "s3://", "s3://UPPER/x", "https://bucket/x"):
        with pytest.raises(CommandError):
            parse_s3(text)
