"""Whatever the three functions are given, an exception that leaves one has a name of the event contract."""

import io
import json
import math
from collections.abc import Iterator
from types import ModuleType
from typing import Any

import boto3
import pytest
from botocore.awsrequest import AWSResponse
from botocore.compat import HTTPHeaders
from botocore.response import StreamingBody
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from moto import mock_aws

from src.classify import app as classify
from src.filter import app as filter_
from src.serialize import app as serialize
from tests.support.functions import SETTINGS, FakeLambdaContext

BASES = {serialize: serialize.SerializeError, classify: classify.ClassifyError, filter_: filter_.FilterError}
CLASSIFIED = {
    "s3_bucket": "images",
    "s3_key": "a.png",
    "execution_id": "arn:aws:states:r:1:execution:w:n",
    "image_id": "0",
    "source": {"etag": "0"},
    "statistics": {},
    "inferences": [0.1, 0.9],
    "label": "motorcycle",
    "confidence": 0.9,
}
EVENTS: dict[ModuleType, dict[str, Any]] = {
    serialize: {"s3_bucket": "images", "s3_key": "a.png", "execution_id": "n", "bucket": {}, "object": {}, "body": 0},
    classify: {**CLASSIFIED, "image_data": "Zg==", "content_type": "image/png"},
    filter_: CLASSIFIED,
}
ODD_TEXTS = [
    *(
        "",
        " ",
        "\0",
        "\n",
        "a\r\nb: c",
        "\x7f",
        "\ud800",
        "a\udfffb",
        "..",
        "/",
        "//",
        "a/",
        "%",
        "%00",
        "%ff",
        "é" * 600,
    ),
    *("images\n", "-", "arn:aws-cn:s3:cn-north-1:123456789012:accesspoint/a", "arn:aws:s3:::images", "arn:::::"),
    *("arn:aws:s3-outposts:us-east-1:123456789012:outpost/op-1/accesspoint/a", "x" * 300_000, "NaN", "1e999"),
]
odd_texts = st.sampled_from(ODD_TEXTS)
numbers = st.sampled_from([-(10**400), 2**64, math.nan, math.inf, -math.inf, -0.0, 1e308, 0.5, 1])
leaves = st.none() | st.booleans() | numbers | odd_texts | st.text(max_size=30) | st.binary(max_size=5)
values = st.recursive(
    leaves, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3)
)


def nested(depth: int) -> list[Any]:
    """Return a list in a list in a list …"""
    value: list[Any] = []
    for _ in range(depth):
        value = [value]
    return value


#: What Python cannot even show: more digits, or more depth, than it takes.
UNPRINTABLE: list[Any] = [10**5000, nested(100_000), [10**5000, nested(1000)]]


@pytest.fixture(scope="module", autouse=True)
def aws() -> Iterator[None]:
    """Let serialize read an empty bucket of moto's."""
    with mock_aws(), pytest.MonkeyPatch.context() as patch:
        s3 = boto3.client("s3")
        s3.create_bucket(Bucket="images")
        patch.setattr(serialize, "s3", s3)
        patch.setattr(classify, "runtime", Endpoint(b"[0.1, 0.9]"))
        for name, value in SETTINGS.items():
            patch.setenv(name, value)
        yield


class Endpoint:
    """Validates a request as boto3 does, and gives an answer."""

    def __init__(self, answer: bytes) -> None:
        self.answer = answer
        self.checked = boto3.client("sagemaker-runtime", endpoint_url="http://localhost:1")
        # In the place of a request: all that could refuse its parameters and headers has run by then.
        self.checked.meta.events.register("before-send", lambda **_: AWSResponse("", 200, HTTPHeaders(), io.BytesIO()))

    def invoke_endpoint(self, **asked: Any) -> dict[str, Any]:
        self.checked.invoke_endpoint(**asked)
        return {"Body": StreamingBody(io.BytesIO(self.answer), len(self.answer)), "InvokedProductionVariant": "A"}


def call(app: ModuleType, event: Any) -> None:
    """Call a function; fail if what it raises has no name of the contract."""
    try:
        app.lambda_handler(event, FakeLambdaContext())
    except BASES[app] as error:
        assert len(str(error)) < 4000, "a message is for people"


@settings(deadline=None, max_examples=400, suppress_health_check=list(HealthCheck))
@given(app=st.sampled_from([*BASES]), data=st.data())
def test_a_disturbed_field_ends_in_a_named_error(app: ModuleType, data: st.DataObject) -> None:
    event = dict(EVENTS[app])
    for name in data.draw(st.lists(st.sampled_from([*event]), min_size=1, max_size=2, unique=True)):
        event[name] = data.draw(values)
    call(app, event)


@settings(deadline=None, max_examples=100, suppress_health_check=list(HealthCheck))
@given(app=st.sampled_from([*BASES]), event=values)
def test_anything_else_than_an_event_ends_in_a_named_error(app: ModuleType, event: Any) -> None:
    call(app, event)


@settings(deadline=None, max_examples=200, suppress_health_check=list(HealthCheck))
@given(bucket=values, uploaded=values, name=odd_texts, key=odd_texts, etag=values)
def test_any_event_of_an_upload_ends_in_a_named_error(
    bucket: Any, uploaded: Any, name: str, key: str, etag: Any
) -> None:
    call(serialize, {"bucket": bucket, "object": uploaded})
    call(serialize, {"bucket": {"name": name}, "object": {"key": key, "etag": etag}})
    call(serialize, {"bucket": {"name": "images"}, "object": {"key": key, "etag": "0"}})


answers = [b"[" * 100_000, b"[" * 900 + b"]" * 900, b"[NaN, 1]", b"[1e999, 0]", b"9" * 5000, b"[1e-400, 1]", b"\xff"]


@settings(deadline=None, max_examples=200, suppress_health_check=list(HealthCheck))
@given(
    answer=st.sampled_from(answers)
    | st.binary(max_size=50)
    | values.map(lambda value: json.dumps(value, default=str).encode())
)
def test_any_answer_of_the_endpoint_ends_in_a_named_error(answer: bytes) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(classify, "runtime", Endpoint(answer))
        call(classify, EVENTS[classify])


@pytest.mark.parametrize("app", BASES, ids=lambda app: app.__name__.split(".")[1])
def test_an_odd_value_in_any_field_ends_in_a_named_error(app: ModuleType) -> None:
    for value in [*ODD_TEXTS, *UNPRINTABLE]:
        call(app, value)
        for field in EVENTS[app]:
            call(app, {**EVENTS[app], field: value})
            call(app, {**EVENTS[app], field: [value]})


@pytest.mark.parametrize("app", BASES, ids=lambda app: app.__name__.split(".")[1])
@pytest.mark.parametrize("text", [None, "", " ", ",", "a,,b", "224.5", "-1", "1e3", "²", "9" * 500, "nan", "\ud800"])
def test_any_setting_ends_in_a_named_error(app: ModuleType, text: str | None) -> None:
    for name in SETTINGS:
        with pytest.MonkeyPatch.context() as patch:
            if text is None:
                patch.delenv(name)
            else:
                patch.setattr("os.environ", {**SETTINGS, name: text})
            call(app, EVENTS[app])
