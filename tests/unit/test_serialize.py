"""Serialize: the S3 address in, a small clean picture out; every refusal by name."""

import base64
import io
import json
import random
import re
import shutil
import struct
import subprocess
import sys
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote, quote_plus

import boto3
import pytest
from botocore.exceptions import ClientError, ReadTimeoutError
from moto import mock_aws
from PIL import Image

from demo.drawing import encoded
from src.serialize import app, decoder

BUCKET = "images"
#: What a Standard workflow carries between two states, in bytes.
STATE_LIMIT = 256 * 1024


@pytest.fixture(autouse=True)
def bucket(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    monkeypatch.setenv("MAX_EDGE", "224")
    with mock_aws():
        client = boto3.client("s3")
        client.create_bucket(Bucket=BUCKET)
        monkeypatch.setattr(app, "s3", client)
        yield client


@pytest.fixture
def serialize(bucket: Any, context: Any) -> Callable[..., dict[str, Any]]:
    def run(data: bytes, key: str = "incoming/a.png") -> dict[str, Any]:
        bucket.put_object(Bucket=BUCKET, Key=key, Body=data)
        result: dict[str, Any] = app.lambda_handler({"s3_bucket": BUCKET, "s3_key": key}, context)
        return result

    return run


def pixel(image: Image.Image, x: int, y: int) -> tuple[int, int, int]:
    value = image.getpixel((x, y))
    assert isinstance(value, tuple)
    red, green, blue = value
    return red, green, blue


def decoded(event: dict[str, Any]) -> Image.Image:
    image = Image.open(io.BytesIO(base64.b64decode(event["image_data"], validate=True)))
    image.load()
    return image


def test_a_small_clean_png_passes_byte_for_byte(serialize: Any, png: Any) -> None:
    data = png(32, 32)
    event = serialize(data)
    assert base64.b64decode(event["image_data"]) == data
    assert event["content_type"] == "image/png"


def test_source_tells_what_the_object_was(serialize: Any, png: Any) -> None:
    data = png(40, 30)
    source = serialize(data)["source"]
    assert source["format"] == "PNG"
    assert (source["width"], source["height"], source["bytes"]) == (40, 30, len(data))
    assert len(source["etag"]) == 32 and '"' not in source["etag"]


@pytest.mark.parametrize(
    "metadata",
    [
        {"dpi": (72, 72)},
        {"exif": b"Exif\x00\x00MM\x00*\x00\x00\x00\x08\x00\x00\x00\x00\x00\x00"},
    ],
)
def test_metadata_does_not_pass(serialize: Any, png: Any, metadata: dict[str, Any]) -> None:
    event = serialize(png(32, 32, **metadata))
    assert decoded(event).info == {}


def test_bytes_after_a_png_do_not_pass(serialize: Any, png: Any) -> None:
    event = serialize(png(32, 32) + b"GPS 48.8584 N 2.2945 E")
    assert b"GPS" not in base64.b64decode(event["image_data"])


def test_position_data_of_a_jpeg_does_not_pass(serialize: Any) -> None:
    exif = Image.Exif()
    exif.get_ifd(0x8825)[1] = "N"
    exif[0x010F] = "Camera maker"
    event = serialize(encoded(Image.new("RGB", (500, 400), "red"), "JPEG", exif=exif))
    image = decoded(event)
    assert not image.getexif() and b"Camera" not in base64.b64decode(event["image_data"])


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_is_applied(serialize: Any, orientation: int) -> None:
    upright = Image.new("RGB", (400, 200), "white")
    upright.paste("red", (0, 0, 100, 200))  # red on the left, when seen as it is meant
    undo = {
        2: Image.Transpose.FLIP_LEFT_RIGHT,
        3: Image.Transpose.ROTATE_180,
        4: Image.Transpose.FLIP_TOP_BOTTOM,
        5: Image.Transpose.TRANSPOSE,
        6: Image.Transpose.ROTATE_90,
        7: Image.Transpose.TRANSVERSE,
        8: Image.Transpose.ROTATE_270,
    }
    stored = upright.transpose(undo[orientation]) if orientation > 1 else upright
    exif = Image.Exif()
    exif[0x0112] = orientation
    event = serialize(encoded(stored, "JPEG", exif=exif, quality=95))
    image = decoded(event).convert("RGB")
    assert (event["source"]["width"], event["source"]["height"]) == (400, 200)
    assert image.size == (224, 112)
    left, right = pixel(image, 10, 56), pixel(image, 200, 56)
    assert left[0] > 200 and left[1] < 60
    assert min(right) > 200


@pytest.mark.parametrize(
    ("mode", "file_format"),
    [
        ("L", "PNG"),
        ("1", "PNG"),
        ("P", "PNG"),
        ("LA", "PNG"),
        ("RGBA", "PNG"),
        ("RGBA", "WEBP"),
        ("CMYK", "JPEG"),
        ("L", "JPEG"),
        ("CMYK", "TIFF"),
        ("RGB", "BMP"),
        ("P", "GIF"),
        ("RGB", "WEBP"),
    ],
)
def test_every_mode_becomes_rgb(serialize: Any, mode: str, file_format: str) -> None:
    image = Image.new("RGB", (300, 200), (200, 60, 20)).convert(mode)
    event = serialize(encoded(image, file_format))
    result = decoded(event)
    assert result.mode == "RGB" and result.size == (224, 149)
    assert event["source"]["format"] == file_format
    if mode not in ("L", "1", "LA"):
        red, green, blue = pixel(result, 100, 70)
        assert red > 150 > 100 > green > blue - 30


def test_sixteen_bit_grey_keeps_its_brightness(serialize: Any) -> None:
    image = Image.new("I;16", (64, 64), 32768)
    assert serialize(encoded(image, "PNG"))["statistics"]["brightness"] == pytest.approx(0.5, abs=0.01)
    assert serialize(encoded(image, "TIFF"))["statistics"]["brightness"] == pytest.approx(0.5, abs=0.01)


def test_big_endian_sixteen_bit_grey_is_read(serialize: Any) -> None:
    pixels = struct.pack(">H", 32768) * 64
    tags = [
        (256, 3, 8),
        (257, 3, 8),
        (258, 3, 16),
        (259, 3, 1),
        (262, 3, 1),
        (273, 4, 122),
        (277, 3, 1),
        (278, 3, 8),
        (279, 4, 128),
    ]
    entries = b"".join(
        struct.pack(">HHI", tag, kind, 1) + (struct.pack(">HH", v, 0) if kind == 3 else struct.pack(">I", v))
        for tag, kind, v in tags
    )
    data = b"MM\x00*" + struct.pack(">IH", 8, len(tags)) + entries + struct.pack(">I", 0)
    event = serialize(data.ljust(122, b"\0") + pixels)
    assert event["statistics"]["brightness"] == pytest.approx(0.5, abs=0.01)


def test_damaged_metadata_are_no_reason_to_refuse_a_picture(serialize: Any, png: Any) -> None:
    for exif in (b"Exif\x00\x00garbage that is no TIFF header", b"\x00" * 20):
        assert decoded(serialize(png(40, 30, exif=exif))).size == (40, 30)
    odd = Image.Exif()
    odd[0x0112] = 99
    assert decoded(serialize(encoded(Image.new("RGB", (40, 30)), "JPEG", exif=odd))).size == (40, 30)


def test_transparency_becomes_white(serialize: Any) -> None:
    image = Image.new("RGBA", (64, 64), (0, 0, 0, 0))
    assert decoded(serialize(encoded(image, "PNG"))).getpixel((5, 5)) == (255, 255, 255)
    palette = Image.new("P", (64, 64), 0)
    palette.putpalette([0, 0, 0] * 256)
    data = encoded(palette, "PNG", transparency=0)
    assert decoded(serialize(data)).getpixel((5, 5)) == (255, 255, 255)


def test_of_an_animation_the_first_frame_counts(serialize: Any) -> None:
    frames = [Image.new("RGB", (50, 50), colour) for colour in ("red", "blue")]
    data = encoded(frames[0], "GIF", save_all=True, append_images=frames[1:])
    image = decoded(serialize(data))
    assert pixel(image, 20, 20)[0] > 200 and getattr(image, "n_frames", 1) == 1


def test_the_worst_picture_fits_the_state(serialize: Any) -> None:
    noise = Image.frombytes("RGB", (2000, 1500), random.Random(1).randbytes(2000 * 1500 * 3))
    event = serialize(encoded(noise, "JPEG", quality=95))
    assert len(json.dumps(event)) < STATE_LIMIT / 2
    assert max(decoded(event).size) == 224
    small_noise = noise.crop((0, 0, 224, 224))
    assert len(json.dumps(serialize(encoded(small_noise, "PNG")))) < STATE_LIMIT / 2


def test_the_largest_allowed_edge_fits_the_state(serialize: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MAX_EDGE", "384")  # the template's upper bound
    noise = Image.frombytes("RGB", (384, 384), random.Random(2).randbytes(384 * 384 * 3))
    assert len(json.dumps(serialize(encoded(noise, "PNG")))) < STATE_LIMIT


def test_statistics_of_flat_and_striped_pictures(serialize: Any) -> None:
    flat = serialize(encoded(Image.new("RGB", (64, 64), (51, 51, 51)), "PNG"))["statistics"]
    assert flat == {"brightness": 0.2, "contrast": 0.0, "sharpness": 0.0}
    stripes = Image.new("L", (64, 64))
    for x in range(0, 64, 2):
        stripes.paste(255, (x, 0, x + 1, 64))
    striped = serialize(encoded(stripes.convert("RGB"), "PNG"))["statistics"]
    assert striped["brightness"] == pytest.approx(0.5) and striped["contrast"] == pytest.approx(0.5)
    # Each pixel differs from both neighbours by 1, so its Laplacian is +2 or -2; clipping at 1 leaves variance 1.
    assert striped["sharpness"] == pytest.approx(1.0, abs=0.01)


def test_a_picture_of_one_pixel_is_a_picture(serialize: Any) -> None:
    event = serialize(encoded(Image.new("RGB", (1, 1), "white"), "PNG"))
    assert event["statistics"] == {"brightness": 1.0, "contrast": 0.0, "sharpness": 0.0}


@pytest.mark.parametrize(
    "event",
    [
        {},
        {"s3_bucket": BUCKET},
        {"s3_bucket": "", "s3_key": "a"},
        {"s3_bucket": BUCKET, "s3_key": None},
        {"s3_bucket": BUCKET, "s3_key": 7},
        {"s3_bucket": ["x"], "s3_key": "a"},
        [],
        "text",
        None,
    ],
)
def test_an_event_without_an_address_is_invalid(event: Any, context: Any) -> None:
    with pytest.raises(app.InvalidEvent, match=r"s3_|object"):
        app.lambda_handler(event, context)


def test_a_name_that_is_no_bucket_is_invalid(context: Any) -> None:
    with pytest.raises(app.InvalidEvent, match="not a valid S3 address"):
        app.lambda_handler({"s3_bucket": "no such/bucket?", "s3_key": "a"}, context)


@pytest.mark.parametrize("key", ["incoming/empty.png", "incoming/folder/"])
def test_an_empty_object_is_named_as_empty(serialize: Any, key: str) -> None:
    with pytest.raises(app.UnsupportedImage, match=f"s3://images/{key} is empty"):
        serialize(b"", key)


@pytest.mark.parametrize(
    ("event", "wrapper"),
    [
        ({"body": {"s3_bucket": BUCKET, "s3_key": "a"}}, "body"),
        ({"body": '{"s3_bucket": "images"}', "requestContext": {}, "isBase64Encoded": False}, "body"),
        ({"source": "aws.s3", "detail": {"bucket": {"name": BUCKET}, "object": {"key": "a"}}}, "detail"),
        ({"Records": [{"s3": {"bucket": {"name": BUCKET}, "object": {"key": "a"}}}]}, "Records"),
        ({"input": {"s3_bucket": BUCKET, "s3_key": "a"}}, "input"),
    ],
)
def test_a_wrapped_input_is_named_as_wrapped(event: Any, wrapper: str, context: Any) -> None:
    with pytest.raises(app.InvalidEvent, match=f'wrapped in "{wrapper}": send {{"s3_bucket"'):
        app.lambda_handler(event, context)


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("s3_key", "a\ud800.png", "half a surrogate pair"),
        ("s3_key", "é" * 513, "1026 bytes; the limit is 1024"),
        ("s3_bucket", "x" * 300, "300 bytes; the limit is 255"),
        ("s3_bucket", "arn:aws-cn:s3:cn-north-1:123456789012:accesspoint/images", "not a valid S3 address"),
        ("s3_bucket", "images\n", "not a valid S3 address"),
    ],
)
def test_an_address_that_cannot_be_asked_is_invalid_and_not_retried(
    name: str, value: str, said: str, context: Any
) -> None:
    with pytest.raises(app.InvalidEvent, match=said):
        app.lambda_handler({"s3_bucket": BUCKET, "s3_key": "a.png", name: value}, context)


