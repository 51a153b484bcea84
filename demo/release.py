"""Releases: a model in service, a bad one that is taken back, a good one, and more instances."""

import hashlib
import json
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import boto3
import onnxruntime
from botocore.config import Config
from rich.table import Table

from common.errors import CommandError
from demo import drawing
from demo.release_page import Counts, Mark, count, write_page
from demo.steps import IMAGE_URI, OUT, ROLE_ARN, console, run, step
from demo.traffic import Traffic
from demo.watch import wait_for
from serving.model import Model
from training.deployment.smoke import read_known_images

MODEL = Path("training/model/model.onnx")
FILES = OUT / "release"
#: Not the endpoint of the stack, which another demonstration may deploy beside this one.
ENDPOINT, BUCKET = "vehicles", "models-of-vehicles"
INSTANCES, MOST_INSTANCES = 2, 4
#: Long enough that test requests and the evaluation of an alarm fall into an update.
BAKING_SECONDS = 6
#: Invocations of an instance in a minute: less than the demonstration sends.
TARGET = 20
#: Drawings of each class: `training/gate.toml` wants a hundred with a label.
JUDGED, KNOWN = 50, 4
#: Between two requests of a client.
PAUSE_SECONDS = 0.05
#: What is shown before, between and after its changes.
QUIET_SECONDS = 2.0
_LOOK_SECONDS = 0.1


class Watch:
    """Notes when the endpoint changes, by the time of the traffic, from the first to the last line of a ``with``."""

    def __init__(self, traffic: Traffic) -> None:
        self._traffic = traffic
        self._sagemaker: Any = boto3.client("sagemaker")
        self._cloudwatch: Any = boto3.client("cloudwatch")
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._seen: dict[tuple[str, Any], None] = {}
        #: What has happened.
        self.marks: list[Mark] = []

    def _run(self) -> None:
        self._seen = {key: None for key, _ in self._facts()}
        while not self._over.wait(_LOOK_SECONDS):
            for key, text in self._facts():
                if key not in self._seen:
                    self._seen[key] = None
                    self.marks.append(Mark(self._traffic.now(), text))

    def _facts(self) -> Iterator[tuple[tuple[str, Any], str]]:
        """Yield what is so at present, each with a key that tells it from what was so before."""
        for alarm in self._cloudwatch.describe_alarms(AlarmNamePrefix=f"{ENDPOINT}-")["MetricAlarms"]:
            if alarm["StateValue"] == "ALARM":  # moto heeds one filter, the prefix
                yield ("alarm", alarm["AlarmName"]), f"an alarm goes off: {alarm['AlarmDescription'].rstrip('.')}"
        endpoint = self._sagemaker.describe_endpoint(EndpointName=ENDPOINT)
        if pending := endpoint.get("PendingDeploymentSummary"):
            config = pending["EndpointConfigName"]
            yield ("update", config), "an update begins: a new fleet starts"
            for status in pending["ProductionVariants"][0]["VariantStatus"]:
                if status["Status"] == "Baking":
                    key = (f"step of {config}", status["StartTime"])
                    first = not any(name == key[0] for name, _ in self._seen.keys() - {key})
                    yield key, "the canary gets requests" if first else "the new fleet gets all requests"
            return
        if endpoint["EndpointStatus"] != "InService":
            return
        now = endpoint["EndpointConfigName"]
        for config in [config for kind, config in self._seen if kind == "update"]:
            text = "the update has ended" if config == now else "the update is rolled back"
            yield ("end", config), text
        instances = endpoint["ProductionVariants"][0]["CurrentInstanceCount"]
        yield ("instances", instances), f"the endpoint has {instances} instances"

    def __enter__(self) -> "Watch":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()


