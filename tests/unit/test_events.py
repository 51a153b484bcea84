"""The sample events: each carries valid data and gives the outcome that its name promises."""

import io
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import boto3
import pytest
from botocore.response import StreamingBody
from moto import mock_aws

from serving.model import Model
from serving.preprocess import preprocess
from src.classify import app as classify
from src.filter import app as filter_
from src.serialize import app as serialize
from src.serialize.decoder import ImageError
from tests.support.functions import SETTINGS

ROOT = Path(__file__).parents[2]
EVENTS = ROOT / "events"


def event(name: str) -> Any:
    return json.loads((EVENTS / f"{name}.json").read_text())


@pytest.fixture(autouse=True)
def stack(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Set the functions up as the stack does, with the committed model behind the endpoint."""
    for name, value in SETTINGS.items():
        monkeypatch.setenv(name, value)
    model = Model(ROOT / "training/model/model.onnx")

    class Endpoint:
        def invoke_endpoint(self, Body: bytes, **_: Any) -> dict[str, Any]:  # noqa: N803
            answer = json.dumps(model.probabilities(preprocess(Body, model.input_size))).encode()
            return {"Body": StreamingBody(io.BytesIO(answer), len(answer)), "InvokedProductionVariant": "AllTraffic"}

    monkeypatch.setattr(classify, "runtime", Endpoint())
    with mock_aws():
        s3 = boto3.client("s3")
        s3.create_bucket(Bucket=event("serialize")["s3_bucket"])
        for path in (EVENTS / "images").iterdir():
            s3.upload_file(str(path), event("serialize")["s3_bucket"], f"samples/{path.name}")
        monkeypatch.setattr(serialize, "s3", s3)
        yield


def test_the_samples_of_serialize(context: Any) -> None:
    serialized = serialize.lambda_handler(event("serialize"), context)
    assert serialized == event("classify"), "events/classify.json is what serialize returns for events/serialize.json"
    with pytest.raises(serialize.ObjectNotFound):
        serialize.lambda_handler(event("serialize-missing-object"), context)
    with pytest.raises(serialize.UnsupportedImage):
        serialize.lambda_handler(event("serialize-not-an-image"), context)
    with pytest.raises(serialize.InvalidEvent):
        serialize.lambda_handler(event("serialize-invalid-event"), context)


def test_the_samples_of_classify(context: Any) -> None:
    classified = classify.lambda_handler(event("classify"), context)
    assert classified["label"] == "bicycle" and classified["confidence"] >= 0.7
    assert set(classified) == set(event("filter-accepted"))
    with pytest.raises(ImageError):
        classify.lambda_handler(event("classify-not-an-image"), context)


def test_the_samples_of_filter(context: Any) -> None:
    assert filter_.lambda_handler(event("filter-accepted"), context) == event("filter-accepted")
    with pytest.raises(filter_.ThresholdNotMet):
        filter_.lambda_handler(event("filter-unsure"), context)
    with pytest.raises(filter_.InvalidInference):
        filter_.lambda_handler(event("filter-invalid-inference"), context)


@pytest.mark.parametrize(("name", "passes"), [("workflow", True), ("workflow-unsure", False)])
def test_the_inputs_of_the_workflow(context: Any, name: str, passes: bool) -> None:
    classified = classify.lambda_handler(serialize.lambda_handler(event(name), context), context)
    assert (classified["confidence"] >= 0.7) == passes


def test_the_notification_matches_the_rule_of_the_stack() -> None:
    from samtranslator.yaml_helper import yaml_parse

    template = yaml_parse((ROOT / "template.yaml").read_text())
    rule = template["Resources"]["UploadStarter"]["Properties"]["Events"]["ImageUploaded"]["Properties"]
    notification = event("s3-object-created")
    assert notification["source"] in rule["Pattern"]["source"]
    assert notification["detail-type"] in rule["Pattern"]["detail-type"]
    assert notification["detail"]["object"]["key"].startswith(template["Parameters"]["UploadPrefix"]["Default"])
    # What the rule hands over is the input of an execution.
    assert rule["InputPath"] == "$.detail"
    address = serialize.parse_event(notification["detail"])
    assert (address["s3_bucket"], address["s3_key"]) == (event("workflow")["s3_bucket"], "incoming/bicycle.png")


def test_no_sample_is_left_untested() -> None:
    tested = Path(__file__).read_text()
    assert all(f'"{path.stem}"' in tested for path in EVENTS.glob("*.json"))
