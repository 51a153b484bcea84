"""Classify: send the image to the SageMaker endpoint, and replace it in the event by the prediction."""

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

# One attempt: the state machine retries with backoff and jitter. Retries in both would multiply the load.
runtime = boto3.client(
    "sagemaker-runtime", config=Config(connect_timeout=2, read_timeout=10, retries={"total_max_attempts": 1})
)

#: The sum of the probabilities may exceed 1 by this, for rounding.
SUM_TOLERANCE = 1e-3
#: Characters that InvokeEndpoint allows in an inference id.
MAX_INFERENCE_ID = 64
#: Correlation keys of logs, traces and metrics.
IDENTITY = ("execution_id", "image_id", "s3_bucket", "s3_key", "endpoint", "variant", "model")
#: Errors of the SDK after which the same request may succeed; all others are caused by the request.
TRANSIENT = (ConnectionError, HTTPClientError, CredentialRetrievalError, NoCredentialsError)
#: As the last of the labels: an endpoint that does not announce its labels has one more class, for everything else.
NEITHER = "neither"
ENDPOINT_NAME = re.compile(r"[A-Za-z0-9](-*[A-Za-z0-9]){0,62}", re.ASCII)
#: A media type without parameters that is valid in a header.
CONTENT_TYPE = re.compile(r"[\w.+-]+/[\w.+-]+", re.ASCII)
#: Characters that X-Ray allows in the value of an annotation.
MAX_ANNOTATION = 1000
#: The endpoint may announce its labels in the custom attributes of its response …
LABELS_ATTRIBUTE = "labels="
#: … and its model, by the first 12 digits of the model's hash.
MODEL_ATTRIBUTE = re.compile(r"(?:^|;)model=([0-9a-f]{12})(?=;|$)")


class ClassifyError(Exception):
    """Base class of the errors of this function; their names are part of the event contract."""


class InvalidEvent(ClassifyError):
    """The event is not one that serialize returns."""


class InvalidConfiguration(ClassifyError):
    """A setting of the function is missing or invalid."""


class EndpointThrottled(ClassifyError):
    """The endpoint is throttled; the same request may succeed later."""


class EndpointUnavailable(ClassifyError):
    """The endpoint failed or timed out; the same request may succeed later."""


class EndpointNotFound(ClassifyError):
    """There is no endpoint with this name."""


class EndpointRefused(ClassifyError):
    """The request was rejected or not permitted, and would be again."""


class InvalidInference(ClassifyError):
    """The endpoint's response is not one probability per label."""


#: Errors of the event contract.
NAMED = (ClassifyError,)


@logger.inject_lambda_context(clear_state=True)
@tracer.capture_lambda_handler(capture_response=False)
@metrics.log_metrics
def lambda_handler(event: dict[str, Any], context: LambdaContext) -> dict[str, Any]:
    """Replace the image by ``inferences``, ``label``, ``confidence``, ``neither``, and where they come from.

    Parameters
    ----------
    event : dict
        The event that serialize returns.
    context : LambdaContext
        Lambda's context.

    Returns
    -------
    dict
        The event after classify, as described in ``docs/events.md``.

    Raises
    ------
    ClassifyError
        One of its subclasses, named after the cause.
    """
    identify(event)
    try:
        endpoint, labels, has_neither = read_settings()
        identify({"endpoint": endpoint})
        carried, image = parse_event(event)
        answer, variant, attributes = invoke(endpoint, image, event["content_type"], inference_id(carried))
        model = announced_model(attributes)
        identify({"variant": variant, "model": model})
        announced = check_labels(endpoint, attributes, labels)
        inferences = parse_inferences(answer, labels, has_neither and not announced)
    except Exception as error:
        report(error)
        raise
    confidence = max(inferences)
    label = labels[inferences.index(confidence)]
    # Rounded, because the difference of two floats has more digits than the probabilities.
    neither = round(max(0.0, 1 - sum(inferences)), 6)
    logger.info("Classified", label=label, confidence=confidence, neither=neither)
    return {
        **carried,
        "inferences": inferences,
        "label": label,
        "confidence": confidence,
        "neither": neither,
        "endpoint": endpoint,
        "variant": variant,
        "model": model,
    }


