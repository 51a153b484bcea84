"""``try --explain`` uses the model that made the prediction; a short workflow stands for the real one."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import boto3
import numpy as np
import pytest
from moto import mock_aws
from PIL import Image

from common import storage
from common.stack import Stack
from demo.drawing import encoded
from operations import heat_map
from operations.attempt import try_photos
from serving.model import Model
from tests.support.onnx_model import write_model
from training.deployment.deploy import pack

BUCKET = "images"
ROLE = "arn:aws:iam::123456789012:role/r"


@pytest.fixture
def stack(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Stack]:
    """Return a stack without a workflow yet, in an AWS that exists in memory."""
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("operations.replay.POLL_SECONDS", 0.05)
    storage._s3.cache_clear()
    heat_map._find_model.cache_clear()
    with mock_aws(config={"stepfunctions": {"execute_state_machine": True}}):
        boto3.client("s3").create_bucket(Bucket=BUCKET)
        yield Stack("classifier", {"ImageBucketName": BUCKET}, {})
    storage._s3.cache_clear()
    heat_map._find_model.cache_clear()


@pytest.fixture
def photo(tmp_path: Path) -> Path:
    """Return a grey photo with a red left half, where the model sees a bicycle."""
    image = Image.new("RGB", (200, 200), (90, 90, 90))
    image.paste((230, 30, 30), (0, 0, 100, 200))
    path = tmp_path / "bike.png"
    path.write_bytes(encoded(image))
    return path


def answering(stack: Stack, model: str, sure: bool = True) -> None:
    """Give the stack a workflow whose prediction is of a model."""
    answer = {"label": "bicycle", "confidence": 0.9, "model": model, "endpoint": "e", "variant": "AllTraffic"}
    unsure = {"Type": "Fail", "Error": "ThresholdNotMet", "Cause": "unsure"}
    last: dict[str, Any] = {"Type": "Pass", "End": True} if sure else unsure
    states = {"Classify": {"Type": "Pass", "Result": answer, "Next": "Last"}, "Last": last}
    workflow = boto3.client("stepfunctions").create_state_machine(
        name=f"workflow-{model}", definition=json.dumps({"StartAt": "Classify", "States": states}), roleArn=ROLE
    )
    stack.outputs["WorkflowArn"] = workflow["stateMachineArn"]


def serve(model: Path) -> None:
    """Create an endpoint with a model."""
    boto3.client("s3").put_object(Bucket=BUCKET, Key="models/model.tar.gz", Body=pack(model))
    client = boto3.client("sagemaker")
    container = {"Image": "i", "ModelDataUrl": f"s3://{BUCKET}/models/model.tar.gz"}
    client.create_model(ModelName="m", ExecutionRoleArn=ROLE, PrimaryContainer=container)
    client.create_endpoint_config(
        EndpointConfigName="c",
        ProductionVariants=[
            {"VariantName": "AllTraffic", "ModelName": "m", "InitialInstanceCount": 1, "InstanceType": "ml.m5.xlarge"}
        ],
    )
    client.create_endpoint(EndpointName="e", EndpointConfigName="c")


@pytest.mark.parametrize(("place", "sure"), [("local", True), ("endpoint", False)])
def test_the_model_that_made_the_prediction_shows_where_it_looked(
    stack: Stack, photo: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], place: str, sure: bool
) -> None:
    made = write_model(tmp_path / "made.onnx", maps=True)
    other = write_model(tmp_path / "other.onnx", maps=True, bias=(1.0, 0.0))
    if place == "endpoint":
        serve(made)
    sha256 = Model(made).sha256[:12]
    answering(stack, sha256, sure)
    assert try_photos(stack, [photo], made if place == "local" else other) == (0 if sure else 3)
    (written,) = (tmp_path / "build" / "heat-maps").iterdir()
    source = made.name if place == "local" else f"s3://{BUCKET}/models/model.tar.gz"
    expected = f"    heat map of bicycle: {written.relative_to(tmp_path)} (model {sha256}, {source})"
    assert expected in capsys.readouterr().out.splitlines()
    changed = np.abs(np.asarray(Image.open(written).resize((200, 200)), float) - np.asarray(Image.open(photo), float))
    assert changed[:, :80].mean() > 10 > 1 > changed[:, 120:].mean()


def test_no_other_model_explains_a_prediction(
    stack: Stack, photo: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    local = write_model(tmp_path / "local.onnx", maps=True)
    answering(stack, "0123456789ab")
    assert try_photos(stack, [photo], local) == 0
    assert "no heat map: " in capsys.readouterr().out, "there is no endpoint"
    serve(local)
    assert try_photos(stack, [photo], local) == 0
    assert "no heat map: endpoint e no longer serves model 0123456789ab" in capsys.readouterr().out
    answering(stack, "")
    assert try_photos(stack, [photo], local) == 0
    assert "no heat map: endpoint e does not say which model" in capsys.readouterr().out
    plain = write_model(tmp_path / "plain.onnx")
    answering(stack, Model(plain).sha256[:12])
    assert try_photos(stack, [photo], plain) == 0
    assert f"no heat map: model {Model(plain).sha256[:12]} has no output for it" in capsys.readouterr().out
    assert not (tmp_path / "build").exists()
