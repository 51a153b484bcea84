"""``python -m demo``: build, deploy, classify and detect drift on this machine, with the real commands.

``python -m demo try PHOTO…`` classifies photos in it.
"""

import argparse
import contextlib
import io
import json
import shlex
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import boto3
from rich.markup import escape
from rich.table import Table

from common.command import name_cell, quietly
from common.errors import CommandError
from common.outcomes import STYLES, outcome_of_execution
from common.stack import find_stack, state_machine
from demo import drawing
from demo.contact_sheet import draw_contact_sheet
from demo.images import Sample, Samples, collect, draw
from demo.improve import demonstrate_improvement
from demo.screenshots import take_screenshots
from demo.steps import ENDPOINT, FOLDER, OUT, STACK, console, deploy, run, start_rehearsal, step
from demo.watch import LIMIT_SECONDS, check, out_of_focus, picture, send, wait_for
from operations.__main__ import MODEL
from operations.attempt import check_photos, try_photos
from rehearsal.environment import THIS_PYTHON, own_command
from rehearsal.lifecycle import down, find
from rehearsal.patches import RehearsalError

BATCH_IMAGES = 200


def main() -> int:
    """Run the demonstration, or try photos; return the exit code."""
    return quietly(_main)


def _main() -> int:
    parser = argparse.ArgumentParser(
        prog="python -m demo",
        description="Build, deploy, classify and detect drift on this machine. With try, classify your photos.",
        epilog="example: python -m demo try bike.jpg",
    )
    parser.add_argument("--keep", action="store_true", help="leave everything running so that you can experiment")
    parser.add_argument(
        "--screenshots",
        type=Path,
        metavar="DIR",
        help="write the README's screenshots, from drawings (needs Chromium)",
    )
    parser.set_defaults(show=demonstrate, photos=[])
    commands = parser.add_subparsers(metavar="COMMAND")
    batch = commands.add_parser(
        "batch",
        help=f"classify {BATCH_IMAGES} drawings as one batch",
        description=f"Build, deploy, and classify {BATCH_IMAGES} drawings as one batch.",
        epilog="example: python -m demo batch",
    )
    batch.set_defaults(show=demonstrate_batch)
    better = commands.add_parser(
        "improve",
        help="review what a model is unsure of, and improve it (needs the training environment)",
        description="Deploy a model that was trained on few images, send it others, label those of which it is unsure, "
        "and run python -m training improve; print what the model did before and does after on images that were in "
        "neither. The labels of the data stand for the reviewer. Needs build/staged, and make test-training once.",
        epilog="example: python -m demo improve",
    )
    better.set_defaults(show=demonstrate_improvement)
    release = commands.add_parser(
        "release",
        help="release models: a bad one is taken back while requests flow, a good one passes",
        description="Register, approve and deploy a model, then a bad one, which is taken back while requests flow, "
        "and a good one, whose endpoint then scales out. Draw the requests as one picture.",
        epilog="example: python -m demo release",
    )
    release.set_defaults(show=demonstrate_release)
    attempt = commands.add_parser(
        "try",
        help="classify your photos in the demo that was kept; without one, deploy it first, and keep it",
        description="Upload photos to the demo's stack, and print the outcome of each. If no demo was kept, deploy it "
        "first (about half a minute), and leave it running.",
        epilog="example: python -m demo try bike.jpg --explain",
    )
    attempt.add_argument("photos", nargs="+", type=Path, metavar="PHOTO")
    attempt.add_argument(
        "--explain",
        action="store_true",
        help="write each photo to build/heat-maps/, with a heat map of where the model looked",
    )
    arguments = parser.parse_args()
    if isinstance(sys.stdout, io.TextIOWrapper):  # a terminal may lack some of the characters
        sys.stdout.reconfigure(errors="replace")
    # Clean up if the process is terminated.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    try:
        if arguments.photos:
            return _try(arguments.photos, arguments.explain)
        return _demonstrate(partial(arguments.show, arguments.screenshots), arguments.keep)
    except (CommandError, RehearsalError) as error:
        console.print(f"[red]The demo failed:[/red] {escape(str(error))}", soft_wrap=True)
        return 1
    except KeyboardInterrupt:
        return 130


