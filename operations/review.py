"""A page on this machine, where a person says what the images show that the model was not sure of.

A message leaves the review queue only after its image and its record are written. Until then it is merely held, for
`VISIBILITY_SECONDS` at a time: however this program ends, the queue shows every unsaved message again.
"""

import contextlib
import datetime
import hashlib
import http
import io
import json
import secrets
import signal
import sys
import tempfile
import threading
import time
import traceback
import webbrowser
from collections import Counter
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import boto3
from botocore.exceptions import BotoCoreError, ClientError
from PIL import Image

from common import storage
from common.command import printable
from common.errors import CommandError
from common.labels import NEITHER
from common.stack import Stack, explain, find_stack, parse_object
from src.serialize.decoder import ImageError, decode

if TYPE_CHECKING:
    from mypy_boto3_s3.type_defs import GetObjectRequestTypeDef

PAGE = Path(__file__).with_name("review.html")
#: How long the queue hides a message from others; renewed while it is on the screen. After a crash it is back by then.
VISIBILITY_SECONDS = 120
HEARTBEAT_SECONDS = 30
#: How long a skipped message stays away, unless the program ends before.
SKIP_SECONDS = 900
#: Long polling asks all of the queue's servers; without it a queue with few messages often looks empty.
WAIT_SECONDS = 1
#: What serialize reads; the files' extensions among the labels.
EXTENSIONS = {"JPEG": "jpg", "PNG": "png", "WEBP": "webp", "GIF": "gif", "BMP": "bmp", "TIFF": "tiff"}
#: What browsers do not show, and the longest side in pixels of the PNG that they get instead.
CONVERTED, CONVERTED_EDGE = ("TIFF",), 2048
_MAX_REQUEST_BYTES = 4096


class NotOnScreen(Exception):
    """The page acts on an image that is not the one on the screen any more: an old tab, or a key pressed twice."""


@dataclass
class Item:
    """A message that is held, with its image.

    ``problem`` says why there is nothing to label, and ``final`` that this will stay so. ``label`` is what was saved
    in this session, and ``receipt`` is empty once the message is deleted.
    """

    message_id: str
    receipt: str
    body: dict[str, Any]
    content: bytes = b""
    image_format: str = ""
    problem: str = ""
    final: bool = False
    label: str | None = None
    id: str = field(default_factory=lambda: secrets.token_hex(8))


