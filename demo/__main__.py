"""``python -m demo``: build, deploy, classify and detect drift on this machine, with the real commands."""

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
from functools import partial
from pathlib import Path
from typing import Any

import boto3
from rich.console import Console
from rich.table import Table

from common.errors import CommandError
from common.stack import find_stack
from demo import drawing
from demo.contact_sheet import draw_contact_sheet
from demo.images import Sample, collect, draw
from demo.screenshots import take_screenshots
from demo.watch import LIMIT_SECONDS, check, out_of_focus, send, wait_for
from rehearsal.environment import redirected, undisturbed
from rehearsal.lifecycle import down, up
from rehearsal.patches import RehearsalError

OUT = Path("build/demo")
#: Not the default folder: a rehearsal that is already running there stays as it is.
FOLDER = OUT / "rehearsal"
STACK = "image-classifier-rehearsal"
ACCOUNT = "123456789012"
ENDPOINT = "image-classifier"
BATCH_IMAGES = 200
console = Console(highlight=False, width=None if sys.stdout.isatty() else 110)


@contextmanager
def step(description: str) -> Iterator[None]:
    """Print a step, and how long it took."""
    started = time.monotonic()
    if sys.stdout.isatty():
        with console.status(description):
            yield
    else:
        console.print(f"  … {description}")
        yield
    console.print(f"  ✓ {description} ({time.monotonic() - started:.1f} s)")


def run(*command: str) -> None:
    """Run a command as a user would type it.

    Raises
    ------
    CommandError
        If it fails, with the end of its output.
    """
    done = subprocess.run(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, encoding="utf-8", errors="replace", check=False
    )
    with (OUT / "commands.log").open("a", encoding="utf-8") as log:
        log.write(f"$ {' '.join(command)}\n{done.stdout}\n")
    if done.returncode:
        raise CommandError(f"$ {' '.join(command)}\n{done.stdout[-2000:]}")


def main() -> int:
    """Run the demonstration; return its exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m demo", description="Build, deploy, classify and detect drift on this machine."
    )
    parser.add_argument(
        "what",
        nargs="?",
        choices=("all", "batch"),
        default="all",
        help="batch: classify 200 drawings as one batch",
    )
    parser.add_argument("--keep", action="store_true", help="leave everything running so that you can experiment")
    parser.add_argument(
        "--screenshots",
        type=Path,
        metavar="DIR",
        help="write the README's screenshots, from drawings (needs Chromium)",
    )
    arguments = parser.parse_args()
    if isinstance(sys.stdout, io.TextIOWrapper):  # a terminal may lack some of the characters
        sys.stdout.reconfigure(errors="replace")
    OUT.mkdir(parents=True, exist_ok=True)
    (OUT / "commands.log").unlink(missing_ok=True)
    # Clean up if the process is terminated.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    try:
        if arguments.what == "batch":
            demonstrate_batch(FOLDER)
        else:
            demonstrate(FOLDER, arguments.screenshots)
    except (CommandError, RehearsalError) as error:
        console.print(f"[red]The demo failed:[/red] {error}", soft_wrap=True)
        return 1
    except KeyboardInterrupt:
        return 130
    finally:
        if not arguments.keep:
            down(FOLDER)
    if arguments.keep:
        command = f"python -m rehearsal --folder {FOLDER}"
        console.print(
            f'\nStill running. To use it: eval "$({command} env)". To stop it: {command} down', soft_wrap=True
        )
    return 0


def deploy(folder: Path) -> dict[str, str]:
    """Build and deploy the stack and its endpoint; return the stack's outputs."""
    console.rule("[bold]Build and deploy")
    with step("start the rehearsal (python -m rehearsal up)"):
        down(folder)
        running = up(folder)
    environment = redirected(undisturbed(os.environ), running.port, running.region)
    os.environ.clear()
    os.environ.update(environment)
    with step("sam build"):
        run("sam", "build", "--config-env", "rehearsal")
    with step("sam deploy --config-env rehearsal"):
        run("sam", "deploy", "--config-env", "rehearsal")
    outputs = find_stack(STACK).outputs
    with step("python -m training deploy"):
        run(
            *(sys.executable, "-m", "training", "deploy", "--endpoint-name", ENDPOINT),
            *("--bucket", outputs["ImageBucketName"]),
            *("--role-arn", f"arn:aws:iam::{ACCOUNT}:role/rehearsal"),
            *("--image-uri", f"{ACCOUNT}.dkr.ecr.us-east-1.amazonaws.com/image-classifier:latest"),
        )
    return outputs


