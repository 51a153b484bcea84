"""The servers that `benchmarks.endpoint` compares."""

import contextlib
import http.client
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from flask import Flask

ROOT = Path(__file__).resolve().parents[1]
HOST = "127.0.0.1"

Environ = dict[str, Any]
Wsgi = Callable[[Environ, Callable[[str, list[tuple[str, str]]], Any]], Iterable[bytes]]


def empty_app() -> Wsgi:
    """Create a handler that returns a response of the usual size at once."""

    def app(environ: Environ, start_response: Callable[[str, list[tuple[str, str]]], Any]) -> Iterable[bytes]:
        body = b"[0.939416, 0.028206]"
        start_response("200 OK", [("Content-Type", "application/json"), ("Content-Length", str(len(body)))])
        return [body]

    return app


def flask_app() -> "Flask":
    """Create the common solution: the same preprocessing and model in a Flask view."""
    import flask

    from serving.model import Model
    from serving.preprocess import preprocess

    app, model = flask.Flask("bench"), Model(Path(os.environ["MODEL_DIR"]) / "model.onnx")

    @app.get("/ping")
    def ping() -> str:
        return ""

    @app.post("/invocations")
    def invocations() -> flask.Response:
        return flask.jsonify(model.probabilities(preprocess(flask.request.get_data(), model.input_size)))

    return app


@dataclass
class Server:
    """A running server and its processes."""

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
    """Start a server, wait until it responds, and stop it at the end."""
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        port = probe.getsockname()[1]
    environment = os.environ | {
        "MODEL_DIR": str(model_dir),
        "HOST": HOST,
        "PORT": str(port),
        "WEB_CONCURRENCY": "1",
        "PYTHONPATH": str(ROOT),
        "OMP_NUM_THREADS": "1",
    }
    if kind == "endpoint":
        command = ["-m", "serving.serve", "serve"]
    elif kind in ("gthread", "sync"):
        command = ["-m", "gunicorn", "benchmarks.servers:flask_app()", "--bind", f"{HOST}:{port}", "--workers", "1"]
        command += ["--worker-class", kind, "--threads", "4" if kind == "gthread" else "1", "--log-level", "error"]
    else:
        command = ["-m", "benchmarks.servers", f"{kind}_app", str(port)]
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
        while not _answers(port):
            if process.poll() is not None or time.monotonic() > deadline:
                raise SystemExit(f"endpoint: the server {kind!r} did not start")
            time.sleep(0.05)
        yield Server(process, port)
    finally:
        process.terminate()
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def _answers(port: int) -> bool:
    """Return whether a server responds to a ping."""
    connection = http.client.HTTPConnection(HOST, port, timeout=1)
    try:
        connection.request("GET", "/ping")
        return connection.getresponse().status < 600
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()


def _serve(factory: str, port: int) -> None:
    """Serve a factory of this module with the settings of the container's server."""
    from serving import serve

    serve.serve(f"benchmarks.servers:{factory}", HOST, port, workers=1)


if __name__ == "__main__":
    _serve(sys.argv[1], int(sys.argv[2]))