class Review:
    """One person's session at the review queue: one image at a time, and a way back to the one before.

    Parameters
    ----------
    queue : str
        The review queue's URL.
    labels : list of str
        What an image can show, in the order of the model's probabilities.
    labels_uri : str
        A folder or ``s3://bucket/prefix`` for the reviewed images and their records.
    reviewer : str
        Who is asked, for the records.
    """

    def __init__(self, queue: str, labels: list[str], labels_uri: str, reviewer: str) -> None:
        self.labels, self.labels_uri, self.reviewer = labels, labels_uri, reviewer
        self.saved: Counter[str] = Counter()
        self._queue = queue
        self._sqs, self._s3 = boto3.client("sqs"), boto3.client("s3")
        # Requests come in threads of their own; each takes its turn.
        self._turn = threading.Lock()
        self._current: Item | None = None
        self._ahead: Item | None = None
        self._previous: Item | None = None
        self._skipped: list[tuple[float, Item]] = []
        self._ended = threading.Event()
        self._heart = threading.Thread(target=self._beat, daemon=True)
        self._heart.start()

    def state(self) -> dict[str, Any]:
        """Return what the page shows, with the next image from the queue if there was none."""
        with self._turn:
            return self._state()

    def save(self, item_id: str, label: str) -> dict[str, Any]:
        """Write the image, then its record, then delete the message; return the state after it.

        Raises
        ------
        NotOnScreen
            Another image is on the screen by now.
        CommandError
            There is no such label, or no image.
        """
        with self._turn:
            item = self._on_screen(item_id)
            if label not in (*self.labels, NEITHER):
                raise CommandError(f"{label!r} is no label; there are {', '.join([*self.labels, NEITHER])}")
            if item.problem:
                raise CommandError(f"there is no image to label: {item.problem}")
            sha256 = hashlib.sha256(item.content).hexdigest()
            image = f"{sha256[:16]}.{EXTENSIONS[item.image_format]}"
            body = item.body
            record = {
                "label": label,
                "reviewer": self.reviewer,
                "reviewed_at": _now(),
                "image": image,
                "sha256": sha256,
                **{name: body.get(name) for name in ("s3_bucket", "s3_key")},
                "etag": body["source"]["etag"],
                **{name: body.get(name) for name in ("execution_id", "endpoint", "variant")},
                "model": body.get("model", ""),
                **{name: body.get(name) for name in ("inferences", "confidence")},
                "predicted": body.get("label"),
            }
            storage.write(storage.join(self.labels_uri, image), item.content, Image.MIME[item.image_format])
            self._write_record(f"{sha256[:16]}.json", record)
            if item.label is not None:
                self.saved[item.label] -= 1
            item.label = label
            self.saved[label] += 1
            self._delete(item)
            return self._advance()

    def dismiss(self, item_id: str) -> dict[str, Any]:
        """Delete a message whose image will never be seen, after a record of it; return the state after it.

        Raises
        ------
        NotOnScreen
            Another image is on the screen by now.
        CommandError
            The image is there, or may be there later.
        """
        with self._turn:
            item = self._on_screen(item_id)
            if not item.final:
                raise CommandError("only a message whose image is gone can be dismissed")
            record = {
                "dismissed_by": self.reviewer,
                "dismissed_at": _now(),
                "reason": item.problem,
                "message": item.body,
            }
            self._write_record(f"dismissed/{item.message_id}.json", record)
            self._delete(item)
            return self._advance()

    def skip(self, item_id: str) -> dict[str, Any]:
        """Leave an image for later, or a saved one as it is; return the state after it.

        Raises
        ------
        NotOnScreen
            Another image is on the screen by now.
        """
        with self._turn:
            item = self._on_screen(item_id)
            if item.receipt:
                self._hide(item, SKIP_SECONDS)
                self._skipped.append((time.monotonic(), item))
            return self._advance()

    def back(self) -> dict[str, Any]:
        """Show the image before again; its record stands until it gets another label. Return the state after it."""
        with self._turn:
            if self._previous and not self._ahead:
                self._ahead, self._current, self._previous = self._current, self._previous, None
                self._skipped = [(when, item) for when, item in self._skipped if item is not self._current]
                self._extend()
            return self._state()

    def image(self, item_id: str) -> tuple[str, bytes]:
        """Return the media type and the bytes of the image on the screen, in a form that browsers show.

        Raises
        ------
        NotOnScreen
            Another image is on the screen by now.
        """
        with self._turn:
            item = self._on_screen(item_id)
        if item.image_format not in CONVERTED:
            return Image.MIME[item.image_format], item.content
        picture = decode(item.content, max_edge=CONVERTED_EDGE).image
        file = io.BytesIO()
        picture.save(file, "PNG")
        return "image/png", file.getvalue()

    def end(self) -> None:
        """Show the queue's other readers at once what is not saved; nothing can be done afterwards."""
        if self._ended.is_set():
            return
        self._ended.set()
        self._heart.join()
        with self._turn:
            now = time.monotonic()
            # A skipped message that has come back since may be somebody else's by now.
            skipped = [item for when, item in self._skipped if now - when < SKIP_SECONDS]
            for item in [*skipped, self._current, self._ahead]:
                if item and item.receipt:
                    with contextlib.suppress(BotoCoreError, ClientError):
                        self._hide(item, 0)
            self._current = self._ahead = self._previous = None

    def _state(self) -> dict[str, Any]:
        if self._current is None and not self._ended.is_set():
            self._current = self._take()
        counts = self._sqs.get_queue_attributes(
            QueueUrl=self._queue,
            AttributeNames=["ApproximateNumberOfMessages", "ApproximateNumberOfMessagesNotVisible"],
        )["Attributes"]
        return {
            "labels": self.labels,
            "neither": NEITHER,
            "reviewer": self.reviewer,
            "left": sum(map(int, counts.values())),
            "saved": self.saved.total(),
            "skipped": len(self._skipped),
            "back": self._previous is not None and self._ahead is None,
            "item": self._current and _describe(self._current, self.labels),
        }

    def _advance(self) -> dict[str, Any]:
        self._previous, self._current, self._ahead = self._current, self._ahead, None
        return self._state()

    def _on_screen(self, item_id: str) -> Item:
        if self._current is None or self._current.id != item_id:
            raise NotOnScreen("this image is not on the screen any more")
        return self._current

    def _take(self) -> Item | None:
        received = self._sqs.receive_message(
            QueueUrl=self._queue,
            MaxNumberOfMessages=1,
            VisibilityTimeout=VISIBILITY_SECONDS,
            WaitTimeSeconds=WAIT_SECONDS,
        ).get("Messages", [])
        if not received:
            return None
        message = received[0]
        body = parse_object(message["Body"]) or {"text": message["Body"]}
        item = Item(message["MessageId"], message["ReceiptHandle"], body)
        self._fetch(item)
        return item

    def _fetch(self, item: Item) -> None:
        """Read an item's image, or say why there is none."""
        if not _is_complete(item.body):
            item.problem, item.final = "this message is none of the workflow's", True
            return
        source = item.body["source"]
        asked: GetObjectRequestTypeDef = {"Bucket": item.body["s3_bucket"], "Key": item.body["s3_key"]}
        if "version_id" in source:
            asked["VersionId"] = source["version_id"]
        try:
            response = self._s3.get_object(**asked)
            item.content = response["Body"].read()
        except ClientError as error:
            code = error.response["Error"]["Code"]
            item.final = code in ("NoSuchKey", "NoSuchVersion", "NoSuchBucket")
            item.problem = "the image is gone from S3" if item.final else f"the image cannot be read: {explain(error)}"
            return
        except BotoCoreError as error:
            item.problem = f"the image cannot be read: {error}"
            return
        if source["etag"] != response["ETag"].strip('"'):
            # What the model said is not about this one, and its upload had an execution of its own.
            item.problem, item.final = "another image has been stored in the place of the one that the model saw", True
            return
        try:
            item.image_format = decode(item.content, at_least=CONVERTED_EDGE).format
        except ImageError as error:
            item.problem, item.final = f"this is no image that can be shown: {error}", True

    def _write_record(self, name: str, record: dict[str, Any]) -> None:
        content = json.dumps(record, indent=1).encode() + b"\n"
        storage.write(storage.join(self.labels_uri, name), content, "application/json")

    def _delete(self, item: Item) -> None:
        if item.receipt:
            self._sqs.delete_message(QueueUrl=self._queue, ReceiptHandle=item.receipt)
            item.receipt = ""

    def _hide(self, item: Item, seconds: int) -> None:
        self._sqs.change_message_visibility(QueueUrl=self._queue, ReceiptHandle=item.receipt, VisibilityTimeout=seconds)

    def _extend(self) -> None:
        for item in (self._current, self._ahead):
            if item and item.receipt:
                # It may just have been saved or skipped. If it really is lost, somebody sees it a second time.
                with contextlib.suppress(BotoCoreError, ClientError):
                    self._hide(item, VISIBILITY_SECONDS)

    def _beat(self) -> None:
        while not self._ended.wait(HEARTBEAT_SECONDS):
            self._extend()


