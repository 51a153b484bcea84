"""Follow a training job: its log and its progress, until it ends; then fetch the model."""

import contextlib
import io
import tarfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import boto3
from botocore.exceptions import BotoCoreError, ClientError

from common.command import explain_aws
from common.errors import CommandError
from common.storage import read
from training.deployment.endpoint import is_transient

LOG_GROUP = "/aws/sagemaker/TrainingJobs"
POLL_SECONDS = 5.0
# https://docs.aws.amazon.com/sagemaker/latest/APIReference/API_DescribeTrainingJob.html
_ENDED = ("Completed", "Failed", "Stopped")
#: What the archive of a job may hold.
FILES = ("model.onnx", "metrics.json")


class Log:
    """The log of a job, read from where the last call stopped."""

    def __init__(self, job: str) -> None:
        self._client: Any = boto3.client("logs")
        self._job = job
        self._tokens: dict[str, str] = {}

    def lines(self) -> list[str]:
        """Return the lines since the last call; none while there is no log."""
        found: list[str] = []
        try:
            described = self._client.describe_log_streams(logGroupName=LOG_GROUP, logStreamNamePrefix=f"{self._job}/")
        except self._client.exceptions.ResourceNotFoundException:
            return []
        for stream in described["logStreams"]:
            name = stream["logStreamName"]
            while True:
                place = {"nextToken": self._tokens[name]} if name in self._tokens else {}
                page = self._client.get_log_events(
                    logGroupName=LOG_GROUP, logStreamName=name, startFromHead=True, **place
                )
                found += [event["message"] for event in page["events"]]
                # At its end, a stream returns the token that it was given.
                ended = self._tokens.get(name) == page["nextForwardToken"]
                self._tokens[name] = page["nextForwardToken"]
                if ended or not page["events"]:
                    break
        return found


def follow(job: str, report: Callable[[str], None] | None = None) -> dict[str, Any]:
    """Print the log and each change of state until a job ends (or call ``report``); return its description.

    Raises
    ------
    CommandError
        There is no such job, it failed or was stopped, or the wait was interrupted: then the job continues.
    """
    report = report or partial(print, flush=True)
    sagemaker: Any = boto3.client("sagemaker")
    again = f"follow it again with: python -m training train --on sagemaker --job {job}"
    log, seen = Log(job), 0
    try:
        while True:
            try:
                described = dict(sagemaker.describe_training_job(TrainingJobName=job))
                for line in log.lines():
                    report(line)
                for change in described.get("SecondaryStatusTransitions", [])[seen:]:
                    report(f"{job}: {change['Status']}: {change.get('StatusMessage', '')}".removesuffix(": "))
                    seen += 1
                if described["TrainingJobStatus"] in _ENDED:
                    break
            except (ClientError, BotoCoreError) as error:
                if not is_transient(error):
                    raise CommandError(f"training job {job}: AWS: {explain_aws(error)}; {again}") from error
            time.sleep(POLL_SECONDS)
    except KeyboardInterrupt:
        raise CommandError(f"interrupted; training job {job} continues, {again}") from None
    with contextlib.suppress(ClientError, BotoCoreError):  # the model matters more than the last lines
        for line in log.lines():
            report(line)
    status = described["TrainingJobStatus"]
    if status != "Completed":
        reason = described.get("FailureReason") or described.get("SecondaryStatus", "AWS gave no reason")
        raise CommandError(f"training job {job} is {status}: {' '.join(reason.split())}")
    if saved := described.get("BillableTimeInSeconds"):
        report(f"{job}: {saved} s billed of {described['TrainingTimeInSeconds']} s")
    return described


def fetch(described: dict[str, Any], out: Path) -> None:
    """Write a job's ONNX file to ``out``, and its metrics beside it.

    Raises
    ------
    CommandError
        The job has left no model.
    """
    address = described.get("ModelArtifacts", {}).get("S3ModelArtifacts")
    if not address:
        raise CommandError(f"training job {described['TrainingJobName']} left no model")
    out.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(fileobj=io.BytesIO(read(address))) as archive:
        names = archive.getnames()
        if "model.onnx" not in names:
            raise CommandError(f"{address} holds no model.onnx, but {', '.join(sorted(names)) or 'nothing'}")
        for name in FILES:
            member = archive.extractfile(name) if name in names else None
            if member:
                (out if name == "model.onnx" else out.parent / name).write_bytes(member.read())
