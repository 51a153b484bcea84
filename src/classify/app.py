"""Classify: ask the SageMaker endpoint what an image shows, and drop the image."""

import base64
import binascii
import json
import os
import re
import time
from typing import Any

import boto3
from aws_lambda_powertools import Logger, Metrics, Tracer
from aws_lambda_powertools.metrics import MetricUnit
from aws_lambda_powertools.utilities.typing import LambdaContext
from botocore.config import Config
from botocore.exceptions import (
    BotoCoreError,
    ClientError,
    ConnectionError,
    CredentialRetrievalError,
    HTTPClientError,
    NoCredentialsError,
)

logger = Logger()
metrics = Metrics()
tracer = Tracer(patch_modules=["botocore"])

# One attempt: the state machine retries, with backoff and jitter, and two layers would multiply the load.
runtime = boto3.client(
    "sagemaker-runtime", config=Config(connect_timeout=2, read_timeout=10, retries={"total_max_attempts": 1})
)

#: What an endpoint's probabilities may exceed 1 by in sum, for rounding.
SUM_TOLERANCE = 1e-3
#: InvokeEndpoint's limit for an inference id, in characters.
MAX_INFERENCE_ID = 64
#: What identifies an image in logs, traces and metrics.
IDENTITY = ("execution_id", "image_id", "s3_bucket", "s3_key", "endpoint", "variant", "model")
#: Errors of the SDK after which the same request may succeed; any other is about the request.
TRANSIENT = (ConnectionError, HTTPClientError, CredentialRetrievalError, NoCredentialsError)
ENDPOINT_NAME = re.compile(r"[A-Za-z0-9](-*[A-Za-z0-9]){0,62}", re.ASCII)
#: A media type without parameters, as a header can hold it.
CONTENT_TYPE = re.compile(r"[\w.+-]+/[\w.+-]+", re.ASCII)
#: X-Ray's limit for the value of an annotation, in characters.
MAX_ANNOTATION = 1000
#: In the custom attributes of its answer the endpoint says which labels it answers for, if it says so at all …
LABELS_ATTRIBUTE = "labels="
#: … and which model it runs, by the first digits of the model's hash.
MODEL_ATTRIBUTE = re.compile(r"(?:^|;)model=([0-9a-f]{12})(?=;|$)")


class ClassifyError(Exception):
    """An error of this function whose class name is part of the event contract."""


class InvalidEvent(ClassifyError):
    """The event is not what serialize returns."""


class InvalidConfiguration(ClassifyError):
    """A setting of the function is missing or makes no sense."""


class EndpointThrottled(ClassifyError):
    """The endpoint has more requests than it can take; the same request may succeed later."""


class EndpointUnavailable(ClassifyError):
    """The endpoint failed or did not answer in time; the same request may succeed later."""


class EndpointNotFound(ClassifyError):
    """There is no endpoint of this name."""


class EndpointRefused(ClassifyError):
    """The endpoint, or the right to ask it, refuses the request; it would again."""


class InvalidInference(ClassifyError):
    """The endpoint's answer is not one probability per label."""


@logger.inject_lambda_context(clear_state=True)
@tracer.capture_lambda_handler(capture_response=False)
@metrics.log_metrics
def lambda_handler(event: dict[str, Any], context: LambdaContext) -> dict[str, Any]:
    """Replace the image by ``inferences``, ``label``, ``confidence``, ``endpoint``, ``variant`` and ``model``.

    Parameters
    ----------
    event : dict
        What serialize returns.
    context : LambdaContext
        Lambda's context.

    Returns
    -------
    dict
        The event after classify, as the event contract in ``docs/events.md`` has it.

    Raises
    ------
    ClassifyError
        One of its subclasses; the name says what was wrong.
    """
    identify(event)
    try:
        endpoint, labels = read_settings()
        identify({"endpoint": endpoint})
        carried, image = parse_event(event)
        answer, variant, attributes = invoke(endpoint, image, event["content_type"], inference_id(carried))
        model = announced_model(attributes)
        identify({"variant": variant, "model": model})
        check_labels(endpoint, attributes, labels)
        inferences = parse_inferences(answer, labels)
    except Exception as error:
        report(error)
        raise
    confidence = max(inferences)
    label = labels[inferences.index(confidence)]
    logger.info("Classified", label=label, confidence=confidence)
    return {
        **carried,
        "inferences": inferences,
        "label": label,
        "confidence": confidence,
        "endpoint": endpoint,
        "variant": variant,
        "model": model,
    }


