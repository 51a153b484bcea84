"""The review page in a real browser: keys, buttons and focus do what they say, on a phone and on a laptop."""

import json
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import boto3
import pytest
from moto import mock_aws
from PIL import Image
from playwright.sync_api import Page, expect

from common import storage
from demo import drawing
from operations import review, review_session
from operations.review import ReviewServer
from operations.review_session import ReviewSession
from serving.model import Model
from tests.support.onnx_model import write_model

BUCKET = "images"
#: Elements that stick out of the screen, and buttons that a finger would miss.
PROBE = """[
  [...document.querySelectorAll("body *")].filter(e => e.getBoundingClientRect().right > innerWidth + 1).length,
  [...document.querySelectorAll("button")].filter(b => !b.hidden && b.getBoundingClientRect().height < 44).length,
  [...document.querySelectorAll("#labels button, #skip")].filter(b => b.getBoundingClientRect().bottom > innerHeight)
    .length,
  performance.getEntriesByType("resource").filter(r => !r.name.startsWith(location.origin)).length,
]"""

#: Size of the copy of the picture that was saved last.
COPY = "[document.querySelector('#last canvas').width, document.querySelector('#last canvas').height]"


@dataclass
class Desk:
    """A session with its server, at an empty queue."""

    queue: str
    address: str
    session: ReviewSession

    def send(self, key: str, image: Image.Image, file_format: str = "PNG", **options: Any) -> None:
        """Store an image, and ask for its review as the workflow does."""
        content = drawing.encoded(image, file_format, **options)
        stored = boto3.client("s3").put_object(Bucket=BUCKET, Key=key, Body=content)
        source = {"format": file_format, "width": image.width, "height": image.height, "bytes": len(content)}
        body = {
            "s3_bucket": BUCKET,
            "s3_key": key,
            "label": "bicycle",
            "confidence": 0.55,
            "inferences": [0.55, 0.3],
            "endpoint": "image-classifier",
            "variant": "AllTraffic",
            "model": self.session._model.sha256[:12] if self.session._model else "",
            "source": {**source, "etag": stored["ETag"].strip('"')},
            "statistics": {"brightness": 0.5622, "contrast": 0.1456, "sharpness": 0.001882},
            "execution_id": f"arn:aws:states:us-east-1:123456789012:execution:image-classifier-Workflow:{key}",
        }
        boto3.client("sqs").send_message(QueueUrl=self.queue, MessageBody=json.dumps(body))

    def records(self) -> dict[str, str]:
        """Return the labels that are written, by key of the image."""
        s3 = boto3.client("s3")
        listed = s3.list_objects_v2(Bucket=BUCKET, Prefix="labels/").get("Contents", [])
        keys = [item["Key"] for item in listed if item["Key"].endswith(".json") and "dismissed" not in item["Key"]]
        records = [json.loads(s3.get_object(Bucket=BUCKET, Key=key)["Body"].read()) for key in keys]
        return {record["s3_key"]: record["label"] for record in records}


@pytest.fixture
def desk(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Desk]:
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    monkeypatch.setattr(review_session, "WAIT_SECONDS", 0)
    with mock_aws():
        storage._s3.cache_clear()
        boto3.client("s3").create_bucket(Bucket=BUCKET)
        queue = boto3.client("sqs").create_queue(QueueName="review")["QueueUrl"]
        model = Model(write_model(tmp_path / "model.onnx", maps=True))
        session = ReviewSession(queue, ["bicycle", "motorcycle"], f"s3://{BUCKET}/labels", "ada", model)
        server = ReviewServer(session, 0)
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield Desk(queue, server.address, session)
        session.end()
        server.shutdown()
        thread.join()
        server.server_close()
        storage._s3.cache_clear()


def says(page: Page, text: str) -> None:
    """Wait until a text is visible."""
    expect(page.locator("body")).to_contain_text(text, use_inner_text=True)


def shows(page: Page, name: str, width: int = 64) -> None:
    """Wait until the image of a key is drawn, as wide as it should be."""
    says(page, f"s3://{BUCKET}/{name}")
    expect(page.locator("#image")).to_have_js_property("complete", True)
    expect(page.locator("#image")).to_have_js_property("naturalWidth", width)


