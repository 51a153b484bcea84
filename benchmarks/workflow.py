"""``python -m benchmarks.workflow``: images per second of batches in a rehearsal, and the latency of single calls.

Runs batches of growing size on a stack that is deployed in a rehearsal (``python -m demo --keep batch``), and prints
images per second, the time per image, and each function's share of the time that images spend in functions. The time
per image must not grow with the batch, nor from one end of a batch to the other.

With ``--faults``, the services fail meanwhile: requests are throttled, fail or are answered late, processes of
functions and of the endpoint are killed or hang, and each run is stopped in its middle and redriven. Every key must
then be in the results exactly once; images that failed go through another run.

With ``IMAGE_DATA_DIR``, the images are photographs of CIFAR-10 and CIFAR-100, otherwise drawings.
"""

import argparse
import contextlib
import json
import os
import random
import re
import signal
import statistics
import sys
import tarfile
import time
import uuid
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import islice, pairwise
from pathlib import Path

import boto3

from benchmarks.scaling import Setting, Simulation
from common.command import positive_int
from common.stack import Stack, find_stack
from demo import drawing
from demo.steps import FOLDER
from operations.batch import FOLDER as BATCHES
from operations.batch import reconcile, redrive, start, summarize
from rehearsal.injection import inject
from rehearsal.lambda_sandboxes import MAX_SANDBOXES
from rehearsal.lifecycle import processes

SIZES = (10, 100, 1_000)
FUNCTIONS = ("Serialize", "Classify", "Filter")
MAKERS = (drawing.bicycle, drawing.motorcycle, drawing.house)
#: Below this prefix are the images; a batch of a size has a prefix below it.
PREFIX = "benchmark"
POLL_SECONDS = 1.0
#: Images of the batch that is compared with its simulation.
SIMULATED = 200
#: The line of a function's log about an invocation.
REPORT = re.compile(r"\tDuration: ([\d.]+) ms")
#: What the services' requests meet: fractions of them, error codes, and waits longer than the functions' time-outs.
FAULTS = [
    {
        "service": "lambda",
        "operation": "Invoke",
        "probability": 0.01,
        "code": "TooManyRequestsException",
        "status": 429,
    },
    {"service": "lambda", "operation": "Invoke", "probability": 0.005, "code": "ServiceException"},
    {"service": "s3", "operation": "GetObject", "probability": 0.03, "code": "SlowDown", "status": 503},
    {"service": "s3", "operation": "GetObject", "probability": 0.001, "delay": 6},
    *(
        {"service": "sagemaker-runtime", "operation": "InvokeEndpoint", **more}
        for more in (
            {"probability": 0.005, "code": "ThrottlingException", "status": 400},
            {"probability": 0.005, "code": "ServiceUnavailable", "status": 503},
            {"probability": 0.005, "code": "InternalFailure"},
            {"probability": 0.001, "delay": 11},
        )
    ),
    {"service": "stepfunctions", "operation": "StartSyncExecution", "probability": 0.005, "code": "InternalFailure"},
    {"service": "events", "operation": "PutEvents", "probability": 0.005, "code": "InternalException"},
    {"service": "sqs", "operation": "SendMessage", "probability": 0.005, "code": "ServiceUnavailable", "status": 503},
]

#: What is done to processes and runs, after these parts of the images.
HARM = {
    0.1: "functions killed",
    0.2: "endpoints killed",
    0.3: "functions that hung",
    0.4: "functions killed",
    0.5: "batches stopped",
    0.6: "endpoints killed",
    0.7: "functions that hung",
    0.8: "functions killed",
}


