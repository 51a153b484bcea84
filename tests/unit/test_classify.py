"""Classify: what the endpoint is asked, what is believed of its answer, and every failure by name."""

import base64
import io
from collections.abc import Callable
from typing import Any

import boto3
import pytest
from botocore.exceptions import ConnectTimeoutError, ReadTimeoutError
from botocore.response import StreamingBody
from botocore.stub import Stubber

from src.classify import app

IMAGE = b"\x89PNG not really"
EVENT: dict[str, Any] = {
    "s3_bucket": "images",
    "s3_key": "incoming/a.png",
    "execution_id": "arn:aws:states:us-east-1:123456789012:execution:workflow:name-1",
    "image_data": base64.b64encode(IMAGE).decode(),
    "content_type": "image/png",
    "source": {"format": "PNG"},
    "statistics": {"brightness": 0.5},
}
REQUEST = {
    "EndpointName": "image-classifier",
    "Body": IMAGE,
    "ContentType": "image/png",
    "Accept": "application/json",
    "InferenceId": "name-1",
}


@pytest.fixture
def endpoint(monkeypatch: pytest.MonkeyPatch) -> Stubber:
    """Return a stub of the endpoint, which checks requests against the service's own model."""
    monkeypatch.setenv("ENDPOINT_NAME", "image-classifier")
    monkeypatch.setenv("LABELS", "bicycle,motorcycle")
    client = boto3.client("sagemaker-runtime")
    monkeypatch.setattr(app, "runtime", client)
    stubber = Stubber(client)
    stubber.activate()
    return stubber


@pytest.fixture
def answer(endpoint: Stubber, context: Any) -> Callable[..., dict[str, Any]]:
    def run(body: bytes | str, event: dict[str, Any] = EVENT, **more: str) -> dict[str, Any]:
        raw = body.encode() if isinstance(body, str) else body
        response = {
            "Body": StreamingBody(io.BytesIO(raw), len(raw)),
            "InvokedProductionVariant": "AllTraffic",
            "ContentType": "application/json",
            **more,
        }
        endpoint.add_response("invoke_endpoint", response, REQUEST)
        result: dict[str, Any] = app.lambda_handler(event, context)
        endpoint.assert_no_pending_responses()
        return result

    return run


def test_the_answer_joins_the_event_and_the_image_leaves_it(answer: Any) -> None:
    assert answer("[0.125, 0.75]") == {
        "s3_bucket": "images",
        "s3_key": "incoming/a.png",
        "execution_id": EVENT["execution_id"],
        "source": {"format": "PNG"},
        "statistics": {"brightness": 0.5},
        "inferences": [0.125, 0.75],
        "label": "motorcycle",
        "confidence": 0.75,
        "neither": 0.125,
        "endpoint": "image-classifier",
        "variant": "AllTraffic",
        "model": "",
    }


