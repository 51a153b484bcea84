"""Measure how long a report takes: ``python -m benchmarks.report``.

It generates captures of 32-pixel PNGs, as in a training archive, and of 224-pixel JPEGs, as the workflow sends
photographs. ``python -m monitoring check`` is compared with its lower bound: reading and decoding the same captures in
one process. Both take turns; minimum and maximum over the rounds are printed.
"""

import argparse
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from PIL import Image
from rich.console import Console
from rich.table import Table

from common.capture import CaptureReader
from common.command import positive_int, quietly
from demo.drawing import bicycle, encoded, motorcycle
from monitoring.check import write_baseline
from monitoring.features import Model, decode
from monitoring.window import read_window
from tests.support.captures import BEGIN, write_captures

ROOT = Path(__file__).resolve().parents[1]

MODEL = Model(["bicycle", "motorcycle"], 0.7)
#: For each kind of capture, the edge in pixels and the encoding.
KINDS = {"PNG, 32 px": (32, "PNG", {}), "JPEG, 224 px": (224, "JPEG", {"quality": 90})}
#: Number of distinct images; more captures repeat them.
DRAWN = 200
#: Seconds between captures.
APART = 8.0


def make(number: int, edge: int, form: str, options: dict[str, int]) -> Iterator[tuple[bytes, list[float]]]:
    """Draw images with a little noise, and a random prediction for each."""
    random = np.random.default_rng(0)
    drawn = []
    for seed in range(min(DRAWN, number)):
        picture = np.asarray((bicycle if seed % 2 else motorcycle)(edge, edge, seed))
        noisy = (picture + random.normal(0, 6, picture.shape)).clip(0, 255).astype(np.uint8)
        drawn.append(encoded(Image.fromarray(noisy), form, **options))
    for i in range(number):
        probabilities = random.dirichlet((1.5, 0.1, 0.1))
        yield drawn[i % len(drawn)], [float(each) for each in np.roll(probabilities[:2], i % 2)]


def read_and_decode(folder: Path) -> float:
    """Return the seconds that reading and decoding alone take."""
    begin = time.perf_counter()
    for capture in CaptureReader(str(folder)):
        decode(capture.image)
    return time.perf_counter() - begin


def report(captures: Path, baseline: Path, output: Path, hours: float) -> float:
    """Return the seconds from the command to its page."""
    end = BEGIN.timestamp() + hours * 3600
    command = [sys.executable, "-m", "monitoring", "check", "--captures", str(captures), "--baseline", str(baseline)]
    command += ["--output", str(output), "--exit-zero", "--hours", f"{hours + 1:g}"]
    command += ["--end", time.strftime("%Y-%m-%dT%H:%M:%S+00:00", time.gmtime(end))]
    begin = time.perf_counter()
    subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    return time.perf_counter() - begin


def main() -> None:
    """Generate captures, time both, and print a table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--captures", type=positive_int, default=10_000, help="how many (default: %(default)s)")
    parser.add_argument("--rounds", type=positive_int, default=3, help="default: %(default)s")
    chosen = parser.parse_args()
    number = chosen.captures
    hours = number * APART / 3600 + 1
    table = Table("captures", box=None, pad_edge=False)
    for heading in ("MB", "reading, decoding", "report", "page, MB"):
        table.add_column(heading, justify="right")
    with tempfile.TemporaryDirectory() as temporary:
        for name, (edge, form, options) in KINDS.items():
            folder = Path(temporary) / form
            write_captures(folder / "captures", make(number, edge, form, options), seconds=APART)
            write_captures(folder / "usual", make(500, edge, form, options))
            window = read_window(CaptureReader(str(folder / "usual")), MODEL)
            write_baseline(window, MODEL, str(folder / "baseline"))
            size = sum(path.stat().st_size for path in (folder / "captures").rglob("*.jsonl")) / 1e6
            page = folder / "check" / "report.html"
            plain, whole = [], []
            for _ in range(chosen.rounds):
                plain.append(read_and_decode(folder / "captures"))
                whole.append(report(folder / "captures", folder / "baseline", page.parent, hours))
            spans = (f"{min(seconds):.1f}–{max(seconds):.1f} s" for seconds in (plain, whole))
            row = (f"{size:.0f}", *spans, f"{page.stat().st_size / 1e6:.2f}")
            table.add_row(f"{number:,} {name}", *row)
    print(f"{os.cpu_count()} processors")
    Console(highlight=False, width=100).print(table)


if __name__ == "__main__":
    sys.exit(quietly(main))