def _now() -> str:
    return datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")


def _is_complete(body: dict[str, Any]) -> bool:
    """Say whether a message holds what the workflow sends, so that what is shown of it is there."""
    source, inferences = body.get("source"), body.get("inferences")
    return (
        all(isinstance(body.get(name), str) for name in ("s3_bucket", "s3_key", "execution_id"))
        and isinstance(source, dict)
        and {"format", "width", "height", "bytes", "etag"} <= source.keys()
        and isinstance(body.get("statistics"), dict)
        and isinstance(inferences, list)
        and all(isinstance(value, int | float) for value in inferences)
    )


def _describe(item: Item, labels: list[str]) -> dict[str, Any]:
    body = item.body
    shown = {"id": item.id, "problem": item.problem, "final": item.final, "saved": item.label}
    if not _is_complete(body):
        return {**shown, "probabilities": [], "facts": {"Message": json.dumps(body)}}
    inferences = body["inferences"]
    # A message may be from before the model got other labels.
    names = labels if len(labels) == len(inferences) else [f"label {i}" for i in range(1, len(inferences) + 1)]
    return {
        **shown,
        "probabilities": list(zip(names, inferences, strict=True)),
        "facts": {
            "Model": " ".join(str(body[name]) for name in ("endpoint", "variant", "model") if body.get(name)),
            "Statistics": ", ".join(f"{name} {value}" for name, value in body["statistics"].items()),
            "File": "{format}, {width} × {height} pixels, {bytes} bytes".format_map(body["source"]),
            "S3": f"s3://{body['s3_bucket']}/{body['s3_key']}",
            "Execution": body["execution_id"],
        },
    }


