"""Copy a staged folder to S3 in parallel, skipping unchanged objects."""

import base64
import hashlib
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import boto3
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError

from common.errors import CommandError
from common.manifest import MANIFEST, read_manifest
from common.progress import progress

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

THREADS = 16
# An error message names this many failed objects, and counts the others.
_NAMED = 5


@dataclass(frozen=True)
class Uploaded:
    """How many objects were sent, and how many already had the same content."""

    sent: int
    unchanged: int


def upload(folder: Path, bucket: str, prefix: str) -> Uploaded:
    """Copy every staged image, then the manifest, so that all images of a manifest in S3 exist.

    Parameters
    ----------
    folder : pathlib.Path
        Written by `training.dataset.staging.stage`.
    bucket, prefix : str
        The destination; an empty prefix is the root of the bucket.

    Raises
    ------
    CommandError
        At least one object could not be copied; the message names them.
    """
    config = Config(retries={"mode": "standard", "max_attempts": 5}, max_pool_connections=THREADS)
    s3 = boto3.client("s3", config=config)
    base = f"{prefix}/" if prefix else ""
    paths = [entry.path for entry in read_manifest(folder).images]
    try:
        present = _etags(s3, bucket, base)
    except (BotoCoreError, ClientError) as error:
        raise CommandError(f"cannot list s3://{bucket}/{base}: {error}") from error
    sent, failed = 0, []

    def send(path: str) -> bool:
        return _send(s3, bucket, base + path, folder / path, present)

    with ThreadPoolExecutor(THREADS) as pool, progress("upload", len(paths) + 1, "objects") as advance:
        futures = [(path, pool.submit(send, path)) for path in paths]
        for path, future in futures:
            try:
                sent += future.result()
            except (BotoCoreError, ClientError, OSError) as error:
                failed.append(f"{path} ({error})")
            advance(1)
        if not failed:
            try:
                sent += send(MANIFEST)
            except (BotoCoreError, ClientError) as error:
                failed.append(f"{MANIFEST} ({error})")
            advance(1)
    if failed:
        more = f", and {len(failed) - _NAMED} more" if len(failed) > _NAMED else ""
        raise CommandError(
            f"{len(failed)} of {len(paths) + 1} objects were not copied to s3://{bucket}/{base}, so it has no "
            f"new manifest; run the same command again. Failed: {'; '.join(failed[:_NAMED])}{more}"
        )
    return Uploaded(sent, len(paths) + 1 - sent)


def _etags(s3: "S3Client", bucket: str, base: str) -> dict[str, str]:
    pages = s3.get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=base)
    return {item["Key"]: item["ETag"].strip('"') for page in pages for item in page.get("Contents", [])}


def _send(s3: "S3Client", bucket: str, key: str, path: Path, present: dict[str, str]) -> bool:
    """Send one file unless the object holds the same content; return whether it was sent."""
    content = path.read_bytes()
    checksum = base64.b64encode(hashlib.sha256(content).digest()).decode()
    if key in present:
        # An ETag is the MD5 of the content, except under KMS encryption: then the stored checksum decides, which takes
        # one request.
        if present[key] == hashlib.md5(content, usedforsecurity=False).hexdigest():
            return False
        head = s3.head_object(Bucket=bucket, Key=key, ChecksumMode="ENABLED")
        if head.get("ChecksumSHA256") == checksum:
            return False
    content_type = "image/png" if path.suffix == ".png" else "application/json"
    s3.put_object(
        Bucket=bucket,
        Key=key,
        Body=content,
        ContentType=content_type,
        ChecksumAlgorithm="SHA256",
        ChecksumSHA256=checksum,
    )
    return True