def test_a_key_labels_the_image_and_the_next_one_appears(desk: Desk, new_page: Callable[..., Page]) -> None:
    for name, draw in (("a.png", drawing.bicycle), ("b.png", drawing.motorcycle), ("c.png", drawing.house)):
        desk.send(name, draw(64, 48))
    page = new_page()
    response = page.goto(desk.address)
    assert response and response.headers["content-security-policy"].startswith("default-src 'none'; script-src 'nonce-")
    shows(page, "a.png")
    assert "about 3 left" in page.inner_text("body")
    page.keyboard.press("1")
    shows(page, "b.png")
    # Under a copy of the picture that was saved, not of the next one.
    expect(page.locator("#last figcaption")).to_have_text("Saved as bicycle")
    assert page.evaluate(COPY)[:2] == [56, 42]
    page.keyboard.press("2")
    shows(page, "c.png")
    expect(page.locator("#last figcaption")).to_have_text("Saved as motorcycle")
    assert "about 1 left, 2 saved" in page.inner_text("body")
    page.keyboard.press("z")
    shows(page, "b.png")
    page.keyboard.press("1")
    shows(page, "c.png")
    page.keyboard.press("n")
    says(page, "Nothing to review")
    assert desk.records() == {"a.png": "bicycle", "b.png": "bicycle", "c.png": "neither"}
    page.keyboard.press("q")
    says(page, "Ended: 3 saved")
    says(page, f"python -m training stage --labels s3://{BUCKET}/labels")


def test_keys_with_modifiers_and_held_keys_label_nothing(desk: Desk, new_page: Callable[..., Page]) -> None:
    desk.send("a.png", drawing.bicycle(64, 48))
    page = new_page()
    page.goto(desk.address)
    shows(page, "a.png")
    page.keyboard.down("Control")
    page.keyboard.down("1")
    page.keyboard.up("Control")
    page.keyboard.down("1")  # held
    page.keyboard.up("1")
    page.keyboard.press("x")
    page.keyboard.press("s")
    says(page, "comes back later")
    assert desk.records() == {}


def test_buttons_are_reached_and_pressed_by_keyboard_alone(desk: Desk, new_page: Callable[..., Page]) -> None:
    desk.send("a.png", drawing.motorcycle(64, 48))
    page = new_page()
    page.goto(desk.address)
    shows(page, "a.png")
    visited = []
    for _ in range(5):
        page.keyboard.press("Tab")
        visited.append(" ".join(page.locator(":focus").inner_text().split()))
        expect(page.locator(":focus")).to_have_css("outline-style", "solid")
    assert visited == ["1 bicycle", "2 motorcycle", "n neither", "s Skip", "h Heat map"]
    page.locator("#labels button").nth(1).focus()
    page.keyboard.press("Enter")
    says(page, "Nothing to review")
    assert desk.records() == {"a.png": "motorcycle"}


@pytest.mark.parametrize("width", [390, 1280])
def test_page_fits_the_screen_in_light_and_dark(
    desk: Desk, new_page: Callable[..., Page], width: int, tmp_path: Path
) -> None:
    desk.send("incoming/a-rather-long-name-of-a-folder-and-of-a-file-in-it.jpg", drawing.bicycle(900, 1200), "JPEG")
    papers = []
    for scheme in ("light", "dark"):
        page = new_page(width, 844 if width < 600 else 800, color_scheme=scheme)
        page.goto(desk.address)
        shows(page, "incoming", 900)
        assert page.evaluate(PROBE) == [0, 0, 0, 0]
        papers.append(page.evaluate("getComputedStyle(document.body).backgroundColor"))
        page.screenshot(path=tmp_path / f"{scheme}.png")
        with Image.open(tmp_path / f"{scheme}.png") as shot:
            assert shot.width == width and len(shot.convert("L").getcolors() or []) > 20
    assert papers == ["rgb(255, 255, 255)", "rgb(21, 23, 27)"]


