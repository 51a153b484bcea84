"""The event contract: exactly these fields, with these types, after each function."""

import base64
import io
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import boto3
import pytest
from botocore.response import StreamingBody
from botocore.stub import Stubber
from moto import mock_aws

from src.classify import app as classify
from src.filter import app as filter_
from src.serialize import app as serialize
from tests.support.functions import SETTINGS

ROOT = Path(__file__).parents[2]
ADDRESS = {"s3_bucket": str, "s3_key": str, "execution_id": str, "image_id": str}
SOURCE = {"format": str, "width": int, "height": int, "bytes": int, "etag": str}
STATISTICS = {"brightness": float, "contrast": float, "sharpness": float}
AFTER_SERIALIZE = {**ADDRESS, "image_data": str, "content_type": str, "source": SOURCE, "statistics": STATISTICS}
AFTER_CLASSIFY = {
    **ADDRESS,
    "source": SOURCE,
    "statistics": STATISTICS,
    "inferences": list,
    "label": str,
    "confidence": float,
    "neither": float,
    "endpoint": str,
    "variant": str,
    "model": str,
}


def shape(value: Any) -> Any:
    return {name: shape(part) for name, part in value.items()} if isinstance(value, dict) else type(value)


@pytest.fixture
def chain(monkeypatch: pytest.MonkeyPatch, png: Any, context: Any) -> Iterator[list[dict[str, Any]]]:
    """Return the event after each of the three functions, for a caller of the original design."""
    for name, value in SETTINGS.items():
        monkeypatch.setenv(name, value)
    with mock_aws():
        s3 = boto3.client("s3")
        s3.create_bucket(Bucket="images")
        s3.put_object(Bucket="images", Key="a.png", Body=png(300, 200))
        monkeypatch.setattr(serialize, "s3", s3)
        runtime = boto3.client("sagemaker-runtime")
        monkeypatch.setattr(classify, "runtime", runtime)
        answer = b"[0.05, 0.91]"
        stubber = Stubber(runtime)
        response = {"Body": StreamingBody(io.BytesIO(answer), len(answer)), "InvokedProductionVariant": "AllTraffic"}
        stubber.add_response("invoke_endpoint", response)
        stubber.activate()
        event = {
            "s3_bucket": "images",
            "s3_key": "a.png",
            "execution_id": "arn:aws:states:us-east-1:1:execution:w:n",
            "image_data": "",
            "inferences": [],
        }
        events = []
        for app in (serialize, classify, filter_):
            # Between two states an event is JSON, whatever Python made of it.
            event = json.loads(json.dumps(app.lambda_handler(event, context)))
            events.append(event)
        yield events


def test_the_fields_after_each_function(chain: list[dict[str, Any]]) -> None:
    assert shape(chain[0]) == AFTER_SERIALIZE
    assert shape(chain[1]) == AFTER_CLASSIFY
    assert chain[2] == chain[1]


def test_the_values_mean_what_the_contract_says(chain: list[dict[str, Any]]) -> None:
    serialized, classified, _ = chain
    assert base64.b64decode(serialized["image_data"])[:4] == b"\x89PNG"
    assert serialized["content_type"] == "image/png"
    assert classified["inferences"] == [0.05, 0.91]
    assert (classified["label"], classified["confidence"], classified["neither"]) == ("motorcycle", 0.91, 0.04)
    assert all(classified[name] == serialized[name] for name in (*ADDRESS, "source", "statistics"))


def test_the_image_never_outlives_classify(chain: list[dict[str, Any]]) -> None:
    image = chain[0]["image_data"]
    assert image not in json.dumps(chain[1]) and "image_data" not in chain[1]


def test_the_review_message_takes_fields_that_exist(chain: list[dict[str, Any]]) -> None:
    states = json.loads((ROOT / "statemachine" / "classify.asl.json").read_text())["States"]
    body = states["Queue for review"]["Parameters"]["MessageBody"]
    wanted = {path.removeprefix("$.") for path in body.values() if not path.startswith("$$")}
    assert wanted | {"execution_id"} == set(chain[1])
    assert body["execution_id.$"] == "$$.Execution.Id"


def test_every_documented_log_filter_is_one_that_cloudwatch_logs_takes() -> None:
    # Terms with anything but letters, digits and _ need double quotes, and SAM looks back ten minutes by itself.
    found = []
    for page in [ROOT / "README.md", *(ROOT / "docs").glob("*.md")]:
        text = page.read_text().replace("\n", " ")
        found += re.findall(r"sam logs [^`]*?--filter (\S+)( --start-time '[^']+')?", text)
    assert len(found) >= 2
    assert all(re.fullmatch(r"""'"[^"]+"'""", term) and start for term, start in found), found