def demonstrate_batch(folder: Path) -> None:
    """Build, deploy, and classify drawings as one batch."""
    outputs = deploy(folder)
    console.rule("[bold]Classify a batch")
    makers, s3 = (drawing.bicycle, drawing.motorcycle, drawing.house), boto3.client("s3")
    with step(f"upload {BATCH_IMAGES} drawings"):
        for number in range(BATCH_IMAGES):
            data = drawing.encoded(makers[number % 3](64, 64, number))
            s3.put_object(Bucket=outputs["ImageBucketName"], Key=f"batch/{number:03}.png", Body=data)
    for arguments in (("start", "--prefix", "batch/", "--name", "demo", "--wait"), ("reconcile", "demo")):
        command = ("operations", "batch", *arguments, "--stack-name", STACK)
        console.print(f"$ python -m {' '.join(command)}", soft_wrap=True)
        # Not through run: its progress bar is for the terminal.
        if subprocess.run([sys.executable, "-m", *command], check=False).returncode:
            raise CommandError(f"python -m {' '.join(command)} failed")


def demonstrate(folder: Path, screenshots: Path | None) -> None:
    """Build, deploy, classify, check for drift, and print the results."""
    source, samples = draw() if screenshots else collect()
    outputs = deploy(folder)
    console.rule("[bold]Classify")
    console.print(f"Images: {source}\n")
    rows = classify(samples, outputs)
    show_table(rows)
    show_review_message(outputs["ReviewQueueUrl"])
    show_capture(outputs["ImageBucketName"])
    console.rule("[bold]Watch")
    watch(outputs)
    console.rule("[bold]Contact sheet and next steps")
    draw_sheet(rows)
    if screenshots:
        take_screenshots(STACK, OUT, screenshots)
        console.print(f"{screenshots}: the screenshots\n")
    console.print("Three commands to try next:")
    console.print("  make test                             run all tests")
    console.print("  .venv/bin/python -m demo --keep       leave it running, to try sam logs and sam remote invoke")
    console.print("  .venv/bin/python -m training --help   stage images, train and deploy your own model")


def classify(samples: list[Sample], outputs: dict[str, str]) -> list[dict[str, Any]]:
    """Upload each sample, and wait for the execution that the upload starts.

    For a sample without data it starts the execution itself.
    """
    s3, states = boto3.client("s3"), boto3.client("stepfunctions")
    workflow, bucket = outputs["WorkflowArn"], outputs["ImageBucketName"]
    rows = []
    with step(f"{len(samples)} images, one after the other; the first includes cold starts"):
        for sample in samples:
            if sample.data is None:
                event = {"s3_bucket": bucket, "s3_key": sample.key}
                states.start_execution(stateMachineArn=workflow, input=json.dumps(event))
            else:
                s3.put_object(Bucket=bucket, Key=sample.key, Body=sample.data)
            missing = f"No execution for {sample.key} ended in {LIMIT_SECONDS} s"
            rows.append({"sample": sample, **result(wait_for(partial(find_ended, workflow, sample.key), missing))})
    return rows


def find_ended(workflow: str, key: str) -> dict[str, Any] | None:
    """Return the execution for an S3 key, if it has ended."""
    states = boto3.client("stepfunctions")
    for listed in states.list_executions(stateMachineArn=workflow, maxResults=5)["executions"]:
        execution = dict(states.describe_execution(executionArn=listed["executionArn"]))
        started = json.loads(str(execution["input"]))
        # S3's event, or an address.
        keys = (started.get("object", {}).get("key"), started.get("s3_key"))
        if key in keys and execution["status"] != "RUNNING":
            return execution
    return None