def _demonstrate(show: Callable[[bool], None], keep: bool) -> int:
    if find(FOLDER):
        raise CommandError(
            f"the demo that was kept is still running, with what you changed in it. To stop it: "
            f"{own_command(FOLDER)} down\nTo use it: {THIS_PYTHON} -m demo try PHOTO"
        )
    try:
        show(keep)
    finally:
        if not keep:
            down(FOLDER)
        elif find(FOLDER):
            show_kept()
    return 0


def _try(photos: list[Path], explain: bool) -> int:
    check_photos(photos)
    kept = find(FOLDER)
    try:
        stack = deploy(keep=True)
        program = f"{own_command(FOLDER)} exec -- python -m operations"
        return try_photos(stack, photos, MODEL if explain else None, program)
    finally:
        if not kept and find(FOLDER):
            show_kept()


def show_kept() -> None:
    """Print what can be done with what stays up, in commands that work as they are."""
    python, own = THIS_PYTHON, own_command(FOLDER)
    programs = "" if python == "python" else f"{Path(python).parent}/"
    commands = [f'eval "$({own} env)"', f"{python} -m training status"]
    with contextlib.suppress(CommandError):  # there is none
        stack = find_stack(STACK)
        states = boto3.client("stepfunctions")
        workflow = state_machine(stack.output("WorkflowArn"))
        listed = states.list_executions(stateMachineArn=workflow, statusFilter="SUCCEEDED", maxResults=1)
        commands = [
            f"{python} -m demo try PHOTO --explain",
            f'eval "$({own} env)"',
            f"{programs}sam logs --config-env rehearsal",
            f"{python} -m operations review --stack-name {STACK}",
        ]
        for execution in listed["executions"]:
            output = json.loads(states.describe_execution(executionArn=execution["executionArn"])["output"])
            event = json.dumps({name: output[name] for name in ("s3_bucket", "s3_key")})
            commands += [
                f"{python} -m operations trace {execution['name']} --stack-name {STACK}",
                f"{programs}sam remote invoke Workflow --config-env rehearsal --event {shlex.quote(event)}",
            ]
    console.print("\n[bold]It is still running.[/bold]")
    console.print("Commands to try; those after eval need it, which sends the shell's commands to it:\n")
    for command in commands:
        console.print(f"    {command}", markup=False, soft_wrap=True)
    console.print("\nTo stop it:\n")
    console.print(f"    {own} down", markup=False, soft_wrap=True)


def demonstrate_release(screenshots: Path | None, keep: bool) -> None:
    """Release a bad and a good model while requests flow, and draw what became of the requests."""
    # Here, as it takes a second to import what judges models and draws.
    from demo.release import release

    down(FOLDER)  # what a crash left
    start_rehearsal(keep)
    release(screenshots)


def demonstrate_batch(_: Path | None, keep: bool) -> None:
    """Build, deploy, and classify drawings as one batch."""
    console.rule("[bold]Build and deploy")
    down(FOLDER)  # what a crash left
    outputs = deploy(keep).outputs
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


def demonstrate(screenshots: Path | None, keep: bool) -> None:
    """Build, deploy, classify, check for drift, and print the results."""
    images = draw() if screenshots else collect()
    console.rule("[bold]Build and deploy")
    down(FOLDER)  # what a crash left
    outputs = deploy(keep).outputs
    console.rule("[bold]Classify")
    console.print(f"Images: {images.source}\n", markup=False)
    rows = classify(images.samples, outputs)
    show_table(rows)
    show_review_message(outputs["ReviewQueueUrl"])
    show_capture(outputs["ImageBucketName"])
    console.rule("[bold]Watch")
    watch(outputs, images)
    console.rule("[bold]Contact sheet and next steps")
    draw_sheet(rows)
    if screenshots:
        take_screenshots(STACK, OUT, screenshots)
        console.print(f"{screenshots}: the screenshots\n")
    if not keep:
        python = THIS_PYTHON
        console.print("To classify your photos:\n")
        console.print(f"    {python} -m demo try PHOTO\n", markup=False)
        console.print("To run this demo again, and leave it running to experiment:\n")
        console.print(f"    {python} -m demo --keep", markup=False)


