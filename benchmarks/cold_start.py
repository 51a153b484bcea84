"""Measure cold starts under Lambda's Runtime Interface Emulator: ``python -m benchmarks.cold_start``.

Each start is a new emulator with a new Python. The functions, as `sam build` leaves them (run it first) and as SAM's
own pip builder would, take turns with an empty handler and a bare ``boto3.client("s3")``, which uses the runtime's own
boto3 with its bytecode. A module beside each function imports it and returns how long that took, so that the start of
Python and of the emulator do not count.

Processor time is what the ratios compare: unlike wall time it hardly depends on what else this machine does.
"""

import argparse
import http.server
import io
import json
import os
import statistics
import subprocess
import sys
import tempfile
import threading
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from PIL import Image
from rich.console import Console
from rich.table import Table
from samtranslator.yaml_helper import yaml_parse

from common.command import positive_int
from rehearsal.lambda_sandboxes import Sandbox, Settings, link_runtime

ROOT = Path(__file__).resolve().parents[1]
BUILD = ROOT / ".aws-sam" / "build"
FUNCTIONS = ("Serialize", "Classify", "Filter")
BARE, EMPTY = 'boto3.client("s3")', "empty handler"
#: The code that is timed, by case; a function's is the import of its module.
TIMED = {BARE: 'import boto3\nboto3.client("s3")', EMPTY: "pass"}
#: Imports the code above, and returns how long that took; with an event, how long the function takes for it.
HANDLER = """
import time
started, used = time.perf_counter(), time.process_time()
{code}
took = [time.perf_counter() - started, time.process_time() - used]

def memory(name):
    with open("/proc/self/status") as status:
        return next(int(line.split()[1]) / 1024 for line in status if line.startswith(name))

def lambda_handler(event, context):
    if not event:
        return took
    before, started, used = memory("VmRSS"), time.perf_counter(), time.process_time()
    app.lambda_handler(event, context)
    return [time.perf_counter() - started, time.process_time() - used, memory("VmHWM") - before]
"""


def main() -> None:
    """Measure, and print medians and ratios."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("--rounds", type=positive_int, default=11)
    parser.add_argument("--skip-default", action="store_true", help="leave the packages of SAM's pip builder out")
    arguments = parser.parse_args()
    if not (BUILD / "Serialize").is_dir():
        parser.error("there are no packages; run sam build first")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        link_runtime(folder / "runtime")
        (folder / "nothing").mkdir()
        packages = {BARE: folder / "nothing", EMPTY: folder / "nothing"}
        packages |= {function: BUILD / function for function in FUNCTIONS}
        if not arguments.skip_default:
            packages |= {f"{function}, pip builder": path for function, path in build_default(folder).items()}
        for case in packages:
            handlers = folder / "handlers" / case
            handlers.mkdir(parents=True)
            (handlers / "timed.py").write_text(HANDLER.format(code=TIMED.get(case, "import app")))
        starts: dict[str, list[list[float]]] = {case: [] for case in packages}
        for _ in range(arguments.rounds):
            for case, package in packages.items():
                with sandbox(case, package, folder) as started:
                    starts[case].append(measured(started, b"{}"))
        show_starts(starts, packages)
        show_warm(folder, arguments.rounds)


def build_default(folder: Path) -> dict[str, Path]:
    """Build the packages with SAM's own pip builder; return their folders."""
    template = yaml_parse((ROOT / "template.yaml").read_text())
    template["Resources"] = {name: body for name, body in template["Resources"].items() if name in FUNCTIONS}
    for body in template["Resources"].values():
        del body["Metadata"]
        body["Properties"] = {
            **{key: body["Properties"][key] for key in ("CodeUri", "MemorySize")},
            "Runtime": "python3.13",
            "Handler": "app.lambda_handler",
        }
    (folder / "template.json").write_text(
        json.dumps({key: template[key] for key in ("Transform", "Resources")}, default=str)
    )
    command = [
        sys.executable,
        "-m",
        "samcli",
        "build",
        "--template",
        str(folder / "template.json"),
        "--base-dir",
        str(ROOT),
    ]
    command += ["--build-dir", str(folder / "default"), "--cache-dir", str(folder / "cache")]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True)
    return {function: folder / "default" / function for function in FUNCTIONS}