@pytest.fixture
def upload(bucket: Any, context: Any, png: Any) -> Callable[..., dict[str, Any]]:
    """Return a sender of S3's own event: an object is put under one key, and announced under another."""

    def run(key: str, announced: str, **changes: Any) -> dict[str, Any]:
        etag = bucket.put_object(Bucket=BUCKET, Key=key, Body=png())["ETag"].strip('"')
        uploaded = {"key": announced, "size": 1, "etag": etag, "sequencer": "0", **changes}
        event = {"version": "0", "bucket": {"name": BUCKET}, "object": uploaded, "reason": "PutObject"}
        result: dict[str, Any] = app.lambda_handler({**event, "execution_id": "w"}, context)
        return result

    return run


KEYS = ["a.png", 'with "quotes" & <signs>.png', "a b+c%20d.png", "ünïcode ☃.png", "100%.png", "\\back\\slash"]


@pytest.mark.parametrize("key", KEYS)
def test_an_upload_is_found_whether_its_key_comes_encoded_or_not(upload: Any, key: str) -> None:
    for announced in (key, quote_plus(key, safe="/"), quote(key)):
        event = upload(key, announced)
        assert (event["s3_bucket"], event["s3_key"], event["execution_id"]) == (BUCKET, key, "w")
        assert "object" not in event and "bucket" not in event