class ReviewServer(ThreadingHTTPServer):
    """Serves one session on the loopback interface, below an address that only its user knows.

    Parameters
    ----------
    review : Review
        The session.
    port : int
        0 chooses a free one.

    Raises
    ------
    OSError
        The port is taken.
    """

    daemon_threads = True

    def __init__(self, review: Review, port: int) -> None:
        super().__init__(("127.0.0.1", port), _Handler)
        self.review = review
        self.token = secrets.token_urlsafe(24)
        self.address = f"http://127.0.0.1:{self.server_address[1]}/{self.token}/"


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    timeout = 60

    def do_GET(self) -> None:
        """Answer with the page, its state, or its image."""
        path = self._path()
        if path == "":
            nonce = secrets.token_urlsafe(16)
            policy = (
                f"default-src 'none'; script-src 'nonce-{nonce}'; style-src 'nonce-{nonce}'; img-src 'self' data:; "
            )
            policy += "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
            page = PAGE.read_text(encoding="utf-8").replace("NONCE", nonce)
            self._send(200, "text/html; charset=utf-8", page.encode(), {"Content-Security-Policy": policy})
        elif path == "state":
            self._answer(lambda review: review.state())
        elif path is not None and path.startswith("image/"):
            try:
                self._send(200, *self._review.image(path.removeprefix("image/")))
            except NotOnScreen as error:
                self._say(409, str(error))
            except Exception as error:  # of a decoder
                self._say(500, f"the image cannot be shown: {error}")
        elif path is not None:
            self._say(404, "there is nothing here")

    def do_POST(self) -> None:
        """Act on the image that is on the screen, and answer with the state after it."""
        path = self._path()
        length = self.headers.get("Content-Length", "")
        if path is None:
            return
        # Scripts of another page can send neither header without asking first, which nobody here answers.
        own = self.headers.get("Origin") in (None, f"http://{self.headers.get('Host')}")
        if not own or self.headers.get("Content-Type") != "application/json":
            self._say(403, "only the page itself may act")
        elif not length.isdecimal() or int(length) > _MAX_REQUEST_BYTES:
            self._say(413, "the request is too long")
        else:
            sent = parse_object(self.rfile.read(int(length)).decode("utf-8", "replace"))
            item, label = str(sent.get("id", "")), str(sent.get("label", ""))
            if path == "save":
                self._answer(lambda review: review.save(item, label))
            elif path == "skip":
                self._answer(lambda review: review.skip(item))
            elif path == "dismiss":
                self._answer(lambda review: review.dismiss(item))
            elif path == "back":
                self._answer(lambda review: review.back())
            elif path == "end":
                self._review.end()
                self._answer(lambda review: review.state())
                self.server.shutdown()
            else:
                self._say(404, "there is nothing here")

    @property
    def _review(self) -> Review:
        return cast(ReviewServer, self.server).review

    def _path(self) -> str | None:
        """Return what follows the token; without the right one answer, and return None."""
        host = self.headers.get("Host", "").rpartition(":")[0]
        token, slash, path = self.path.removeprefix("/").partition("/")
        # A foreign name that resolves to this machine is another page's attempt to be this one.
        known = host in ("127.0.0.1", "localhost")
        if not (
            known and slash and secrets.compare_digest(token.encode(), cast(ReviewServer, self.server).token.encode())
        ):
            self._say(403, "this address is not the one that was printed")
            return None
        return path

    def _answer(self, act: Any) -> None:
        try:
            content = json.dumps(act(self._review)).encode()
        except NotOnScreen as error:
            self._say(409, str(error))
        except CommandError as error:
            self._say(422, str(error))
        except (BotoCoreError, ClientError, OSError) as error:
            self._say(502, str(error))
        except Exception as error:
            for line in traceback.format_exc().splitlines():
                print(printable(line), file=sys.stderr)
            self._say(500, f"this program failed ({type(error).__name__}: {error}); its terminal says where")
        else:
            self._send(200, "application/json", content)

    def _say(self, status: int, error: str) -> None:
        self.close_connection = True  # what was sent may not have been read to its end
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


