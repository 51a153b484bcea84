"""Serialize: copy one image from S3 into the workflow as a small, clean, base64-encoded picture.

Whatever arrives, what leaves is an upright 8-bit RGB PNG or JPEG without metadata, at most
``MAX_EDGE`` pixels on its longer side, small enough for the state of a workflow.
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

# In Lambda this folder is where modules are found; everywhere else it is a package.
if __package__:
    from src.serialize import decoder, encoder
else:
    import decoder  # type: ignore[import-not-found, no-redef]
    import encoder  # type: ignore[import-not-found, no-redef]

logger = Logger()
metrics = Metrics()
tracer = Tracer(patch_modules=["botocore"])

# A silent S3 ends in an error with a name before the function runs out of time; one that trickles does not.
s3 = boto3.client(
    "s3", config=Config(connect_timeout=2, read_timeout=5, retries={"mode": "standard", "total_max_attempts": 2})
)

#: Longest side that the settings may ask for: any image of it fits a workflow's state.
LARGEST_MAX_EDGE = 384
#: What S3 takes: a key's bytes in UTF-8, and a bucket's characters (a name's are 63, an access point's ARN has more).
MAX_KEY_BYTES, MAX_BUCKET = 1024, 255
#: The characters of a bucket's name, or of an access point's ARN.
BUCKET = re.compile(r"[\w.:/-]+", re.ASCII)
#: Fields in which callers wrap their input by mistake: of API Gateway, EventBridge, S3 and SQS, Step Functions.
WRAPPERS = ("body", "detail", "Records", "input", "Payload")
#: Errors of the SDK after which the same request may succeed; any other is about the request.
TRANSIENT = (ConnectionError, HTTPClientError, IncompleteReadError, CredentialRetrievalError, NoCredentialsError)
#: What identifies an image in logs, traces and metrics.
IDENTITY = ("execution_id", "image_id", "s3_bucket", "s3_key")
#: X-Ray's limit for the value of an annotation, in characters.
MAX_ANNOTATION = 1000


class SerializeError(Exception):
    """An error of this function whose class name is part of the event contract."""


class InvalidEvent(SerializeError):
    """The event does not name an S3 object."""


class InvalidConfiguration(SerializeError):
    """A setting of the function is missing or makes no sense."""


class ObjectNotFound(SerializeError):
    """The bucket or the key does not exist."""


class ObjectNotReadable(SerializeError):
    """The object exists, but may not be read (another bucket, no permission, archived)."""


class StorageUnavailable(SerializeError):
    """S3 throttles or fails; the same request may succeed later."""


# Part of the event contract as well, by their names.
ImageTooLarge = decoder.ImageTooLarge
UnsupportedImage = decoder.UnsupportedImage


@logger.inject_lambda_context(clear_state=True)
@tracer.capture_lambda_handler(capture_response=False)
@metrics.log_metrics
def lambda_handler(event: dict[str, Any], context: LambdaContext) -> dict[str, Any]:
    """Add ``image_id``, ``image_data``, ``content_type``, ``source`` and ``statistics`` to the S3 address.

    Parameters
    ----------
    event : dict
        ``s3_bucket`` and ``s3_key``, or the ``detail`` of S3's "Object Created" event; ``execution_id`` when a workflow
        calls. Other keys are ignored.
    context : LambdaContext
        Lambda's context.

    Returns
    -------
    dict
        The event after serialize, as the event contract in ``docs/events.md`` has it.

    Raises
    ------
    SerializeError, decoder.ImageError
        One of their subclasses; the name says what was wrong.
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
    """Put what identifies an image on every log line, on the trace and on the metrics' line: one id finds all."""
    for name in IDENTITY:
        value = event.get(name) if isinstance(event, dict) else None
        if isinstance(value, str) and value:
            logger.append_keys(**{name: value})
            tracer.put_annotation(name, value[:MAX_ANNOTATION])
            metrics.add_metadata(name, value)


def report(error: Exception) -> None:
    """Log an error and count it under its name; one that is not of the event contract comes with its stack."""
    named = isinstance(error, (SerializeError, decoder.ImageError))
    logger.error(str(error), error=type(error).__name__, exc_info=not named)
    metrics.add_metric(type(error).__name__ if named else "UnexpectedError", MetricUnit.Count, 1)


