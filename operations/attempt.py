"""Classify local photos: upload them, start the workflow, and print each outcome; show where the model looked."""

import hashlib
import json
import mimetypes
import secrets
from pathlib import Path

import boto3

from common import storage
from common.command import printable
from common.errors import CommandError
from common.stack import Stack
from operations.replay import print_line, print_outcome, wait_for_end

#: Prefix of the uploaded photos. UploadPrefix cannot be above or below ``samples/``: an upload there starts nothing.
TRIED = "samples/tried"


def try_photos(
    stack: Stack, photos: list[Path], explain: Path | None = None, program: str = "python -m operations"
) -> int:
    """Upload photos, classify each, and print its outcome and the command that shows its timeline.

    Parameters
    ----------
    stack : Stack
        The stack of the workflow.
    photos : list of pathlib.Path
        Image files.
    explain : pathlib.Path or None
        Write heat maps, with this model file if it made the predictions, otherwise with the endpoint's.
    program : str
        How the printed commands begin.

    Returns
    -------
    int
        The exit code: 0 if all are accepted, 1 if one failed, or else 3 (the model is not sure).

    Raises
    ------
    CommandError
        One of the photos is not a file; nothing was uploaded.
    """
    check_photos(photos)
    states, bucket = boto3.client("stepfunctions"), stack.output("ImageBucketName")
    started = []
    for photo in photos:
        content = photo.read_bytes()
        key = f"{TRIED}/{hashlib.sha256(content).hexdigest()[:16]}/{printable(photo.name)}"
        kind, _ = mimetypes.guess_type(photo.name)
        storage.write(f"s3://{bucket}/{key}", content, kind or "application/octet-stream")
        execution = states.start_execution(
            stateMachineArn=stack.output("WorkflowArn"),
            name=f"try-{secrets.token_hex(8)}",
            input=json.dumps({"s3_bucket": bucket, "s3_key": key}),
        )
        started.append(execution["executionArn"])
    codes = set()
    for photo, arn in zip(photos, started, strict=True):
        described = wait_for_end(arn)
        codes.add(print_outcome(described, f"{photo.name}: "))
        if explain:
            # Importing ONNX Runtime takes time.
            from operations.heat_map import write_heat_map

            print_line(f"    {write_heat_map(photo, described, explain)}")
        print_line(f"    {program} trace {arn.rpartition(':')[2]} --stack-name {stack.name}")
    return 1 if 1 in codes else max(codes, default=0)


def check_photos(photos: list[Path]) -> None:
    """Reject what is not a file.

    Raises
    ------
    CommandError
        One of the photos does not exist or is a folder.
    """
    for photo in photos:
        if not photo.is_file():
            raise CommandError(f"{photo} is a folder; name its files" if photo.is_dir() else f"file not found: {photo}")