def result(execution: dict[str, Any]) -> dict[str, Any]:
    """Summarize an execution: its kind of outcome, its last event and its duration in seconds."""
    history = boto3.client("stepfunctions").get_execution_history(
        executionArn=execution["executionArn"], maxResults=1000
    )
    entered = [e["stateEnteredEventDetails"] for e in history["events"] if "stateEnteredEventDetails" in e]
    inputs = [json.loads(state["input"]) for state in entered]
    error = execution.get("error")
    return {
        "kind": "accepted" if error is None else "unsure" if error == "ThresholdNotMet" else "rejected",
        "outcome": error or "accepted",
        "event": next((event for event in reversed(inputs) if "label" in event), {}),
        "seconds": (execution["stopDate"] - execution["startDate"]).total_seconds(),
    }


def show_table(rows: list[dict[str, Any]]) -> None:
    """Print one row per image."""
    table = Table(box=None, pad_edge=False)
    for heading in ("image", "what it is", "outcome", "label", "confidence", "time"):
        table.add_column(heading, justify="right" if heading in ("confidence", "time") else "left", no_wrap=True)
    styles = {"accepted": "green", "unsure": "yellow", "rejected": "red"}
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
        f"\n{counts['accepted']} accepted and published, {counts['unsure']} queued for review, "
        f"{counts['rejected']} rejected, each with a named error\n"
    )


def show_review_message(queue: str) -> None:
    """Print one message of the review queue."""
    received = boto3.client("sqs").receive_message(QueueUrl=queue, VisibilityTimeout=0).get("Messages", [])
    console.print("[bold]A message in the review queue[/bold]")
    if received:
        console.print_json(received[0]["Body"])
    else:
        console.print("none: all predictions were confident")


def show_capture(bucket: str) -> None:
    """Print the first captured record, its image shortened."""
    s3 = boto3.client("s3")
    found = wait_for(
        lambda: s3.list_objects_v2(Bucket=bucket, Prefix="capture/").get("Contents", []),
        "The endpoint captured nothing",
    )
    line = s3.get_object(Bucket=bucket, Key=found[0]["Key"])["Body"].read().splitlines()[0]
    record = json.loads(line)
    data = record["captureData"]["endpointInput"]["data"]
    record["captureData"]["endpointInput"]["data"] = f"{data[:40]}… ({len(data)} characters)"
    console.print(f"\n[bold]Captured data[/bold] in s3://{bucket}/{found[0]['Key']}", soft_wrap=True)
    console.print_json(json.dumps(record))


def watch(outputs: dict[str, str]) -> None:
    """Create the drift baseline, and check normal and blurred images against it."""
    bucket = outputs["ModelBucketName"]
    with step("120 more images, and the drift baseline (python -m monitoring baseline)"):
        send(ENDPOINT, bucket, range(120))
        run(sys.executable, "-m", "monitoring", "baseline", "--stack-name", STACK)
    checked = {}
    for what, seeds, change in (("as before", range(120, 180), None), ("out of focus", range(180, 330), out_of_focus)):
        with step(f"{len(seeds)} images, {what}, and the scheduled drift check"):
            send(ENDPOINT, bucket, seeds, change)
            checked[what] = check(outputs, STACK)
    table = Table(box=None, pad_edge=False)
    for heading in ("traffic", "DriftAlarm", "drifted"):
        table.add_column(heading, no_wrap=heading != "drifted")
    for what, found in checked.items():
        style = "green" if found.alarm == "OK" else "red"
        table.add_row(what, f"[{style}]{found.alarm}[/]", ", ".join(found.violations) or "nothing")
    console.print(table)
    boto3.client("s3").download_file(bucket, found.report, str(OUT / "drift.html"))
    console.print(f"\n{OUT / 'drift.html'}: the drift report\n")


def draw_sheet(rows: list[dict[str, Any]]) -> None:
    """Write the contact sheet."""
    tiles = []
    for row in rows:
        event = row["event"]
        subtitle = f"{event['label']} {event['confidence']:.2f}" if event else row["sample"].what
        tiles.append({"data": row["sample"].data, "kind": row["kind"], "title": row["outcome"], "subtitle": subtitle})
    draw_contact_sheet(tiles, OUT / "contact-sheet.png")
    console.print(f"{OUT / 'contact-sheet.png'}: every image with its outcome\n")


if __name__ == "__main__":
    sys.exit(main())