def parse_max_edge(text: str) -> int:
    """Return the longest side of the picture that is returned.

    Raises
    ------
    InvalidConfiguration
        If it is not a whole number from 1 to `LARGEST_MAX_EDGE`.
    """
    if not (text.isascii() and text.isdecimal() and len(text) < 9 and 1 <= int(text) <= LARGEST_MAX_EDGE):
        raise InvalidConfiguration(f"MAX_EDGE must be a whole number from 1 to {LARGEST_MAX_EDGE}, got {text!r:.80}")
    return int(text)


def parse_event(event: Any) -> dict[str, str]:
    """Return the S3 address, and the execution's id where there is one.

    Raises
    ------
    InvalidEvent
        If bucket or key is missing, empty, too long or not text, or the input is wrapped in another object.
    """
    if not isinstance(event, dict):
        raise InvalidEvent(
            f'The event must be an object like {{"s3_bucket": …, "s3_key": …}}, not {type(event).__name__}'
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
            raise InvalidEvent(f"{name} must be a non-empty text, got {got}")
        try:
            size = len(value.encode())
        except UnicodeEncodeError:
            raise InvalidEvent(f"{name} holds half a surrogate pair: {value!r:.80}") from None
        if size > limit:
            raise InvalidEvent(f"{name} has {size} bytes; the limit is {limit}: {value!r:.80}")
        address[name] = value
    if not BUCKET.fullmatch(address["s3_bucket"]):
        raise InvalidEvent(f"s3_bucket is not an S3 address: {address['s3_bucket']!r:.80}")
    execution_id = event.get("execution_id")
    if isinstance(execution_id, str):
        address["execution_id"] = execution_id
    return address


def announced_etag(event: dict[str, Any]) -> str:
    """Return the ETag that S3's event has, empty where there is none."""
    uploaded = event.get("object")
    etag = uploaded.get("etag") if isinstance(uploaded, dict) else None
    return etag if isinstance(etag, str) and etag.isascii() and etag.isalnum() else ""


def image_id(bucket: str, key: str, source: dict[str, Any]) -> str:
    """Return what a repeated event has in common with the first: the same for the same version of the same object."""
    # Without versioning, or while it is suspended, the content stands for the version.
    version = source.get("version_id", "null")
    name = "\0".join((bucket, key, source["etag"] if version == "null" else version))
    return hashlib.sha256(name.encode()).hexdigest()[:32]


def fetch(bucket: str, key: str, etag: str = "") -> tuple[bytes, str, dict[str, Any]]:
    """Download an object.

    Whether EventBridge hands on keys percent-encoded, AWS does not say: one that does not exist is tried decoded, too,
    but only where the event's ETag proves that the object is the one that was uploaded.

    Parameters
    ----------
    bucket, key : str
        Where it lies.
    etag : str, optional
        The ETag that S3's event has.

    Returns
    -------
    tuple of (bytes, str, dict)
        The content, its key, and what identifies it: ``bytes``, ``etag`` and, in a versioned bucket, ``version_id``.

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
        raise InvalidEvent(f"{where} is not an S3 address that can be read: {error!s:.300}") from error
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
        return InvalidEvent(f"{where} is not an S3 address ({code})")
    if status == 429 or status >= 500 or code in ("SlowDown", "RequestTimeout", "ThrottlingException"):
        return StorageUnavailable(f"{where} could not be read now ({code})")
    return ObjectNotReadable(f"{where} may not be read ({code}): this function reads one bucket, unarchived objects")


def image_statistics(image: Image.Image) -> dict[str, float]:
    """Measure what drifts: brightness, contrast and sharpness.

    Parameters
    ----------
    image : PIL.Image.Image
        An RGB picture.

    Returns
    -------
    dict of str to float
        ``brightness``: mean luma, 0 to 1. ``contrast``: standard deviation of luma, 0 to 0.5.
        ``sharpness``: variance of luma's Laplacian, luma being 0 to 1 (Pech-Pacheco et al., 2000,
        "Diatom autofocusing in brightfield microscopy"); 0 for images of under 3 pixels a side.
    """
    luma = image.convert("L")
    stat = ImageStat.Stat(luma)
    sharpness = 0.0
    if min(luma.size) >= 3:
        # A filtered 8-bit image holds no negative values, so each sign is filtered on its own.
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
