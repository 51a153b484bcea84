"""Downloading over a real socket: resumed, verified, and honest about what went wrong."""

import contextlib
import hashlib
import re
import shutil
import socket
import ssl
import subprocess
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from common.errors import CommandError
from training.dataset.download import download

CONTENT = bytes(range(256)) * 4096
SHA256 = hashlib.sha256(CONTENT).hexdigest()


class Server(ThreadingHTTPServer):
    """Serves CONTENT; its attributes say how badly."""

    ranges = True
    content = CONTENT
    cuts: list[int]
    statuses: list[int]
    asked: list[str | None]
    daemon_threads = True

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}/archive.tar.gz"


class Handler(BaseHTTPRequestHandler):
    server: Server

    def do_GET(self) -> None:
        wanted = self.headers.get("Range")
        self.server.asked.append(wanted)
        if self.server.statuses:
            self.send_error(self.server.statuses.pop(0))
            return
        start = 0
        if wanted and self.server.ranges:
            match = re.fullmatch(r"bytes=(\d+)-", wanted)
            assert match
            start = int(match[1])
            if start >= len(self.server.content):
                self.send_error(416)
                return
            self.send_response(206)
        else:
            self.send_response(200)
        body = self.server.content[start:]
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        # A cut is a connection that ends before what was promised.
        self.wfile.write(body[: self.server.cuts.pop(0)] if self.server.cuts else body)

    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    monkeypatch.setattr("time.sleep", lambda _: None)
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    with Server(("127.0.0.1", 0), Handler) as running:
        running.cuts, running.statuses, running.asked = [], [], []
        thread = threading.Thread(target=running.serve_forever)
        thread.start()
        yield running
        running.shutdown()
        thread.join()


def test_a_file_is_fetched_once(server: Server, tmp_path: Path) -> None:
    path = download(server.url, tmp_path / "cache", "sha256", SHA256)
    assert path.read_bytes() == CONTENT
    assert download(server.url, tmp_path / "cache", "sha256", SHA256) == path
    assert server.asked == [None]
    assert [p.name for p in path.parent.iterdir()] == ["archive.tar.gz"]


def test_a_cut_connection_is_resumed_where_it_ended(server: Server, tmp_path: Path) -> None:
    server.cuts = [300_000, 200_000]
    assert download(server.url, tmp_path, "sha256", SHA256).read_bytes() == CONTENT
    assert server.asked == [None, "bytes=300000-", "bytes=500000-"]


def test_a_later_run_resumes_too(server: Server, tmp_path: Path) -> None:
    (tmp_path / "archive.tar.gz.part").write_bytes(CONTENT[:1000])
    assert download(server.url, tmp_path, "md5", hashlib.md5(CONTENT).hexdigest()).read_bytes() == CONTENT
    assert server.asked == ["bytes=1000-"]


def test_a_server_that_ignores_ranges_sends_all_again(server: Server, tmp_path: Path) -> None:
    server.ranges, server.cuts = False, [300_000]
    assert download(server.url, tmp_path, "sha256", SHA256).read_bytes() == CONTENT
    assert server.asked == [None, "bytes=300000-"]


@pytest.mark.parametrize("part", [b"x" * 1000, b"x" * (len(CONTENT) + 5)])
def test_a_part_of_something_else_is_thrown_away(server: Server, tmp_path: Path, part: bytes) -> None:
    (tmp_path / "archive.tar.gz.part").write_bytes(part)
    assert download(server.url, tmp_path, "sha256", SHA256).read_bytes() == CONTENT


def test_another_checksum_is_never_accepted(server: Server, tmp_path: Path) -> None:
    server.content = CONTENT[:-1] + b"X"
    with pytest.raises(CommandError, match=f"expected {SHA256}"):
        download(server.url, tmp_path, "sha256", SHA256)
    assert not list(tmp_path.iterdir())
    assert server.asked == [None, None]


def test_another_checksum_of_a_resumed_file_costs_one_whole_download(server: Server, tmp_path: Path) -> None:
    server.content = CONTENT[:-1] + b"X"
    (tmp_path / "archive.tar.gz.part").write_bytes(b"x" * 1000)
    with pytest.raises(CommandError, match=f"expected {SHA256}"):
        download(server.url, tmp_path, "sha256", SHA256)
    assert server.asked == ["bytes=1000-", None]


def test_what_will_not_change_is_tried_once(server: Server, tmp_path: Path) -> None:
    server.statuses = [416] * 5  # the whole file is asked for, so there is no range that could be wrong
    with pytest.raises(CommandError, match="the server answered 416"):
        download(server.url, tmp_path, "sha256", SHA256)
    assert server.asked == [None]
    with pytest.raises(CommandError, match="could not download"):
        download(server.url.replace("archive", "é"), tmp_path, "sha256", SHA256)


def test_a_folder_that_cannot_be_written_is_named_at_once(server: Server, tmp_path: Path) -> None:
    (tmp_path / "archive.tar.gz.part").mkdir()
    with pytest.raises(CommandError, match=r"archive\.tar\.gz\.part"):
        download(server.url, tmp_path, "sha256", SHA256)
    assert len(server.asked) == 1


@pytest.mark.skipif(not shutil.which("openssl"), reason="openssl makes the certificate")
def test_a_certificate_that_is_not_trusted_stays_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("no_proxy", "localhost")
    key, certificate = tmp_path / "key.pem", tmp_path / "certificate.pem"
    make = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-subj", "/CN=localhost", "-days", "1"]
    subprocess.run([*make, "-keyout", key, "-out", certificate], check=True, capture_output=True)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    greeted = []
    with socket.create_server(("127.0.0.1", 0)) as listening:

        def greet() -> None:
            while True:
                try:
                    connection, _ = listening.accept()
                except OSError:
                    return
                greeted.append(connection)
                with contextlib.suppress(OSError):
                    context.wrap_socket(connection, server_side=True)

        thread = threading.Thread(target=greet, daemon=True)
        thread.start()
        with pytest.raises(CommandError, match="CERTIFICATE_VERIFY_FAILED"):
            download(f"https://localhost:{listening.getsockname()[1]}/a", tmp_path, "sha256", SHA256)
        listening.shutdown(socket.SHUT_RDWR)
        thread.join()
    assert len(greeted) == 1


def test_a_damaged_file_in_the_cache_is_fetched_again(server: Server, tmp_path: Path) -> None:
    (tmp_path / "archive.tar.gz").write_bytes(b"damaged")
    assert download(server.url, tmp_path, "sha256", SHA256).read_bytes() == CONTENT


def test_a_busy_server_is_asked_again_and_a_missing_file_is_not(server: Server, tmp_path: Path) -> None:
    server.statuses = [503, 500]
    assert download(server.url, tmp_path, "sha256", SHA256).read_bytes() == CONTENT
    assert len(server.asked) == 3
    server.statuses, server.asked = [404], []
    with pytest.raises(CommandError, match=r"404.*--source PATH"):
        download(server.url, tmp_path / "other", "sha256", SHA256)
    assert len(server.asked) == 1


def test_a_server_that_cannot_be_reached(server: Server, tmp_path: Path) -> None:
    url = server.url
    server.server_close()
    server.shutdown()
    with pytest.raises(CommandError, match=f"could not download {url}"):
        download(url, tmp_path, "sha256", SHA256)