def main() -> int:
    """Measure, and print a table; return the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.workflow",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--stack-name", default="image-classifier-rehearsal", help="default: %(default)s")
    parser.add_argument("--folder", type=Path, default=FOLDER, help="where the rehearsal's state lives (%(default)s)")
    parser.add_argument(
        "--size", type=positive_int, action="append", help="images of a batch, repeatable (default: 10, 100, 1000)"
    )
    parser.add_argument("--children", type=positive_int, default=2, help="children at once (default: %(default)s)")
    parser.add_argument("--faults", action="store_true", help="let the services fail during the batches")
    options = parser.parse_args()
    stack = find_stack(options.stack_name)
    sizes = options.size or SIZES
    for size in (20, *sizes):
        upload(stack, size)
    Run(stack, {"prefix": f"{PREFIX}/20/"}, options.children).follow()  # cold starts
    if options.faults:
        return max(with_faults(stack, size, options.children, options.folder) for size in sizes)
    print(f"{'images':>8} {'images/s':>9} {'ms/image':>9}  share of the time in functions")
    for size in sizes:
        before, run = durations(stack), Run(stack, {"prefix": f"{PREFIX}/{size}/"}, options.children)
        seconds = run.follow()
        spent = durations(stack) - before
        shares = ", ".join(f"{name.lower()} {spent[name] / max(1.0, spent.total()):.0%}" for name in FUNCTIONS)
        print(f"{size:>8,} {size / seconds:>9.1f} {1000 * seconds / size:>9.1f}  {shares}")
        if size >= 1000:
            print(f"{'':>8} images/s by fifths: {run.rates()}")
    print_singles(stack)
    print_simulated(stack, options.children, options.folder)
    return 0


def images() -> Iterator[tuple[str, bytes]]:
    """Yield the file endings and contents of images: all real ones, then drawings."""
    if folder := os.environ.get("IMAGE_DATA_DIR"):
        for path in sorted(Path(folder, "vehicles").rglob("*.png")):
            yield ".png", path.read_bytes()
        with tarfile.open(Path(folder, "neither-train.tar.xz")) as archive:
            for member in archive:
                if member.isfile() and (file := archive.extractfile(member)):
                    yield ".jpg", file.read()
    number = 0
    while True:
        yield ".png", drawing.encoded(MAKERS[number % 3](64, 64, number))
        number += 1


def upload(stack: Stack, size: int) -> None:
    """Upload as many images as a batch has, unless they are there."""
    s3, bucket, prefix = boto3.client("s3"), stack.output("ImageBucketName"), f"{PREFIX}/{size}/"
    pages = s3.get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=prefix)
    there = {item["Key"] for page in pages for item in page.get("Contents", [])}
    named = ((f"{prefix}{number:06}{ending}", data) for number, (ending, data) in enumerate(islice(images(), size)))
    missing = (item for item in named if item[0] not in there)
    with ThreadPoolExecutor(4) as uploads:
        list(uploads.map(lambda item: s3.put_object(Bucket=bucket, Key=item[0], Body=item[1]), missing))


class Run:
    """A batch of as many images, or of a manifest.

    Parameters
    ----------
    stack : Stack
        The stack in the rehearsal.
    source : dict
        Prefix or manifest.
    children : int
        Children at once for each instance of the endpoint.
    """

    def __init__(self, stack: Stack, source: dict[str, str], children: int) -> None:
        self._stack, self.name = stack, f"benchmark-{uuid.uuid4().hex[:8]}"
        with contextlib.redirect_stdout(sys.stderr):
            self.arn = start(stack, source, children * int(stack.parameter("BatchSize")), 1.0, self.name)
        self.status = "RUNNING"
        #: Seconds since the start, and how many images had ended.
        self.progress: list[tuple[float, int]] = []

    def follow(self, reached: Callable[[int], None] = lambda ended: None) -> float:
        """Wait until the run has ended, and call a function with the number of images now and then; return seconds."""
        states = boto3.client("stepfunctions")
        while True:
            described = states.describe_execution(executionArn=self.arn)
            for listed in states.list_map_runs(executionArn=self.arn)["mapRuns"]:
                run = states.describe_map_run(mapRunArn=listed["mapRunArn"])
                counts = run["itemCounts"]
                ended = counts["succeeded"] + counts["failed"]
                self.progress.append((time.time() - run["startDate"].timestamp(), ended))
                reached(ended)
            if described["status"] != "RUNNING" and run["status"] != "RUNNING":  # children of a stopped run still end
                break
            time.sleep(POLL_SECONDS)
        self.status = described["status"]
        return float((run["stopDate"] - run["startDate"]).total_seconds())

    def rates(self, parts: int = 5) -> str:
        """Return the images per second in each part of the run."""
        total = self.progress[-1][1]
        marks = [next(at for at in self.progress if at[1] * parts >= part * total) for part in range(parts + 1)]
        return " ".join(
            f"{(to - begun) / max(0.001, end - began):.1f}" for (began, begun), (end, to) in pairwise(marks)
        )


def with_faults(stack: Stack, size: int, children: int, folder: Path) -> int:
    """Run a batch while services fail, then what failed in it; return 1 unless every key has exactly one result."""
    sqs, queue = boto3.client("sqs"), stack.output("ReviewQueueUrl")

    def waiting() -> int:
        attributes = sqs.get_queue_attributes(QueueUrl=queue, AttributeNames=["ApproximateNumberOfMessages"])
        return int(attributes["Attributes"]["ApproximateNumberOfMessages"])

    before = waiting()
    inject(os.environ["AWS_ENDPOINT_URL"], FAULTS)
    try:
        run = Run(stack, {"prefix": f"{PREFIX}/{size}/"}, children)
        harm = Harm(folder, run.arn, size)
        seconds = run.follow(harm.reached)
        while run.status != "SUCCEEDED":
            print(f"\n{size:,} images, {run.status} after {run.progress[-1][1]:,}, then redriven:")
            summarize(stack, run.name, None, 1.0)
            redrive(stack, run.name)
            seconds = run.follow(harm.reached)
    finally:
        met = inject(os.environ["AWS_ENDPOINT_URL"], [])
    print(f"{seconds:.0f} s, {size / seconds:.1f} images/s; by fifths: {run.rates()}")
    print("processes:", ", ".join(f"{count} {what}" for what, count in harm.done.items()))
    print("requests that met a fault:")
    for fault in met:
        what = fault["code"] or f"{fault['delay']:g} s late"
        print(f"  {fault['count']:>6,} {fault['service']} {fault['operation']}: {what}")
    manifest = f"{BATCHES}/{run.name}-failed.jsonl"
    failed = summarize(stack, run.name, manifest, 0.0)
    print(f"messages in the review queue: {waiting() - before:,}")
    differs = reconcile(stack, run.name)
    if failed:
        again = Run(stack, {"manifest": manifest}, children)
        again.follow()
        print("the failed ones again, without faults:")
        differs |= summarize(stack, again.name, None, 0.0) | reconcile(stack, again.name)
    return differs


class Harm:
    """What is done to the rehearsal's processes in the course of a run, which is stopped in its middle."""

    def __init__(self, folder: Path, arn: str, size: int) -> None:
        self._folder, self._arn, self._size = folder, arn, size
        self._plan = list(HARM.items())
        self.done: Counter[str] = Counter()

    def reached(self, ended: int) -> None:
        """Do what is due after as many images."""
        while self._plan and self._plan[0][0] * self._size <= ended < self._size:
            what = self._plan.pop(0)[1]
            self.done[what] += 1
            if what == "batches stopped":
                boto3.client("stepfunctions").stop_execution(executionArn=self._arn)
                continue
            program = "serving.serve" if what == "endpoints killed" else "awslambdaric"
            found = [process for process in processes(self._folder) if program in _command(process)[1:4]]
            for process in found if what == "endpoints killed" else random.sample(found, 1):
                os.kill(process, signal.SIGSTOP if what == "functions that hung" else signal.SIGKILL)


