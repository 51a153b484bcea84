"""Filter: accept a prediction if its confidence reaches the threshold."""

import math
import os
from typing import Any

from aws_lambda_powertools import Logger, Metrics, Tracer
from aws_lambda_powertools.metrics import MetricUnit
from aws_lambda_powertools.utilities.typing import LambdaContext

logger = Logger()
metrics = Metrics()
tracer = Tracer(auto_patch=False)

#: Correlation keys of logs, traces and metrics.
IDENTITY = ("execution_id", "image_id", "s3_bucket", "s3_key", "endpoint", "variant", "model")
#: Characters that X-Ray allows in the value of an annotation.
MAX_ANNOTATION = 1000


class FilterError(Exception):
    """Base class of the errors of this function; their names are part of the event contract."""


class InvalidEvent(FilterError):
    """The event is not what classify returns."""


class InvalidInference(FilterError):
    """Probabilities are missing, not finite or outside 0 to 1, or they contradict the confidence."""


class InvalidThreshold(FilterError):
    """The setting THRESHOLD is not a number from 0 to 1."""


class ThresholdNotMet(FilterError):
    """The confidence is below the threshold: unsure, or neither of the labels. This is a result, not a failure."""


#: Errors of the event contract.
NAMED = (FilterError,)


@logger.inject_lambda_context(clear_state=True)
@tracer.capture_lambda_handler(capture_response=False, capture_error=False)
@metrics.log_metrics
def lambda_handler(event: dict[str, Any], context: LambdaContext) -> dict[str, Any]:
    """Return the event unchanged if its confidence reaches ``THRESHOLD``.

    Parameters
    ----------
    event : dict
        The event that classify returns.
    context : LambdaContext
        Lambda's context.

    Returns
    -------
    dict
        The same event.

    Raises
    ------
    ThresholdNotMet
        If the highest probability is below the threshold. The message begins with the outcome, ``unsure`` or
        ``neither``, and ends with whether the image needs a review.
    FilterError
        One of its other subclasses, named after the cause.
    """
    identify(event)
    try:
        threshold = parse_threshold(os.environ.get("THRESHOLD", ""))
        confidence = parse_event(event)
    except Exception as error:
        report(error)
        raise
    label = event["label"]
    neither = round(max(0.0, 1 - sum(event["inferences"])), 6)  # as classify does
    outcome = "accepted" if confidence >= threshold else "neither" if neither > confidence else "unsure"
    # CloudWatch rejects a dimension with non-ASCII characters, together with the whole line of metrics.
    metrics.add_dimensions(service=metrics.service, label=label.encode("ascii", "backslashreplace").decode())
    metrics.add_metric("Confidence", MetricUnit.NoUnit, confidence)
    metrics.add_metric("NeitherProbability", MetricUnit.NoUnit, neither)
    # Each outcome counts the others as 0, so that a fraction can be computed for any period with traffic.
    metrics.add_metric("Accepted", MetricUnit.Count, outcome == "accepted")
    metrics.add_metric("Unsure", MetricUnit.Count, outcome == "unsure")
    metrics.add_metric("Neither", MetricUnit.Count, outcome == "neither")
    if outcome != "accepted":
        reviewed = needs_review(outcome, neither, threshold)
        rejected = ThresholdNotMet(
            f"{outcome}: {label} has probability {confidence:.4f}, below the threshold {threshold}, "
            f"and none of the labels {neither:.4f}: s3://{event['s3_bucket']}/{event['s3_key']} "
            + ("needs a review" if reviewed else "needs no review")
        )
        logger.warning(
            str(rejected), error="ThresholdNotMet", outcome=outcome, label=label, confidence=confidence, neither=neither
        )
        raise rejected
    logger.info("Accepted", label=label, confidence=confidence, neither=neither)
    return event


def needs_review(outcome: str, neither: float, threshold: float) -> bool:
    """Return whether a person looks at an image that was not accepted: all of them, unless ``REVIEW_NEITHER`` is false
    and the probability of none of the labels reaches the threshold.
    """
    return os.environ.get("REVIEW_NEITHER") != "false" or outcome != "neither" or neither < threshold


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


def parse_threshold(text: str) -> float:
    """Return the threshold.

    Raises
    ------
    InvalidThreshold
        If it is not a number from 0 to 1.
    """
    try:
        threshold = float(text)
    except ValueError:
        threshold = math.nan
    if not 0 <= threshold <= 1:
        raise InvalidThreshold(f"THRESHOLD must be a number from 0 to 1, got {text!r}")
    return threshold


def shown(value: Any) -> str:
    """Return a short text of a value for a message, or its type if it is too large or too deeply nested."""
    try:
        return f"{value!r:.200}"
    except (ValueError, RecursionError):
        return type(value).__name__


def parse_event(event: Any) -> float:
    """Check an event from classify, and return its confidence.

    Raises
    ------
    InvalidEvent
        If the S3 address or the label is missing, or the event carries an image.
    InvalidInference
        If the probabilities or the confidence are invalid.
    """
    if not isinstance(event, dict):
        raise InvalidEvent(f"The event must be the object that classify returns, got {type(event).__name__}")
    for name in ("s3_bucket", "s3_key", "label"):
        if not isinstance(event.get(name), str) or not event[name]:
            raise InvalidEvent(f"{name} must be a non-empty string, got {shown(event.get(name))}")
    if event["label"].isspace():  # CloudWatch rejects it as a dimension
        raise InvalidEvent(f"label must be a non-empty string, got {event['label']!r:.80}")
    if event.get("image_data"):
        raise InvalidEvent("image_data must be removed before filter")
    inferences, confidence = event.get("inferences"), event.get("confidence")
    if not isinstance(inferences, list) or not inferences:
        raise InvalidInference(f"inferences must be a list of probabilities, got {shown(inferences)}")
    for value in [*inferences, confidence]:
        # Every comparison with NaN is false, so test for "not within" instead of "outside".
        if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= 1:
            raise InvalidInference(f"Probabilities must be numbers from 0 to 1, got {shown(value)}")
    if confidence != max(inferences):
        raise InvalidInference(f"confidence {confidence} is not the highest of the inferences {shown(inferences)}")
    return float(confidence)
