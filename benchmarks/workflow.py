"""``python -m benchmarks.workflow``: images per second of batches in a rehearsal, and the latency of single calls.

Runs batches of growing size on a stack that is deployed in a rehearsal (``python -m demo --keep batch``), and prints
images per second, the time per image, and each function's share of the time that images spend in functions. The time
per image must not grow with the batch.
"""

import argparse
import json
import re
import statistics
import time
import uuid
from collections import Counter

import boto3

from common.stack import Stack, find_stack
from demo import drawing
from operations.batch import start

SIZES = (10, 100, 1_000)
FUNCTIONS = ("Serialize", "Classify", "Filter")
MAKERS = (drawing.bicycle, drawing.motorcycle, drawing.house)


def main() -> None:
    """Measure, and print a table."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.workflow", description=__doc__)
    parser.add_argument("--stack-name", default="image-classifier-rehearsal", help="default: %(default)s")
    parser.add_argument(
        "--size", type=int, action="append", help="images of a batch, repeatable (default: 10, 100, 1000)"
    )
    options = parser.parse_args()
    stack = find_stack(options.stack_name)
    upload(stack, 30)
    run(stack, 30)  # cold starts
    print(f"{'images':>8} {'images/s':>9} {'ms/image':>9}  share of the time in functions")
    for size in options.size or SIZES:
        before = durations(stack)
        seconds = run(stack, size)
        spent = durations(stack) - before
        shares = ", ".join(f"{name.lower()} {spent[name] / max(1.0, spent.total()):.0%}" for name in FUNCTIONS)
        print(f"{size:>8,} {size / seconds:>9.1f} {1000 * seconds / size:>9.1f}  {shares}")
    for name, call in {"Standard": standard, "Express, synchronous": express}.items():
        times = [call(stack) for _ in range(20)]
        print(f"{name}: p50 {statistics.median(times) * 1000:.0f} ms")


def upload(stack: Stack, count: int) -> None:
    """Upload drawings that all batches share."""
    s3, bucket = boto3.client("s3"), stack.output("ImageBucketName")
    for number in range(count):
        data = drawing.encoded(MAKERS[number % 3](64, 64, number))
        s3.put_object(Bucket=bucket, Key=f"benchmark/{number}.png", Body=data)


def run(stack: Stack, size: int) -> float:
    """Classify as many images from a manifest; return the seconds of the Map Run."""
    bucket, name = stack.output("ImageBucketName"), f"benchmark-{uuid.uuid4().hex[:8]}"
    rows = [{"s3_bucket": bucket, "s3_key": f"benchmark/{number % 30}.png"} for number in range(size)]
    manifest = f"batches/{name}.jsonl"
    body = "".join(f"{json.dumps(row)}\n" for row in rows).encode()
    boto3.client("s3").put_object(Bucket=bucket, Key=manifest, Body=body)
    states = boto3.client("stepfunctions")
    arn = start(stack, {"manifest": manifest}, 50, 0.5, name)
    while (described := states.describe_execution(executionArn=arn))["status"] == "RUNNING":
        time.sleep(0.2)
    if described["status"] != "SUCCEEDED":
        raise SystemExit(f"the batch ended as {described['status']}: {described.get('error')}")
    (listed,) = states.list_map_runs(executionArn=arn)["mapRuns"]
    return float((listed["stopDate"] - listed["startDate"]).total_seconds())


def durations(stack: Stack) -> Counter[str]:
    """Return the milliseconds that each function has run, by the report lines of its log."""
    logs = boto3.client("logs")
    found: Counter[str] = Counter()
    for name in FUNCTIONS:
        group = f"/aws/lambda/{stack.name}-{name.lower()}"
        for page in logs.get_paginator("filter_log_events").paginate(logGroupName=group, filterPattern="REPORT"):
            for event in page["events"]:
                if reported := re.search(r"\tDuration: ([\d.]+) ms", event["message"]):
                    found[name] += round(float(reported[1]))
    return found


def standard(stack: Stack) -> float:
    """Return the seconds of one Standard execution, by its own times."""
    states = boto3.client("stepfunctions")
    event = json.dumps({"s3_bucket": stack.output("ImageBucketName"), "s3_key": "benchmark/0.png"})
    arn = states.start_execution(stateMachineArn=stack.output("WorkflowArn"), input=event)["executionArn"]
    while (described := states.describe_execution(executionArn=arn))["status"] == "RUNNING":
        time.sleep(0.02)
    return float((described["stopDate"] - described["startDate"]).total_seconds())


def express(stack: Stack) -> float:
    """Return the seconds of one synchronous call."""
    event = json.dumps({"s3_bucket": stack.output("ImageBucketName"), "s3_key": "benchmark/0.png"})
    began = time.perf_counter()
    boto3.client("stepfunctions").start_sync_execution(stateMachineArn=stack.output("ExpressWorkflowArn"), input=event)
    return time.perf_counter() - began


if __name__ == "__main__":
    main()
