"""Files in a folder or below ``s3://bucket/prefix``; captures, baselines and reports may be in either."""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import boto3
from botocore.exceptions import ClientError

from common.errors import CommandError

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

#: Bytes to read at a time from a file in S3.
_CHUNK = 1 << 20


def parse_s3(text: str) -> tuple[str, str]:
    """Split ``s3://bucket/prefix`` into bucket and prefix, the latter without slashes at its ends.

    Raises
    ------
    CommandError
        The text has another form.
    """
    match = re.fullmatch(r"s3://([a-z0-9][a-z0-9.-]{1,61}[a-z0-9])(?:/(.*))?", text)
    if not match:
        raise CommandError(f"{text!r} is not of the form s3://bucket/prefix")
    return match[1], (match[2] or "").strip("/")


@cache
def _s3() -> "S3Client":
    return boto3.client("s3")


@contextmanager
def naming(address: str) -> Iterator[None]:
    """Add an address to the message of an error of S3, which names neither bucket nor key.

    Raises
    ------
    botocore.exceptions.ClientError
        The error with the longer message.
    """
    try:
        yield
    except ClientError as error:
        response: Any = {**error.response}
        response["Error"] = {**response["Error"], "Message": f"{response['Error'].get('Message', '')} ({address})"}
        raise ClientError(response, error.operation_name) from error


def _is_s3(base: str) -> bool:
    return base.startswith("s3://")


def join(base: str, name: str) -> str:
    """Return the address of ``name`` below ``base``."""
    return f"{base.rstrip('/')}/{name}"


def folders(base: str) -> list[str]:
    """Return the names of the folders directly below ``base``, sorted; none if it does not exist.

    Raises
    ------
    CommandError
        ``base`` is a file.
    """
    if not _is_s3(base):
        root = Path(base)
        if root.is_file():
            raise CommandError(f"{base} is a file, not a folder")
        return sorted(path.name for path in root.iterdir() if path.is_dir()) if root.is_dir() else []
    bucket, prefix = parse_s3(base)
    start = f"{prefix}/" if prefix else ""
    pages = _s3().get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=start, Delimiter="/")
    with naming(base):
        found = [item["Prefix"] for page in pages for item in page.get("CommonPrefixes", [])]
    return sorted(name.removeprefix(start).rstrip("/") for name in found)


def files(base: str, after: str = "", until: str = "\uffff") -> Iterator[str]:
    """Yield the names of all files below ``base`` with ``after < name < until``, sorted as text.

    In S3 only names in that range are listed: the cost depends on the window, not on everything beside it.
    """
    if not _is_s3(base):
        root = Path(base)
        names = sorted(path.relative_to(root).as_posix() for path in root.rglob("*") if path.is_file())
        yield from (name for name in names if after < name < until)
        return
    bucket, prefix = parse_s3(base)
    start = f"{prefix}/" if prefix else ""
    pages = _s3().get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=start, StartAfter=start + after)
    with naming(base):
        for page in pages:
            for item in page.get("Contents", []):
                name = item["Key"].removeprefix(start)
                if name >= until:
                    return
                if not name.endswith("/"):  # the console's "Create folder" makes such an object
                    yield name


def lines(address: str) -> Iterator[bytes]:
    """Yield the lines of a file without loading all of it."""
    if not _is_s3(address):
        with Path(address).open("rb") as file:
            yield from file
        return
    bucket, key = parse_s3(address)
    with naming(address):
        yield from _s3().get_object(Bucket=bucket, Key=key)["Body"].iter_lines(_CHUNK)


def read(address: str) -> bytes:
    """Return a file's content.

    Raises
    ------
    CommandError
        If it does not exist.
    """
    try:
        if not _is_s3(address):
            return Path(address).read_bytes()
        bucket, key = parse_s3(address)
        with naming(address):
            return _s3().get_object(Bucket=bucket, Key=key)["Body"].read()
    except FileNotFoundError as error:
        raise CommandError(f"{address} does not exist") from error
    except ClientError as error:
        if error.response["Error"]["Code"] in ("NoSuchKey", "NoSuchBucket"):
            raise CommandError(f"{address} does not exist") from error
        raise


def write(address: str, content: bytes, content_type: str) -> None:
    """Write a file, and create the folders above it; ``content_type`` is stored in S3."""
    if not _is_s3(address):
        Path(address).parent.mkdir(parents=True, exist_ok=True)
        Path(address).write_bytes(content)
        return
    bucket, key = parse_s3(address)
    with naming(address):
        _s3().put_object(Bucket=bucket, Key=key, Body=content, ContentType=content_type)