def identify(event: Any) -> None:
    """Put what identifies an image on every log line, on the trace and on the metrics' line: one id finds all."""
    for name in IDENTITY:
        value = event.get(name) if isinstance(event, dict) else None
        if isinstance(value, str) and value:
            logger.append_keys(**{name: value})
            tracer.put_annotation(name, value[:MAX_ANNOTATION])
            metrics.add_metadata(name, value)


def report(error: Exception) -> None:
    """Log an error and count it under its name; one that is not of the event contract comes with its stack."""
    named = isinstance(error, ClassifyError)
    logger.error(str(error), error=type(error).__name__, exc_info=not named)
    metrics.add_metric(type(error).__name__ if named else "UnexpectedError", MetricUnit.Count, 1)


def read_settings() -> tuple[str, list[str]]:
    """Return the endpoint's name, and the model's labels.

    Raises
    ------
    InvalidConfiguration
        If one of them is missing, or cannot be what it should be.
    """
    endpoint, labels = os.environ.get("ENDPOINT_NAME", ""), os.environ.get("LABELS", "").split(",")
    if not ENDPOINT_NAME.fullmatch(endpoint):
        raise InvalidConfiguration(f"ENDPOINT_NAME must be the name of an endpoint, got {endpoint!r:.80}")
    if not all(labels):
        raise InvalidConfiguration(f"LABELS must be labels separated by commas, got {','.join(labels)!r:.80}")
    return endpoint, labels


def shown(value: Any) -> str:
    """Return a value as a message shows it: short, and its type alone where it is too large or deep for a text."""
    try:
        return f"{value!r:.200}"
    except (ValueError, RecursionError):
        return type(value).__name__


def parse_event(event: Any) -> tuple[dict[str, Any], bytes]:
    """Return what the event carries besides the image, and the image's bytes.

    Raises
    ------
    InvalidEvent
        If a field is missing or of the wrong type, or the image is not base64.
    """
    if not isinstance(event, dict):
        raise InvalidEvent(f"The event must be what serialize returns, not {type(event).__name__}")
    for name in ("s3_bucket", "s3_key", "image_data", "content_type"):
        if not isinstance(event.get(name), str) or not event[name]:
            raise InvalidEvent(f"{name} must be a non-empty text, got {shown(event.get(name))}")
    if not CONTENT_TYPE.fullmatch(event["content_type"]):
        raise InvalidEvent(f"content_type must be like image/png, got {event['content_type']!r:.80}")
    try:
        image = base64.b64decode(event["image_data"], validate=True)
    except (binascii.Error, ValueError) as error:
        raise InvalidEvent(f"image_data is not base64: {error}") from error
    carried = ("s3_bucket", "s3_key", "execution_id", "image_id", "source", "statistics")
    return {name: event[name] for name in carried if name in event}, image


def inference_id(carried: dict[str, Any]) -> str:
    """Return the id under which data capture records this request: the execution's name, else the S3 key."""
    execution_id = carried.get("execution_id")
    text = (execution_id if isinstance(execution_id, str) else carried["s3_key"]).rsplit(":", 1)[-1]
    return re.sub(r"[^!-~]", "_", text)[-MAX_INFERENCE_ID:]