def _command(process: int) -> list[str]:
    with contextlib.suppress(OSError):  # it has ended
        return Path(f"/proc/{process}/cmdline").read_text().split("\0")
    return []


def durations(stack: Stack) -> Counter[str]:
    """Return the milliseconds that each function has run, by the report lines of its log."""
    logs = boto3.client("logs")
    found: Counter[str] = Counter()
    for name in FUNCTIONS:
        group = f"/aws/lambda/{stack.name}-{name.lower()}"
        for page in logs.get_paginator("filter_log_events").paginate(logGroupName=group, filterPattern="REPORT"):
            for event in page["events"]:
                if reported := REPORT.search(event["message"]):
                    found[name] += round(float(reported[1]))
    return found


def print_singles(stack: Stack) -> None:
    """Print what single calls take, and what an image takes in functions, states and logs (benchmarks/cost.py)."""
    s3, states, logs = boto3.client("s3"), boto3.client("stepfunctions"), boto3.client("logs")
    bucket, began = stack.output("ImageBucketName"), int(time.time() * 1000)
    listed = s3.list_objects_v2(Bucket=bucket, Prefix=f"{PREFIX}/20/")["Contents"]
    events = [json.dumps({"s3_bucket": bucket, "s3_key": item["Key"]}) for item in listed]
    standard, entered, largest = [], Counter[str](), 0
    for event in events:
        arn = states.start_execution(stateMachineArn=stack.output("WorkflowArn"), input=event)["executionArn"]
        while (described := states.describe_execution(executionArn=arn))["status"] == "RUNNING":
            time.sleep(0.02)
        standard.append((described["stopDate"] - described["startDate"]).total_seconds())
        pages = states.get_paginator("get_execution_history").paginate(executionArn=arn)
        inputs = [
            event["stateEnteredEventDetails"]["input"]
            for page in pages
            for event in page["events"]
            if "stateEnteredEventDetails" in event
        ]
        entered[f"{len(inputs)} ({described['status']})"] += 1
        largest = max(largest, *(len(text.encode()) for text in inputs))
    lines = [
        (name, event["message"])
        for name in FUNCTIONS
        for page in logs.get_paginator("filter_log_events").paginate(
            logGroupName=f"/aws/lambda/{stack.name}-{name.lower()}", startTime=began
        )
        for event in page["events"]
    ]
    express = []
    for event in events:
        called = time.perf_counter()
        states.start_sync_execution(stateMachineArn=stack.output("ExpressWorkflowArn"), input=event)
        express.append(time.perf_counter() - called)
    for kind, times in {"Standard": standard, "Express, synchronous": express}.items():
        print(f"{kind}: p50 {statistics.median(times) * 1000:.0f} ms")
    for name in FUNCTIONS:
        times = [float(found[1]) for of, line in lines if of == name and (found := REPORT.search(line))]
        print(f"{name.lower()}: p50 {statistics.median(times):.0f} ms")
    print("states that an image enters:", ", ".join(f"{what}: {count} images" for what, count in entered.items()))
    print(f"largest input of a state: {largest / 1024:.1f} KB")
    size = sum(len(line.encode()) for _, line in lines)
    print(f"logs of the functions: {len(lines) / len(events):.0f} lines, {size / len(events):,.0f} bytes an image")


