"""How fast the endpoint's server answers: ``python benchmarks/endpoint.py``.

One worker of ``python -m training.container.serve``, a handler that does nothing behind the same server, and the same
model behind Flask and gunicorn (``requirements/bench.txt``) take turns in short rounds, so that a noisy machine is
noisy to all of them. Figures are medians over the rounds; comparisons are made within a round, and then the median is
taken. Servers share one CPU, the client has another. Afterwards hostile and slow clients try to take the server down.
"""

import argparse
import contextlib
import http.client
import importlib.util
import io
import json
import os
import platform
import random
import select
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from flask import Flask

ROOT = Path(__file__).resolve().parents[1]
HOST = "127.0.0.1"
#: Images in one request of the server that takes several.
BATCH = 8
#: A run ends here even where a server answers faster than anyone expects.
MAX_REQUESTS = 200_000
STALLED = (1, 4, 16, 60)
#: Name of each measured case, its server and its body.
CASES = {
    "empty handler": ("empty", "png"),
    "endpoint": ("endpoint", "png"),
    "Flask, gunicorn gthread": ("gthread", "png"),
    "Flask, gunicorn sync": ("sync", "png"),
    "endpoint, JPEG": ("endpoint", "jpeg"),
    f"{BATCH} images a request": ("batch", "batch"),
}
TITLES = {"png": "PNG, 32 px", "jpeg": "JPEG, 224 px"}

Environ = dict[str, Any]
Wsgi = Callable[[Environ, Callable[[str, list[tuple[str, str]]], Any]], Iterable[bytes]]


@dataclass(frozen=True)
class Load:
    """What one run of the client saw; times in milliseconds."""

    p50: float
    p99: float
    per_second: float
    requests: int
    failed: int
    #: CPU time of the server's processes, per request.
    server_cpu: float
    #: CPU time of the client, per request and as a share of the run.
    client_cpu: float
    client_share: float


# --- the servers ------------------------------------------------------------------------------------------------------


def empty_app() -> Wsgi:
    """Make the handler that answers at once, with an answer of the usual size."""

    def app(environ: Environ, start_response: Callable[[str, list[tuple[str, str]]], Any]) -> Iterable[bytes]:
        body = b"[0.939416, 0.028206]"
        start_response("200 OK", [("Content-Type", "application/json"), ("Content-Length", str(len(body)))])
        return [body]

    return app


def batch_app() -> Wsgi:
    """Make the handler of several images in one request, each behind its length in four bytes."""
    import numpy as np

    from training.container.preprocess import preprocess

    model = _session(Path(os.environ["MODEL_DIR"]) / "model.onnx", 1)
    name, size = model.get_inputs()[0].name, model.get_inputs()[0].shape[1]

    def app(environ: Environ, start_response: Callable[[str, list[tuple[str, str]]], Any]) -> Iterable[bytes]:
        content, images, start = environ["wsgi.input"].read(), [], 0
        while start < len(content):
            end = start + 4 + int.from_bytes(content[start : start + 4])
            images.append(preprocess(content[start + 4 : end], size))
            start = end
        body = json.dumps(model.run(None, {name: np.stack(images)})[0].tolist()).encode()
        start_response("200 OK", [("Content-Type", "application/json"), ("Content-Length", str(len(body)))])
        return [body]

    return app


def flask_app() -> "Flask":
    """Make what most people would write: the same preprocessing and model in a Flask view."""
    import flask

    from training.container.preprocess import preprocess
    from training.container.server import Model

    app, model = flask.Flask("bench"), Model(Path(os.environ["MODEL_DIR"]))

    @app.get("/ping")
    def ping() -> str:
        return ""

    @app.post("/invocations")
    def invocations() -> flask.Response:
        return flask.jsonify(model.probabilities(preprocess(flask.request.get_data(), model.input_size)))

    return app


def _session(path: Path, threads: int) -> Any:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
    return onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])


def _serve(factory: str, port: int) -> None:
    """Serve a factory of this file with the settings of the container's server."""
    from training.container import serve

    serve.serve(f"{Path(__file__).resolve()}:{factory}", HOST, port, workers=1)


@dataclass
class Server:
    """A running server and the processes that belong to it."""

    process: subprocess.Popen[bytes]
    port: int

    def cpu_seconds(self) -> float:
        """CPU time so far of every process in the server's group."""
        ticks = 0
        for stat in Path("/proc").glob("[0-9]*/stat"):
            with contextlib.suppress(OSError):
                fields = stat.read_text().rpartition(")")[2].split()
                if int(fields[2]) == self.process.pid:
                    ticks += int(fields[11]) + int(fields[12])
        return ticks / os.sysconf("SC_CLK_TCK")