def identify(event: Any) -> None:
    """Add the correlation keys of an event to every log line, to the trace, and to the line of the metrics."""
    for name in IDENTITY:
        value = event.get(name) if isinstance(event, dict) else None
        if isinstance(value, str) and value:
            logger.append_keys(**{name: value})
            tracer.put_annotation(name, value[:MAX_ANNOTATION])
            metrics.add_metadata(name, value)


def report(error: Exception) -> None:
    """Log an error and count it by its name; an error outside of the event contract is logged with its stack."""
    named = isinstance(error, NAMED)
    logger.error(str(error), error=type(error).__name__, exc_info=not named)
    metrics.add_metric(type(error).__name__ if named else "UnexpectedError", MetricUnit.Count, 1)


def read_settings() -> tuple[str, list[str], bool]:
    """Return the endpoint's name, the model's labels, and whether "neither" follows them.

    Raises
    ------
    InvalidConfiguration
        If one of them is missing or invalid.
    """
    endpoint, labels = os.environ.get("ENDPOINT_NAME", ""), os.environ.get("LABELS", "").split(",")
    if not ENDPOINT_NAME.fullmatch(endpoint):
        raise InvalidConfiguration(f"ENDPOINT_NAME must be the name of an endpoint, got {endpoint!r:.80}")
    if not all(labels):
        raise InvalidConfiguration(f"LABELS must be a comma-separated list of labels, got {','.join(labels)!r:.80}")
    has_neither = labels[-1] == NEITHER
    if NEITHER in labels[:-1] or labels == [NEITHER]:
        raise InvalidConfiguration(
            f"{NEITHER} can only be the last of LABELS, after a label, got {','.join(labels)!r:.80}"
        )
    return endpoint, labels[:-1] if has_neither else labels, has_neither


def shown(value: Any) -> str:
    """Return a short text of a value for a message, or its type if it is too large or too deeply nested."""
    try:
        return f"{value!r:.200}"
    except (ValueError, RecursionError):
        return type(value).__name__


def parse_event(event: Any) -> tuple[dict[str, Any], bytes]:
    """Return the event without the image, and the image's bytes.

    Raises
    ------
    InvalidEvent
        If a field is missing or of the wrong type, or the image is not base64.
    """
    if not isinstance(event, dict):
        raise InvalidEvent(f"The event must be the object that serialize returns, got {type(event).__name__}")
    for name in ("s3_bucket", "s3_key", "image_data", "content_type"):
        if not isinstance(event.get(name), str) or not event[name]:
            raise InvalidEvent(f"{name} must be a non-empty string, got {shown(event.get(name))}")
    if not CONTENT_TYPE.fullmatch(event["content_type"]):
        raise InvalidEvent(f"content_type must be a media type like image/png, got {event['content_type']!r:.80}")
    try:
        image = base64.b64decode(event["image_data"], validate=True)
    except (binascii.Error, ValueError) as error:
        raise InvalidEvent(f"image_data is not base64: {error}") from error
    carried = ("s3_bucket", "s3_key", "execution_id", "image_id", "source", "statistics")
    return {name: event[name] for name in carried if name in event}, image


def inference_id(carried: dict[str, Any]) -> str:
    """Return the id that data capture records for this request: the execution's name, or the S3 key without one."""
    execution_id = carried.get("execution_id")
    text = (execution_id if isinstance(execution_id, str) else carried["s3_key"]).rsplit(":", 1)[-1]
    return re.sub(r"[^!-~]", "_", text)[-MAX_INFERENCE_ID:]