def test_the_key_as_it_came_wins_over_its_decoded_form(upload: Any, bucket: Any, png: Any) -> None:
    bucket.put_object(Bucket=BUCKET, Key="a b.png", Body=png())
    assert upload("a+b.png", "a+b.png")["s3_key"] == "a+b.png"


@pytest.mark.parametrize("changes", [{"etag": "0" * 32}, {"etag": None}, {"etag": 'x" y'}])
def test_a_decoded_key_needs_the_etag_of_the_upload(upload: Any, changes: dict[str, Any]) -> None:
    with pytest.raises(app.ObjectNotFound, match=r"s3://images/a\+b.png"):
        upload("a b.png", "a+b.png", **changes)


def test_a_callers_key_is_never_decoded(serialize: Any, context: Any, png: Any) -> None:
    serialize(png(), "a b.png")
    with pytest.raises(app.ObjectNotFound):
        app.lambda_handler({"s3_bucket": BUCKET, "s3_key": "a+b.png"}, context)


def test_the_image_id_tells_a_repeated_event_from_another_image(serialize: Any, upload: Any, png: Any) -> None:
    first = serialize(png(), "a.png")["image_id"]
    assert re.fullmatch("[0-9a-f]{32}", first)
    assert upload("a.png", "a.png")["image_id"] == serialize(png(), "a.png")["image_id"] == first
    others = {serialize(png(), "b.png")["image_id"], serialize(png(20, 20), "a.png")["image_id"]}
    assert len({*others, first}) == 3


