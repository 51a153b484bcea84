"""``python -m demo``: the main job from build to captured data, on this machine, through the real commands."""

import argparse
import io
import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import boto3
from rich.console import Console
from rich.table import Table

from demo.images import ImageSetError, Sample, collect
from demo.pictures import draw_contact_sheet, draw_workflow
from demo.watch import LIMIT_SECONDS, WatchError, check, fetch, out_of_focus, send
from rehearsal.environment import redirected, undisturbed
from rehearsal.lifecycle import down, up
from rehearsal.patches import RehearsalError

OUT = Path("build/demo")
#: Its own, so that a rehearsal that somebody has running is left alone.
FOLDER = OUT / "rehearsal"
STACK = "image-classifier-rehearsal"
ACCOUNT = "123456789012"
ENDPOINT = "image-classifier"
console = Console(highlight=False, width=None if sys.stdout.isatty() else 110)


class DemoError(Exception):
    """A step failed; the message is what it said."""


@contextmanager
def step(what: str) -> Iterator[None]:
    """Show what is being done, and then how long it took."""
    started = time.monotonic()
    if sys.stdout.isatty():
        with console.status(what):
            yield
    else:
        console.print(f"  … {what}")
        yield
    console.print(f"  ✓ {what} ({time.monotonic() - started:.1f} s)")


def run(*command: str) -> None:
    """Run a command as a user would type it.

    Raises
    ------
    DemoError
        If it fails, with the end of what it said.
    """
    done = subprocess.run(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, encoding="utf-8", errors="replace", check=False
    )
    with (OUT / "commands.log").open("a", encoding="utf-8") as log:
        log.write(f"$ {' '.join(command)}\n{done.stdout}\n")
    if done.returncode:
        raise DemoError(f"$ {' '.join(command)}\n{done.stdout[-2000:]}")


def main() -> int:
    """Run the demonstration; return its exit code."""
    parser = argparse.ArgumentParser(prog="python -m demo", description="The whole system at work on this machine.")
    parser.add_argument("--keep", action="store_true", help="leave the rehearsal up afterwards")
    arguments = parser.parse_args()
    if isinstance(sys.stdout, io.TextIOWrapper):  # a terminal may lack the signs that are printed
        sys.stdout.reconfigure(errors="replace")
    OUT.mkdir(parents=True, exist_ok=True)
    (OUT / "commands.log").unlink(missing_ok=True)
    # Ended from outside, it still takes everything down.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    try:
        demonstrate(FOLDER)
    except (DemoError, ImageSetError, RehearsalError, WatchError) as error:
        console.print(f"[red]The demonstration failed:[/red] {error}", soft_wrap=True)
        return 1
    except KeyboardInterrupt:
        return 130
    finally:
        if not arguments.keep:
            down(FOLDER)
    if arguments.keep:
        command = f"python -m rehearsal --folder {FOLDER}"
        console.print(f'\nIt stays up. To use it: eval "$({command} env)". To end it: {command} down', soft_wrap=True)
    return 0


def demonstrate(folder: Path) -> None:
    """Build, deploy, run, and show what came out."""
    source, samples = collect()
    console.rule("[bold]Build and deploy")
    with step("start AWS on this machine (python -m rehearsal up)"):
        down(folder)
        running = up(folder)
    environment = redirected(undisturbed(os.environ), running.port, running.region)
    os.environ.clear()
    os.environ.update(environment)
    with step("sam build"):
        run("sam", "build", "--config-env", "rehearsal")
    with step("sam deploy --config-env rehearsal"):
        run("sam", "deploy", "--config-env", "rehearsal")
    (stack,) = boto3.client("cloudformation").describe_stacks(StackName=STACK)["Stacks"]
    outputs = {output["OutputKey"]: output["OutputValue"] for output in stack["Outputs"]}
    with step("python -m training deploy"):
        run(
            *(sys.executable, "-m", "training", "deploy", "--endpoint-name", ENDPOINT),
            *("--bucket", outputs["ImageBucketName"]),
            *("--role-arn", f"arn:aws:iam::{ACCOUNT}:role/rehearsal"),
            *("--image-uri", f"{ACCOUNT}.dkr.ecr.us-east-1.amazonaws.com/image-classifier:latest"),
        )
    console.rule("[bold]Classify")
    console.print(f"Images: {source}\n")
    rows = classify(samples, outputs)
    show_table(rows)
    show_review_message(outputs["ReviewQueueUrl"])
    show_capture(outputs["ImageBucketName"])
    console.rule("[bold]Watch")
    watch(outputs)
    console.rule("[bold]Pictures and next steps")
    draw_pictures(rows)
    console.print("Three commands to try next:")
    console.print("  make test                             run all tests")
    console.print("  .venv/bin/python -m demo --keep       leave it up, to play with sam logs and sam remote invoke")
    console.print("  .venv/bin/python -m training --help   stage images, train and deploy a model of your own")


