"""Start the endpoint's server, in the container or locally.

Settings come from the environment: ``HOST`` (0.0.0.0), ``SAGEMAKER_BIND_TO_PORT`` or ``PORT`` (8080),
``MODEL_DIR`` (/opt/ml/model), ``WEB_CONCURRENCY`` (one worker per core). SageMaker starts the container with
the argument ``serve``, which has no effect here.
"""

import os
import sys
from pathlib import Path

from granian import Granian
from granian.constants import Interfaces

# A client that stops in the middle of its body blocks a thread: with 4 threads, 4 such clients kept /ping waiting. 64
# threads do not reduce throughput (benchmarks/endpoint.py), because server.py decodes one image at a time; each uses at
# most 6 MB.
THREADS_PER_WORKER = 64


def main() -> int:
    """Serve until SIGTERM; return the exit code."""
    model = Path(os.environ.get("MODEL_DIR", "/opt/ml/model")) / "model.onnx"
    if not model.is_file():
        return _fail(f"{model} does not exist; MODEL_DIR must name the folder that contains model.onnx")
    try:
        port = _number("SAGEMAKER_BIND_TO_PORT", _number("PORT", 8080))
        workers = _number("WEB_CONCURRENCY", os.cpu_count() or 1)
    except ValueError as error:
        return _fail(str(error))
    serve("serving.server:app_from_environment", os.environ.get("HOST", "0.0.0.0"), port, workers)
    return 0


def serve(target: str, host: str, port: int, workers: int) -> None:
    """Serve the WSGI application that ``target`` (``module:factory`` or ``path:factory``) creates, until SIGTERM."""
    server = Granian(
        target=target,
        factory=True,
        address=host,
        port=port,
        interface=Interfaces.WSGI,
        workers=workers,
        blocking_threads=THREADS_PER_WORKER,
        websockets=False,
    )
    server.serve()


def _number(name: str, default: int) -> int:
    text = os.environ.get(name, "")
    if text and not (text.isdigit() and 0 < int(text) < 65536):
        raise ValueError(f"{name} is {text!r}; it must be a whole number from 1 to 65535")
    return int(text) if text else default


def _fail(reason: str) -> int:
    print(f"serve: {reason}", file=sys.stderr)
    return 1


if __name__ == "__main__":
    sys.exit(main())
