"""Summarize: count how the images of a batch ended, and write the counts beside its results."""

import json
import logging
from collections import Counter
from typing import Any

import boto3

logger = logging.getLogger()
s3 = boto3.client("s3")

#: Names of errors that a summary lists; it is part of the execution's state, which has a limit.
MAX_ERRORS = 50
#: Error of images in child executions that failed or never started.
NOT_RUN = "NotRun"


def lambda_handler(event: dict[str, Any], context: object) -> dict[str, Any]:
    """Count the outcomes in the files that a Map Run's manifest lists.

    Parameters
    ----------
    event : dict
        ``Bucket`` and ``Key`` of the manifest that ResultWriter has written.
    context : object
        Lambda's context.

    Returns
    -------
    dict
        ``accepted``, ``unsure``, ``failed``, ``skipped``; ``failed_share``, the fraction of failed images among all but
        the skipped ones; ``errors``, the failed ones by error.
    """
    bucket, key = event["Bucket"], event["Key"]
    manifest = json.loads(s3.get_object(Bucket=bucket, Key=key)["Body"].read())
    outcomes: Counter[str] = Counter()
    errors: Counter[str] = Counter()
    for status, files in manifest["ResultFiles"].items():
        for file in files:
            for line in s3.get_object(Bucket=bucket, Key=file["Key"])["Body"].iter_lines(1 << 20):
                for result in read(status, json.loads(line)):
                    outcomes[result["outcome"]] += 1
                    if result["outcome"] == "failed":
                        errors[result["error"]] += 1
    images = outcomes.total() - outcomes["skipped"]
    summary = {
        **{name: outcomes[name] for name in ("accepted", "unsure", "failed", "skipped")},
        "failed_share": outcomes["failed"] / images if images else 0.0,
        "errors": dict(errors.most_common(MAX_ERRORS)),
    }
    logger.info("Summary: %s", summary)
    place = f"{key.rsplit('/', 1)[0]}/summary.json"
    s3.put_object(Bucket=bucket, Key=place, Body=json.dumps(summary).encode(), ContentType="application/json")
    return summary


def read(status: str, result: dict[str, Any]) -> list[dict[str, Any]]:
    """Return the results of images in one line of a file of children with a status."""
    if status == "SUCCEEDED":
        return [result]
    items = json.loads(result["Input"])["Items"]
    skipped = [str(item.get("s3_key", "")).endswith("/") for item in items]
    return [{"outcome": "skipped"} if each else {"outcome": "failed", "error": NOT_RUN} for each in skipped]