@contextmanager
def sandbox(case: str, package: Path, folder: Path, endpoint: str = "") -> Iterator[Sandbox]:
    """Start an emulator with a function in it."""
    environment = {
        "PYTHONPATH": os.pathsep.join(str(path) for path in (folder / "handlers" / case, package, folder / "runtime")),
        "AWS_ACCESS_KEY_ID": "benchmark",
        "AWS_SECRET_ACCESS_KEY": "benchmark",
        "POWERTOOLS_METRICS_NAMESPACE": "benchmark",
        "POWERTOOLS_SERVICE_NAME": "benchmark",
        "MAX_EDGE": "224",
        **({"AWS_ENDPOINT_URL_S3": endpoint} if endpoint else {}),
    }
    settings = Settings(
        arn="arn:aws:lambda:us-east-1:123456789012:function:benchmark",
        name="benchmark",
        handler="timed.lambda_handler",
        code_sha256="",
        timeout=60,
        memory=1024,
        log_group="benchmark",
        log_format="JSON",
        environment=tuple(environment.items()),
    )
    started = Sandbox(settings, package, folder / "runtime")
    try:
        yield started
    finally:
        started.close()


def measured(started: Sandbox, event: bytes) -> list[float]:
    """Invoke a function; return what it measured."""
    outcome = started.invoke(event)
    if outcome.failed:
        sys.exit(outcome.log or outcome.payload.decode())
    return list(json.loads(outcome.payload))


def show_starts(starts: dict[str, list[list[float]]], packages: dict[str, Path]) -> None:
    """Print import and client time of each case."""
    table = Table(title="Import and client, cold; medians", title_justify="left")
    for column in ("case", "CPU ms", "of the bare client (rounds)", "wall ms", "zip MB"):
        table.add_column(column, justify="left" if column == "case" else "right")
    for case, times in starts.items():
        ratios = sorted(cpu / bare for (_, cpu), (_, bare) in zip(times, starts[BARE], strict=True))
        table.add_row(
            case,
            f"{statistics.median(cpu for _, cpu in times) * 1e3:.0f}",
            f"{statistics.median(ratios):.2f} ({ratios[0]:.2f}–{ratios[-1]:.2f})",
            f"{statistics.median(wall for wall, _ in times) * 1e3:.0f}",
            f"{zipped_size(packages[case]) / 1e6:.1f}" if case not in TIMED else "",
        )
    Console(width=110).print(table)


def zipped_size(package: Path) -> int:
    """Return the size of a package as `sam deploy` compresses it."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for path in package.rglob("*"):
            if path.is_file():
                archive.write(path, path.relative_to(package))
    return buffer.tell()


def show_warm(folder: Path, rounds: int) -> None:
    """Print time and memory of a warm serialize of a photograph of 12 megapixels, which a local server sends."""
    random = np.random.default_rng(0)
    coarse = Image.fromarray(random.integers(0, 256, (38, 50, 3), np.uint8))
    smooth = np.asarray(coarse.resize((4000, 3000), Image.Resampling.BICUBIC), np.int16)
    noisy = np.clip(smooth + random.integers(0, 24, smooth.shape), 0, 255).astype(np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(noisy).save(buffer, "JPEG", quality=85)
    photograph = buffer.getvalue()

    class Objects(http.server.BaseHTTPRequestHandler):
        """Answers every GetObject with the photograph."""

        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("Content-Length", str(len(photograph)))
            self.send_header("ETag", '"0"')
            self.end_headers()
            self.wfile.write(photograph)

        def log_message(self, format: str, *arguments: object) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Objects) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        endpoint = f"http://127.0.0.1:{server.server_port}"
        event = json.dumps({"s3_bucket": "images", "s3_key": "photograph.jpg"}).encode()
        with sandbox("Serialize", BUILD / "Serialize", folder, endpoint) as started:
            measured(started, event)
            warm = [measured(started, event) for _ in range(rounds)]
        server.shutdown()
    wall, cpu, memory = (statistics.median(values) for values in zip(*warm, strict=True))
    print(
        f"warm serialize of a JPEG of 12 megapixels ({len(photograph) / 1e6:.1f} MB): {cpu * 1e3:.0f} ms of CPU, "
        f"{wall * 1e3:.0f} ms with the download; at most {memory:.0f} MB more than before"
    )


if __name__ == "__main__":
    main()
