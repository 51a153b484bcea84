"""SageMaker: a fleet is the servers of one variant, an instance each, and traffic moves between fleets without loss."""

import http.client
import io
import os
import random
import subprocess
import sys
import tarfile
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import boto3

from rehearsal.lifecycle import free_port
from rehearsal.settings import Image

RESPONSE_SECONDS = 60
#: For a server that hangs; one that ends is noticed at once.
START_SECONDS = 600
#: More instances than this share these processes, as they would share this machine's cores.
MAX_SERVERS = max(2, os.cpu_count() or 1)
#: Copies of requests that may wait for an instance of a shadow.
MAX_COPIES = 64


class ModelServer:
    """One process of a container image's command, with one model."""

    def __init__(
        self, folder: Path, image: Image, code: Path, model_data: str | None, environment: dict[str, str]
    ) -> None:
        folder.mkdir(parents=True)
        if model_data:
            location = urlsplit(model_data)
            stored = boto3.client("s3").get_object(Bucket=location.netloc, Key=location.path.lstrip("/"))
            with tarfile.open(fileobj=io.BytesIO(stored["Body"].read())) as archive:
                archive.extractall(folder, filter="data")
        self.port = free_port()
        #: Requests that the server is answering; `Fleet` counts them.
        self.outstanding = 0
        command, own = image.filled(self.port, folder)
        self._output = folder.with_suffix(".log")
        with self._output.open("wb") as output:
            self.process = subprocess.Popen(
                [sys.executable if command[0] in ("python", "python3") else command[0], *command[1:]],
                env={**os.environ, **environment, "PYTHONPATH": str(code), **own},
                cwd=folder,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
            )

    def wait_until_healthy(self) -> str | None:
        """Return None once the server answers pings, otherwise the reason why it does not."""
        deadline = time.monotonic() + START_SECONDS
        while time.monotonic() < deadline and self.process.poll() is None:
            try:
                if self.request("GET", "/ping", b"", {})[0] == 200:
                    return None
            except OSError:
                time.sleep(0.05)
        lines = self._output.read_text(errors="replace").strip().splitlines()
        return "The primary container did not pass the ping health check. " + " ".join(lines[-3:])[:800]

    def request(self, method: str, path: str, body: bytes, headers: dict[str, str]) -> tuple[int, Any, bytes]:
        """Send a request; return its status, headers and body."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=RESPONSE_SECONDS)
        try:
            connection.request(method, path, body, headers)
            response = connection.getresponse()
            return response.status, response.headers, response.read()
        finally:
            connection.close()

    def close(self) -> None:
        """End the process."""
        self.process.terminate()
        try:
            self.process.wait(5)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()


class Fleet:
    """The instances of one variant of one endpoint configuration.

    Parameters
    ----------
    config : str
        Name of the configuration.
    variant : dict
        The variant as the configuration has it.
    capture : dict
        The configuration's data capture; empty for none.
    images : dict
        The variant's image as DescribeEndpoint reports it.
    start : callable
        Starts one server.
    count : int
        Number of instances.
    """

    def __init__(
        self,
        config: str,
        variant: dict[str, Any],
        capture: dict[str, Any],
        images: dict[str, Any],
        start: Callable[[], ModelServer],
        count: int,
    ) -> None:
        self.config, self.variant, self.capture, self.images = config, variant, capture, images
        self.count = count
        self._start = start
        self._lock = threading.Condition()
        self._servers: list[ModelServer] = []
        try:
            for _ in range(min(count, MAX_SERVERS)):
                self._servers.append(start())
        except Exception:
            self.close()
            raise

    @property
    def name(self) -> str:
        """Name of the variant."""
        return str(self.variant["VariantName"])

    def wait_until_healthy(self) -> str | None:
        """Return None once every server answers pings, otherwise the reason why one does not."""
        return next((reason for server in self._servers if (reason := server.wait_until_healthy())), None)

    def take(self) -> ModelServer:
        """Return the server with the fewest requests, which then has one more; `put_back` must follow."""
        with self._lock:
            if not self._servers:
                raise ConnectionError("the endpoint is being deleted")
            server = min(self._servers, key=lambda each: each.outstanding)
            server.outstanding += 1
            return server

    def put_back(self, server: ModelServer) -> None:
        """Note that a request has ended. A server whose process has ended is replaced, as AWS replaces an instance."""
        with self._lock:
            server.outstanding -= 1
            self._lock.notify_all()
            if server in self._servers and server.process.poll() is not None:
                self._servers[self._servers.index(server)] = self._start()

    def resize(self, count: int) -> str | None:
        """Change the number of instances; return the reason if a new one does not become healthy."""
        wanted = min(count, MAX_SERVERS)
        while len(self._servers) < wanted:
            server = self._start()
            if reason := server.wait_until_healthy():
                server.close()
                return reason
            with self._lock:
                self._servers.append(server)
        self.count = count
        with self._lock:
            surplus, self._servers = self._servers[wanted:], self._servers[:wanted]
        self._end(surplus)
        return None

    def close(self) -> None:
        """End the servers, each after its last answer. No request may take one from now on."""
        with self._lock:
            servers, self._servers = self._servers, []
        self._end(servers)

    def _end(self, servers: list[ModelServer]) -> None:
        for server in servers:
            with self._lock:
                self._lock.wait_for(lambda server=server: server.outstanding == 0, RESPONSE_SECONDS)  # type: ignore[misc]
            server.close()


@dataclass
class Traffic:
    """Where an endpoint's requests go: to the fleet in service, and during an update partly to the new one."""

    fleet: Fleet
    shadow: Fleet | None = None
    incoming: Fleet | None = None
    #: Fraction of the requests that the incoming fleet gets.
    share: float = 0.0
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def take(self) -> tuple[Fleet, ModelServer]:
        """Choose a fleet and a server of it, which the fleet keeps until `Fleet.put_back`."""
        with self._lock:
            incoming = self.incoming is not None and random.random() < self.share
            fleet = self.incoming if incoming and self.incoming else self.fleet
            return fleet, fleet.take()

    def take_shadow(self) -> tuple[Fleet, ModelServer] | None:
        """Choose a server of the shadow for a copy of a request; None without one, or if it does not keep up."""
        with self._lock:
            if self.shadow is None:
                return None
            weight = self.shadow.variant.get("InitialVariantWeight", 1.0) / self.fleet.variant.get(
                "InitialVariantWeight", 1.0
            )
            if random.random() >= weight:
                return None
            try:
                server = self.shadow.take()
            except ConnectionError:
                return None
            if server.outstanding > MAX_COPIES:
                self.shadow.put_back(server)
                return None
            return self.shadow, server

    def shift(self, incoming: Fleet | None, share: float) -> None:
        """Send a fraction of the requests to a new fleet."""
        with self._lock:
            self.incoming, self.share = incoming, share

    def replace(self, fleet: Fleet, shadow: Fleet | None) -> list[Fleet]:
        """Send all requests to other fleets; return those that no request reaches any more."""
        with self._lock:
            former = [each for each in (self.fleet, self.shadow) if each]
            self.fleet, self.shadow, self.incoming, self.share = fleet, shadow, None, 0.0
            return former
