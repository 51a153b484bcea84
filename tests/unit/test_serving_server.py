"""The endpoint's WSGI application, with the committed model."""

import io
import json
import os
import re
import shutil
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from common.errors import CommandError
from demo.drawing import encoded, noise
from serving.model import Model
from serving.server import MAX_BYTES, Application, create_app
from tests.support.stack import HANG_SECONDS

REPOSITORY = Path(__file__).parents[2]
MODEL_DIR = REPOSITORY / "training" / "model"
IMAGE_TYPES = {"image/png": "PNG", "image/jpeg": "JPEG", "image/webp": "WEBP"}


@pytest.fixture(scope="module")
def app() -> Application:
    return create_app(MODEL_DIR)


def call(
    app: Application,
    body: bytes = b"",
    content_type: str | None = "image/png",
    method: str = "POST",
    path: str = "/invocations",
    length: str | None = "right",
) -> tuple[int, dict[str, str], Any]:
    environ: dict[str, Any] = {"REQUEST_METHOD": method, "PATH_INFO": path, "wsgi.input": io.BytesIO(body)}
    if content_type is not None:
        environ["CONTENT_TYPE"] = content_type
    if length is not None:
        environ["CONTENT_LENGTH"] = str(len(body)) if length == "right" else length
    seen: list[Any] = []
    answer = b"".join(app(environ, lambda status, headers: seen.extend((status, headers))))
    headers = dict(seen[1])
    assert headers["Content-Type"] == "application/json"
    assert headers["Content-Length"] == str(len(answer))
    return int(seen[0].split()[0]), headers, json.loads(answer)


def picture(form: str = "PNG", size: tuple[int, int] = (48, 32)) -> bytes:
    return encoded(noise(*size), form)


def test_ping(app: Application) -> None:
    assert call(app, method="GET", path="/ping", content_type=None)[0] == 200


@pytest.mark.parametrize("content_type", [*IMAGE_TYPES, "application/x-image"])
def test_an_image_becomes_one_probability_per_label(app: Application, content_type: str) -> None:
    status, headers, answer = call(app, picture(IMAGE_TYPES.get(content_type, "JPEG")), content_type)
    assert status == 200
    assert len(answer) == 2
    assert all(0 <= p <= 1 for p in answer)
    assert sum(answer) <= 1
    attributes = headers["X-Amzn-SageMaker-Custom-Attributes"]
    assert re.fullmatch(r'labels=\["bicycle","motorcycle"\];model=[0-9a-f]{12}', attributes)
    assert attributes.isascii()
    assert len(attributes) < 1024


def test_parameters_and_case_of_the_content_type_do_not_matter(app: Application) -> None:
    assert call(app, picture(), "Image/PNG; charset=binary")[0] == 200


def test_a_body_without_declared_length_is_read(app: Application) -> None:
    assert call(app, picture(), length=None)[0] == 200