def print_simulated(stack: Stack, children: int, folder: Path) -> None:
    """Compare a batch with its simulation, which gets the processor time that an image of a smaller batch takes."""
    upload(stack, SIMULATED)
    before = processor_seconds(folder)
    Run(stack, {"prefix": f"{PREFIX}/20/"}, 1).follow()
    took = {name: (seconds - before[name]) / 20 for name, seconds in processor_seconds(folder).items()}
    print("ms of CPU an image:", ", ".join(f"{name.lower()} {seconds * 1000:.0f}" for name, seconds in took.items()))
    setting = Setting(
        SIMULATED,
        children=children,
        seconds=took,
        endpoint_seconds=took["endpoint"],
        cores=os.cpu_count() or 1,
        processes=MAX_SANDBOXES,
        orchestration=took["server"],
    )
    simulated = SIMULATED / Simulation(setting).run().seconds
    measured = SIMULATED / Run(stack, {"prefix": f"{PREFIX}/{SIMULATED}/"}, children).follow()
    print(
        f"{SIMULATED} images: simulated {simulated:.1f} images/s, "
        f"measured {measured:.1f} ({measured / simulated:.2f} times as many)"
    )


def processor_seconds(folder: Path) -> dict[str, float]:
    """Return the processor time that the rehearsal's processes have taken: server, endpoint and each function."""
    found: dict[str, float] = defaultdict(float)
    for process in processes(folder):
        with contextlib.suppress(OSError):  # it has ended
            environment = Path(f"/proc/{process}/environ").read_text()
            times = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[11:13]
            function = re.search(rf"\0AWS_LAMBDA_FUNCTION_NAME=[^\0]*({'|'.join(FUNCTIONS)})", environment, re.I)
            name = function[1].title() if function else None
            if not function:
                command = _command(process)
                name = "endpoint" if "serving.serve" in command else "server" if "rehearsal.server" in command else None
            if name:
                found[name] += sum(map(int, times)) / os.sysconf("SC_CLK_TCK")
    return found


if __name__ == "__main__":
    sys.exit(main())
