"""Comparing what a shadow and the model in service answered: captures as SageMaker writes them, moto as S3."""

import datetime
import io
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import boto3
import pytest
from moto import mock_aws
from moto.sagemaker.models import sagemaker_backends
from PIL import Image

from tests.support.captures import record
from tests.support.onnx_model import write_model
from tests.support.pages import Page, assert_self_contained
from tests.support.reviews import write_review
from training.__main__ import main
from training.deployment.deploy import upload_model

NAME = "image-classifier"
EXECUTIONS = "arn:aws:states:eu-west-1:123456789012:execution:workflow"
VARIANTS = ("AllTraffic", "Shadow-0123abcd")


@pytest.fixture
def endpoint(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[datetime.datetime]:
    """Create an endpoint with a shadow, whose labels are in another order; yield when its configuration was created."""
    monkeypatch.setenv("AWS_DEFAULT_REGION", "eu-west-1")
    monkeypatch.setattr("common.storage._s3", lambda: boto3.client("s3"))
    with mock_aws():
        boto3.client("s3").create_bucket(Bucket="models", CreateBucketConfiguration={"LocationConstraint": "eu-west-1"})
        sagemaker = boto3.client("sagemaker")
        role = "arn:aws:iam::123456789012:role/r"
        labels = {"served": ("bicycle", "motorcycle"), "shadow": ("motorcycle", "bicycle")}
        for name, order in labels.items():
            url = upload_model("models", NAME, write_model(tmp_path / f"{name}.onnx", labels=order), lambda _: None)
            container = {"Image": "i", "ModelDataUrl": url}
            sagemaker.create_model(ModelName=name, ExecutionRoleArn=role, PrimaryContainer=container)
        variant = {"InstanceType": "ml.m5.large", "InitialInstanceCount": 1, "InitialVariantWeight": 1.0}
        served, shadow = (
            {**variant, "VariantName": variant_name, "ModelName": model}
            for variant_name, model in zip(VARIANTS, labels, strict=True)
        )
        sagemaker.create_endpoint_config(
            EndpointConfigName="with-a-shadow",
            ProductionVariants=[served],
            DataCaptureConfig={
                "EnableCapture": True,
                "InitialSamplingPercentage": 100,
                "DestinationS3Uri": "s3://models/capture",
                "CaptureOptions": [{"CaptureMode": "Input"}, {"CaptureMode": "Output"}],
            },
        )
        # moto drops it; the rehearsal does not.
        config: Any = sagemaker_backends["123456789012"]["eu-west-1"].endpoint_configs["with-a-shadow"]
        config.shadow_production_variants = [shadow]
        sagemaker.create_endpoint(EndpointName=NAME, EndpointConfigName="with-a-shadow")
        yield sagemaker.describe_endpoint_config(EndpointConfigName="with-a-shadow")["CreationTime"]


def picture(number: int) -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (8, 8), (number, 2 * number, 200)).save(file, "PNG")
    return file.getvalue()


def capture(variant: str, begin: datetime.datetime, *answers: tuple[int, int, list[float]]) -> None:
    """Write captures: the image's number, the seconds after the beginning, and the probabilities."""
    lines: dict[str, list[str]] = {}
    for number, seconds, probabilities in answers:
        time = (begin + datetime.timedelta(seconds=seconds)).astimezone(datetime.UTC)
        # AWS does not document that a copy of a request has its id.
        name = f"execution-{number}" if variant == VARIANTS[0] else None
        line = record(picture(number), probabilities, time, name)
        lines.setdefault(f"{time:%Y/%m/%d/%H}", []).append(line)
    for hour, written in lines.items():
        key = f"capture/{NAME}/{variant}/{hour}/captured.jsonl"
        boto3.client("s3").put_object(Bucket="models", Key=key, Body="\n".join(written).encode())


def test_answers_are_paired_by_image_and_judged_by_people(
    endpoint: datetime.datetime, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    sure, unsure = [0.9, 0.05], [0.6, 0.3]
    # Another model answered image 1 long before and long after. Images 5 and 6 have no pair.
    served = [(0, 1, sure), (1, 2, sure), (2, 3, unsure), (3, 4, unsure), (1, 9000, [0.05, 0.9]), (6, 5, sure)]
    capture(VARIANTS[0], endpoint, (1, -3600, [0.05, 0.9]), (5, -3600, sure), *served)
    # The shadow's labels: motorcycle, bicycle.
    copied = [(0, 2, [0.02, 0.95]), (1, 3, [0.4, 0.5]), (2, 4, [0.1, 0.85]), (3, 5, [0.9, 0.1]), (5, 6, [0.9, 0.1])]
    capture(VARIANTS[1], endpoint, *copied)
    for number in (2, 3, 6, 7):
        original = f"the upload of image {number}".encode()
        write_review(tmp_path / "labels", "bicycle", original, execution_id=f"{EXECUTIONS}:execution-{number}")

    command = ["compare", "--endpoint-name", NAME, "--labels", str(tmp_path / "labels"), "--out", str(tmp_path)]
    assert main([*command, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found == json.loads((tmp_path / "comparison.json").read_text())
    assert [model["requests"] for model in found["models"]] == [6, 5]
    assert [model["mean_confidence"] for model in found["models"]] == [0.75, 0.8]
    assert (found["same_label"], found["same_answer"]) == (0.75, 0.25)
    changes = {(change["from"], change["to"], change["images"]) for change in found["changes"]}
    assert changes == {("bicycle", "unsure", 1), ("unsure", "bicycle", 1), ("unsure", "motorcycle", 1)}
    (answers,) = found["sets"].values()
    assert answers["n"] == 4 and answers["figures"]["passing"]["values"] == [0.5, 0.75]
    assert answers["figures"]["accuracy"]["values"] == [1, 0.5] and answers["figures"]["accuracy"]["n"] == 2
    assert [each["change"] for each in answers["changed"]] == ["worse", "better", "unknown"]
    assert (found["reviews"], found["reviewed"]) == (4, 2)
    assert {test["harm"]: (test["worse"], test["better"]) for test in found["tests"]} == {
        "predicts the wrong label": (1, 0),
        "passes a wrong prediction": (1, 0),
        "does not pass the correct label": (0, 1),
    }
    html = (tmp_path / "comparison.html").read_text()
    assert_self_contained(html)
    assert len(Page(html).of("img")) == 3

    assert main(command) == 0
    said = capsys.readouterr().out
    for part in (
        "4 images",
        "same label in 75.0%, and the same answer in 25.0%",
        "1: unsure became motorcycle",
        "2 of 4 reviewed images",
        "predicts the wrong label: 1 images became worse, 0 better of 2",
    ):
        assert part in said


def test_without_pairs_or_reviews_the_command_says_what_is_missing(
    endpoint: datetime.datetime, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["compare", "--endpoint-name", NAME, "--out", str(tmp_path)]
    capture(VARIANTS[0], endpoint, (1, 1, [0.9, 0.1]), (2, 2, [0.9]))
    assert main(command) == 1
    said = capsys.readouterr().err
    assert "(1 of the model in service, 0 of the shadow)" in said and "another number of probabilities" in said
    capture(VARIANTS[1], endpoint, (1, 2, [0.1, 0.9]))
    assert main([*command, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["same_answer"], found["changes"], found["tests"], found["reviews"]) == (1, [], [], 0)
    config: Any = sagemaker_backends["123456789012"]["eu-west-1"].endpoint_configs["with-a-shadow"]
    config.shadow_production_variants = None
    assert main(command) == 1
    assert "has no shadow; start it with" in capsys.readouterr().err