HOSTILE = {
    "empty": (b"", "image/png", 400, "empty"),
    "not an image": (b"hello " * 99, "image/png", 400, "Not a readable image"),
    "truncated": (picture()[:900], "image/png", 400, "truncated"),
    "another format": (picture("GIF"), "application/x-image", 400, "PNG, JPEG, WEBP"),
    "over 6 MB": (b"\x00" * (MAX_BYTES + 1), "image/png", 413, "6,291,456 bytes"),
    "25 MB": (b"\x00" * 25_000_000, "image/jpeg", 413, "6,291,456 bytes"),
    "wrong type": (picture(), "text/plain", 415, "image/png"),
    "no type": (picture(), None, 415, "missing"),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_bodies_get_a_reason_and_the_server_lives(app: Application, name: str) -> None:
    body, content_type, expected, reason = HOSTILE[name]
    status, headers, answer = call(app, body, content_type)
    assert status == expected
    assert reason in answer["error"]
    assert "X-Amzn-SageMaker-Custom-Attributes" not in headers
    assert call(app, picture())[0] == 200


def test_a_slow_sender_keeps_nobody_waiting(app: Application) -> None:
    asked, release = threading.Event(), threading.Event()

    class Slow(io.BytesIO):
        def read(self, size: int | None = -1, /) -> bytes:
            asked.set()
            assert release.wait(HANG_SECONDS)
            return super().read(size)

    environ = {
        "REQUEST_METHOD": "POST",
        "PATH_INFO": "/invocations",
        "CONTENT_TYPE": "image/png",
        "wsgi.input": Slow(picture()),
    }
    seen: list[str] = []
    sender = threading.Thread(target=lambda: app(environ, lambda status, _: seen.append(status)))
    sender.start()
    assert asked.wait(HANG_SECONDS)
    assert call(app, picture())[0] == 200
    assert call(app, method="GET", path="/ping", content_type=None)[0] == 200
    assert seen == []
    release.set()
    sender.join(HANG_SECONDS)
    assert seen == ["200 OK"]


def test_images_take_turns_and_a_ping_does_not_wait_for_them(monkeypatch: pytest.MonkeyPatch) -> None:
    app = create_app(MODEL_DIR)
    started, release = threading.Event(), threading.Event()
    at_work: list[int] = []
    most: list[int] = []

    def slow(content: bytes, size: int, formats: Any) -> Any:
        at_work.append(1)
        most.append(len(at_work))
        started.set()
        assert release.wait(HANG_SECONDS)
        at_work.pop()
        return np.zeros((size, size, 3), np.uint8)

    monkeypatch.setattr("serving.server.preprocess", slow)
    senders = [threading.Thread(target=call, args=(app, picture())) for _ in range(3)]
    for sender in senders:
        sender.start()
    assert started.wait(HANG_SECONDS)
    assert call(app, method="GET", path="/ping", content_type=None)[0] == 200
    release.set()
    for sender in senders:
        sender.join(HANG_SECONDS)
    assert most == [1, 1, 1]


def test_200_megapixels_are_refused(app: Application) -> None:
    status, _, answer = call(app, encoded(Image.new("1", (20_000, 10_000))))
    assert status == 413
    assert "ImageTooLarge" in answer["error"]


def test_a_body_that_ends_early_is_refused(app: Application) -> None:
    status, _, answer = call(app, picture()[:100], length="5000")
    assert status == 400
    assert "100 of 5,000 bytes" in answer["error"]


@pytest.mark.parametrize(
    ("method", "path", "expected"),
    [("GET", "/", 404), ("GET", "/invocations", 405), ("POST", "/ping", 405), ("POST", "/../etc", 404)],
)
def test_other_routes(app: Application, method: str, path: str, expected: int) -> None:
    assert call(app, method=method, path=path)[0] == expected


def test_what_nobody_foresaw_is_a_500_and_no_crash(app: Application, capsys: pytest.CaptureFixture[str]) -> None:
    class Broken(io.BytesIO):
        def read(self, size: int | None = -1, /) -> bytes:
            raise RuntimeError("connection lost: secret")

    environ = {
        "REQUEST_METHOD": "POST",
        "PATH_INFO": "/invocations",
        "CONTENT_TYPE": "image/png",
        "wsgi.input": Broken(),
    }
    seen: list[str] = []
    body = b"".join(app(environ, lambda status, _: seen.append(status)))
    assert seen[0].startswith("500")
    assert b"secret" not in body
    assert "secret" in capsys.readouterr().err


def test_the_answer_is_the_models(app: Application) -> None:
    import onnxruntime

    session = onnxruntime.InferenceSession(MODEL_DIR / "model.onnx")
    edge = int(session.get_modelmeta().custom_metadata_map["input_size"])
    pixels = np.random.default_rng(3).integers(0, 256, (edge, edge, 3), np.uint8)
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    (wanted,) = session.run(["probabilities"], {session.get_inputs()[0].name: pixels[None]})[0]
    assert call(app, file.getvalue())[2] == pytest.approx(wanted.tolist(), abs=2e-6)


def test_a_model_that_cannot_be_used_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "any name.onnx"
    with pytest.raises(CommandError, match="does not exist"):
        Model(path)
    path.write_bytes(b"no model")
    with pytest.raises(CommandError, match="not a usable ONNX model"):
        Model(path)
    # The same length, so that the file stays whole.
    for former, other, reason in (
        (b"input_size", b"input_edge", "no 'input_size' in its metadata"),
        (b'["bicycle", "motorcycle"]', b'["bicycle", "motorcycle"}', "not a usable ONNX model"),
        (b'["bicycle", "motorcycle"]', b'["bicycle","motor","car"]', "does not return one probability for each"),
    ):
        content = (MODEL_DIR / "model.onnx").read_bytes()
        assert former in content and len(former) == len(other)
        path.write_bytes(content.replace(former, other))
        with pytest.raises(CommandError, match=reason):
            Model(path)


@pytest.mark.parametrize(
    ("settings", "reason"),
    [
        ({"MODEL_DIR": "/nonexistent"}, "/nonexistent/model.onnx does not exist"),
        ({"MODEL_DIR": str(MODEL_DIR), "PORT": "http"}, "PORT is 'http'"),
        ({"MODEL_DIR": str(MODEL_DIR), "WEB_CONCURRENCY": "0"}, "WEB_CONCURRENCY is '0'"),
    ],
)
def test_serve_says_why_it_does_not_start(settings: dict[str, str], reason: str, tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "serving.serve", "serve"],
        env={"PATH": os.environ["PATH"], "PYTHONPATH": str(REPOSITORY), **settings},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=HANG_SECONDS,
        check=False,
    )
    assert done.returncode == 1
    assert done.stderr.startswith("serve: ")
    assert reason in done.stderr
    assert "Traceback" not in done.stderr


def test_the_image_holds_all_that_its_commands_import(tmp_path: Path) -> None:
    copied = re.findall(r"^COPY (\S+) /opt/program/(\S+)$", (REPOSITORY / "serving/Dockerfile").read_text(), re.M)
    for source, target in copied:
        path = tmp_path / target
        path.parent.mkdir(parents=True, exist_ok=True)
        if (REPOSITORY / source).is_dir():
            shutil.copytree(REPOSITORY / source, path, ignore=shutil.ignore_patterns("__pycache__", "model"))
        else:
            shutil.copy(REPOSITORY / source, path)
    # Most of the check is imported when it runs.
    names = ("serving.serve", "serving.server", "monitoring.__main__", "monitoring.check", "monitoring.report")
    # A report needs its templates, of two packages.
    code = f"""import {", ".join(names)}
from monitoring.baseline import Baseline
from monitoring.features import Features, Model
from monitoring.window import Window
beside = Baseline(Features(), Model(["bicycle"], 0.7), 0.001, 0.2, 0.95)
assert "No captures" in monitoring.report.render(Window(), beside, monitoring.check.check(Window(), beside))
print(serving.__file__)"""
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.stdout.startswith(str(tmp_path)), done.stderr