@contextlib.contextmanager
def running(kind: str, model_dir: Path, cpu: int | None, **settings: str) -> Iterator[Server]:
    """Start a server, wait until it answers, and stop it at the end."""
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        port = probe.getsockname()[1]
    environment = os.environ | {
        "MODEL_DIR": str(model_dir),
        "HOST": HOST,
        "PORT": str(port),
        "WEB_CONCURRENCY": "1",
        "PYTHONPATH": f"{ROOT}:{ROOT / 'benchmarks'}",
        "OMP_NUM_THREADS": "1",
    }
    if kind == "endpoint":
        command = ["-m", "training.container.serve", "serve"]
    elif kind in ("gthread", "sync"):
        command = ["-m", "gunicorn", "endpoint:flask_app()", "--bind", f"{HOST}:{port}", "--workers", "1"]
        command += ["--worker-class", kind, "--threads", "4" if kind == "gthread" else "1", "--log-level", "error"]
    else:
        command = [__file__, "serve", f"{kind}_app", str(port)]
    process = subprocess.Popen(
        [sys.executable, *command],
        env=environment | settings,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
        preexec_fn=None if cpu is None else lambda: os.sched_setaffinity(0, {cpu}),
    )
    try:
        deadline = time.monotonic() + 30
        while ask(port, "GET", "/ping", timeout=1)[0] not in (200, 500):
            if process.poll() is not None or time.monotonic() > deadline:
                raise SystemExit(f"endpoint.py: the server {kind!r} did not start")
            time.sleep(0.05)
        yield Server(process, port)
    finally:
        process.terminate()
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


# --- the client -------------------------------------------------------------------------------------------------------


def _head(length: int) -> bytes:
    lines = ("POST /invocations HTTP/1.1", f"Host: {HOST}", "Content-Type: image/png", f"Content-Length: {length}")
    return "\r\n".join((*lines, "", "")).encode()


def load(port: int, body: bytes, connections: int, seconds: float) -> dict[str, float]:
    """Keep every connection busy with one request at a time; runs in a process of its own.

    Plain sockets, and as little Python as can be between two requests.
    """
    head = (
        f"POST /invocations HTTP/1.1\r\nHost: {HOST}\r\nContent-Type: image/png\r\nContent-Length: {len(body)}\r\n\r\n"
    )
    request = head.encode() + body
    now = time.perf_counter
    poll = select.epoll()
    sockets: dict[int, socket.socket] = {}
    received: dict[int, bytes] = {}
    sent: dict[int, float] = {}
    times: list[float] = []
    failed = 0

    def start(connection: socket.socket | None) -> None:
        began = now()
        if connection is None:
            connection = socket.create_connection((HOST, port), timeout=10)
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            sockets[connection.fileno()] = connection
            poll.register(connection.fileno(), select.EPOLLIN)
        sent[connection.fileno()] = began
        received[connection.fileno()] = b""
        connection.sendall(request)

    for _ in range(connections):
        start(None)
    warm_up = now() + 0.2
    end = warm_up + seconds
    warm, began, cpu = 0, 0.0, 0.0
    while (clock := now()) < end and len(times) < MAX_REQUESTS:
        if not began and clock > warm_up:
            warm, failed, began, cpu = len(times), 0, clock, time.process_time()
        events = poll.poll(2)
        if not events:
            raise SystemExit("the server has not answered for two seconds")
        for number, _ in events:
            connection = sockets[number]
            data = connection.recv(65536)
            received[number] += data
            header, _, content = received[number].partition(b"\r\n\r\n")
            header = header.lower()
            if data and len(content) < int(header.partition(b"content-length:")[2].partition(b"\r")[0] or 1 << 30):
                continue
            times.append(now() - sent[number])
            failed += not header.startswith(b"http/1.1 200")
            if not data or b"connection: close" in header:
                poll.unregister(number)
                sockets.pop(number).close()
                start(None)
            else:
                start(connection)
    wall, cpu = now() - began, time.process_time() - cpu
    for connection in sockets.values():
        connection.close()
    measured = sorted(times[warm:])
    return {
        "p50": statistics.median(measured) * 1e3,
        "p99": measured[int(len(measured) * 0.99)] * 1e3,
        "per_second": len(measured) / wall,
        "requests": len(measured),
        "failed": failed,
        "client_cpu": cpu / len(measured) * 1e3,
        "client_share": cpu / wall,
        "all": len(times),
    }


