"""Serialize: load an image from S3 and add it to the event, small, without metadata, in base64.

The result is always an upright 8-bit RGB PNG or JPEG of at most ``MAX_EDGE`` pixels on its longer side, which fits the
state of a workflow.
"""

import base64
import hashlib
import os
import re
from typing import Any
from urllib.parse import unquote_plus

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
    IncompleteReadError,
    NoCredentialsError,
)
from PIL import Image, ImageFilter, ImageStat

# In Lambda the modules of this folder are on the path; everywhere else it is a package.
if __package__:
    from src.serialize import decoder, encoder
else:
    import decoder  # type: ignore[import-not-found, no-redef]
    import encoder  # type: ignore[import-not-found, no-redef]

logger = Logger()
metrics = Metrics()
tracer = Tracer(patch_modules=["botocore"])

# These time-outs are shorter than the function's, so that an unresponsive S3 becomes a named error.
s3 = boto3.client(
    "s3", config=Config(connect_timeout=2, read_timeout=5, retries={"mode": "standard", "total_max_attempts": 2})
)

#: Largest MAX_EDGE: any image of this size fits a workflow's state.
LARGEST_MAX_EDGE = 384
#: Bytes that S3 allows in a key (UTF-8), and characters in a bucket's name (63) or an access point's ARN (more).
MAX_KEY_BYTES, MAX_BUCKET = 1024, 255
#: A bucket's name, or an access point's ARN.
BUCKET = re.compile(r"[\w.:/-]+", re.ASCII)
#: Fields that wrap an input by mistake, from API Gateway, EventBridge, S3 and SQS, and Step Functions.
WRAPPERS = ("body", "detail", "Records", "input", "Payload")
#: Errors of the SDK after which the same request may succeed; all others are caused by the request.
TRANSIENT = (ConnectionError, HTTPClientError, IncompleteReadError, CredentialRetrievalError, NoCredentialsError)
#: Correlation keys of logs, traces and metrics.
IDENTITY = ("execution_id", "image_id", "s3_bucket", "s3_key", "endpoint", "variant", "model")
#: Characters that X-Ray allows in the value of an annotation.
MAX_ANNOTATION = 1000


class SerializeError(Exception):
    """Base class of the errors of this function; their names are part of the event contract."""


class InvalidEvent(SerializeError):
    """The event does not name an S3 object."""


class InvalidConfiguration(SerializeError):
    """A setting of the function is missing or invalid."""


class ObjectNotFound(SerializeError):
    """The bucket or the key does not exist."""


class ObjectNotReadable(SerializeError):
    """The object exists, but cannot be read (another bucket, no permission, archived)."""


class StorageUnavailable(SerializeError):
    """S3 failed or throttled the request; the same request may succeed later."""


# The names of these are part of the event contract, too.
ImageTooLarge = decoder.ImageTooLarge
UnsupportedImage = decoder.UnsupportedImage

#: Errors of the event contract.
NAMED = (SerializeError, decoder.ImageError)