def test_each_version_of_an_object_has_its_own_image_id(bucket: Any, serialize: Any, png: Any) -> None:
    before = serialize(png())["image_id"]
    bucket.put_bucket_versioning(Bucket=BUCKET, VersioningConfiguration={"Status": "Enabled"})
    versions = {serialize(png())["image_id"], serialize(png())["image_id"]}
    assert len(versions | {before}) == 3
    # While versioning is suspended all objects share the version "null".
    assert app.image_id("b", "k", {"etag": "1", "version_id": "null"}) == app.image_id("b", "k", {"etag": "1"})


@pytest.mark.parametrize("text", ["", "224.5", "0", "385", "-1", "1e2", "²"])
def test_a_setting_that_makes_no_sense_is_named(
    serialize: Any, png: Any, monkeypatch: pytest.MonkeyPatch, text: str
) -> None:
    monkeypatch.setenv("MAX_EDGE", text)
    with pytest.raises(app.InvalidConfiguration, match="MAX_EDGE must be a whole number"):
        serialize(png())


def test_a_missing_object_is_not_found(context: Any) -> None:
    with pytest.raises(app.ObjectNotFound, match="s3://images/none"):
        app.lambda_handler({"s3_bucket": BUCKET, "s3_key": "none"}, context)
    with pytest.raises(app.ObjectNotFound, match="NoSuchBucket"):
        app.lambda_handler({"s3_bucket": "another-bucket", "s3_key": "none"}, context)


