"""The endpoint's server in a process of its own: hostile bodies and stalled clients do not stop it."""

import contextlib
import http.client
import json
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from PIL import Image

from demo.drawing import bicycle, encoded
from rehearsal.lifecycle import free_port
from tests.support.stack import REPOSITORY, wait_for

HOST = "127.0.0.1"
#: For hangs only: an answer takes milliseconds, and a stalled client holds its thread for longer than this.
SECONDS = 120
#: What is asked about.
PICTURE = bicycle(64, 48)


@pytest.fixture(scope="module")
def port() -> Iterator[int]:
    """Start the container's server with the committed model; return its port."""
    number = free_port()
    settings = {"MODEL_DIR": "training/model", "HOST": HOST, "PORT": str(number), "WEB_CONCURRENCY": "1"}
    command = [sys.executable, "-m", "serving.serve", "serve"]
    process = subprocess.Popen(command, cwd=REPOSITORY, env={**os.environ, **settings})
    try:
        wait_for(lambda: process.poll() is not None or ask(number, "GET", "/ping")[0] == 200)
        yield number
    finally:
        process.terminate()
        process.wait()


def ask(port: int, method: str, path: str, body: bytes = b"", content_type: str = "image/png") -> tuple[int, str]:
    """Make one request; return status (0: none) and body."""
    connection = http.client.HTTPConnection(HOST, port, timeout=SECONDS)
    with contextlib.closing(connection):
        try:
            connection.request(method, path, body or None, {"Content-Type": content_type})
            response = connection.getresponse()
            return response.status, response.read().decode()
        except (OSError, http.client.HTTPException) as error:
            return 0, type(error).__name__


def serves(port: int) -> bool:
    """Say whether the server still answers a ping and classifies an image."""
    return ask(port, "GET", "/ping")[0] == 200 and ask(port, "POST", "/invocations", encoded(PICTURE))[0] == 200


@pytest.mark.parametrize(
    ("body", "content_type", "status"),
    [
        pytest.param(encoded(PICTURE)[:1000], "image/png", 400, id="truncated PNG"),
        pytest.param(encoded(PICTURE, "JPEG")[:1000], "image/jpeg", 400, id="truncated JPEG"),
        pytest.param(encoded(Image.new("1", (20_000, 10_000))), "image/png", 413, id="200 megapixels"),
        pytest.param(encoded(PICTURE), "text/plain", 415, id="wrong type"),
        pytest.param(Path(__file__).read_bytes(), "image/png", 400, id="not an image"),
        pytest.param(b"", "image/png", 400, id="empty"),
        pytest.param(bytes(25_000_000), "image/jpeg", 413, id="25 MB"),
    ],
)
def test_a_body_that_cannot_be_an_image_is_refused_with_a_reason(
    port: int, body: bytes, content_type: str, status: int
) -> None:
    answered, answer = ask(port, "POST", "/invocations", body, content_type)
    # A server that refuses a large body may close the connection while the client is still sending.
    assert answered == status or (len(body) > 6_000_000 and answered == 0)
    assert answered == 0 or json.loads(answer)["error"]
    assert serves(port)


def stalled(port: int) -> socket.socket:
    """Return a connection over which half of an image has been sent."""
    content = encoded(PICTURE)
    head = f"POST /invocations HTTP/1.1\r\nHost: {HOST}\r\nContent-Type: image/png\r\nContent-Length: {len(content)}"
    connection = socket.create_connection((HOST, port), timeout=SECONDS)
    connection.sendall(f"{head}\r\n\r\n".encode() + content[: len(content) // 2])
    return connection


def test_a_sender_that_leaves_halfway_is_told_so(port: int) -> None:
    with stalled(port) as connection:
        connection.shutdown(socket.SHUT_WR)
        assert " 400 " in connection.recv(65536).decode()
    assert serves(port)


def test_clients_that_stop_in_the_middle_of_a_body_block_no_others(port: int) -> None:
    with contextlib.ExitStack() as stack:
        for _ in range(60):
            stack.enter_context(stalled(port))
        assert serves(port)