def classify(samples: list[Sample], outputs: dict[str, str]) -> list[dict[str, Any]]:
    """Upload each sample, and wait for the execution that the upload starts.

    For a sample without data it starts the execution itself.
    """
    s3, states = boto3.client("s3"), boto3.client("stepfunctions")
    alias, bucket = outputs["WorkflowArn"], outputs["ImageBucketName"]
    workflow = state_machine(alias)
    rows = []
    with step(f"{len(samples)} images, one after the other; the first includes cold starts"):
        for sample in samples:
            if sample.data is None:
                event = {"s3_bucket": bucket, "s3_key": sample.key}
                states.start_execution(stateMachineArn=alias, input=json.dumps(event))
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
    event: dict[str, Any] = next((event for event in reversed(inputs) if "label" in event), {})
    return {
        "outcome": outcome_of_execution(error, event),
        "error": error or "",
        "event": event,
        "seconds": (execution["stopDate"] - execution["startDate"]).total_seconds(),
    }


def show_table(rows: list[dict[str, Any]]) -> None:
    """Print one row per image."""
    table = Table(box=None, pad_edge=False)
    numbers = ("confidence", "neither", "time")
    for heading in ("image", "what it is", "outcome", "label or error", *numbers):
        table.add_column(
            heading,
            justify="right" if heading in numbers else "left",
            no_wrap=heading not in ("image", "what it is"),  # these get shorter where the terminal is narrow
        )
    for row in rows:
        event, outcome = row["event"], row["outcome"]
        # Of "neither", the most probable label would mislead.
        label = row["error"] if outcome == "failed" else "" if outcome == "neither" else event["label"]
        table.add_row(
            name_cell(row["sample"].key.removeprefix("incoming/"), max_length=28),
            name_cell(row["sample"].what),
            f"[{STYLES[outcome]}]{outcome}[/]",
            label,
            *(f"{event[name]:.3f}" if event else "" for name in ("confidence", "neither")),
            f"{row['seconds']:.2f} s",
        )
    console.print(table)
    counts = Counter(row["outcome"] for row in rows)
    console.print(
        f"\n{counts['accepted']} accepted and published, {counts['unsure']} unsure and {counts['neither']} neither "
        f"queued for review, {counts['failed']} failed, each with a named error\n",
        soft_wrap=True,
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


def watch(outputs: dict[str, str], images: Samples) -> None:
    """Create the drift baseline, and check normal and blurred images against it."""
    bucket = outputs["ModelBucketName"]
    with step("120 more images, and the drift baseline (python -m monitoring baseline)"):
        send(ENDPOINT, bucket, (picture(images.files, seed) for seed in range(120)))
        run(sys.executable, "-m", "monitoring", "baseline", "--stack-name", STACK)
    checked = {}
    for what, seeds, change in (("as before", range(120, 180), None), ("out of focus", range(180, 330), out_of_focus)):
        with step(f"{len(seeds)} images, {what}, and the scheduled drift check"):
            pictures = (picture(images.files, seed) for seed in seeds)
            send(ENDPOINT, bucket, map(change, pictures) if change else pictures)
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
        event, outcome, sample = row["event"], row["outcome"], row["sample"]
        subtitle = row["error"]
        if event:
            subtitle = f"{event['label']} {event['confidence']:.2f}, neither {event['neither']:.2f}"
        tiles.append({"data": sample.data, "outcome": outcome, "subtitle": subtitle, "what": sample.what})
    draw_contact_sheet(tiles, OUT / "contact-sheet.png")
    console.print(f"{OUT / 'contact-sheet.png'}: every image with its outcome\n")


if __name__ == "__main__":
    sys.exit(main())
