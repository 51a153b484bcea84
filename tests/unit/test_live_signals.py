"""Metrics, log lines and traces of the three functions: the right figures, and one id that finds them all."""

import base64
import io
import json
import math
from collections.abc import Callable
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

ADDRESS = {
    "s3_bucket": "images",
    "s3_key": "incoming/a.png",
    "execution_id": "arn:aws:states:us-east-1:123456789012:execution:workflow:name-1",
}
ENDPOINT = {"endpoint": "image-classifier", "variant": "AllTraffic", "model": "0123456789ab"}
IMAGE = base64.b64encode(b"not really an image").decode()
TO_CLASSIFY = {**ADDRESS, "image_data": IMAGE, "content_type": "image/png"}
CLASSIFIED = {**ADDRESS, **ENDPOINT, "inferences": [0.05, 0.9], "label": "motorcycle", "confidence": 0.9}
UNSURE = {**CLASSIFIED, "inferences": [0.3, 0.4], "confidence": 0.4}
NEITHER = {**CLASSIFIED, "inferences": [0.05, 0.2], "confidence": 0.2}


@pytest.fixture(autouse=True)
def _settings(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in SETTINGS.items():
        monkeypatch.setenv(name, value)


@pytest.fixture
def run_serialize(context: Any, png: Any, monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    def run(data: bytes | None = None) -> None:
        with mock_aws():
            s3 = boto3.client("s3")
            s3.create_bucket(Bucket="images")
            s3.put_object(Bucket="images", Key=ADDRESS["s3_key"], Body=png(64, 64) if data is None else data)
            monkeypatch.setattr(serialize, "s3", s3)
            serialize.lambda_handler(dict(ADDRESS), context)

    return run


@pytest.fixture
def run_classify(context: Any, monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    def run(answer: bytes = b"[0.05, 0.9]", attributes: str = "", event: Any = TO_CLASSIFY) -> None:
        runtime = boto3.client("sagemaker-runtime")
        monkeypatch.setattr(classify, "runtime", runtime)
        response = {
            "Body": StreamingBody(io.BytesIO(answer), len(answer)),
            "InvokedProductionVariant": "AllTraffic",
            "CustomAttributes": attributes or 'labels=["bicycle","motorcycle"];model=0123456789ab',
        }
        with Stubber(runtime) as stubber:
            stubber.add_response("invoke_endpoint", response)
            classify.lambda_handler(dict(event), context)

    return run


def names(line: dict[str, Any]) -> set[str]:
    (directive,) = line["_aws"]["CloudWatchMetrics"]
    return {metric["Name"] for metric in directive["Metrics"]}


def test_serialize_measures_the_picture(run_serialize: Any, counted: Any) -> None:
    run_serialize()
    (line,) = counted()
    assert names(line) == {"ImageBytes", "Brightness", "Contrast", "Sharpness"}
    assert line["Brightness"] == [pytest.approx(0.5, abs=0.02)] and 0.2 < line["Contrast"][0] < 0.4
    assert line["_aws"]["CloudWatchMetrics"][0]["Dimensions"] == [["service"]]


def test_classify_measures_the_call_of_the_endpoint(run_classify: Any, counted: Any) -> None:
    run_classify()
    (line,) = counted()
    assert names(line) == {"EndpointLatency"} and 0 < line["EndpointLatency"][0] < 10_000


@pytest.mark.parametrize(
    ("event", "outcome", "neither"),
    [(CLASSIFIED, "Accepted", 0.05), (UNSURE, "Unsure", 0.3), (NEITHER, "Neither", 0.75)],
)
def test_filter_counts_each_outcome_in_all_and_by_label(
    context: Any, counted: Any, event: Any, outcome: str, neither: float
) -> None:
    try:
        filter_.lambda_handler(dict(event), context)
        assert outcome == "Accepted"
    except filter_.ThresholdNotMet:
        assert outcome != "Accepted"
    (line,) = counted()
    counts = {name: line[name] for name in ("Accepted", "Unsure", "Neither")}
    assert counts == {"Accepted": [0], "Unsure": [0], "Neither": [0], outcome: [1]}
    assert (line["Confidence"], line["NeitherProbability"]) == ([event["confidence"]], [pytest.approx(neither)])
    (directive,) = line["_aws"]["CloudWatchMetrics"]
    assert directive["Dimensions"] == [["service"], ["service", "label"]]
    assert (line["service"], line["label"]) == ("test", "motorcycle")


def test_the_labels_of_one_image_are_not_those_of_the_next(context: Any, counted: Any) -> None:
    filter_.lambda_handler(dict(CLASSIFIED), context)
    filter_.lambda_handler({**CLASSIFIED, "label": "vélo"}, context)
    first, second = counted()
    assert first["label"] == "motorcycle"
    assert second["label"] == "v\\xe9lo", "CloudWatch takes ASCII only"
    assert second["_aws"]["CloudWatchMetrics"][0]["Dimensions"] == [["service"], ["service", "label"]]


@pytest.mark.parametrize(
    ("function", "event", "error"),
    [
        (serialize, {}, "InvalidEvent"),
        (classify, {}, "InvalidEvent"),
        (filter_, {}, "InvalidEvent"),
        (filter_, {**CLASSIFIED, "confidence": math.nan}, "InvalidInference"),
    ],
)
def test_a_refusal_is_counted_under_its_name(
    context: Any, counted: Any, function: Any, event: dict[str, Any], error: str
) -> None:
    with pytest.raises(getattr(function, error)):
        function.lambda_handler(event, context)
    (line,) = counted()
    assert names(line) == {error} and line[error] == [1]


def test_what_nobody_foresaw_is_logged_with_the_image_and_leaves_nothing_behind(
    run_serialize: Any, monkeypatch: pytest.MonkeyPatch, counted: Any, logged: Any, context: Any
) -> None:
    lines = logged(serialize)
    monkeypatch.setattr(serialize, "image_statistics", lambda image: 1 // 0)
    with pytest.raises(ZeroDivisionError):
        run_serialize()
    (line,) = lines()
    assert line["error"] == "ZeroDivisionError" and "Traceback" in line["exception"]
    assert line.items() >= ADDRESS.items()
    with pytest.raises(serialize.InvalidEvent):
        serialize.lambda_handler({}, context)
    first, second = counted()
    assert names(first) == {"UnexpectedError"} and first.items() >= ADDRESS.items()
    assert not set(ADDRESS) & set(second), "the next image is another one"
    assert not set(ADDRESS) & set(lines()[-1])


def test_one_id_finds_the_log_lines_metrics_and_trace_of_serialize(
    run_serialize: Any, logged: Any, counted: Any, traced: Any
) -> None:
    lines = logged(serialize)
    annotations = traced(serialize, run_serialize)
    for seen in [*lines(), *counted(), annotations]:
        assert seen.items() >= ADDRESS.items()


def test_one_id_finds_the_log_lines_metrics_and_trace_of_classify(
    run_classify: Any, logged: Any, counted: Any, traced: Any
) -> None:
    lines = logged(classify)
    annotations = traced(classify, run_classify)
    for seen in [*lines(), *counted(), annotations]:
        assert seen.items() >= {**ADDRESS, **ENDPOINT}.items()
        assert IMAGE not in json.dumps(seen, default=str)


def test_one_id_finds_the_log_lines_metrics_and_trace_of_filter(
    context: Any, logged: Any, counted: Any, traced: Any
) -> None:
    lines = logged(filter_)

    def unsure() -> None:
        with pytest.raises(filter_.ThresholdNotMet):
            filter_.lambda_handler(dict(UNSURE), context)

    annotations = traced(filter_, unsure)
    for seen in [*lines(), *counted(), annotations]:
        assert seen.items() >= {**ADDRESS, **ENDPOINT}.items()


def test_an_unbelievable_answer_is_logged_with_the_variant_and_model_that_gave_it(
    run_classify: Any, logged: Any, counted: Any
) -> None:
    lines = logged(classify)
    for answer, attributes in ((b"[7]", ""), (b"[0.1, 0.2]", 'labels=["cat","dog"];model=0123456789ab')):
        with pytest.raises(classify.InvalidInference):
            run_classify(answer, attributes)
        assert lines()[-1].items() >= {**ADDRESS, **ENDPOINT}.items()
        assert counted()[-1].items() >= {**ADDRESS, **ENDPOINT}.items()


def test_a_long_key_fits_an_annotation(context: Any, traced: Any) -> None:
    key = "ä" * 1010
    annotations = traced(filter_, lambda: filter_.lambda_handler({**CLASSIFIED, "s3_key": key}, context))
    assert annotations["s3_key"] == key[:1000], "X-Ray takes 1,000 characters"
