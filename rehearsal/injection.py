"""Fault injection: a part of the requests of an operation fails, or is answered late.

``PUT /_rehearsal/faults`` on the rehearsal's URL takes a JSON list of faults, which replaces the one before; each is an
object with the fields of :class:`Fault`. ``GET`` returns the list, with how many requests have met each fault.
"""

import json
import random
import threading
import time
import urllib.request
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from typing import Any

from moto.core.request import Request
from moto.core.routing import get_service_router
from moto.core.utils import get_service_model
from werkzeug.exceptions import NotFound

PATH = "/_rehearsal/faults"


@dataclass
class Fault:
    """What may happen to requests of one operation: a wait, and then an error if it has a code."""

    #: As boto3 and the API name them, for example ``sagemaker-runtime`` and ``InvokeEndpoint``.
    service: str
    operation: str
    probability: float
    #: The error's code, and its HTTP status; without a code, the request is answered as usual.
    code: str = ""
    status: int = 500
    #: Seconds to wait first.
    delay: float = 0.0
    #: How many requests it has met.
    count: int = 0

    def concerns(self, environ: dict[str, Any]) -> bool:
        """Return whether a request is one of the operation."""
        if f"/{get_service_model(self.service).signing_name}/aws4_request" not in environ.get("HTTP_AUTHORIZATION", ""):
            return False
        if target := environ.get("HTTP_X_AMZ_TARGET"):
            return bool(target.rpartition(".")[2] == self.operation)
        try:
            return bool(get_service_router(self.service).match(Request(environ))[0].name == self.operation)
        except (NotFound, NotImplementedError):
            return False


def inject(endpoint_url: str, faults: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Replace the faults of the rehearsal at a URL; return the former ones, with how many requests met them.

    Raises
    ------
    urllib.error.HTTPError
        If a fault is none that a request could meet.
    """
    url = endpoint_url + PATH
    with urllib.request.urlopen(url) as answered:
        former: list[dict[str, Any]] = json.load(answered)
    with urllib.request.urlopen(urllib.request.Request(url, json.dumps(faults).encode(), method="PUT")):
        return former


_faults: list[Fault] = []
_lock = threading.Lock()


def meet(environ: dict[str, Any]) -> Fault | None:
    """Return the fault that a request meets, if any, after its wait."""
    for fault in _faults:
        if random.random() < fault.probability and fault.concerns(environ):
            with _lock:
                fault.count += 1
            time.sleep(fault.delay)
            return fault
    return None


def answer(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
    """Set or list the faults."""
    if environ["REQUEST_METHOD"] == "PUT":
        try:
            _faults[:] = _read(environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0)))
        except Exception as error:
            start_response("400 Bad Request", [("Content-Type", "text/plain")])
            return [f"{error}\n".encode()]
    body = json.dumps([asdict(fault) for fault in _faults]).encode()
    start_response("200 OK", [("Content-Type", "application/json"), ("Content-Length", str(len(body)))])
    return [body]


def _read(body: bytes) -> list[Fault]:
    faults = [Fault(**given) for given in json.loads(body)]
    for fault in faults:
        model = get_service_model(fault.service)
        model.operation_model(fault.operation)
        if model.protocol in ("query", "ec2"):  # their requests name the operation in the body
            raise ValueError(f"The rehearsal injects no faults into {fault.service}")
    return faults
