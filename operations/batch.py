"""Runs of the batch workflow: start, follow, summarize, redrive, and compare with what they were given."""

import csv
import io
import json
import math
import sys
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import boto3
from botocore.exceptions import ClientError

from common import storage
from common.command import printable
from common.errors import CommandError
from common.progress import progress
from common.stack import Stack, execution_arn, parse_object

#: Below this prefix of the image bucket are manifests and results; the batch workflow's role may use no other.
FOLDER = "batches"
POLL_SECONDS = 1.0
#: Error of images in child executions that failed or never started: Step Functions' own errors, which a redrive fixes.
NOT_RUN = "NotRun"


def concurrency(stack: Stack, rate: float, seconds: float) -> int:
    """Return how many children may run at once, so that the endpoint is busy and not throttled.

    By Little's law, images in work = images per second that all instances classify * seconds that each is in the
    workflow. A child works on `BatchSize` images at once.

    Parameters
    ----------
    stack : Stack
        The stack of the endpoint.
    rate : float
        Images that one instance classifies per second.
    seconds : float
        How long an image is in the workflow.
    """
    endpoint = boto3.client("sagemaker").describe_endpoint(EndpointName=stack.parameter("EndpointName"))
    instances = sum(variant.get("CurrentInstanceCount", 1) for variant in endpoint["ProductionVariants"])
    return max(1, math.floor(max(1, instances) * rate * seconds / int(stack.parameter("BatchSize"))))


def start(stack: Stack, source: dict[str, str], rate: float, seconds: float, name: str | None) -> str:
    """Start a run, and print its ARN.

    Parameters
    ----------
    stack : Stack
        The stack of the batch workflow.
    source : dict
        ``prefix`` of the image bucket, or ``manifest``: a key below ``batches/`` that ends in ``.csv`` or ``.jsonl``.
    rate, seconds : float
        As in `concurrency`.
    name : str or None
        The execution's name, which also names the folder of its results.

    Returns
    -------
    str
        The execution's ARN.

    Raises
    ------
    CommandError
        The source cannot be read by the workflow.
    """
    manifest = source.get("manifest")
    if manifest is not None and not (manifest.startswith(f"{FOLDER}/") and manifest.endswith((".csv", ".jsonl"))):
        raise CommandError(f"{manifest}: a manifest is a .csv or .jsonl file below {FOLDER}/ of the image bucket")
    event = {**source, "max_concurrency": concurrency(stack, rate, seconds)}
    given: dict[str, Any] = {"stateMachineArn": stack.output("BatchWorkflowArn"), "input": json.dumps(event)}
    arn = boto3.client("stepfunctions").start_execution(**given, **({"name": name} if name else {}))["executionArn"]
    print(arn)
    return arn


def _run(stack: Stack, execution: str) -> tuple[dict[str, Any], dict[str, Any] | None]:
    """Return the description of a run's execution, and of its Map Run if that has begun."""
    states, workflow = boto3.client("stepfunctions"), stack.output("BatchWorkflowArn")
    arn = execution if execution.startswith("arn:") else execution_arn(workflow, execution)
    try:
        described = dict(states.describe_execution(executionArn=arn))
    except ClientError as error:
        if error.response["Error"]["Code"] not in ("ExecutionDoesNotExist", "InvalidArn"):
            raise
        raise CommandError(f"the batch workflow of stack {stack.name} has no execution {execution!r}") from error
    runs = states.list_map_runs(executionArn=arn)["mapRuns"]
    return described, dict(states.describe_map_run(mapRunArn=runs[0]["mapRunArn"])) if runs else None


def _ended_run(stack: Stack, execution: str) -> tuple[dict[str, Any], dict[str, Any] | None]:
    described, run = _run(stack, execution)
    if described["status"] == "RUNNING":
        raise CommandError("the run has not ended yet: python -m operations batch follow shows its progress")
    return described, run


def follow(stack: Stack, execution: str, max_failed: float) -> int:
    """Show a run's progress until it ends, then its summary; return the exit code of `summarize`."""
    described, run = _run(stack, execution)
    while described["status"] == "RUNNING" and not (run and run["itemCounts"]["total"]):  # it reads the items
        time.sleep(POLL_SECONDS)
        described, run = _run(stack, execution)
    began, shown = time.monotonic(), 0
    first = _ended(run) if run else 0
    with progress("classify", run["itemCounts"]["total"] if run else None, "images") as advance:
        while run:
            ended = _ended(run)
            advance(ended - shown)
            shown = ended
            if described["status"] != "RUNNING":
                break
            time.sleep(POLL_SECONDS)
            described, run = _run(stack, execution)
    if run and shown > first:
        took = (described["stopDate"] - run["startDate"]).total_seconds()
        elapsed = max(0.001, min(time.monotonic() - began, took))
        print(f"{(shown - first) / elapsed:,.1f} images per second", file=sys.stderr)
    return summarize(stack, execution, None, max_failed)


def _ended(run: dict[str, Any]) -> int:
    counts = run["itemCounts"]
    return int(counts["total"] - counts["pending"] - counts["running"])


