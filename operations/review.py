"""The review page on this machine: a person labels the images that the model was not sure about."""

import http
import json
import secrets
import signal
import sys
import tempfile
import threading
import traceback
import webbrowser
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, cast

from botocore.exceptions import BotoCoreError, ClientError

from common.command import printable
from common.errors import CommandError
from common.page import render_template
from common.stack import find_stack, parse_object
from operations.review_session import NotOnScreen, ReviewSession
from serving.model import Model

_MAX_REQUEST_BYTES = 4096


class ReviewServer(ThreadingHTTPServer):
    """Serves one session on the loopback interface, at an address with a secret token.

    Parameters
    ----------
    session : ReviewSession
        The session.
    port : int
        0 chooses a free one.

    Raises
    ------
    OSError
        The port is taken.
    """

    daemon_threads = True

    def __init__(self, session: ReviewSession, port: int) -> None:
        super().__init__(("127.0.0.1", port), _Handler)
        self.session = session
        self.token = secrets.token_urlsafe(24)
        self.address = f"http://127.0.0.1:{self.server_address[1]}/{self.token}/"


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    timeout = 60

    def do_GET(self) -> None:
        """Send the page, its state, or its image."""
        path = self._path()
        if path == "":
            nonce = secrets.token_urlsafe(16)
            policy = (
                f"default-src 'none'; script-src 'nonce-{nonce}'; style-src 'nonce-{nonce}'; img-src 'self' data:; "
            )
            policy += "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
            page = render_template("operations/review.html", nonce=nonce)
            self._send(200, "text/html; charset=utf-8", page.encode(), {"Content-Security-Policy": policy})
        elif path == "state":
            self._reply(lambda session: session.state())
        elif path is not None and path.startswith(("image/", "heat/")):
            kind, _, item = path.partition("/")
            try:
                self._send(200, *(self._session.image if kind == "image" else self._session.heat_map)(item))
            except NotOnScreen as error:
                self._reject(409, str(error))
            except Exception as error:  # of a decoder
                self._reject(500, f"the image cannot be shown: {error}")
        elif path is not None:
            self._reject(404, "not found")

    def do_POST(self) -> None:
        """Act on the image on the screen, and send the state after it."""
        path = self._path()
        length = self.headers.get("Content-Length", "")
        if path is None:
            return
        # Scripts of other pages can send these headers only after a CORS preflight, which this server rejects.
        own = self.headers.get("Origin") in (None, f"http://{self.headers.get('Host')}")
        if not own or self.headers.get("Content-Type") != "application/json":
            self._reject(403, "only the review page may send requests")
        elif not length.isdecimal() or int(length) > _MAX_REQUEST_BYTES:
            self._reject(413, "the request is too long")
        else:
            sent = parse_object(self.rfile.read(int(length)).decode("utf-8", "replace"))
            item, label = str(sent.get("id", "")), str(sent.get("label", ""))
            if path == "save":
                self._reply(lambda session: session.save(item, label))
            elif path == "skip":
                self._reply(lambda session: session.skip(item))
            elif path == "dismiss":
                self._reply(lambda session: session.dismiss(item))
            elif path == "back":
                self._reply(lambda session: session.back())
            elif path == "end":
                self._session.end()
                self._reply(lambda session: session.state())
                self.server.shutdown()
            else:
                self._reject(404, "not found")

    @property
    def _session(self) -> ReviewSession:
        return cast(ReviewServer, self.server).session

    def _path(self) -> str | None:
        """Return the path after the token; if the token or the host is wrong, reject the request and return None."""
        host = self.headers.get("Host", "").rpartition(":")[0]
        token, slash, path = self.path.removeprefix("/").partition("/")
        # Another host name that resolves to this machine is a DNS rebinding attack.
        known = host in ("127.0.0.1", "localhost")
        expected = cast(ReviewServer, self.server).token
        if not (known and slash and secrets.compare_digest(token.encode(), expected.encode())):
            self._reject(403, "wrong address; use the one that was printed")
            return None
        return path

    def _reply(self, act: Callable[[ReviewSession], dict[str, Any]]) -> None:
        try:
            content = json.dumps(act(self._session)).encode()
        except NotOnScreen as error:
            self._reject(409, str(error))
        except CommandError as error:
            self._reject(422, str(error))
        except (BotoCoreError, ClientError, OSError) as error:
            self._reject(502, str(error))
        except Exception as error:
            for line in traceback.format_exc().splitlines():
                print(printable(line), file=sys.stderr)
            self._reject(500, f"internal error ({type(error).__name__}: {error}); the terminal shows the traceback")
        else:
            self._send(200, "application/json", content)

    def _reject(self, status: int, error: str) -> None:
        self.close_connection = True  # the body may not have been read to its end
        self._send(status, "application/json", json.dumps({"error": error}).encode())

    def _send(self, status: int, content_type: str, content: bytes, headers: dict[str, str] | None = None) -> None:
        self.send_response(status, http.HTTPStatus(status).phrase)
        common = {
            "Content-Type": content_type,
            "Content-Length": str(len(content)),
            "Cache-Control": "no-store",
            "X-Content-Type-Options": "nosniff",
            "Referrer-Policy": "same-origin",
            "Cross-Origin-Resource-Policy": "same-origin",
        }
        for name, value in {**common, **(headers or {})}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, format: str, *args: Any) -> None:
        """Stay silent: the address is a secret, and every request names it."""