def test_the_latency_of_an_answer_is_counted_in_milliseconds(
    answer: Any, counted: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    seconds = iter([10.0, 10.25])
    monkeypatch.setattr("src.classify.app.time.perf_counter", lambda: next(seconds))
    answer("[0.8, 0.1]")
    assert [line["EndpointLatency"] for line in counted() if "EndpointLatency" in line] == [[250.0]]


def test_the_workflow_alone_retries() -> None:
    assert app.runtime.meta.config.retries["total_max_attempts"] == 1


def test_probabilities_may_leave_room_for_neither(answer: Any) -> None:
    assert (answer("[0.01, 0.02]")["confidence"], answer("[0.01, 0.02]")["neither"]) == (0.02, 0.97)
    assert answer("[0.5, 0.5005]")["neither"] == 0


@pytest.mark.parametrize(
    "body",
    [
        "",
        "null",
        "{}",
        "0.9",
        '"0.9"',
        "[]",
        "[0.9]",
        "[0.2, 0.3, 0.5]",
        '["0.2", "0.8"]',
        "[true, false]",
        "[NaN, 0.5]",
        "[Infinity, 0.5]",
        "[-0.1, 0.5]",
        "[1.1, 0.0]",
        "[0.9, 0.9]",
        "[null, 0.5]",
        "[[0.5], 0.5]",
        "<html>busy</html>",
        b"\xff\xfe",
    ],
)
def test_an_unbelievable_answer_is_invalid(answer: Any, body: bytes | str) -> None:
    with pytest.raises(app.InvalidInference):
        answer(body)


def test_an_endpoint_may_have_a_class_for_everything_else(answer: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """SageMaker's built-in algorithm does: its list has one probability more, and it announces nothing."""
    monkeypatch.setenv("LABELS", "bicycle,motorcycle,neither")
    result = answer("[0.125, 0.75, 0.125]")
    assert (result["inferences"], result["label"], result["neither"]) == ([0.125, 0.75], "motorcycle", 0.125)
    result = answer("[0.125, 0.0625, 0.8125]")
    assert (result["confidence"], result["neither"]) == (0.125, 0.8125)
    for body in (
        "[0.25, 0.75]",
        "[0.2, 0.3, 0.4, 0.1]",
        "[0.1, 0.9, 0.9]",
        "[0.1, 0.9, NaN]",
        '{"prediction": [1, 0, 0]}',
    ):
        with pytest.raises(app.InvalidInference, match=r"[Pp]robabilities"):
            answer(body)


def test_an_endpoint_that_announces_its_labels_has_no_such_class(answer: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LABELS", "bicycle,motorcycle,neither")
    announced = {"CustomAttributes": 'labels=["bicycle","motorcycle"];model=0123456789ab'}
    assert answer("[0.125, 0.75]", **announced)["inferences"] == [0.125, 0.75]
    with pytest.raises(app.InvalidInference, match="list of 2"):
        answer("[0.125, 0.75, 0.125]", **announced)


@pytest.mark.parametrize(
    ("attributes", "model"),
    [
        ('labels=["bicycle","motorcycle"];model=0123456789ab', "0123456789ab"),
        ("model=0123456789ab;more=1", "0123456789ab"),
        ('labels=["bicycle","motorcycle"]', ""),
        ("trace=1", ""),
        ("model=not a hash", ""),
        ("supermodel=0123456789ab", ""),
    ],
)
def test_the_model_is_the_one_that_the_endpoint_announces(answer: Any, attributes: str, model: str) -> None:
    assert answer("[0.8, 0.1]", CustomAttributes=attributes)["model"] == model


def test_labels_that_the_endpoint_announces_must_be_ours(answer: Any) -> None:
    attributes = 'labels=["bicycle","motorcycle"];model=0123456789ab'
    assert answer("[0.8, 0.1]", CustomAttributes=attributes)["label"] == "bicycle"
    with pytest.raises(app.InvalidInference, match=r'labels \["motorcycle","bicycle"\]'):
        answer("[0.8, 0.1]", CustomAttributes='labels=["motorcycle","bicycle"];model=0')
    with pytest.raises(app.InvalidInference, match=r'labels \["bicycle","car"\]'):
        answer("[0.8, 0.1]", CustomAttributes='labels=["bicycle","car"];model=0')
    assert answer("[0.8, 0.1]", CustomAttributes="trace=1")["label"] == "bicycle"


@pytest.mark.parametrize(
    ("code", "status", "details", "expected"),
    [
        ("ThrottlingException", 400, {}, "EndpointThrottled"),
        ("ThrottlingException", 429, {}, "EndpointThrottled"),
        ("TooManyRequestsException", 429, {}, "EndpointThrottled"),
        ("ModelNotReadyException", 429, {}, "EndpointThrottled"),
        ("ModelError", 424, {"OriginalStatusCode": 429}, "EndpointThrottled"),
        ("ServiceUnavailable", 503, {}, "EndpointUnavailable"),
        ("InternalFailure", 500, {}, "EndpointUnavailable"),
        ("InternalDependencyException", 530, {}, "EndpointUnavailable"),
        ("ModelError", 424, {"OriginalStatusCode": 500}, "EndpointUnavailable"),
        ("ModelError", 424, {}, "EndpointUnavailable"),
        ("ModelError", 424, {"OriginalStatusCode": 415, "OriginalMessage": "not an image"}, "InvalidInference"),
        ("ModelError", 424, {"OriginalStatusCode": 400}, "InvalidInference"),
        ("ModelError", 424, {"OriginalStatusCode": 499}, "InvalidInference"),
        ("ModelError", 424, {"OriginalStatusCode": 399}, "EndpointUnavailable"),
        ("ModelError", 424, {"OriginalStatusCode": 501}, "EndpointUnavailable"),
        ("Conflict", 409, {}, "EndpointRefused"),
        ("ValidationError", 499, {}, "EndpointRefused"),
        ("ValidationError", 400, {"message": "Endpoint image-classifier of account 1 not found."}, "EndpointNotFound"),
        ("AccessDeniedException", 403, {}, "EndpointRefused"),
        ("ValidationError", 400, {"message": "Something else"}, "EndpointRefused"),
    ],
)
def test_endpoint_errors_get_names(
    endpoint: Stubber, context: Any, code: str, status: int, details: dict[str, Any], expected: str
) -> None:
    message = details.pop("message", "")
    endpoint.add_client_error(
        "invoke_endpoint", code, message, http_status_code=status, modeled_fields=details, expected_params=REQUEST
    )
    with pytest.raises(app.ClassifyError) as caught:
        app.lambda_handler(dict(EVENT), context)
    assert type(caught.value).__name__ == expected


@pytest.mark.parametrize("failure", [ConnectTimeoutError, ReadTimeoutError])
def test_an_endpoint_that_does_not_answer_is_unavailable(
    monkeypatch: pytest.MonkeyPatch, endpoint: Stubber, context: Any, failure: type[Exception]
) -> None:
    class Silent:
        def invoke_endpoint(self, **_: Any) -> None:
            raise failure(endpoint_url="https://runtime")  # type: ignore[call-arg]

    monkeypatch.setattr(app, "runtime", Silent())
    with pytest.raises(app.EndpointUnavailable, match="did not answer"):
        app.lambda_handler(dict(EVENT), context)


@pytest.mark.parametrize(
    "change",
    [
        {"image_data": ""},
        {"image_data": None},
        {"image_data": "not base64!"},
        {"image_data": "Zm9v!Zm9v"},
        {"image_data": "Zg"},
        {"content_type": None},
        {"s3_key": ""},
        {"s3_bucket": 1},
    ],
)
def test_an_event_that_serialize_did_not_make_is_invalid(endpoint: Stubber, context: Any, change: Any) -> None:
    with pytest.raises(app.InvalidEvent):
        app.lambda_handler({**EVENT, **change}, context)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        *[("ENDPOINT_NAME", value) for value in ("", "a b")],
        *[("LABELS", value) for value in ("", "a,,b", "neither", "neither,a", "a,neither,neither")],
    ],
)
def test_a_setting_that_is_missing_or_makes_no_sense_is_named_and_counted(
    endpoint: Stubber, context: Any, monkeypatch: pytest.MonkeyPatch, counted: Any, name: str, value: str
) -> None:
    monkeypatch.setenv(name, value)
    with pytest.raises(app.InvalidConfiguration, match=name):
        app.lambda_handler(dict(EVENT), context)
    monkeypatch.delenv(name)
    with pytest.raises(app.InvalidConfiguration, match=name):
        app.lambda_handler(dict(EVENT), context)
    assert [line["InvalidConfiguration"] for line in counted()] == [[1], [1]]


def test_an_answer_that_is_too_deep_to_read_is_not_believed(answer: Any) -> None:
    with pytest.raises(app.InvalidInference, match="not JSON"):
        answer("[" * 100_000)


@pytest.mark.parametrize("event", [None, [], "text"])
def test_what_is_no_object_is_invalid(endpoint: Stubber, context: Any, event: Any) -> None:
    with pytest.raises(app.InvalidEvent):
        app.lambda_handler(event, context)


@pytest.mark.parametrize(
    ("carried", "expected"),
    [
        ({"s3_key": "a", "execution_id": "arn:aws:states:r:1:execution:w:id-7"}, "id-7"),
        ({"s3_key": "folder/ä b.png"}, "folder/__b.png"),
        ({"s3_key": "x" * 100}, "x" * 64),
        ({"s3_key": " leading"}, "_leading"),
    ],
)
def test_the_inference_id_is_one_that_aws_takes(carried: dict[str, str], expected: str) -> None:
    assert app.inference_id(carried) == expected


def test_logs_hold_no_image(answer: Any, capsys: pytest.CaptureFixture[str], logged: Any) -> None:
    lines = logged(app)
    answer("[0.125, 0.75]")
    (line,) = lines()
    assert EVENT["image_data"] not in str(line) + capsys.readouterr().out
    assert line["message"] == "Classified"
    assert line["execution_id"] == EVENT["execution_id"] and line["s3_key"] == "incoming/a.png"