def measure(server: Server, body: bytes, connections: int, seconds: float, cpu: int | None) -> Load:
    """Run the client in its own process, and read what the server used meanwhile."""
    before = server.cpu_seconds()
    done = subprocess.run(
        [sys.executable, "-S", __file__, "load", str(server.port), str(connections), str(seconds)],
        input=body,
        capture_output=True,
        timeout=seconds + 30,
        check=False,
        preexec_fn=None if cpu is None else lambda: os.sched_setaffinity(0, {cpu}),
    )
    if done.returncode:
        raise SystemExit(f"endpoint.py: the client failed: {done.stderr.decode().strip()[-400:]}")
    seen = json.loads(done.stdout)
    total = seen.pop("all")
    return Load(**seen, server_cpu=(server.cpu_seconds() - before) / total * 1e3)


def ask(
    port: int, method: str, path: str, body: bytes = b"", content_type: str = "", timeout: float = 10
) -> tuple[int, str, float]:
    """Make one request; return status (0: none), body and milliseconds."""
    connection = http.client.HTTPConnection(HOST, port, timeout=timeout)
    began = time.perf_counter()
    try:
        connection.request(method, path, body or None, {"Content-Type": content_type} if content_type else {})
        response = connection.getresponse()
        return response.status, response.read().decode(), (time.perf_counter() - began) * 1e3
    except (OSError, http.client.HTTPException) as error:
        return 0, type(error).__name__, (time.perf_counter() - began) * 1e3
    finally:
        connection.close()


# --- what is measured -------------------------------------------------------------------------------------------------


def bodies() -> dict[str, bytes]:
    """Draw a picture, and encode it as the requests carry it."""
    from PIL import Image

    noise = Image.frombytes("RGB", (16, 16), random.Random(0).randbytes(16 * 16 * 3))
    found = {}
    for form, edge in (("png", 32), ("jpeg", 224)):
        file = io.BytesIO()
        noise.resize((edge, edge), Image.Resampling.BICUBIC).save(file, form, **({"quality": 90} if edge > 32 else {}))
        found[form] = file.getvalue()
    found["batch"] = (len(found["png"]).to_bytes(4) + found["png"]) * BATCH
    return found


def parts(model: Path, images: dict[str, bytes]) -> dict[str, tuple[Callable[[], Any], Callable[[], Any]]]:
    """Make what a request consists of, to be timed without a server; each with what a request does before it.

    Weights of 2 MB and a decoder push one another out of the caches: timed alone, both would look faster than they are.
    """
    import numpy as np

    from training.container.preprocess import preprocess

    one = _session(model, 1)
    name, size = one.get_inputs()[0].name, one.get_inputs()[0].shape[1]
    pixels = preprocess(images["png"], size)[None]

    def preprocessing(form: str) -> Callable[[], Any]:
        return lambda: preprocess(images[form], size)

    def running_model(batch: int) -> Callable[[], Any]:
        many = np.repeat(pixels, batch, axis=0)
        return lambda: one.run(None, {name: many})

    found = {f"preprocess {TITLES[form]}": (preprocessing(form), running_model(1)) for form in TITLES}
    for batch in (1, BATCH, 32):
        found[f"model, batch {batch}"] = (running_model(batch), preprocessing("png"))
    return found


def typical(function: Callable[[], Any], before: Callable[[], Any], seconds: float = 0.25) -> float:
    """Median milliseconds of a call that comes after another."""
    times = []
    end = time.perf_counter() + seconds
    while time.perf_counter() < end:
        before()
        began = time.perf_counter()
        function()
        times.append(time.perf_counter() - began)
    return statistics.median(times) * 1e3


def hostile(images: dict[str, bytes]) -> dict[str, tuple[bytes, str, tuple[int, ...]]]:
    """Make bodies that must be refused: content, type, and the answers that will do."""
    from PIL import Image

    bomb = io.BytesIO()
    Image.new("1", (20_000, 10_000)).save(bomb, "PNG")
    return {
        "truncated PNG": (images["png"][:1000], "image/png", (400,)),
        "truncated JPEG": (images["jpeg"][:1000], "image/jpeg", (400,)),
        "200 megapixels": (bomb.getvalue(), "image/png", (413,)),
        "wrong type": (images["png"], "text/plain", (415,)),
        "not an image": (random.Random(1).randbytes(3000), "image/png", (400,)),
        "empty": (b"", "image/png", (400,)),
        "25 MB": (bytes(25_000_000), "image/jpeg", (413,)),
    }


