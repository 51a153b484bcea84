"""A session at the review queue: it holds messages, reads their images, and writes labels.

A message is deleted from the queue only after its image and its record are written. Until then it is hidden from other
readers, for `VISIBILITY_SECONDS` at a time: however this program ends, every unsaved message returns to the queue.
"""

import contextlib
import datetime
import hashlib
import io
import json
import secrets
import threading
import time
from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import boto3
from botocore.exceptions import BotoCoreError, ClientError
from PIL import Image

from common import storage
from common.errors import CommandError
from common.labels import NEITHER
from common.outcomes import outcome_below
from common.stack import explain, parse_object
from operations.queue import count
from serving.explanation import heat_map
from serving.model import Model
from src.serialize.decoder import ImageError, decode

if TYPE_CHECKING:
    from mypy_boto3_s3.type_defs import GetObjectRequestTypeDef

#: How long the queue hides a message from other readers; renewed while it is on the screen.
VISIBILITY_SECONDS = 120
HEARTBEAT_SECONDS = 30
#: How long a skipped message stays hidden, unless the program ends before.
SKIP_SECONDS = 900
#: Long polling asks all of the queue's servers; without it a queue with few messages often looks empty.
WAIT_SECONDS = 1
#: File extensions of the formats that serialize reads.
EXTENSIONS = {"JPEG": "jpg", "PNG": "png", "WEBP": "webp", "GIF": "gif", "BMP": "bmp", "TIFF": "tiff"}
#: Formats that browsers cannot show, and the longest side in pixels of the PNG that is sent instead.
CONVERTED, CONVERTED_EDGE = ("TIFF",), 2048


class NotOnScreen(Exception):
    """The request names an image that is no longer on the screen: from an old tab, or a key pressed twice."""