@tracer.capture_method(capture_response=False)
def invoke(endpoint: str, image: bytes, content_type: str, request_id: str) -> tuple[bytes, str, str]:
    """Send an image to the endpoint.

    Returns
    -------
    tuple of (bytes, str, str)
        The answer's body, the production variant that gave it, and the endpoint's custom attributes.

    Raises
    ------
    EndpointThrottled, EndpointUnavailable, EndpointNotFound, EndpointRefused, InvalidInference
    """
    started = time.perf_counter()
    try:
        response = runtime.invoke_endpoint(
            EndpointName=endpoint,
            Body=image,
            ContentType=content_type,
            Accept="application/json",
            InferenceId=request_id,
        )
        answer = response["Body"].read()
    except ClientError as error:
        raise _endpoint_error(error, endpoint) from error
    except TRANSIENT as error:
        raise EndpointUnavailable(f"Endpoint {endpoint} did not answer: {error}") from error
    except BotoCoreError as error:
        raise EndpointRefused(f"Endpoint {endpoint} cannot be asked: {error!s:.300}") from error
    metrics.add_metric("EndpointLatency", MetricUnit.Milliseconds, (time.perf_counter() - started) * 1000)
    return answer, response.get("InvokedProductionVariant", ""), response.get("CustomAttributes", "")


def _endpoint_error(error: ClientError, endpoint: str) -> ClassifyError:
    # By code, not by status: throttling arrives as HTTP 400 too, sometimes with an empty message.
    code = error.response["Error"]["Code"]
    message = error.response["Error"].get("Message", "")
    status = error.response["ResponseMetadata"]["HTTPStatusCode"]
    said = f"{code}: {message}"[:300]
    told = str(error.response.get("OriginalStatusCode", ""))
    original = int(told) if told.isascii() and told.isdecimal() else 0
    if code in ("ThrottlingException", "Throttling", "TooManyRequestsException") or status == 429 or original == 429:
        return EndpointThrottled(f"Endpoint {endpoint} is busy ({said})")
    if code == "ModelError" and 400 <= original < 500:
        reason = error.response.get("OriginalMessage", message)
        return InvalidInference(f"The model refused the image with status {original}: {reason!s:.300}")
    if code == "ModelError" or status >= 500:
        return EndpointUnavailable(f"Endpoint {endpoint} failed ({said})")
    if code in ("ValidationError", "ValidationException") and "not found" in message.lower():
        return EndpointNotFound(f"Endpoint {endpoint} does not exist ({said}); create it, or set EndpointName")
    return EndpointRefused(f"Endpoint {endpoint} refused the request ({said}); may this function invoke it?")


def announced_model(attributes: str) -> str:
    """Return the model that an endpoint announces in its custom attributes, empty where it announces none."""
    found = MODEL_ATTRIBUTE.search(attributes)
    return found[1] if found else ""


def check_labels(endpoint: str, attributes: str, labels: list[str]) -> None:
    """Compare the labels that an endpoint announces in its custom attributes, if it does, with ours.

    Raises
    ------
    InvalidInference
        If they are others, or stand in another order.
    """
    if attributes.startswith(LABELS_ATTRIBUTE):
        announced = attributes.removeprefix(LABELS_ATTRIBUTE).split(";")[0]
        if announced != json.dumps(labels, separators=(",", ":")):
            raise InvalidInference(f"Endpoint {endpoint} answers for the labels {announced:.200}, not {labels}")


def parse_inferences(answer: bytes, labels: list[str]) -> list[float]:
    """Return the probabilities, one per label, in label order.

    Raises
    ------
    InvalidInference
        If the answer is not a JSON list of one finite probability per label, of at most 1 in sum.
    """
    try:
        inferences = json.loads(answer)
    except (ValueError, RecursionError) as error:
        raise InvalidInference(f"The endpoint's answer is not JSON: {answer[:80]!r}") from error
    if not isinstance(inferences, list) or len(inferences) != len(labels):
        raise InvalidInference(f"Expected a list of {len(labels)} probabilities for {labels}, got {shown(inferences)}")
    for value in inferences:
        # A comparison with NaN is false, so "not within" catches it where "outside" would not.
        if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= 1:
            raise InvalidInference(f"Probabilities are numbers from 0 to 1, got {shown(inferences)}")
    if sum(inferences) > 1 + SUM_TOLERANCE:
        raise InvalidInference(f"Probabilities sum to at most 1, got {inferences!r:.200}")
    return [float(value) for value in inferences]