def attack(server: Server, images: dict[str, bytes]) -> list[dict[str, Any]]:
    """Send hostile bodies; after each, a ping and an image must be answered as ever."""
    found = []
    for name, (body, content_type, wanted) in hostile(images).items():
        status, answer, _ = ask(server.port, "POST", "/invocations", body, content_type)
        alive = ask(server.port, "GET", "/ping")[0] == 200
        alive &= ask(server.port, "POST", "/invocations", images["png"], "image/png")[0] == 200
        with contextlib.suppress(ValueError, KeyError, TypeError):
            answer = json.loads(answer)["error"]
        found.append({"body": name, "status": status, "reason": answer, "passed": status in wanted and alive})
    found.append(_half_sent(server, images["png"]))
    return found


def _half_sent(server: Server, image: bytes) -> dict[str, Any]:
    with socket.create_connection((HOST, server.port), timeout=10) as connection:
        connection.sendall(_half(image))
        connection.shutdown(socket.SHUT_WR)
        answer = connection.recv(65536).decode()
    status = int(answer.split()[1]) if answer else 0
    alive = ask(server.port, "GET", "/ping")[0] == 200
    reason = answer.rpartition("\r\n")[2] or "connection closed"
    return {"body": "sender leaves halfway", "status": status, "reason": reason, "passed": alive}