def classify(samples: list[Sample], outputs: dict[str, str]) -> list[dict[str, Any]]:
    """Upload each sample, and wait for the execution that its upload starts by itself.

    A sample without data cannot start one, so that execution is started by hand.
    """
    s3, states = boto3.client("s3"), boto3.client("stepfunctions")
    workflow, bucket = outputs["WorkflowArn"], outputs["ImageBucketName"]
    rows = []
    with step(f"{len(samples)} images, one after the other; the first one meets cold functions"):
        for sample in samples:
            if sample.data is None:
                event = {"s3_bucket": bucket, "s3_key": sample.key}
                states.start_execution(stateMachineArn=workflow, input=json.dumps(event))
            else:
                s3.put_object(Bucket=bucket, Key=sample.key, Body=sample.data)
            rows.append({"sample": sample, **result(wait_for_end(workflow, sample.key))})
    return rows


def wait_for_end(workflow: str, key: str) -> dict[str, Any]:
    """Return the ended execution for an S3 key.

    Raises
    ------
    DemoError
        If there is none in time.
    """
    states = boto3.client("stepfunctions")
    deadline = time.monotonic() + LIMIT_SECONDS
    while time.monotonic() < deadline:
        for listed in states.list_executions(stateMachineArn=workflow, maxResults=5)["executions"]:
            execution = dict(states.describe_execution(executionArn=listed["executionArn"]))
            started = json.loads(str(execution["input"]))
            # An upload's own event, or the address that was sent.
            keys = (started.get("object", {}).get("key"), started.get("s3_key"))
            if key in keys and execution["status"] != "RUNNING":
                return execution
        time.sleep(0.05)
    raise DemoError(f"No execution for {key} ended in {LIMIT_SECONDS} s")


def result(execution: dict[str, Any]) -> dict[str, Any]:
    """Summarise an execution: its kind of outcome, its last event, its path and its duration in seconds."""
    history = boto3.client("stepfunctions").get_execution_history(
        executionArn=execution["executionArn"], maxResults=1000
    )
    entered = [e["stateEnteredEventDetails"] for e in history["events"] if "stateEnteredEventDetails" in e]
    inputs = [json.loads(state["input"]) for state in entered]
    error = execution.get("error")
    return {
        "kind": "accepted" if error is None else "unsure" if error == "ThresholdNotMet" else "refused",
        "outcome": error or "accepted",
        "event": next((event for event in reversed(inputs) if "label" in event), {}),
        "path": [state["name"] for state in entered],
        "seconds": (execution["stopDate"] - execution["startDate"]).total_seconds(),
    }


def show_table(rows: list[dict[str, Any]]) -> None:
    """Print one row an image."""
    table = Table(box=None, pad_edge=False)
    for heading in ("image", "what it is", "outcome", "label", "confidence", "time"):
        table.add_column(heading, justify="right" if heading in ("confidence", "time") else "left", no_wrap=True)
    styles = {"accepted": "green", "unsure": "yellow", "refused": "red"}
    for row in rows:
        event = row["event"]
        confidence = f"{event['confidence']:.3f}" if event else ""
        name = row["sample"].key.removeprefix("incoming/")
        table.add_row(
            name if len(name) <= 28 else f"{name[:25]}…",
            row["sample"].what,
            f"[{styles[row['kind']]}]{row['outcome']}[/]",
            event.get("label", ""),
            confidence,
            f"{row['seconds']:.2f} s",
        )
    console.print(table)
    counts = Counter(row["kind"] for row in rows)
    console.print(
        f"\n{counts['accepted']} accepted and published, {counts['unsure']} stopped for review, "
        f"{counts['refused']} refused by name\n"
    )


