"""Serialize: copy one image from S3 into the workflow as a small, clean, base64-encoded picture.

Whatever arrives, what leaves is an upright 8-bit RGB PNG or JPEG without metadata, at most
``MAX_EDGE`` pixels on its longer side, small enough for the state of a workflow.
"""

import base64
import io
import os
import struct
from typing import Any

import boto3
from aws_lambda_powertools import Logger, Metrics, Tracer
from aws_lambda_powertools.metrics import MetricUnit
from aws_lambda_powertools.utilities.typing import LambdaContext
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError
from PIL import Image, ImageFilter, ImageStat

# In Lambda this folder is where modules are found; everywhere else it is a package.
if __package__:
    from . import decoder
else:
    import decoder  # type: ignore[import-not-found, no-redef]

logger = Logger()
metrics = Metrics()
tracer = Tracer(patch_modules=["botocore"])

# A silent S3 ends in an error with a name before the function runs out of time; one that trickles does not.
s3 = boto3.client(
    "s3", config=Config(connect_timeout=2, read_timeout=5, retries={"mode": "standard", "total_max_attempts": 2})
)

#: Above this a JPEG of the same picture is several times smaller and looks the same to a classifier.
MAX_PNG_BYTES = 64 * 1024
JPEG_QUALITY = 90
#: What identifies an image in logs, traces and metrics.
IDENTITY = ("execution_id", "s3_bucket", "s3_key")
_IEND = b"\0\0\0\0IEND\xaeB`\x82"
#: X-Ray's limit for the value of an annotation, in characters.
MAX_ANNOTATION = 1000


class SerializeError(Exception):
    """An error of this function whose class name is part of the event contract."""


class InvalidEvent(SerializeError):
    """The event does not name an S3 object."""


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
    """Add ``image_data``, ``content_type``, ``source`` and ``statistics`` to the S3 address.

    Parameters
    ----------
    event : dict
        ``s3_bucket`` and ``s3_key``; ``execution_id`` when a workflow calls. Other keys are ignored.
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
        address = parse_event(event)
        data, source = fetch(address["s3_bucket"], address["s3_key"])
        image, image_format, size = decoder.decode(data, max_edge=int(os.environ["MAX_EDGE"]))
        encoded, content_type = encode(image, original=data)
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


def parse_event(event: Any) -> dict[str, str]:
    """Return the S3 address, and the execution's id where there is one.

    Raises
    ------
    InvalidEvent
        If ``s3_bucket`` or ``s3_key`` is missing, empty or not text.
    """
    if not isinstance(event, dict):
        raise InvalidEvent(
            f'The event must be an object like {{"s3_bucket": …, "s3_key": …}}, not {type(event).__name__}'
        )
    address = {}
    for name in ("s3_bucket", "s3_key"):
        value = event.get(name)
        if not isinstance(value, str) or not value:
            raise InvalidEvent(f"{name} must be a non-empty text, got {value!r:.80}")
        address[name] = value
    execution_id = event.get("execution_id")
    if isinstance(execution_id, str):
        address["execution_id"] = execution_id
    return address


def fetch(bucket: str, key: str) -> tuple[bytes, dict[str, Any]]:
    """Download an object.

    Returns
    -------
    tuple of (bytes, dict)
        The content, and what identifies it: ``bytes``, ``etag`` and, in a versioned bucket, ``version_id``.

    Raises
    ------
    ObjectNotFound, ObjectNotReadable, ImageTooLarge, InvalidEvent, StorageUnavailable
    """
    where = f"s3://{bucket}/{key}"
    try:
        response = s3.get_object(Bucket=bucket, Key=key)
        if response["ContentLength"] > decoder.MAX_BYTES:
            raise ImageTooLarge(f"{where} has {response['ContentLength']} bytes; the limit is {decoder.MAX_BYTES}")
        data = response["Body"].read()
    except ClientError as error:
        raise _storage_error(error, where) from error
    except BotoCoreError as error:
        if type(error).__name__ == "ParamValidationError":
            raise InvalidEvent(f"{where} is not an S3 address: {error}") from error
        raise StorageUnavailable(f"{where} could not be read: {error}") from error
    source = {"bytes": len(data), "etag": response["ETag"].strip('"')}
    if "VersionId" in response:
        source["version_id"] = response["VersionId"]
    return data, source


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


def encode(image: Image.Image, original: bytes) -> tuple[bytes, str]:
    """Encode a picture; an original that is small, clean and already right passes byte for byte.

    Parameters
    ----------
    image : PIL.Image.Image
        An RGB picture.
    original : bytes
        The file that it was decoded from.

    Returns
    -------
    tuple of (bytes, str)
        The file's content and its media type: PNG, or JPEG where a PNG would be large.
    """
    if len(original) <= MAX_PNG_BYTES and _is_bare_png(original, image.size):
        return original, "image/png"
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    if buffer.tell() <= MAX_PNG_BYTES:
        return buffer.getvalue(), "image/png"
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=JPEG_QUALITY)
    return buffer.getvalue(), "image/jpeg"


def _is_bare_png(data: bytes, size: tuple[int, int]) -> bool:
    """Say whether data is an 8-bit RGB PNG of this size that holds pixels and nothing else."""
    # Layout: https://www.w3.org/TR/png-3/#5DataRep
    if data[:8] != b"\x89PNG\r\n\x1a\n" or struct.unpack_from(">IIBB", data, 16) != (*size, 8, 2):
        return False
    chunks, position = set(), 8
    while position + 12 <= len(data):
        length, name = struct.unpack_from(">I4s", data, position)
        chunks.add(name)
        position += 12 + length
        if name == b"IEND":
            break
    return data.endswith(_IEND) and position == len(data) and chunks == {b"IHDR", b"IDAT", b"IEND"}


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