def _half(image: bytes) -> bytes:
    return _head(len(image)) + image[: len(image) // 2]


def stall(server: Server, images: dict[str, bytes]) -> list[dict[str, Any]]:
    """Let clients stop in the middle of their bodies, and time others meanwhile."""
    found = []
    for count in STALLED:
        with contextlib.ExitStack() as stack:
            for _ in range(count):
                connection = stack.enter_context(socket.create_connection((HOST, server.port), timeout=10))
                connection.sendall(_half(images["png"]))
            time.sleep(0.2)
            pings = [ask(server.port, "GET", "/ping", timeout=2) for _ in range(5)]
            image = ask(server.port, "POST", "/invocations", images["png"], "image/png", timeout=2)
        passed = all(ping[0] == 200 for ping in pings) and image[0] == 200
        slowest = max(ping[2] for ping in pings)
        found.append({"stalled": count, "slowest_ping_ms": slowest, "image_ms": image[2], "passed": passed})
        time.sleep(0.2)
    return found


def middle(values: Iterable[float]) -> dict[str, float]:
    """Median, least and greatest of the rounds."""
    values = list(values)
    return {"median": statistics.median(values), "min": min(values), "max": max(values)}


def compare(rounds: list[dict[str, Load]], parts_of: list[dict[str, float]], connections: list[int]) -> dict[str, Any]:
    """Compare what was measured in the same round."""
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
        several = [seen[f"{BATCH} images a request/{n}"] for seen in rounds]
        found[f"images per second, {BATCH} a request, times one a request/{n}"] = middle(
            BATCH * b.per_second / a.per_second for a, b in zip(own, several, strict=True)
        )
    for form, case in (("png", "endpoint"), ("jpeg", "endpoint, JPEG")):
        found[f"preprocessing, share of p50, {TITLES[form]}/1"] = middle(
            part[f"preprocess {TITLES[form]}"] / seen[f"{case}/1"].p50
            for part, seen in zip(parts_of, rounds, strict=True)
        )
    return found


def benchmark(model_dir: Path, rounds: int, seconds: float, pin: bool) -> dict[str, Any]:
    """Run everything; the result is what ``--json`` prints."""
    cpus = sorted(os.sched_getaffinity(0))
    server_cpu, client_cpu = (cpus[0], cpus[-1]) if pin and len(cpus) > 1 else (None, None)
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
            # Each round begins with another case, so that no case always follows the same one.
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
        attacks, stalls = attack(servers["endpoint"], images), stall(servers["endpoint"], images)
    return {
        "machine": {"cpus": len(cpus), "pinned": server_cpu is not None, "python": platform.python_version()},
        "rounds": rounds,
        "seconds": seconds,
        "bytes": {form: len(body) for form, body in images.items()},
        "cases": {
            key: {field: middle(getattr(seen[key], field) for seen in loads) for field in asdict(loads[0][key])}
            for key in loads[0]
        },
        "parts_ms": {name: middle(part[name] for part in times) for name in functions},
        "compared": compare(loads, times, connections),
        "hostile": attacks,
        "slow_clients": stalls,
    }


def settings(model_dir: Path, rounds: int, seconds: float) -> dict[str, Any]:
    """Compare worker counts and ONNX Runtime's threads, with nothing pinned."""
    import numpy as np

    images = bodies()
    model = model_dir / "model.onnx"
    seen: dict[str, list[float]] = {}
    with contextlib.ExitStack() as stack:
        servers = {
            count: stack.enter_context(running("endpoint", model_dir, None, WEB_CONCURRENCY=str(count)))
            for count in (1, 2, 4)
        }
        for number in range(rounds):
            print(f"round {number + 1} of {rounds}", file=sys.stderr)
            for count, server in servers.items():
                for n in (1, 8):
                    run = measure(server, images["png"], n, seconds, None)
                    key = f"{count} worker{'s' * (count > 1)}, {n} connection{'s' * (n > 1)}"
                    seen.setdefault(f"{key}: requests per second", []).append(run.per_second)
                    seen.setdefault(f"{key}: p99, ms", []).append(run.p99)
    sessions = {threads: _session(model, threads) for threads in (1, 2)}
    first = sessions[1].get_inputs()[0]
    blank = {first.name: np.zeros((1, *first.shape[1:]), np.uint8)}
    for _ in range(rounds):
        for threads, session in sessions.items():
            cpu, began = time.process_time(), time.perf_counter()
            took = typical(lambda run=session.run: run(None, blank), lambda: None, 0.5)  # type: ignore[misc]
            used = (time.process_time() - cpu) / (time.perf_counter() - began)
            key = f"model, {threads} ONNX Runtime thread{'s' * (threads > 1)}"
            seen.setdefault(f"{key}: ms", []).append(took)
            seen.setdefault(f"{key}: CPUs kept busy", []).append(used)
    return {"settings": {name: middle(values) for name, values in seen.items()}}


# --- what is printed --------------------------------------------------------------------------------------------------


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

    if "settings" in result:
        made = table("Settings (nothing pinned)", "what", "median", "rounds")
        for name, value in result["settings"].items():
            made.add_row(name, *spread(value))
        console.print(made)
        return
    title = f"One worker, {result['bytes']['png']:,} bytes of PNG; medians of {result['rounds']} rounds; milliseconds"
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
    console.print(f"requests not answered with 200: {failed:.0f}")
    made = table("Compared within each round", "what", "conn.", "median", "rounds")
    for key, value in result["compared"].items():
        what, _, n = key.rpartition("/")
        made.add_row(what, n, *spread(value))
    console.print(made)
    made = table("Parts, without a server, one thread; milliseconds", "what", "median", "rounds")
    for name, value in result["parts_ms"].items():
        made.add_row(name, *spread(value, 3))
    console.print(made)
    made = table("Hostile bodies", "body", "status", "reason", "passed")
    for row in result["hostile"]:
        made.add_row(row["body"], str(row["status"]), row["reason"][:70], "yes" if row["passed"] else "NO")
    console.print(made)
    made = table("Clients that stop in mid-body", "clients", "slowest of 5 pings, ms", "an image, ms", "passed")
    for row in result["slow_clients"]:
        made.add_row(
            str(row["stalled"]),
            f"{row['slowest_ping_ms']:.1f}",
            f"{row['image_ms']:.1f}",
            "yes" if row["passed"] else "NO",
        )
    console.print(made)


def main() -> int:
    """Measure, print; return 1 if a hostile or slow client had its way."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, default=ROOT / "training/model/model.onnx", help="default: the committed")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--seconds", type=float, default=1.5, help="of each run (default: 1.5)")
    parser.add_argument("--no-pin", action="store_true", help="let servers and client run on any CPU")
    parser.add_argument("--settings", action="store_true", help="compare workers, and ONNX Runtime's threads, instead")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    options = parser.parse_args()
    if not options.model.is_file():
        parser.error(f"{options.model} does not exist")
    if not options.settings and importlib.util.find_spec("gunicorn") is None:
        parser.error("gunicorn is missing: .venv/bin/pip install -r requirements/bench.txt")
    with tempfile.TemporaryDirectory() as folder:
        shutil.copyfile(options.model, Path(folder) / "model.onnx")
        if options.settings:
            result = settings(Path(folder), options.rounds, options.seconds)
        else:
            result = benchmark(Path(folder), options.rounds, options.seconds, not options.no_pin)
    if options.json:
        print(json.dumps(result, indent=1))
    else:
        show(result)
    return int(not all(row["passed"] for row in [*result.get("hostile", []), *result.get("slow_clients", [])]))


if __name__ == "__main__":
    match sys.argv[1:]:
        case ["load", port, connections, seconds]:
            print(json.dumps(load(int(port), sys.stdin.buffer.read(), int(connections), float(seconds))))
        case ["serve", factory, port]:
            sys.path.insert(0, str(ROOT))
            _serve(factory, int(port))
        case _:
            sys.path.insert(0, str(ROOT))
            sys.exit(main())