@dataclass
class Item:
    """A message that this session holds, with its image.

    ``problem`` is the reason why there is no image to label, and ``final`` whether this is permanent. ``label`` is the
    label saved in this session; ``receipt`` is empty once the message is deleted.
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


class ReviewSession:
    """One reviewer's session at the review queue: one image at a time, and a way back to the previous one.

    Methods that take the ID of an image raise `NotOnScreen` if another one is on the screen now.

    Parameters
    ----------
    queue : str
        The review queue's URL.
    labels : list of str
        The model's labels, in the order of its probabilities.
    labels_uri : str
        A folder or ``s3://bucket/prefix`` for the reviewed images and their records.
    reviewer : str
        Name of the reviewer, for the records.
    model : Model or None, optional
        Explains the predictions that it made itself.
    """

    def __init__(
        self, queue: str, labels: list[str], labels_uri: str, reviewer: str, model: Model | None = None
    ) -> None:
        self.labels, self.labels_uri, self.reviewer = labels, labels_uri, reviewer
        self.next_command = f"python -m training stage --labels {labels_uri}"
        self._model = model
        self.saved: Counter[str] = Counter()
        self._queue = queue
        self._sqs, self._s3 = boto3.client("sqs"), boto3.client("s3")
        # The server handles each request in its own thread.
        self._lock = threading.Lock()
        self._current: Item | None = None
        self._ahead: Item | None = None
        self._previous: Item | None = None
        self._skipped: list[tuple[float, Item]] = []
        self._ended = threading.Event()
        self._heart = threading.Thread(target=self._beat, daemon=True)
        self._heart.start()

    def state(self) -> dict[str, Any]:
        """Return the state for the page, with the next image from the queue if there was none."""
        with self._lock:
            return self._state()

    def save(self, item_id: str, label: str) -> dict[str, Any]:
        """Write the image, then its record, then delete the message; return the state after it.

        Raises
        ------
        CommandError
            The label is unknown, or there is no image.
        """
        with self._lock:
            item = self._on_screen(item_id)
            if label not in (*self.labels, NEITHER):
                raise CommandError(f"unknown label {label!r}; expected one of {', '.join([*self.labels, NEITHER])}")
            if item.problem:
                raise CommandError(f"no image to label: {item.problem}")
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
        """Write a record of a message whose image is gone, then delete the message; return the state after it.

        Raises
        ------
        CommandError
            The image exists, or may be readable later.
        """
        with self._lock:
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
        """Put an image back for later, or keep a saved one as it is; return the state after it."""
        with self._lock:
            item = self._on_screen(item_id)
            if item.receipt:
                self._hide(item, SKIP_SECONDS)
                self._skipped.append((time.monotonic(), item))
            return self._advance()

    def back(self) -> dict[str, Any]:
        """Show the previous image again; its record stays until it gets another label. Return the state after it."""
        with self._lock:
            if self._previous and not self._ahead:
                self._ahead, self._current, self._previous = self._current, self._previous, None
                self._skipped = [(when, item) for when, item in self._skipped if item is not self._current]
                self._extend()
            return self._state()

    def image(self, item_id: str) -> tuple[str, bytes]:
        """Return the media type and the bytes of the image on the screen, in a form that browsers show."""
        with self._lock:
            item = self._on_screen(item_id)
        if item.image_format not in CONVERTED:
            return Image.MIME[item.image_format], item.content
        file = io.BytesIO()
        decode(item.content, max_edge=CONVERTED_EDGE).image.save(file, "PNG")
        return "image/png", file.getvalue()

    def heat_map(self, item_id: str) -> tuple[str, bytes]:
        """Return the media type and the bytes of a heat map to lay over the image on the screen.

        Raises
        ------
        CommandError
            The model at hand did not make this prediction, or has no maps.
        """
        with self._lock:
            item = self._on_screen(item_id)
        if self._model is None or not self._is_explained(item):
            raise CommandError("there is no heat map for this image")
        file = io.BytesIO()
        heat_map(self._model, item.content, item.body["label"]).save(file, "PNG")
        return "image/png", file.getvalue()

    def _is_explained(self, item: Item) -> bool:
        """Return whether the model at hand made this prediction, and has maps."""
        model, body = self._model, item.body
        return (
            not item.problem
            and model is not None
            and model.has_map
            and body.get("model") == model.sha256[:12]
            and body.get("label") in model.labels
        )

    def end(self) -> None:
        """End the session: return all unsaved messages to the queue at once."""
        if self._ended.is_set():
            return
        self._ended.set()
        self._heart.join()
        with self._lock:
            now = time.monotonic()
            # A skipped message that is visible again may be held by another reader now.
            skipped = [item for when, item in self._skipped if now - when < SKIP_SECONDS]
            for item in [*skipped, self._current, self._ahead]:
                if item and item.receipt:
                    with contextlib.suppress(BotoCoreError, ClientError):
                        self._hide(item, 0)
            self._current = self._ahead = self._previous = None

    def _state(self) -> dict[str, Any]:
        if self._current is None and not self._ended.is_set():
            self._current = self._take()
        return {
            "labels": self.labels,
            "neither": NEITHER,
            "reviewer": self.reviewer,
            "left": count(self._queue),
            "saved": self.saved.total(),
            "skipped": len(self._skipped),
            "back": self._previous is not None and self._ahead is None,
            "next": self.next_command,
            "item": self._current
            and {**_describe(self._current, self.labels), "heat": self._is_explained(self._current)},
        }

    def _advance(self) -> dict[str, Any]:
        self._previous, self._current, self._ahead = self._current, self._ahead, None
        return self._state()

    def _on_screen(self, item_id: str) -> Item:
        if self._current is None or self._current.id != item_id:
            raise NotOnScreen("this image is no longer on the screen")
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
        """Read an item's image, or set its problem."""
        if not _is_complete(item.body):
            item.problem, item.final = "this message was not sent by the workflow", True
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
            # The prediction is not about this image, whose upload started another execution.
            item.problem, item.final = "the image in S3 was replaced after the prediction", True
            return
        try:
            item.image_format = decode(item.content, at_least=CONVERTED_EDGE).format
        except ImageError as error:
            item.problem, item.final = f"the image cannot be shown: {error}", True

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
                # It may just have been saved or skipped. If it really is lost, it is shown a second time.
                with contextlib.suppress(BotoCoreError, ClientError):
                    self._hide(item, VISIBILITY_SECONDS)

    def _beat(self) -> None:
        while not self._ended.wait(HEARTBEAT_SECONDS):
            self._extend()


def _now() -> str:
    return datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")


def _is_complete(body: dict[str, Any]) -> bool:
    """Return whether a message has all the fields of the workflow that the page shows."""
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
        return {**shown, "outcome": "", "probabilities": [], "facts": {"Message": json.dumps(body)}}
    inferences = body["inferences"]
    # Older messages have no "neither".
    neither = body.get("neither", max(0.0, 1 - sum(inferences)))
    # A message may be from before the model got other labels.
    names = labels if len(labels) == len(inferences) else [f"label {i}" for i in range(1, len(inferences) + 1)]
    return {
        **shown,
        "outcome": outcome_below(max(inferences, default=0.0), neither),
        "probabilities": [*zip(names, inferences, strict=True), (NEITHER, neither)],
        "facts": {
            "Model": " ".join(str(body[name]) for name in ("endpoint", "variant", "model") if body.get(name)),
            "Statistics": ", ".join(f"{name} {value}" for name, value in body["statistics"].items()),
            "File": "{format}, {width} × {height} pixels, {bytes} bytes".format_map(body["source"]),
            "S3": f"s3://{body['s3_bucket']}/{body['s3_key']}",
            "Execution": body["execution_id"],
        },
    }