def results(stack: Stack, run: dict[str, Any], name: str) -> Iterator[dict[str, Any]]:
    """Yield one result per image: `outcome`, the address, and what the outcome has (see docs/batch.md).

    Images of child executions that failed or never started are yielded as failed, with the error `NOT_RUN`.

    Parameters
    ----------
    stack : Stack
        The stack of the batch workflow.
    run : dict
        The description of the Map Run.
    name : str
        The execution's name.

    Raises
    ------
    CommandError
        The run has written no results yet.
    """
    bucket = stack.output("ImageBucketName")
    folder = f"s3://{bucket}/{FOLDER}/{name}/{run['mapRunArn'].rsplit(':', 1)[-1]}"
    files = json.loads(storage.read(f"{folder}/manifest.json"))["ResultFiles"]
    for status, listed in files.items():
        for file in listed:
            for line in storage.lines(f"s3://{bucket}/{file['Key']}"):
                found = json.loads(line)
                if status == "SUCCEEDED":
                    yield found
                    continue
                for item in json.loads(found["Input"])["Items"]:
                    outcome = "skipped" if str(item.get("s3_key", "")).endswith("/") else "failed"
                    yield {**item, "outcome": outcome, **({"error": NOT_RUN} if outcome == "failed" else {})}


@dataclass
class Summary:
    """How the images of a run ended."""

    outcomes: Counter[str] = field(default_factory=Counter)
    errors: Counter[str] = field(default_factory=Counter)
    #: Addresses of the failed images.
    failed: list[dict[str, str]] = field(default_factory=list)

    def add(self, result: dict[str, Any]) -> None:
        """Count one result."""
        self.outcomes[result["outcome"]] += 1
        if result["outcome"] == "failed":
            self.errors[result["error"]] += 1
            if "s3_key" in result:
                self.failed.append({"s3_bucket": result["s3_bucket"], "s3_key": result["s3_key"]})

    @property
    def failed_share(self) -> float:
        """Fraction of failed images among all that are no folders."""
        images = self.outcomes.total() - self.outcomes["skipped"]
        return self.outcomes["failed"] / images if images else 0.0


def summarize(stack: Stack, execution: str, failed_manifest: str | None, max_failed: float) -> int:
    """Print how a run's images ended.

    Parameters
    ----------
    stack : Stack
        The stack of the batch workflow.
    execution : str
        The run's ARN or name.
    failed_manifest : str or None
        Key below ``batches/`` of the image bucket, for a manifest of the failed images, which can start another run.
    max_failed : float
        Fraction of failed images above which the exit code is 1.

    Returns
    -------
    int
        The exit code: 0, or 1 if the run failed or too many images did.

    Raises
    ------
    CommandError
        The run does not exist or has not ended.
    """
    described, run = _ended_run(stack, execution)
    summary = Summary()
    for result in results(stack, run, described["name"]) if run else ():
        summary.add(result)
    bucket = stack.output("ImageBucketName")
    counts = ", ".join(f"{summary.outcomes[name]:,} {name}" for name in ("accepted", "unsure", "failed", "skipped"))
    print(f"{described['status']}: {summary.outcomes.total():,} keys: {counts}")
    for error, count in summary.errors.most_common():
        print(f"  {count:,} {printable(error)}")
    if described.get("error"):
        print(f"  {described['error']}: {described.get('cause', '')}")
    print(f"results: s3://{bucket}/{FOLDER}/{described['name']}/")
    if failed_manifest and summary.failed:
        text = "".join(f"{json.dumps(address)}\n" for address in summary.failed)
        storage.write(f"s3://{bucket}/{failed_manifest}", text.encode(), "application/jsonl")
        print(f"failed images: s3://{bucket}/{failed_manifest}")
    too_many = summary.failed_share > max_failed
    if too_many:
        print(f"{summary.failed_share:.1%} of the images failed, more than {max_failed:.1%}", file=sys.stderr)
    return int(too_many or described["status"] != "SUCCEEDED")


def redrive(stack: Stack, execution: str) -> None:
    """Run the children of a failed run that did not succeed again, in the same execution."""
    described, _ = _run(stack, execution)
    try:
        boto3.client("stepfunctions").redrive_execution(executionArn=described["executionArn"])
    except ClientError as error:
        raise CommandError(f"it cannot be redriven: {error.response['Error']['Message']}") from error
    print(described["executionArn"])


def reconcile(stack: Stack, execution: str) -> int:
    """Check that every key that a run was given is in its results exactly once; print the others.

    Returns
    -------
    int
        The exit code: 0, or 1 if a key is missing, repeated or was not given.

    Raises
    ------
    CommandError
        The run does not exist or has not ended.
    """
    described, run = _ended_run(stack, execution)
    given = Counter(_given(stack.output("ImageBucketName"), parse_object(described.get("input"))))
    found = Counter(
        (str(result.get("s3_bucket")), str(result.get("s3_key")))
        for result in (results(stack, run, described["name"]) if run else ())
    )
    kinds = {"missing": given - found, "more often than given": found - given}
    for kind, keys in kinds.items():
        for (bucket, key), count in sorted(keys.items()):
            print(f"{kind} ({count}): s3://{printable(f'{bucket}/{key}')}")
    wrong = sum(keys.total() for keys in kinds.values())
    print(f"{given.total():,} keys given, {found.total():,} results, {wrong:,} differences")
    return int(wrong > 0)


def _given(bucket: str, event: dict[str, Any]) -> Iterator[tuple[str, str]]:
    """Yield bucket and key of everything that a run was given."""
    if prefix := event.get("prefix"):
        for page in boto3.client("s3").get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=prefix):
            yield from ((bucket, item["Key"]) for item in page.get("Contents", []))
        return
    text = storage.read(f"s3://{bucket}/{event['manifest']}").decode()
    rows: Any = csv.DictReader(io.StringIO(text))
    if event["manifest"].endswith(".jsonl"):
        rows = [json.loads(line) for line in text.splitlines() if line.strip()]
    yield from ((row["s3_bucket"], row["s3_key"]) for row in rows)