@logger.inject_lambda_context(clear_state=True)
@tracer.capture_lambda_handler(capture_response=False)
@metrics.log_metrics
def lambda_handler(event: dict[str, Any], context: LambdaContext) -> dict[str, Any]:
    """Add ``image_id``, ``image_data``, ``content_type``, ``source`` and ``statistics`` to the image's address in S3.

    Parameters
    ----------
    event : dict
        ``s3_bucket`` and ``s3_key``, or the ``detail`` of S3's "Object Created" event; ``execution_id`` if a workflow
        calls. Other keys are ignored.
    context : LambdaContext
        Lambda's context.

    Returns
    -------
    dict
        The event after serialize, as described in ``docs/events.md``.

    Raises
    ------
    SerializeError, decoder.ImageError
        One of their subclasses, named after the cause.
    """
    identify(event)
    try:
        max_edge = parse_max_edge(os.environ.get("MAX_EDGE", ""))
        address = parse_event(event)
        identify(address)
        data, address["s3_key"], source = fetch(address["s3_bucket"], address["s3_key"], announced_etag(event))
        address["image_id"] = image_id(address["s3_bucket"], address["s3_key"], source)
        identify(address)
        image, image_format, size = decoder.decode(data, max_edge=max_edge)
        encoded, content_type = encoder.encode(image, original=data)
        statistics = image_statistics(image)
    except Exception as error:
        report(error)
        raise
    metrics.add_metric("ImageBytes", MetricUnit.Bytes, len(data))
    for name, value in statistics.items():
        metrics.add_metric(name.title(), MetricUnit.NoUnit, value)
    logger.info("Serialized", format=image_format, width=size[0], height=size[1], encoded_bytes=len(encoded))
    return {
        **address,
        "image_data": base64.b64encode(encoded).decode("ascii"),
        "content_type": content_type,
        "source": {"format": image_format, "width": size[0], "height": size[1], **source},
        "statistics": statistics,
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


def parse_max_edge(text: str) -> int:
    """Return the setting MAX_EDGE as a number.

    Raises
    ------
    InvalidConfiguration
        If it is not a whole number from 1 to `LARGEST_MAX_EDGE`.
    """
    if not (text.isascii() and text.isdecimal() and len(text) < 9 and 1 <= int(text) <= LARGEST_MAX_EDGE):
        raise InvalidConfiguration(f"MAX_EDGE must be a whole number from 1 to {LARGEST_MAX_EDGE}, got {text!r:.80}")
    return int(text)


def parse_event(event: Any) -> dict[str, str]:
    """Return the S3 address, and the execution's id if there is one.

    Raises
    ------
    InvalidEvent
        If bucket or key is missing, empty, too long or not a string, or the input is wrapped in another object.
    """
    if not isinstance(event, dict):
        raise InvalidEvent(
            f'The event must be an object like {{"s3_bucket": …, "s3_key": …}}, got {type(event).__name__}'
        )
    bucket, uploaded = event.get("bucket"), event.get("object")
    given = {name: event.get(name) for name in ("s3_bucket", "s3_key")}
    if not any(given.values()) and isinstance(bucket, dict) and isinstance(uploaded, dict):
        given = {"s3_bucket": bucket.get("name"), "s3_key": uploaded.get("key")}
    wrapper = next((name for name in WRAPPERS if name in event), None)
    if wrapper and not any(given.values()):
        raise InvalidEvent(f'The input is wrapped in "{wrapper}": send {{"s3_bucket": …, "s3_key": …}} itself')
    address = {}
    for name, limit in (("s3_bucket", MAX_BUCKET), ("s3_key", MAX_KEY_BYTES)):
        value = given[name]
        if not isinstance(value, str) or not value:
            got = "''" if value == "" else type(value).__name__
            raise InvalidEvent(f"{name} must be a non-empty string, got {got}")
        try:
            size = len(value.encode())
        except UnicodeEncodeError:
            raise InvalidEvent(f"{name} contains half a surrogate pair: {value!r:.80}") from None
        if size > limit:
            raise InvalidEvent(f"{name} has {size} bytes; the limit is {limit}: {value!r:.80}")
        address[name] = value
    if not BUCKET.fullmatch(address["s3_bucket"]):
        raise InvalidEvent(f"s3_bucket is not a valid S3 address: {address['s3_bucket']!r:.80}")
    execution_id = event.get("execution_id")
    if isinstance(execution_id, str):
        address["execution_id"] = execution_id
    return address


def announced_etag(event: dict[str, Any]) -> str:
    """Return the ETag of S3's event, or an empty string."""
    uploaded = event.get("object")
    etag = uploaded.get("etag") if isinstance(uploaded, dict) else None
    return etag if isinstance(etag, str) and etag.isascii() and etag.isalnum() else ""


def image_id(bucket: str, key: str, source: dict[str, Any]) -> str:
    """Return an id that is the same for each event about the same version of the same object."""
    # Without versioning, or while it is suspended, use the content's ETag.
    version = source.get("version_id", "null")
    name = "\0".join((bucket, key, source["etag"] if version == "null" else version))
    return hashlib.sha256(name.encode()).hexdigest()[:32]


def fetch(bucket: str, key: str, etag: str = "") -> tuple[bytes, str, dict[str, Any]]:
    """Download an object.

    AWS does not document whether EventBridge passes on keys percent-encoded. If a key does not exist, its decoded form
    is tried, and accepted only if the object has the event's ETag, which proves that it is the one that was uploaded.

    Parameters
    ----------
    bucket, key : str
        Its address.
    etag : str, optional
        The ETag of S3's event.

    Returns
    -------
    tuple of (bytes, str, dict)
        The content, its key, and its ``bytes``, ``etag`` and, in a versioned bucket, ``version_id``.

    Raises
    ------
    ObjectNotFound, ObjectNotReadable, ImageTooLarge, UnsupportedImage, InvalidEvent, StorageUnavailable
    """
    try:
        return _download(bucket, key)
    except ObjectNotFound:
        decoded = unquote_plus(key)
        if not etag or decoded == key:
            raise
        try:
            return _download(bucket, decoded, IfMatch=etag)
        except (ObjectNotFound, ObjectNotReadable):
            pass
        raise


def _download(bucket: str, key: str, **conditions: Any) -> tuple[bytes, str, dict[str, Any]]:
    where = f"s3://{bucket}/{key}"
    try:
        response = s3.get_object(Bucket=bucket, Key=key, **conditions)
        if response["ContentLength"] > decoder.MAX_BYTES:
            raise ImageTooLarge(f"{where} has {response['ContentLength']} bytes; the limit is {decoder.MAX_BYTES}")
        data = response["Body"].read()
    except ClientError as error:
        raise _storage_error(error, where) from error
    except TRANSIENT as error:
        raise StorageUnavailable(f"{where} could not be read: {error}") from error
    except (BotoCoreError, ValueError) as error:
        raise InvalidEvent(f"{where} is not a valid S3 address: {error!s:.300}") from error
    if not data:
        raise UnsupportedImage(f"{where} is empty (0 bytes)")
    source = {"bytes": len(data), "etag": response["ETag"].strip('"')}
    if "VersionId" in response:
        source["version_id"] = response["VersionId"]
    return data, key, source


def _storage_error(error: ClientError, where: str) -> SerializeError:
    code = error.response["Error"]["Code"]
    status = error.response["ResponseMetadata"]["HTTPStatusCode"]
    if code in ("NoSuchKey", "NoSuchBucket", "NoSuchVersion") or status == 404:
        return ObjectNotFound(f"{where} does not exist ({code})")
    if code == "InvalidBucketName":
        return InvalidEvent(f"{where} is not a valid S3 address ({code})")
    if status == 429 or status >= 500 or code in ("SlowDown", "RequestTimeout", "ThrottlingException"):
        return StorageUnavailable(f"{where} could not be read ({code})")
    return ObjectNotReadable(f"{where} cannot be read ({code}): this function reads unarchived objects of one bucket")


def image_statistics(image: Image.Image) -> dict[str, float]:
    """Measure brightness, contrast and sharpness, which the drift dashboard shows.

    Parameters
    ----------
    image : PIL.Image.Image
        An RGB image.

    Returns
    -------
    dict of str to float
        ``brightness``: mean luma, 0 to 1. ``contrast``: standard deviation of luma, 0 to 0.5.
        ``sharpness``: variance of luma's Laplacian, luma being 0 to 1 (Pech-Pacheco et al., 2000,
        "Diatom autofocusing in brightfield microscopy"); 0 if a side has fewer than 3 pixels.
    """
    luma = image.convert("L")
    stat = ImageStat.Stat(luma)
    sharpness = 0.0
    if min(luma.size) >= 3:
        # A filtered 8-bit image has no negative values, so filter once for each sign.
        inner = (1, 1, luma.width - 1, luma.height - 1)
        kernel = (0, 1, 0, 1, -4, 1, 0, 1, 0)
        rising = ImageStat.Stat(luma.filter(ImageFilter.Kernel((3, 3), kernel, scale=1)).crop(inner))
        falling = ImageStat.Stat(luma.filter(ImageFilter.Kernel((3, 3), [-k for k in kernel], scale=1)).crop(inner))
        mean_square = (rising.sum2[0] + falling.sum2[0]) / rising.count[0]
        sharpness = (mean_square - (rising.mean[0] - falling.mean[0]) ** 2) / 255**2
    return {
        "brightness": round(stat.mean[0] / 255, 4),
        "contrast": round(stat.stddev[0] / 255, 4),
        "sharpness": round(sharpness, 6),
    }