@pytest.mark.parametrize(
    "data",
    [
        b"GIF89a",
        b"just text",
        b"%PDF-1.7 and so on",
        b"\x89PNG\r\n\x1a\n" + b"\x00" * 40,
        b"\xff\xd8\xff\xe0" + b"\x00" * 100,
        b"<svg xmlns='http://www.w3.org/2000/svg'/>",
    ],
)
def test_what_is_no_image_is_unsupported(serialize: Any, data: bytes) -> None:
    with pytest.raises(app.UnsupportedImage, match="known formats are JPEG"):
        serialize(data)


@pytest.mark.parametrize("file_format", ["PNG", "JPEG", "WEBP", "GIF", "TIFF", "BMP"])
def test_a_truncated_image_is_unsupported(serialize: Any, file_format: str) -> None:
    image = Image.effect_mandelbrot((200, 150), (-2, -1, 1, 1), 50).convert("RGB")
    data = encoded(image, file_format)
    with pytest.raises(app.UnsupportedImage):
        serialize(data[: len(data) // 2])


def test_floating_point_pixels_are_unsupported(serialize: Any) -> None:
    with pytest.raises(app.UnsupportedImage, match="no known range"):
        serialize(encoded(Image.new("F", (8, 8), 0.5), "TIFF"))


def test_a_decompression_bomb_is_refused_before_decoding(serialize: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    header = struct.pack(">IIBBBBB", 20_000, 20_000, 8, 2, 0, 0, 0)
    chunk = b"IHDR" + header
    bomb = b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 13) + chunk + struct.pack(">I", zlib.crc32(chunk))
    idat = b"IDAT" + zlib.compress(b"\x00" * 1000)
    bomb += struct.pack(">I", len(idat) - 4) + idat + struct.pack(">I", zlib.crc32(idat))

    def fail(*_: Any, **__: Any) -> None:
        raise AssertionError("decoded")

    monkeypatch.setattr(Image.Image, "load", fail)
    with pytest.raises(app.ImageTooLarge, match=r"20000x20000|pixels"):
        serialize(bomb)
    smaller = bomb.replace(struct.pack(">II", 20_000, 20_000), struct.pack(">II", 8_000, 8_000))
    fixed = smaller[:29] + struct.pack(">I", zlib.crc32(smaller[12:29])) + smaller[33:]
    with pytest.raises(app.ImageTooLarge, match="8000x8000 pixels; the limit is 50000000"):
        serialize(fixed)


def test_a_large_object_is_refused_before_download(serialize: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(decoder, "MAX_BYTES", 1000)
    with pytest.raises(app.ImageTooLarge, match="1001 bytes; the limit is 1000"):
        serialize(b"x" * 1001)


@pytest.mark.parametrize(
    ("code", "status", "expected"),
    [
        ("AccessDenied", 403, "ObjectNotReadable"),
        ("InvalidObjectState", 403, "ObjectNotReadable"),
        ("SlowDown", 503, "StorageUnavailable"),
        ("InternalError", 500, "StorageUnavailable"),
        ("ThrottlingException", 400, "StorageUnavailable"),
        ("404", 404, "ObjectNotFound"),
    ],
)
def test_s3_errors_get_names(
    monkeypatch: pytest.MonkeyPatch, context: Any, code: str, status: int, expected: str
) -> None:
    class Failing:
        def get_object(self, **_: Any) -> None:
            response: Any = {"Error": {"Code": code, "Message": ""}, "ResponseMetadata": {"HTTPStatusCode": status}}
            raise ClientError(response, "GetObject")

    monkeypatch.setattr(app, "s3", Failing())
    with pytest.raises(app.SerializeError, match=f"s3://b/k.*{code}") as caught:
        app.lambda_handler({"s3_bucket": "b", "s3_key": "k"}, context)
    assert type(caught.value).__name__ == expected


def test_a_connection_that_breaks_can_be_retried(monkeypatch: pytest.MonkeyPatch, context: Any) -> None:
    class Failing:
        def get_object(self, **_: Any) -> None:
            raise ReadTimeoutError(endpoint_url="https://s3")

    monkeypatch.setattr(app, "s3", Failing())
    with pytest.raises(app.StorageUnavailable):
        app.lambda_handler({"s3_bucket": "b", "s3_key": "k"}, context)


def test_the_folder_of_the_function_is_whole(tmp_path: Path) -> None:
    """In Lambda there is only this folder, and error names are what workflows know."""
    shutil.copytree(Path(app.__file__).parent, tmp_path, dirs_exist_ok=True)
    code = "import app; print(app.__file__); app.decoder.decode(b'GIF89a')"
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.stdout.strip() == str(tmp_path / "app.py")
    assert done.stderr.splitlines()[-1].startswith("decoder.UnsupportedImage: The GIF is damaged or")


def test_a_refusal_is_one_log_line_with_the_key_and_no_pixels(
    bucket: Any, context: Any, capsys: pytest.CaptureFixture[str], logged: Any
) -> None:
    lines = logged(app)
    bucket.put_object(Bucket=BUCKET, Key="a.png", Body=b"no image")
    event = {
        "s3_bucket": BUCKET,
        "s3_key": "a.png",
        "execution_id": "arn:aws:states:::execution:w:1",
        "image_data": "Zm9v",
    }
    with pytest.raises(app.UnsupportedImage):
        app.lambda_handler(event, context)
    (line,) = lines()
    assert line["error"] == "UnsupportedImage" and line["level"] == "ERROR"
    assert line["s3_key"] == "a.png" and line["execution_id"].endswith(":w:1")
    assert "Zm9v" not in str(line) + capsys.readouterr().out


def test_real_photographs_of_every_kind_pass(image_data: Any, serialize: Any) -> None:
    for path in sorted((image_data / "photos").glob("*/*"))[::6]:
        event = serialize(path.read_bytes())
        assert max(decoded(event).size) <= 224
        assert len(json.dumps(event)) < STATE_LIMIT / 2