def release(screenshots: Path | None) -> None:
    """Release a bad and a good model while requests flow, and draw what became of the requests.

    Parameters
    ----------
    screenshots : pathlib.Path or None
        Folder for a screenshot of the picture.

    Raises
    ------
    CommandError
        A command ended in another way than it should, or a call failed.
    """
    console.rule("[bold]A model in service")
    boto3.client("s3").create_bucket(Bucket=BUCKET)
    with step(f"draw images; make a bad model (labels swapped) and a good one from {MODEL}"):
        images, known = _draw(FILES / "images", JUDGED), _draw(FILES / "known", KNOWN)
        swapped, optimised = FILES / "swapped" / "model.onnx", FILES / "optimised" / "model.onnx"
        swap_labels(MODEL, swapped)
        optimise(MODEL, optimised)
    first, second = f"{ENDPOINT}/1", f"{ENDPOINT}/2"
    models = {_short_sha256(MODEL): first, _short_sha256(swapped): "labels swapped", _short_sha256(optimised): second}
    judge = ("--endpoint-name", ENDPOINT, "--bucket", BUCKET, "--image-uri", IMAGE_URI, "--data", str(images))
    place = ("--endpoint-name", ENDPOINT, "--bucket", BUCKET, "--role-arn", ROLE_ARN)
    guard = ("--known-images", str(known), "--baking-seconds", str(BAKING_SECONDS), "--max-latency-ms", "60000")
    size = ("--instance-count", str(INSTANCES))
    training("register", f"--model {MODEL}", *judge, "--model", str(MODEL))
    training("approve", first, first)
    training("deploy", f"--package {first}", *place, *size, "--package", first)

    runtime = boto3.client("sagemaker-runtime", config=Config(retries={"total_max_attempts": 1}))
    with (
        Traffic(runtime, ENDPOINT, read_known_images(known, MODEL), pause=PAUSE_SECONDS) as traffic,
        Watch(traffic) as watch,
    ):
        time.sleep(QUIET_SECONDS)
        console.rule("[bold]A bad model, while requests flow")
        training("register", f"--model {swapped}", *judge, "--model", str(swapped), code=1, traffic=traffic)
        console.print("    It is not registered. Deploy it all the same, from the file:")
        bad = ("--image-uri", IMAGE_URI, "--model", str(swapped))
        training("deploy", f"--model {swapped}", *place, *guard, *size, *bad, code=3, traffic=traffic)
        time.sleep(QUIET_SECONDS)
        console.rule("[bold]A good model, and more instances")
        training("register", f"--model {optimised}", *judge, "--model", str(optimised), traffic=traffic)
        training("approve", second, second)
        scaling = ("--min", str(INSTANCES), "--max", str(MOST_INSTANCES), "--target", str(TARGET))
        shown = f"--package {second} {' '.join(scaling)}"
        training("deploy", shown, *place, *guard, *size, "--package", second, *scaling, traffic=traffic)
        with step(f"autoscaling to {MOST_INSTANCES} instances", lambda: _so_far(traffic)):
            wait_for(lambda: _instances() == MOST_INSTANCES, "The endpoint was not scaled out")
        time.sleep(QUIET_SECONDS)

    console.rule("[bold]What became of the requests")
    counts = count(traffic.requests, models)
    show_counts(counts)
    console.print(f"\n$ python -m training status --endpoint-name {ENDPOINT}")
    # Not through run: its table is for the terminal.
    if subprocess.run(
        [sys.executable, "-m", "training", "status", "--endpoint-name", ENDPOINT], check=False
    ).returncode:
        raise CommandError("python -m training status failed")
    record = {
        "models": models,
        "marks": [asdict(mark) for mark in watch.marks],
        "requests": [asdict(request) for request in traffic.requests],
    }
    (OUT / "release.json").write_text(json.dumps(record, indent=1), encoding="utf-8")
    write_page(OUT / "release.html", traffic.requests, watch.marks, counts)
    console.print(f"\n{OUT / 'release.html'}: a picture of this run; {OUT / 'release.json'}: every request")
    if screenshots:
        from demo.screenshots import shoot

        shoot((OUT / "release.html").resolve().as_uri(), 800, 1000, screenshots, "release")
    if traffic.errors:
        raise CommandError(f"{len(traffic.errors)} of {len(traffic.requests)} calls failed: {traffic.errors[0]}")


def training(command: str, shown: str, *arguments: str, code: int = 0, traffic: Traffic | None = None) -> None:
    """Run a command of the training program; print its line in short, its time and the last line of its output."""
    with step(f"python -m training {command} {shown}", lambda: _so_far(traffic) if traffic else ""):
        said = run(sys.executable, "-m", "training", command, *arguments, code=code)
    ended = f" (exit code {code})" if code else ""
    console.print(f"    {said.strip().splitlines()[-1]}{ended}", markup=False, soft_wrap=True)


def _so_far(traffic: Traffic) -> str:
    return f", {len(traffic.requests)} requests so far, {len(traffic.errors)} failed"


def _instances() -> int:
    endpoint: Any = boto3.client("sagemaker").describe_endpoint(EndpointName=ENDPOINT)
    return int(endpoint["ProductionVariants"][0]["CurrentInstanceCount"])


def show_counts(counts: list[Counts]) -> None:
    """Print what became of the requests, by the model that answered."""
    table = Table(box=None, pad_edge=False)
    for heading in ("model", "answers", "wrong", "median", "95th percentile"):
        table.add_column(heading, justify="left" if heading == "model" else "right")
    for row in counts:
        times = (f"{each:.0f} ms" for each in (row.median_ms, row.p95_ms))
        table.add_row(row.name, str(row.answers), str(row.wrong), *times)
    console.print(table)


def _draw(folder: Path, each: int) -> Path:
    """Draw a folder of class folders."""
    shutil.rmtree(folder, ignore_errors=True)
    for name, maker in (("bicycle", drawing.bicycle), ("motorcycle", drawing.motorcycle), ("other", drawing.house)):
        (folder / name).mkdir(parents=True)
        for seed in range(each):
            (folder / name / f"{seed:02}.png").write_bytes(drawing.encoded(maker(96, 96, seed)))
    return folder


def swap_labels(model: Path, out: Path) -> None:
    """Write a model with its labels in the wrong order: every answer then has the name of another label.

    Raises
    ------
    CommandError
        The file does not hold its labels as training writes them.
    """
    labels = Model(model).labels
    before, after = (json.dumps(each).encode() for each in (labels, labels[::-1]))
    content = model.read_bytes()
    if content.count(before) != 1:
        raise CommandError(f"{model} does not hold its labels as {before.decode()}")
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_bytes(content.replace(before, after))


def optimise(model: Path, out: Path) -> None:
    """Write a model with its graph simplified, as ONNX Runtime does whenever it loads one: the answers are the same."""
    out.parent.mkdir(parents=True, exist_ok=True)
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_BASIC
    options.optimized_model_filepath = str(out)
    onnxruntime.InferenceSession(str(model), options, providers=["CPUExecutionProvider"])


def _short_sha256(path: Path) -> str:
    """Return the digits by which the endpoint announces its model."""
    return hashlib.sha256(path.read_bytes()).hexdigest()[:12]
