"""Measure the endpoint's server under load from wrk: ``python -m benchmarks.endpoint``.

It compares one worker of ``python -m serving.serve``, an empty handler in the same server, and the same model behind
Flask and gunicorn. They take turns in short rounds, so noise on the machine affects all of them. Figures are medians
over the rounds; comparisons are made within each round, then their median is taken. Servers share one CPU, the client
has another.
"""

import argparse
import contextlib
import os
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from PIL import Image

from benchmarks.servers import HOST, ROOT, Server, running
from common.command import positive_int, quietly
from demo.drawing import encoded, noise

#: Name of each measured case, its server and its body.
CASES = {
    "empty handler": ("empty", "png"),
    "endpoint": ("endpoint", "png"),
    "Flask, gunicorn gthread": ("gthread", "png"),
    "Flask, gunicorn sync": ("sync", "png"),
    "endpoint, JPEG": ("endpoint", "jpeg"),
}
TITLES = {"png": "PNG, 32 px", "jpeg": "JPEG, 224 px"}


@dataclass(frozen=True)
class Load:
    """The result of one run of the client; times in milliseconds."""

    p50: float
    p99: float
    per_second: float
    requests: int
    failed: int
    #: CPU time of the server's processes, per request.
    server_cpu: float
    #: CPU time of the client, per request and as a fraction of the run.
    client_cpu: float
    client_share: float


# --- the client -------------------------------------------------------------------------------------------------------


#: wrk runs this script; its last line is what `measure` reads.
WRK_SCRIPT = """
wrk.method, wrk.headers["Content-Type"] = "POST", "image/png"
local file = io.open(os.getenv("BODY"), "rb")
wrk.body = file:read("*a")
file:close()
done = function(summary, latency, requests)
  local errors = summary.errors
  local failed = errors.connect + errors.read + errors.write + errors.status + errors.timeout
  io.write(string.format("%d %d %d %d %d\\n", summary.requests, summary.duration,
    latency:percentile(50), latency:percentile(99), failed))
end
"""


def measure(server: Server, body: bytes, connections: int, seconds: int, cpu: int | None) -> Load:
    """Keep every connection busy with one request at a time; measure the CPU time of client and server."""
    with tempfile.TemporaryDirectory() as folder:
        script, content = Path(folder) / "post.lua", Path(folder) / "body"
        script.write_text(WRK_SCRIPT)
        content.write_bytes(body)
        command = ["wrk", "--threads", "1", "--connections", str(connections), "--duration", f"{seconds}s"]
        server_before, client_before = server.cpu_seconds(), _children_cpu()
        done = subprocess.run(
            [*command, "--script", str(script), f"http://{HOST}:{server.port}/invocations"],
            env=os.environ | {"BODY": str(content)},
            capture_output=True,
            text=True,
            check=False,
            preexec_fn=None if cpu is None else lambda: os.sched_setaffinity(0, {cpu}),
        )
        client_cpu = _children_cpu() - client_before
    if done.returncode:
        raise SystemExit(f"endpoint: wrk failed: {(done.stdout + done.stderr).strip()[-400:]}")
    requests, microseconds, p50, p99, failed = map(int, done.stdout.splitlines()[-1].split())
    return Load(
        p50=p50 / 1e3,
        p99=p99 / 1e3,
        per_second=requests / microseconds * 1e6,
        requests=requests,
        failed=failed,
        server_cpu=(server.cpu_seconds() - server_before) / requests * 1e3,
        client_cpu=client_cpu / requests * 1e3,
        client_share=client_cpu / microseconds * 1e6,
    )


def _children_cpu() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


# --- the measurements -------------------------------------------------------------------------------------------------


def bodies() -> dict[str, bytes]:
    """Draw an image, and encode it for the requests."""
    drawn = noise(16, 16)

    def enlarged(edge: int, form: str, **options: int) -> bytes:
        return encoded(drawn.resize((edge, edge), Image.Resampling.BICUBIC), form, **options)

    return {"png": enlarged(32, "PNG"), "jpeg": enlarged(224, "JPEG", quality=90)}


def parts(model: Path, images: dict[str, bytes]) -> dict[str, tuple[Callable[[], Any], Callable[[], Any]]]:
    """Return the steps of a request, to be timed without a server; each with the step before it.

    The weights and the decoder evict each other from the caches: timed alone, both would look too fast.
    """
    import onnxruntime

    from serving.preprocess import preprocess

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads = 1, 1
    session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    name, size = session.get_inputs()[0].name, session.get_inputs()[0].shape[1]
    pixels = {name: preprocess(images["png"], size)[None]}

    def network() -> Any:
        return session.run(None, pixels)

    def preprocessing(form: str) -> Callable[[], Any]:
        return lambda: preprocess(images[form], size)

    return {
        **{f"preprocess {TITLES[form]}": (preprocessing(form), network) for form in TITLES},
        "model": (network, preprocessing("png")),
    }


def typical(function: Callable[[], Any], before: Callable[[], Any], seconds: float = 0.25) -> float:
    """Return the median milliseconds of a call that follows another."""
    times = []
    end = time.perf_counter() + seconds
    while time.perf_counter() < end:
        before()
        began = time.perf_counter()
        function()
        times.append(time.perf_counter() - began)
    return statistics.median(times) * 1e3


def middle(values: Iterable[float]) -> dict[str, float]:
    """Return median, minimum and maximum of the rounds."""
    values = list(values)
    return {"median": statistics.median(values), "min": min(values), "max": max(values)}