@tracer.capture_method(capture_response=False)
def invoke(endpoint: str, image: bytes, content_type: str, request_id: str) -> tuple[bytes, str, str]:
    """Send an image to the endpoint.

    Returns
    -------
    tuple of (bytes, str, str)
        The response's body, the production variant that sent it, and the endpoint's custom attributes.

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
        raise EndpointRefused(f"Endpoint {endpoint} cannot be invoked: {error!s:.300}") from error
    metrics.add_metric("EndpointLatency", MetricUnit.Milliseconds, (time.perf_counter() - started) * 1000)
    return answer, response.get("InvokedProductionVariant", ""), response.get("CustomAttributes", "")


def _endpoint_error(error: ClientError, endpoint: str) -> ClassifyError:
    # By code, not by status: throttling can be an HTTP 400, sometimes with an empty message.
    code = error.response["Error"]["Code"]
    message = error.response["Error"].get("Message", "")
    status = error.response["ResponseMetadata"]["HTTPStatusCode"]
    said = f"{code}: {message}"[:300]
    told = str(error.response.get("OriginalStatusCode", ""))
    original = int(told) if told.isascii() and told.isdecimal() else 0
    if code in ("ThrottlingException", "Throttling", "TooManyRequestsException") or status == 429 or original == 429:
        return EndpointThrottled(f"Endpoint {endpoint} is throttled ({said})")
    if code == "ModelError" and 400 <= original < 500:
        reason = error.response.get("OriginalMessage", message)
        return InvalidInference(f"The model rejected the image with status {original}: {reason!s:.300}")
    if code == "ModelError" or status >= 500:
        return EndpointUnavailable(f"Endpoint {endpoint} failed ({said})")
    if code in ("ValidationError", "ValidationException") and "not found" in message.lower():
        return EndpointNotFound(f"Endpoint {endpoint} does not exist ({said}); create it, or correct EndpointName")
    return EndpointRefused(f"Endpoint {endpoint} rejected the request ({said}); check this function's permissions")


def announced_model(attributes: str) -> str:
    """Return the model that an endpoint announces in its custom attributes, or an empty string."""
    found = MODEL_ATTRIBUTE.search(attributes)
    return found[1] if found else ""


def check_labels(endpoint: str, attributes: str, labels: list[str]) -> bool:
    """Compare the labels that an endpoint announces in its custom attributes, if any, with the configured ones.

    Returns
    -------
    bool
        Whether it announces any.

    Raises
    ------
    InvalidInference
        If they are different, or in another order.
    """
    if not attributes.startswith(LABELS_ATTRIBUTE):
        return False
    announced = attributes.removeprefix(LABELS_ATTRIBUTE).split(";")[0]
    if announced != json.dumps(labels, separators=(",", ":")):
        raise InvalidInference(f"Endpoint {endpoint} has the labels {announced:.200}, expected {labels}")
    return True


def parse_inferences(answer: bytes, labels: list[str], has_neither: bool) -> list[float]:
    """Return the probabilities, one per label, in label order.

    Parameters
    ----------
    answer : bytes
        The response's body.
    labels : list of str
        The model's labels.
    has_neither : bool
        Whether a probability of none of the labels follows.

    Raises
    ------
    InvalidInference
        If the response is not a JSON list of so many finite probabilities, which sum to at most 1.
    """
    classes = [*labels, NEITHER] if has_neither else labels
    try:
        inferences = json.loads(answer)
    except (ValueError, RecursionError) as error:
        raise InvalidInference(f"The endpoint's response is not JSON: {answer[:80]!r}") from error
    if not isinstance(inferences, list) or len(inferences) != len(classes):
        raise InvalidInference(
            f"Expected a list of {len(classes)} probabilities for {classes}, got {shown(inferences)}"
        )
    for value in inferences:
        # Every comparison with NaN is false, so test for "not within" instead of "outside".
        if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= 1:
            raise InvalidInference(f"Probabilities must be numbers from 0 to 1, got {shown(inferences)}")
    if sum(inferences) > 1 + SUM_TOLERANCE:
        raise InvalidInference(f"Probabilities must sum to at most 1, got {inferences!r:.200}")
    return [float(value) for value in inferences[: len(labels)]]