def show_review_message(queue: str) -> None:
    """Print one message of the review queue."""
    received = boto3.client("sqs").receive_message(QueueUrl=queue, VisibilityTimeout=0).get("Messages", [])
    console.print("[bold]A message in the review queue[/bold]")
    if received:
        console.print_json(received[0]["Body"])
    else:
        console.print("none: the model is sure of all these images")


def show_capture(bucket: str) -> None:
    """Print the first captured record, its image shortened."""
    s3 = boto3.client("s3")
    deadline = time.monotonic() + LIMIT_SECONDS
    while not (found := s3.list_objects_v2(Bucket=bucket, Prefix="capture/").get("Contents")):
        if time.monotonic() > deadline:
            raise DemoError("The endpoint captured nothing")
        time.sleep(0.1)
    line = s3.get_object(Bucket=bucket, Key=found[0]["Key"])["Body"].read().splitlines()[0]
    record = json.loads(line)
    data = record["captureData"]["endpointInput"]["data"]
    record["captureData"]["endpointInput"]["data"] = f"{data[:40]}… ({len(data)} characters)"
    console.print(f"\n[bold]Captured data[/bold] in s3://{bucket}/{found[0]['Key']}", soft_wrap=True)
    console.print_json(json.dumps(record))


def watch(outputs: dict[str, str]) -> None:
    """Say what is normal, and check traffic that is, and traffic that is not."""
    bucket = outputs["ModelBucketName"]
    address = f"s3://{bucket}"
    with step("120 more images, and what is normal of them (python -m monitoring baseline)"):
        send(ENDPOINT, bucket, range(120))
        baseline = (
            "baseline",
            "--captures",
            f"{address}/capture",
            "--output",
            f"{address}/monitoring/baseline/{ENDPOINT}",
        )
        run(sys.executable, "-m", "monitoring", *baseline)
    checked = {}
    for what, seeds, change in (("as before", range(120, 180), None), ("out of focus", range(180, 330), out_of_focus)):
        with step(f"{len(seeds)} images {what}, and the scheduled check for drift"):
            send(ENDPOINT, bucket, seeds, change)
            checked[what] = check(outputs, STACK)
    table = Table(box=None, pad_edge=False)
    for heading in ("traffic", "DriftAlarm", "drifted"):
        table.add_column(heading, no_wrap=heading != "drifted")
    for what, found in checked.items():
        style = "green" if found.alarm == "OK" else "red"
        table.add_row(what, f"[{style}]{found.alarm}[/]", ", ".join(found.violations) or "nothing")
    console.print(table)
    fetch(bucket, found.report, OUT / "drift.html")
    console.print(f"\n{OUT / 'drift.html'}: the report that operators get\n")


def draw_pictures(rows: list[dict[str, Any]]) -> None:
    """Write the picture of the workflow and the contact sheet."""
    definition = json.loads(Path("statemachine/classify.asl.json").read_text())
    entered = Counter(state for row in rows for state in row["path"])
    draw_workflow(definition, entered, OUT / "workflow.png")
    sheet = []
    for row in rows:
        event = row["event"]
        said = f"{event['label']} {event['confidence']:.2f}" if event else row["sample"].what
        sheet.append({"data": row["sample"].data, "kind": row["kind"], "title": row["outcome"], "subtitle": said})
    draw_contact_sheet(sheet, OUT / "contact-sheet.png")
    console.print(f"{OUT / 'workflow.png'}: the workflow, with how many images went where")
    console.print(f"{OUT / 'contact-sheet.png'}: every image with its outcome\n")


if __name__ == "__main__":
    sys.exit(main())