def test_heat_map_lies_over_the_image_until_the_next(desk: Desk, new_page: Callable[..., Page]) -> None:
    for name in ("a.png", "b.png"):
        desk.send(name, drawing.bicycle(90, 60))
    page = new_page()
    page.goto(desk.address)
    shows(page, "a.png", 90)
    expect(page.locator("#heat")).to_be_hidden()
    page.keyboard.press("h")
    expect(page.locator("#heat")).to_be_visible()
    expect(page.locator("#heat")).to_have_js_property("naturalWidth", 256)
    box, over = page.locator("#image").bounding_box(), page.locator("#heat").bounding_box()
    assert box == over
    page.keyboard.press("s")
    shows(page, "b.png", 90)
    expect(page.locator("#heat")).to_be_hidden()


def test_on_a_phone_nothing_covers_the_figures(desk: Desk, new_page: Callable[..., Page]) -> None:
    desk.send("a.png", drawing.bicycle(90, 60))
    page = new_page(390, 844)
    page.goto(desk.address)
    shows(page, "a.png", 90)
    page.evaluate("scrollTo(0, document.body.scrollHeight)")
    covered = """[...document.querySelectorAll("#bars output, #facts dd")].filter(e => {
      e.scrollIntoView({block: "center"});
      const box = e.getBoundingClientRect();
      return !e.contains(document.elementFromPoint(box.x + 2, box.y + box.height / 2));
    }).length"""
    assert page.evaluate(covered) == 0
    assert page.evaluate("[...document.querySelectorAll('kbd')].filter(e => e.offsetParent).length") == 0


def test_turned_and_unusual_files_are_shown_upright(desk: Desk, new_page: Callable[..., Page]) -> None:
    exif = Image.Exif()
    exif[0x112] = 6
    desk.send("turned.jpg", drawing.house(80, 40), "JPEG", exif=exif)
    desk.send("scan.tiff", drawing.house(80, 40), "TIFF")
    page = new_page()
    page.goto(desk.address)
    shows(page, "turned.jpg", 40)
    page.keyboard.press("n")
    shows(page, "scan.tiff", 80)


def test_an_image_that_is_gone_is_said_to_be_and_can_be_dismissed(desk: Desk, new_page: Callable[..., Page]) -> None:
    desk.send("gone.png", drawing.house(64, 48))
    boto3.client("s3").delete_object(Bucket=BUCKET, Key="gone.png")
    page = new_page()
    page.goto(desk.address)
    says(page, "The image is gone from S3")
    page.keyboard.press("1")
    page.keyboard.press("d")
    says(page, "Nothing to review")
    assert desk.records() == {}
    listed = boto3.client("s3").list_objects_v2(Bucket=BUCKET)["Contents"]
    assert len(listed) == 1 and listed[0]["Key"].startswith("labels/dismissed/")


def test_a_failure_is_said_and_the_image_stays(desk: Desk, new_page: Callable[..., Page]) -> None:
    desk.send("a.png", drawing.house(64, 48))
    desk.session.labels_uri = "s3://no-such-bucket/labels"
    page = new_page()
    page.goto(desk.address)
    shows(page, "a.png")
    page.keyboard.press("1")
    expect(page.locator("#said")).to_contain_text("NoSuchBucket", use_inner_text=True)
    desk.session.labels_uri = f"s3://{BUCKET}/labels"
    page.keyboard.press("1")
    says(page, "Nothing to review")
    assert desk.records() == {"a.png": "bicycle"}


def test_the_file_that_opens_the_page_leads_to_it(
    desk: Desk, new_page: Callable[..., Page], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    desk.send("a.png", drawing.bicycle(64, 48))
    opened: list[str] = []
    monkeypatch.setattr("webbrowser.open", opened.append)
    review._open_browser(desk.address, str(tmp_path))
    page = new_page()
    page.goto(opened[0])
    page.wait_for_url(desk.address)
    shows(page, "a.png")
    page.keyboard.press("1")
    says(page, "Nothing to review")
    assert desk.records() == {"a.png": "bicycle"}