def review(
    stack_name: str, reviewer: str, labels_uri: str | None, port: int, browser: bool, model: Path | None = None
) -> None:
    """Serve the page until its user ends it, there or by a signal; print its address, and in the end the saved labels.

    Parameters
    ----------
    stack_name : str
        Stack with the review queue.
    reviewer : str
        Name of the reviewer, for the records.
    labels_uri : str or None
        Where to write; None is ``labels/`` in the bucket of the captured data.
    port : int
        0 chooses a free one.
    browser : bool
        Whether to open the page in the user's browser.
    model : pathlib.Path or None, optional
        The model's file. The page shows where it looked, if it is the model that made the prediction.

    Raises
    ------
    CommandError
        The stack does not exist, or the port is taken.
    """
    stack = find_stack(stack_name)
    session = ReviewSession(
        stack.output("ReviewQueueUrl"),
        stack.labels,
        labels_uri or stack.labels_uri,
        reviewer,
        Model(model) if model else None,
    )
    try:
        server = ReviewServer(session, port)
    except OSError as error:
        raise CommandError(f"cannot listen on port {port}: {error.strerror}") from error
    for name in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(name, signal.default_int_handler)
    folder = tempfile.TemporaryDirectory(prefix="review-", ignore_cleanup_errors=True)
    try:
        print(f"Review images at {server.address}\nLabels go to {session.labels_uri}. To end: q, or Ctrl-C", flush=True)
        if browser:
            # A text browser returns only when its user quits it.
            threading.Thread(target=_open_browser, args=[server.address, folder.name], daemon=True).start()
        server.serve_forever()
    except KeyboardInterrupt:
        print(file=sys.stderr)
    finally:
        session.end()
        server.server_close()
        folder.cleanup()
    total, saved = session.saved.total(), session.saved.most_common()
    counts = ", ".join(f"{count} {label}" for label, count in saved if count)
    of_each = f" ({counts})" if counts else ""
    print(f"saved {total} label{'' if total == 1 else 's'}{of_each}; the other images stay in the queue")
    if total:
        print(f"Next, stage them for training: {session.next_command}")


def _open_browser(address: str, folder: str) -> None:
    """Open the page through a private file that redirects to it: all users can see a program's arguments."""
    file = Path(folder) / "review.html"
    file.write_text(render_template("operations/redirect.html", address=address))
    webbrowser.open(file.as_uri())
