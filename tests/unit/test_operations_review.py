"""The review session against moto's queue and bucket: what is written, and what is lost when it breaks off: nothing."""

import hashlib
import io
import json
import socket
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import boto3
import pytest
from botocore.exceptions import ClientError
from botocore.stub import Stubber
from moto import mock_aws
from moto.core.utils import unix_time_millis
from moto.sqs import models as sqs
from PIL import Image

from common import storage
from common.errors import CommandError
from operations import review_session
from operations.review import _Handler
from operations.review_session import NotOnScreen, ReviewSession
from serving.model import Model
from src.serialize.decoder import FORMATS
from tests.support.onnx_model import write_model
from tests.support.stack import wait_for

BUCKET, LABELS = "images", "s3://images/labels"
EXECUTION = "arn:aws:states:us-east-1:123456789012:execution:workflow:one"


@pytest.fixture(autouse=True)
def aws(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    monkeypatch.setattr(review_session, "WAIT_SECONDS", 0)
    with mock_aws():
        boto3.client("s3").create_bucket(Bucket=BUCKET)
        boto3.client("sqs").create_queue(QueueName="review")
        storage._s3.cache_clear()
        yield
        storage._s3.cache_clear()


def queue() -> str:
    return boto3.client("sqs").get_queue_url(QueueName="review")["QueueUrl"]


@pytest.fixture
def start() -> Iterator[Callable[..., ReviewSession]]:
    """Return a maker of sessions that end with the test."""
    sessions: list[ReviewSession] = []

    def make(labels_uri: str = LABELS, model: Model | None = None) -> ReviewSession:
        sessions.append(ReviewSession(queue(), ["bicycle", "motorcycle"], labels_uri, "ada", model))
        return sessions[-1]

    yield make
    for session in sessions:
        session.end()


@pytest.fixture
def send(png: Callable[..., bytes]) -> Callable[..., dict[str, Any]]:
    """Return a sender: it stores an image, and puts the workflow's message about it into the queue."""

    def send(key: str = "a.png", content: bytes | None = None, **changed: Any) -> dict[str, Any]:
        content = content or png()
        stored = boto3.client("s3").put_object(Bucket=BUCKET, Key=key, Body=content)
        source = {"format": "PNG", "width": 32, "height": 24, "bytes": len(content), "etag": stored["ETag"].strip('"')}
        body = {
            "s3_bucket": BUCKET,
            "s3_key": key,
            "label": "bicycle",
            "confidence": 0.5,
            "inferences": [0.5, 0.25],
            "endpoint": "image-classifier",
            "variant": "AllTraffic",
            "model": "0123456789ab",
            "source": source,
            "statistics": {"brightness": 0.5, "contrast": 0.1, "sharpness": 0.01},
            "execution_id": EXECUTION,
            **changed,
        }
        boto3.client("sqs").send_message(QueueUrl=queue(), MessageBody=json.dumps(body))
        return body

    return send


def counts() -> tuple[int, int]:
    """Count the messages that another reader would get now, and those that are held."""
    got = boto3.client("sqs").get_queue_attributes(QueueUrl=queue(), AttributeNames=["All"])["Attributes"]
    return int(got["ApproximateNumberOfMessages"]), int(got["ApproximateNumberOfMessagesNotVisible"])


def waiting() -> int:
    return counts()[0]


def in_queue() -> int:
    return sum(counts())


def objects(prefix: str = "labels/") -> dict[str, bytes]:
    s3 = boto3.client("s3")
    found = s3.list_objects_v2(Bucket=BUCKET, Prefix=prefix).get("Contents", [])
    return {item["Key"]: s3.get_object(Bucket=BUCKET, Key=item["Key"])["Body"].read() for item in found}


def test_a_label_becomes_an_image_and_a_record_and_the_message_goes(
    start: Callable[..., ReviewSession], send: Callable[..., dict[str, Any]], png: Callable[..., bytes]
) -> None:
    body = send()
    session = start()
    item = session.state()["item"]
    assert item["probabilities"] == [("bicycle", 0.5), ("motorcycle", 0.25), ("neither", 0.25)]
    assert item["outcome"] == "unsure"
    after = session.save(item["id"], "motorcycle")
    assert (after["item"], after["saved"], after["left"]) == (None, 1, 0)
    sha256 = hashlib.sha256(png()).hexdigest()
    written = objects()
    assert written.keys() == {f"labels/{sha256[:16]}.json", f"labels/{sha256[:16]}.png"}
    assert written[f"labels/{sha256[:16]}.png"] == png()
    record = json.loads(written[f"labels/{sha256[:16]}.json"])
    assert record.pop("reviewed_at").endswith("+00:00")
    assert record == {
        "label": "motorcycle",
        "reviewer": "ada",
        "image": f"{sha256[:16]}.png",
        "sha256": sha256,
        "s3_bucket": BUCKET,
        "s3_key": "a.png",
        "etag": body["source"]["etag"],
        "execution_id": EXECUTION,
        "endpoint": "image-classifier",
        "variant": "AllTraffic",
        "model": "0123456789ab",
        "inferences": [0.5, 0.25],
        "confidence": 0.5,
        "predicted": "bicycle",
    }


def test_only_the_model_that_made_a_prediction_explains_it(
    start: Callable[..., ReviewSession], send: Callable[..., dict[str, Any]], tmp_path: Path
) -> None:
    model = Model(write_model(tmp_path / "model.onnx", maps=True))
    send(model=model.sha256[:12])
    send()
    session = start(model=model)
    item = session.state()["item"]
    assert item["heat"]
    kind, content = session.heat_map(item["id"])
    assert kind == "image/png" and Image.open(io.BytesIO(content)).mode == "RGBA"
    with pytest.raises(NotOnScreen):
        session.heat_map("other")
    item = session.skip(item["id"])["item"]
    assert not item["heat"]
    with pytest.raises(CommandError, match="no heat map"):
        session.heat_map(item["id"])


def test_a_message_stays_when_the_image_cannot_be_written(
    start: Callable[..., ReviewSession], send: Callable[..., dict[str, Any]]
) -> None:
    send()
    session = start("s3://no-such-bucket/labels")
    item = session.state()["item"]
    with pytest.raises(ClientError, match="NoSuchBucket"):
        session.save(item["id"], "bicycle")
    assert session.state()["item"]["id"] == item["id"] and session.state()["saved"] == 0
    session.end()
    assert waiting() == 1


def test_a_message_stays_when_only_its_record_cannot_be_written(
    start: Callable[..., ReviewSession], send: Callable[..., dict[str, Any]], png: Callable[..., bytes], tmp_path: Path
) -> None:
    send()
    stem = hashlib.sha256(png()).hexdigest()[:16]
    (tmp_path / f"{stem}.json").mkdir()
    session = start(str(tmp_path))
    item_id = session.state()["item"]["id"]
    with pytest.raises(IsADirectoryError):
        session.save(item_id, "bicycle")
    assert (tmp_path / f"{stem}.png").is_file() and in_queue() == 1
    (tmp_path / f"{stem}.json").rmdir()
    session.save(item_id, "bicycle")
    assert json.loads((tmp_path / f"{stem}.json").read_text())["label"] == "bicycle" and in_queue() == 0


def test_what_is_not_saved_is_back_at_once_after_the_end(
    start: Callable[..., ReviewSession], send: Callable[..., dict[str, Any]]
) -> None:
    for key in ("a.png", "b.png", "c.png"):
        send(key)
    session = start()
    session.skip(session.state()["item"]["id"])
    assert session.state()["skipped"] == 1 and waiting() == 1 and in_queue() == 3
    session.end()
    assert waiting() == 3
    assert session.state()["item"] is None and waiting() == 3


def test_a_message_on_the_screen_stays_hidden_and_comes_back_after_a_crash(
    start: Callable[..., ReviewSession], send: Callable[..., dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = [unix_time_millis()]
    monkeypatch.setattr(sqs, "unix_time_millis", lambda: clock[0])
    monkeypatch.setattr(review_session, "HEARTBEAT_SECONDS", 0.01)
    body = send()
    (message,) = sqs.sqs_backends["123456789012"]["us-east-1"].queues["review"]._messages
    session = start()
    assert session.state()["item"]["facts"]["Execution"] == body["execution_id"]
    for _ in range(3):
        clock[0] += 1000 * (review_session.VISIBILITY_SECONDS - 1)
        assert waiting() == 0
        wait_for(lambda: message.visible_at == clock[0] + 1000 * review_session.VISIBILITY_SECONDS)
    session._ended.set()  # as a crash: no heartbeat any more, and nothing given back
    session._heart.join()
    clock[0] += 1000 * (review_session.VISIBILITY_SECONDS - 1)
    assert waiting() == 0
    clock[0] += 2000
    assert waiting() == 1


def test_another_label_replaces_the_record(
    start: Callable[..., ReviewSession], send: Callable[..., dict[str, Any]], png: Callable[..., bytes]
) -> None:
    send("a.png")
    send("b.png", png(16, 16))
    session = start()
    first = session.state()["item"]["id"]
    second = session.save(first, "bicycle")["item"]["id"]
    back = session.back()
    assert (back["item"]["id"], back["item"]["saved"], back["back"]) == (first, "bicycle", False)
    assert session.save(first, "neither")["item"]["id"] == second
    assert session.saved == {"bicycle": 0, "neither": 1}
    assert [json.loads(c)["label"] for name, c in objects().items() if name.endswith(".json")] == ["neither"]
    # Kept as it is, it stays saved; the message of the other one is still held.
    assert session.back()["item"]["saved"] == "neither"
    assert session.skip(first)["item"]["id"] == second
    assert in_queue() == 1 and waiting() == 0
    session.save(second, "neither")
    assert len(objects()) == 4 and in_queue() == 0


def test_a_skipped_image_can_be_labelled_after_all(
    start: Callable[..., ReviewSession], send: Callable[..., dict[str, Any]]
) -> None:
    send("a.png")
    session = start()
    first = session.state()["item"]["id"]
    assert session.skip(first)["item"] is None
    assert session.back()["item"]["id"] == first and session.state()["skipped"] == 0
    session.save(first, "bicycle")
    assert in_queue() == 0 and len(objects()) == 2


@pytest.mark.parametrize("how", ["gone", "replaced", "no image", "strange message"])
def test_a_message_without_its_image_is_dismissed_with_a_record_only(
    start: Callable[..., ReviewSession], send: Callable[..., dict[str, Any]], png: Callable[..., bytes], how: str
) -> None:
    s3 = boto3.client("s3")
    body = send(content=b"text" if how == "no image" else None, **({"source": 1} if how == "strange message" else {}))
    if how == "gone":
        s3.delete_object(Bucket=BUCKET, Key="a.png")
    elif how == "replaced":
        s3.put_object(Bucket=BUCKET, Key="a.png", Body=png(40, 40))
    session = start()
    item = session.state()["item"]
    assert item["problem"] and item["final"]
    with pytest.raises(CommandError, match="no image to label"):
        session.save(item["id"], "bicycle")
    assert objects() == {} and in_queue() == 1
    assert session.dismiss(item["id"])["item"] is None
    ((name, content),) = objects().items()
    record = json.loads(content)
    assert name.startswith("labels/dismissed/")
    assert record["dismissed_by"] == "ada" and record["reason"] == item["problem"] and record["message"] == body
    assert in_queue() == 0


def test_a_message_that_is_no_json_is_kept_as_it_is_when_dismissed(start: Callable[..., ReviewSession]) -> None:
    boto3.client("sqs").send_message(QueueUrl=queue(), MessageBody="not JSON")
    session = start()
    session.dismiss(session.state()["item"]["id"])
    ((_, content),) = objects().items()
    assert json.loads(content)["message"] == {"text": "not JSON"}


def test_an_image_that_is_there_or_may_be_is_not_dismissed(
    start: Callable[..., ReviewSession], send: Callable[..., dict[str, Any]]
) -> None:
    send()
    session = start()
    with Stubber(session._s3) as stub:
        stub.add_client_error("get_object", "AccessDenied", http_status_code=403)
        item = session.state()["item"]
    assert "AccessDenied" in item["problem"] and not item["final"]
    with pytest.raises(CommandError, match="only a message whose image is gone"):
        session.dismiss(item["id"])
    assert in_queue() == 1 and objects() == {}


def test_a_denied_image_says_what_may_be_missing_and_is_skipped(
    start: Callable[..., ReviewSession], send: Callable[..., dict[str, Any]]
) -> None:
    send()
    session = start()
    with Stubber(session._s3) as stub:
        # What S3 answers for an image that is gone to somebody who may not list its bucket.
        stub.add_client_error("get_object", "AccessDenied", "Access Denied", http_status_code=403)
        item = session.state()["item"]
    assert "s3:GetObject, or s3:ListBucket" in item["problem"] and not item["final"]
    assert session.skip(item["id"])["skipped"] == 1 and in_queue() == 1


@pytest.fixture
def several_pictures() -> bytes:
    """Return a JPEG file with a second picture, as telephones write them."""
    file = io.BytesIO()
    Image.new("RGB", (40, 30), "red").save(file, "MPO", save_all=True, append_images=[Image.new("RGB", (40, 30))])
    assert Image.open(file).format == "MPO"
    return file.getvalue()


def test_a_jpeg_with_several_pictures_is_a_jpeg(
    start: Callable[..., ReviewSession], send: Callable[..., dict[str, Any]], several_pictures: bytes
) -> None:
    send("a.jpg", several_pictures)
    session = start()
    item_id = session.state()["item"]["id"]
    assert session.image(item_id) == ("image/jpeg", several_pictures)
    session.save(item_id, "bicycle")
    stem = hashlib.sha256(several_pictures).hexdigest()[:16]
    written = objects()
    assert written[f"labels/{stem}.jpg"] == several_pictures and in_queue() == 0
    assert json.loads(written[f"labels/{stem}.json"])["image"] == f"{stem}.jpg"


def test_every_format_of_the_decoder_has_an_extension() -> None:
    assert set(review_session.EXTENSIONS) == set(FORMATS)


def test_a_failure_of_the_program_reaches_the_page_and_its_terminal(
    start: Callable[..., ReviewSession], send: Callable[..., dict[str, Any]], capsys: pytest.CaptureFixture[str]
) -> None:
    send(s3_key="\ud800")  # half a character, which no request can carry
    server: Any = SimpleNamespace(session=start(), token="secret")
    ours, theirs = socket.socketpair()
    with ours, theirs:
        theirs.sendall(b"GET /secret/state HTTP/1.1\r\nHost: 127.0.0.1:1\r\nConnection: close\r\n\r\n")
        _Handler(ours, ("127.0.0.1", 1), server)
        ours.close()
        head, _, body = theirs.makefile("rb").read().partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 500 ")
    assert "internal error (UnicodeEncodeError: " in json.loads(body)["error"]
    assert "Traceback" in (said := capsys.readouterr().err) and "in _fetch" in said


def test_only_the_image_on_the_screen_is_acted_on(
    start: Callable[..., ReviewSession], send: Callable[..., dict[str, Any]]
) -> None:
    send("a.png")
    send("b.png")
    session = start()
    first = session.state()["item"]["id"]
    session.save(first, "bicycle")
    for act in (session.skip, session.dismiss, session.image, lambda item_id: session.save(item_id, "neither")):
        with pytest.raises(NotOnScreen):
            act(first)
    with pytest.raises(CommandError, match="unknown label 'boat'; expected one of bicycle, motorcycle, neither"):
        session.save(session.state()["item"]["id"], "boat")
    assert session.saved == {"bicycle": 1} and in_queue() == 1


def test_the_image_is_shown_as_it_is_and_tiff_as_png(
    start: Callable[..., ReviewSession], send: Callable[..., dict[str, Any]], png: Callable[..., bytes]
) -> None:
    send("a.png")
    session = start()
    item_id = session.state()["item"]["id"]
    assert session.image(item_id) == ("image/png", png())
    file = io.BytesIO()
    exif = Image.Exif()
    exif[0x112] = 6  # on its side
    Image.new("I;16", (40, 20), 256 * 200).save(file, "TIFF", exif=exif)
    send("b.tif", file.getvalue())
    item_id = session.save(item_id, "bicycle")["item"]["id"]
    media_type, content = session.image(item_id)
    shown = Image.open(io.BytesIO(content))
    assert (media_type, shown.format, shown.size) == ("image/png", "PNG", (20, 40))
    assert shown.convert("L").getpixel((5, 5)) == 200
    session.save(item_id, "neither")
    assert file.getvalue() in objects().values()