def compare(rounds: list[dict[str, Load]], parts_of: list[dict[str, float]], connections: list[int]) -> dict[str, Any]:
    """Compare the measurements of the same round."""
    found: dict[str, Any] = {}
    for n in connections:
        own = [seen[f"endpoint/{n}"] for seen in rounds]
        empty = [seen[f"empty handler/{n}"] for seen in rounds]
        found[f"p50 above the empty handler, ms/{n}"] = middle(a.p50 - b.p50 for a, b in zip(own, empty, strict=True))
        for name in CASES:
            if name.startswith("Flask"):
                other = [seen[f"{name}/{n}"] for seen in rounds]
                pairs = list(zip(own, other, strict=True))
                found[f"requests per second, times {name}/{n}"] = middle(a.per_second / b.per_second for a, b in pairs)
                found[f"server CPU, share of {name}/{n}"] = middle(a.server_cpu / b.server_cpu for a, b in pairs)
    for form, case in (("png", "endpoint"), ("jpeg", "endpoint, JPEG")):
        found[f"preprocessing, share of p50, {TITLES[form]}/1"] = middle(
            part[f"preprocess {TITLES[form]}"] / seen[f"{case}/1"].p50
            for part, seen in zip(parts_of, rounds, strict=True)
        )
    return found


def benchmark(model_dir: Path, rounds: int, seconds: int) -> dict[str, Any]:
    """Run the benchmark; return the result that `show` prints."""
    cpus = sorted(os.sched_getaffinity(0))
    server_cpu, client_cpu = (cpus[0], cpus[-1]) if len(cpus) > 1 else (None, None)
    connections, images = [1, 8], bodies()
    functions = parts(model_dir / "model.onnx", images)
    loads: list[dict[str, Load]] = []
    times: list[dict[str, float]] = []
    with contextlib.ExitStack() as stack:
        servers = {
            kind: stack.enter_context(running(kind, model_dir, server_cpu))
            for kind in dict.fromkeys(kind for kind, _ in CASES.values())
        }
        for number in range(rounds):
            print(f"round {number + 1} of {rounds}", file=sys.stderr)
            seen: dict[str, Load] = {}
            # Each round begins with a different case.
            names = list(CASES)[number % len(CASES) :] + list(CASES)[: number % len(CASES)]
            for n in connections:
                for name in names:
                    kind, form = CASES[name]
                    seen[f"{name}/{n}"] = measure(servers[kind], images[form], n, seconds, client_cpu)
            loads.append(seen)
            if server_cpu is not None:
                os.sched_setaffinity(0, {server_cpu})
            times.append({name: typical(*pair) for name, pair in functions.items()})
            os.sched_setaffinity(0, cpus)
    return {
        "rounds": rounds,
        "bytes": len(images["png"]),
        "cases": {
            key: {field: middle(getattr(seen[key], field) for seen in loads) for field in asdict(loads[0][key])}
            for key in loads[0]
        },
        "parts_ms": {name: middle(part[name] for part in times) for name in functions},
        "compared": compare(loads, times, connections),
    }


# --- the output --------------------------------------------------------------------------------------------------


def show(result: dict[str, Any]) -> None:
    """Print the result as tables."""
    from rich.console import Console
    from rich.table import Table

    console = Console(width=None if sys.stdout.isatty() else 118)

    def table(title: str, *columns: str) -> Table:
        made = Table(title=title, title_justify="left")
        for number, column in enumerate(columns):
            made.add_column(column, justify="right" if number else "left")
        return made

    def spread(value: dict[str, float], digits: int = 2) -> tuple[str, str]:
        return f"{value['median']:.{digits}f}", f"{value['min']:.{digits}f}–{value['max']:.{digits}f}"

    title = f"One worker, {result['bytes']:,} bytes of PNG; medians of {result['rounds']} rounds; milliseconds"
    made = table(title, "case", "conn.", "p50", "p99", "req/s", "(rounds)", "server CPU", "client CPU", "client busy")
    for key, value in result["cases"].items():
        case, _, n = key.rpartition("/")
        made.add_row(
            case,
            n,
            *(spread(value[field])[0] for field in ("p50", "p99")),
            *spread(value["per_second"], 0),
            *(spread(value[field])[0] for field in ("server_cpu", "client_cpu")),
            f"{value['client_share']['median']:.0%}",
        )
    console.print(made)
    failed = sum(value["failed"]["max"] for value in result["cases"].values())
    console.print(f"requests without a 200 response: {failed:.0f}")
    made = table("Compared within each round", "ratio or difference", "conn.", "median", "rounds")
    for key, value in result["compared"].items():
        what, _, n = key.rpartition("/")
        made.add_row(what, n, *spread(value))
    console.print(made)
    made = table("Steps, without a server, one thread; milliseconds", "step", "median", "rounds")
    for name, value in result["parts_ms"].items():
        made.add_row(name, *spread(value, 3))
    console.print(made)


def main() -> int:
    """Measure and print; return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, default=ROOT / "training/model/model.onnx", help="default: the committed")
    parser.add_argument("--rounds", type=positive_int, default=7)
    parser.add_argument("--seconds", type=positive_int, default=2, help="of each run (default: 2)")
    options = parser.parse_args()
    if not options.model.is_file():
        parser.error(f"{options.model} does not exist")
    if shutil.which("wrk") is None:
        parser.error("wrk is not installed: apt-get install wrk")
    with tempfile.TemporaryDirectory() as folder:
        shutil.copyfile(options.model, Path(folder) / "model.onnx")
        show(benchmark(Path(folder), options.rounds, options.seconds))
    return 0


if __name__ == "__main__":
    sys.exit(quietly(main))