def review(stack_name: str, reviewer: str, labels_uri: str | None, port: int, browser: bool) -> None:
    """Serve the page until its user ends it, by the page or by a signal; print its address and what came of it.

    Parameters
    ----------
    stack_name : str
        Whose review queue is read.
    reviewer : str
        Who is asked, for the records.
    labels_uri : str or None
        Where to write; None is ``labels/`` in the bucket that the captured data are in.
    port : int
        0 chooses a free one.
    browser : bool
        Whether to open the page in the user's browser.

    Raises
    ------
    CommandError
        There is no such stack, or the port is taken.
    """
    stack: Stack = find_stack(stack_name)
    session = Review(stack.output("ReviewQueueUrl"), stack.labels, labels_uri or stack.labels_uri, reviewer)
    try:
        server = ReviewServer(session, port)
    except OSError as error:
        raise CommandError(f"port {port} of this machine cannot be used: {error.strerror}") from error
    for name in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(name, signal.default_int_handler)
    folder = tempfile.TemporaryDirectory(prefix="review-", ignore_cleanup_errors=True)
    try:
        print(f"Review images at {server.address}\nLabels go to {session.labels_uri}. To end: q, or Ctrl-C", flush=True)
        if browser:
            # A text browser would not come back before it is left.
            threading.Thread(target=_open_browser, args=[server.address, folder.name], daemon=True).start()
        server.serve_forever()
    except KeyboardInterrupt:
        print(file=sys.stderr)
    finally:
        session.end()
        server.server_close()
        folder.cleanup()
    counts = ", ".join(f"{count} {label}" for label, count in session.saved.most_common() if count)
    print(f"saved {session.saved.total()} labels{f' ({counts})' if counts else ''}; the rest waits in the queue")


def _open_browser(address: str, folder: str) -> None:
    """Open the page by a file that only its user may read: a program's arguments are seen by everybody."""
    file = Path(folder) / "review.html"
    file.write_text(f'<!doctype html><title>Review</title><meta http-equiv="refresh" content="0; url={address}">\n')
    webbrowser.open(file.as_uri())
