"""One function from bytes to the network's input, whatever the bytes are."""

import io
import struct
import zlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from demo.drawing import encoded
from serving import server
from serving.preprocess import preprocess
from src.serialize.decoder import MAX_BYTES, ImageTooLarge, UnsupportedImage, decode

RED_TO_BLUE = np.zeros((40, 60, 3), np.uint8)
RED_TO_BLUE[:, :30, 0] = 255
RED_TO_BLUE[:, 30:, 2] = 255


def png_header(width: int, height: int) -> bytes:
    """A PNG that declares a size and holds hardly any pixels."""

    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(bytes(1000)))


@settings(max_examples=40, deadline=None)
@given(
    width=st.integers(1, 400),
    height=st.integers(1, 400),
    mode=st.sampled_from(["RGB", "L", "LA", "P", "RGBA", "1", "I;16"]),
    size=st.sampled_from([8, 32, 64]),
)
def test_any_size_and_mode_becomes_the_input(width: int, height: int, mode: str, size: int) -> None:
    pixels = preprocess(encoded(Image.new(mode, (width, height))), size)
    assert pixels.shape == (size, size, 3)
    assert pixels.dtype == np.uint8


@settings(max_examples=30, deadline=None)
@given(width=st.integers(1, 300), height=st.integers(1, 300), colour=st.tuples(*[st.integers(0, 255)] * 3))
def test_a_plain_colour_stays_that_colour(width: int, height: int, colour: tuple[int, int, int]) -> None:
    pixels = preprocess(encoded(Image.new("RGB", (width, height), colour)), 32)
    assert np.abs(pixels.astype(int) - np.array(colour)).max() <= 1


@settings(max_examples=60, deadline=None)
@given(data=st.binary(max_size=300), start=st.sampled_from([b"", b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff", b"RIFF"]))
def test_random_bytes_are_refused_by_name(data: bytes, start: bytes) -> None:
    with pytest.raises(UnsupportedImage):
        preprocess(start + data, 32)


def test_the_input_size_passes_through_unchanged() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (32, 32, 3), np.uint8)
    assert np.array_equal(preprocess(encoded(Image.fromarray(pixels)), 32), pixels)


def test_shrinking_averages_areas() -> None:
    board = np.indices((64, 64)).sum(axis=0) % 2 * 255
    pixels = preprocess(encoded(Image.fromarray(board.astype(np.uint8))), 32)
    assert set(pixels.flatten()) <= {127, 128}


@pytest.mark.parametrize("turned", [False, True])
def test_a_long_frame_is_half_cropped_and_half_squeezed(turned: bool) -> None:
    # 160 by 40: the geometric mean is 80, so the middle half of the longer edge is kept.
    stripes = np.zeros((40, 160, 3), np.uint8)
    stripes[:, :40, 0] = stripes[:, 120:, 2] = 255
    stripes[:, 40:80, 1] = 255
    pixels = preprocess(encoded(Image.fromarray(stripes.swapaxes(0, 1) if turned else stripes)), 32)
    pixels = pixels.swapaxes(0, 1) if turned else pixels
    assert (pixels[:, :16] == (0, 255, 0)).all()
    assert (pixels[:, 16:] == 0).all()


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("form", ["JPEG", "PNG", "WEBP"])
def test_exif_orientation_is_undone(orientation: int, form: str) -> None:
    from PIL import ImageOps

    image = Image.fromarray(np.random.default_rng(1).integers(0, 256, (8, 8, 3), np.uint8)).resize((96, 64))
    exif = Image.Exif()
    exif[0x0112] = orientation
    data = encoded(image, form, exif=exif)
    with Image.open(io.BytesIO(data)) as stored:
        upright = ImageOps.exif_transpose(stored)
    assert np.array_equal(np.array(decode(data, at_least=200).image), np.array(upright.convert("RGB")))


def test_damaged_exif_is_no_reason_to_refuse() -> None:
    data = encoded(Image.fromarray(RED_TO_BLUE), "JPEG", exif=b"Exif\x00\x00garbage that is no TIFF header")
    assert preprocess(data, 32)[16, 0, 0] > 200


def test_sixteen_bit_grey_keeps_its_upper_byte() -> None:
    grey = np.full((32, 32), 0x80FF, np.uint16)
    assert set(preprocess(encoded(Image.fromarray(grey)), 32).flatten()) == {0x80}


def test_transparency_is_laid_over_white() -> None:
    clear = Image.new("RGBA", (32, 32), (255, 0, 0, 0))
    palette = clear.convert("RGB").quantize(2)
    assert preprocess(encoded(clear), 32).min() == 255
    assert preprocess(encoded(palette, transparency=0), 32).min() == 255


def test_cmyk_becomes_rgb() -> None:
    pixels = preprocess(encoded(Image.new("RGB", (40, 40), (250, 10, 10)).convert("CMYK"), "JPEG"), 32)
    assert np.abs(pixels[16, 16].astype(int) - (250, 10, 10)).max() < 12


def test_the_first_frame_of_an_animation_counts() -> None:
    frames = [Image.new("RGB", (32, 32), colour) for colour in ("red", "blue")]
    data = encoded(frames[0], "WEBP", save_all=True, append_images=frames[1:], lossless=True)
    assert tuple(preprocess(data, 32)[0, 0]) == (255, 0, 0)


def test_a_200_megapixel_image_is_refused_before_it_is_decoded() -> None:
    for width, height in ((20_000, 10_000), (8_000, 7_000), (1_000_000, 1_000_000)):
        with pytest.raises(ImageTooLarge, match="pixels"):
            preprocess(png_header(width, height), 32)


def test_too_many_bytes_are_refused() -> None:
    with pytest.raises(ImageTooLarge, match="bytes"):
        preprocess(b"\x00" * (MAX_BYTES + 1), 32)


@pytest.mark.parametrize("form", ["PNG", "JPEG", "WEBP"])
def test_a_truncated_file_is_refused(form: str) -> None:
    noise = np.random.default_rng(2).integers(0, 256, (64, 64, 3), np.uint8)
    data = encoded(Image.fromarray(noise), form)
    with pytest.raises(UnsupportedImage, match=r"truncated|damaged|not a readable"):
        preprocess(data[: len(data) // 2], 32)


@pytest.mark.parametrize("form", ["GIF", "BMP", "TIFF", "PPM"])
def test_other_formats_are_refused(form: str) -> None:
    with pytest.raises(UnsupportedImage, match="PNG, JPEG, WEBP"):
        preprocess(encoded(Image.new("RGB", (32, 32)), form), 32, server.FORMATS)


def test_empty_bytes_are_refused() -> None:
    with pytest.raises(UnsupportedImage, match="empty"):
        preprocess(b"", 32)
