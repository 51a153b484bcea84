"""The decoder against pictures that are computed here, damage that must be seen, and damage that must not matter."""

import base64
import re
import struct
import zlib
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from demo.drawing import encoded
from serving.preprocess import preprocess
from src.serialize import encoder
from src.serialize.decoder import FORMATS, ImageError, ImageTooLarge, UnsupportedImage, decode

Pixels = npt.NDArray[np.uint8]
RANDOM = np.random.default_rng(0)
#: A picture without any symmetry, large enough for a JPEG to keep its corners apart.
CORNERS = np.full((48, 80, 3), 255, np.uint8)
CORNERS[:24, :40], CORNERS[:24, 40:], CORNERS[24:, :40] = (200, 0, 0), (0, 160, 0), (0, 0, 180)

#: One flipped bit breaks the pixels off after a half; all its chunks' checksums are right.
BROKEN_PNG = base64.b64decode(
    "iVBORw0KGgoAAAANSUhEUgAAAAgAAAAICAIAAABLbSncAAAAhElEQVR4AQBkAJv/AP///////////////////////////////wD///////"
    "////////////////////////8A////////////////////////////////AP///////////////////////////////wAAAP//////////"
    "//////////////////8Cgw7BAAAAAElFTkSuQmCC"
)
#: Red, then blue, if turned once.
TURNED_TIFF = base64.b64decode(
    "SUkqAAgAAAALAAABBAABAAAAAgAAAAEBBAABAAAAAQAAAAIBAwADAAAAkgAAAAMBAwABAAAAAQAAAAYBAwABAAAAAgAAABEBBAABAAAAmAAA"
    "ABIBAwABAAAAAwAAABUBAwABAAAAAwAAABYBBAABAAAAAQAAABcBBAABAAAABgAAABwBAwABAAAAAQAAAAAAAAAIAAgACAAAAP//AAA="
)


def decoded(data: bytes) -> Pixels:
    picture = decode(data)
    pixels = np.asarray(picture.image)
    assert picture.image.mode == "RGB" and pixels.shape == (*picture.size[::-1], 3) and not picture.image.info
    return pixels


def saved(pixels: npt.NDArray[Any] | Image.Image, form: str, **options: Any) -> bytes:
    return encoded(pixels if isinstance(pixels, Image.Image) else Image.fromarray(pixels), form, **options)


def over_white(pixels: npt.NDArray[Any], alpha: npt.NDArray[Any]) -> npt.NDArray[Any]:
    return pixels * (alpha / 255)[..., None] + 255 * (1 - alpha / 255)[..., None]


def near(pixels: Pixels, expected: npt.NDArray[Any], tolerance: float = 1) -> bool:
    return pixels.shape == expected.shape and bool(np.abs(pixels - expected.astype(float)).max() <= tolerance)


def upright(stored: npt.NDArray[Any], orientation: int) -> npt.NDArray[Any]:
    """Return what is seen of stored pixels: where EXIF 2.32 says that row 0 and column 0 are."""
    sides = stored.swapaxes(0, 1) if orientation >= 5 else stored
    down = orientation in (3, 4, 7, 8)
    right = orientation in (2, 3, 6, 7)
    return sides[:: -1 if down else 1, :: -1 if right else 1]


# ---- files that are written here, so that what they hold is known


def chunk(name: bytes, content: bytes, checksum: int | None = None) -> bytes:
    checksum = zlib.crc32(name + content) if checksum is None else checksum
    return struct.pack(">I", len(content)) + name + content + struct.pack(">I", checksum)


def packed(samples: npt.NDArray[Any], bits: int, order: str = ">") -> list[bytes]:
    """Return the rows of samples (height, width, channels), each filled up to whole bytes."""
    rows = samples.reshape(len(samples), -1)
    if bits == 16:
        return [row.astype(f"{order}u2").tobytes() for row in rows]
    single = (rows[..., None] >> np.arange(bits - 1, -1, -1)) & 1
    return [np.packbits(row).tobytes() for row in single.reshape(len(rows), -1)]


def png(samples: npt.NDArray[Any], colours: int, bits: int, before: bytes = b"", after: bytes = b"") -> bytes:
    height, width = samples.shape[:2]
    header = struct.pack(">IIBBBBB", width, height, bits, colours, 0, 0, 0)
    pixels = zlib.compress(b"".join(b"\0" + row for row in packed(samples, bits)))
    return b"".join(
        [b"\x89PNG\r\n\x1a\n", chunk(b"IHDR", header), before, chunk(b"IDAT", pixels), after, chunk(b"IEND", b"")]
    )


def tiff(
    samples: npt.NDArray[Any], photometric: int, bits: int, order: str = "<", big: bool = False, **tags: Any
) -> bytes:
    """Return a TIFF of two strips, or of other ones; further tags are named like t274, with their values."""
    height, width, channels = samples.shape
    rows = packed(samples, bits, order)
    half = (height + 1) // 2
    strips = [b"".join(rows[:half]), b"".join(rows[half:])]
    start = 16 if big else 8
    values: dict[int, Any] = {256: width, 257: height, 258: (bits,) * channels, 259: 1, 262: photometric}
    values |= {273: (start, start + len(strips[0])), 277: channels, 278: half, 279: tuple(map(len, strips))}
    body, entries = tags.pop("strips", b"".join(strips)), []
    values |= {int(name[1:]): value for name, value in tags.items()}
    count, field = ("Q", 8) if big else ("I", 4)
    for tag, value in sorted(values.items()):
        if isinstance(value, bytes):
            kind, number, content = 7, len(value), value
        else:
            numbers = value if isinstance(value, tuple) else (value,)
            kind = 3 if max(numbers) < 2**16 and tag not in (273, 279) else 4
            number, content = len(numbers), struct.pack(f"{order}{len(numbers)}{'H' if kind == 3 else 'I'}", *numbers)
        if len(content) > field:
            content, body = struct.pack(f"{order}{count}", start + len(body)), body + content
        entries.append(struct.pack(f"{order}HH{count}", tag, kind, number) + content.ljust(field, b"\0"))
    magic = {"<": b"II", ">": b"MM"}[order] + (
        struct.pack(f"{order}HHH", 43, 8, 0) if big else struct.pack(f"{order}H", 42)
    )
    directory = struct.pack(f"{order}{'Q' if big else 'H'}", len(entries)) + b"".join(entries) + bytes(field)
    return magic + struct.pack(f"{order}{count}", start + len(body)) + body + directory


def exif(orientation: int) -> bytes:
    return b"MM\0*\0\0\0\x08\0\x01" + struct.pack(">HHIHH", 0x0112, 3, 1, orientation, 0) + bytes(4)


def every_format() -> dict[str, bytes]:
    noise = RANDOM.integers(0, 256, (24, 40, 3), np.uint8)
    grey = noise[..., 0]
    return {
        "PNG": saved(noise, "PNG"),
        "JPEG": saved(noise, "JPEG"),
        "JPEG, progressive": saved(noise, "JPEG", progressive=True),
        "WebP": saved(noise, "WEBP", lossless=True),
        "WebP, lossy": saved(noise, "WEBP"),
        "WebP with EXIF": saved(noise, "WEBP", lossless=True, exif=exif(1)),
        "GIF": saved(Image.fromarray(noise).quantize(64), "GIF"),
        "BMP": saved(noise, "BMP"),
        "TIFF": saved(noise, "TIFF"),
        "TIFF, LZW": saved(noise, "TIFF", compression="tiff_lzw"),
        "TIFF, deflate": saved(noise, "TIFF", compression="tiff_adobe_deflate"),
        "TIFF, 16 bits": tiff(grey[..., None].astype(int) * 257, 1, 16, ">"),
    }


# ---- damage


@pytest.mark.parametrize(
    "reader",
    [
        decode,
        lambda data: decode(data, max_edge=224),
        lambda data: decode(data, at_least=64),
        lambda data: preprocess(data, 32),
    ],
)
def test_a_broken_png_is_refused(reader: Callable[[bytes], Any]) -> None:
    with pytest.raises(UnsupportedImage, match="PNG is damaged or uses unsupported features"):
        reader(BROKEN_PNG)


def flipped(data: bytes, start: int, end: int) -> Iterator[tuple[int, bytes]]:
    """Return copies of data, in each of which one bit of another byte is flipped."""
    for i in range(start, end):
        yield i, data[:i] + bytes([data[i] ^ 1 << i % 8]) + data[i + 1 :]


def shows_another_picture(data: bytes, whole: Pixels) -> bool:
    try:
        return not np.array_equal(decoded(data), whole)
    except ImageError:
        return False


SMOOTH = Image.effect_mandelbrot((41, 37), (-2, -1, 1, 1), 50).convert("RGB")


@pytest.mark.parametrize(
    "picture", [SMOOTH, SMOOTH.quantize(16), Image.fromarray(RANDOM.integers(0, 256, (9, 9), np.uint8))]
)
def test_every_flipped_bit_of_a_png_is_found(picture: Image.Image) -> None:
    data = saved(picture, "PNG")
    whole, start, end = decoded(data), data.index(b"IDAT") + 4, data.index(b"IEND") - 8
    assert [i for i, broken in flipped(data, 8, end + 4) if shows_another_picture(broken, whole)] == []
    # Also if it happened before the file was written: the pixels have a checksum of their own.
    rewritten = (
        (i, broken[: start - 8] + chunk(b"IDAT", broken[start:end]) + broken[end + 4 :])
        for i, broken in flipped(data, start, end)
    )
    assert [i for i, broken in rewritten if shows_another_picture(broken, whole)] == []


def test_every_flipped_bit_of_deflated_tiff_pixels_is_found() -> None:
    pixels = np.asarray(SMOOTH)
    content = zlib.compress(pixels.tobytes())
    data = tiff(pixels, 2, 8, t259=8, t278=len(pixels), t273=8, t279=len(content), strips=content)
    assert np.array_equal(decoded(data), pixels)
    assert [i for i, broken in flipped(data, 8, 8 + len(content)) if shows_another_picture(broken, pixels)] == []


@pytest.mark.parametrize("name", every_format())
def test_a_cut_file_is_refused_or_whole(name: str) -> None:
    """Of a cut file all pixels are there, or none are shown."""
    data = every_format()[name]
    whole = decoded(data)
    for length in range(len(data)):
        try:
            pixels = decoded(data[:length])
        except UnsupportedImage:
            continue
        assert np.array_equal(pixels, whole), f"cut to {length} of {len(data)} bytes"


@pytest.mark.parametrize("name", every_format())
def test_bytes_behind_the_picture_do_not_matter(name: str) -> None:
    data = every_format()[name]
    assert np.array_equal(decoded(data + b"\xff\xd8\xff\xe0IDAT" * 9), decoded(data))


def test_damage_behind_the_last_pixel_of_a_png_does_not_matter() -> None:
    data = png(CORNERS, 2, 8)
    for end in (b"", b"IEN", chunk(b"IEND", b"", 0), b"\0\0\xff\xfftEXtcut off", chunk(b"tEXt", b"k\0v", 0)):
        broken = data[:-12] + end
        assert np.array_equal(decoded(broken), decoded(data))
        # Such a file is decoded, and never passed on as it is.
        assert encoder.encode(decode(broken).image, broken)[0] != broken


# ---- metadata


PNG_METADATA = {
    "2 MiB of compressed text": chunk(b"zTXt", b"workflow\0\0" + zlib.compress(bytes(2**21))),
    "2 MiB of international text": chunk(b"iTXt", b"prompt\0\x01\0\0\0" + zlib.compress(bytes(2**21))),
    "80 MiB of compressed text": chunk(b"zTXt", b"k\0\0" + zlib.compress(bytes(2**20))) * 80,
    "2 MiB of profile": chunk(b"iCCP", b"p\0\0" + zlib.compress(bytes(2**21))),
    "a profile in an unknown compression": chunk(b"iCCP", b"p\0\x07abc"),
    "no profile at all": chunk(b"iCCP", b""),
    "text with a wrong checksum": chunk(b"tEXt", b"k\0v", 1),
    "orientation with a wrong checksum": chunk(b"eXIf", exif(6), 1),
    "EXIF that is none": chunk(b"eXIf", b"garbage"),
    "short pHYs": chunk(b"pHYs", b"\0\0"),
    "short gAMA": chunk(b"gAMA", b"\0"),
    "short cHRM": chunk(b"cHRM", b"\0" * 7),
    "short sRGB": chunk(b"sRGB", b""),
    "short tRNS": chunk(b"tRNS", b"\0"),
    "long tRNS": chunk(b"tRNS", b"\0" * 40),
    "tRNS with a wrong checksum": chunk(b"tRNS", bytes(6), 1),
    "short acTL": chunk(b"acTL", b"\0"),
    "animation that begins wrongly": chunk(b"acTL", struct.pack(">II", 2, 0)) + chunk(b"fcTL", bytes(26)),
    "a private chunk": chunk(b"prVt", b"anything"),
}


@pytest.mark.parametrize("name", PNG_METADATA)
def test_ancillary_chunks_are_no_reason_to_refuse_a_png(name: str) -> None:
    samples = RANDOM.integers(1, 256, (9, 7, 3), np.uint8)
    data = png(samples, 2, 8, before=PNG_METADATA[name])
    assert np.array_equal(decoded(data), samples)
    assert len(base64.b64decode(base64.b64encode(encoder.encode(decode(data).image, data)[0]))) < 1000


def test_chunks_that_a_decoder_must_know_are() -> None:
    with pytest.raises(UnsupportedImage, match="CgBI"):
        decoded(png(CORNERS, 2, 8, before=chunk(b"CgBI", bytes(4))))


def segment(marker: int, content: bytes) -> bytes:
    return struct.pack(">BBH", 0xFF, marker, len(content) + 2) + content


JPEG_METADATA = {
    "EXIF that is none": segment(0xE1, b"Exif\0\0garbage"),
    "EXIF that is cut off": segment(0xE1, b"Exif\0\0" + exif(1)[:15]),
    "no directory where EXIF says": segment(0xE1, b"Exif\0\0II*\0\xff\xff\xff\x7f"),
    "a directory far away": segment(0xE1, b"Exif\0\0II+\0\x08\0\0\0" + b"\xff" * 8),
    "an orientation that is none": segment(0xE1, b"Exif\0\0" + exif(99)),
    "JFIF without content": segment(0xE0, b"JFIF\0"),
    "Adobe's without content": segment(0xEE, b"Adobe"),
    "a profile that is cut off": segment(0xE2, b"ICC_PROFILE\0"),
    "several pictures, says garbage": segment(0xE2, b"MPF\0" + bytes(30)),
    "several pictures, where there is one": segment(
        0xE2, b"MPF\0MM\0*\0\0\0\x08\0\x01\xb0\x01\0\x04\0\0\0\x01\0\0\0\x02"
    ),
    "Photoshop's that is cut off": segment(0xED, b"Photoshop 3.0\0" + b"8BIM\x03\xed\0\0\0\0\0\x01\0"),
    "a comment": segment(0xFE, b"\xff\xff\xff\xd8\xff\xda"),
    "XMP that is none": segment(0xE1, b"http://ns.adobe.com/xap/1.0/\0\xff\xfe"),
}


@pytest.mark.parametrize("name", JPEG_METADATA)
def test_application_data_are_no_reason_to_refuse_a_jpeg(name: str) -> None:
    data = saved(CORNERS, "JPEG")
    assert np.array_equal(decoded(data[:2] + JPEG_METADATA[name] + data[2:]), decoded(data))


@pytest.mark.parametrize("name", ["EXIF", "XMP ", "ICCP"])
def test_broken_metadata_are_no_reason_to_refuse_a_webp(name: str) -> None:
    data = saved(CORNERS, "WEBP", lossless=True, exif=exif(1), xmp=b"<x/>", icc_profile=b"profile")
    start = data.index(name.encode()) + 8
    broken = data[:start] + b"\xff\x00" + data[start + 2 :]
    assert np.array_equal(decoded(broken), CORNERS)
    if name == "XMP ":  # the last one: nothing but its end is missing
        assert np.array_equal(decoded(broken[:-3]), CORNERS)


@pytest.mark.parametrize(
    "tags",
    [
        {"t700": b"\xff<x:xmpmeta tiff:Orientation='6"},
        {"t700": 7},
        {"t34665": 2**31},
        {"t34853": 4},
        {"t34675": b"no profile"},
        {"t270": b"\xff" * 9},
        {"t306": 2**31 - 1},
        {"t274": 99},
    ],
)
def test_broken_tags_are_no_reason_to_refuse_a_tiff(tags: dict[str, Any]) -> None:
    assert np.array_equal(decoded(tiff(CORNERS, 2, 8, **tags)), CORNERS)


def test_comments_are_no_reason_to_refuse_a_gif() -> None:
    data = saved(Image.fromarray(CORNERS).quantize(4), "GIF", comment=b"\xff" * 300)
    assert np.array_equal(decoded(data), CORNERS)


# ---- upright


def test_a_turned_tiff_is_turned_once() -> None:
    assert decoded(TURNED_TIFF).tolist() == [[[255, 0, 0], [0, 0, 255]]]


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("form", ["JPEG", "PNG", "WEBP", "TIFF"])
def test_exif_orientation_is_applied_once(form: str, orientation: int) -> None:
    all_options: dict[str, dict[str, Any]] = {"JPEG": {"quality": 95, "subsampling": 0}, "WEBP": {"lossless": True}}
    tag = Image.Exif()
    tag[0x0112] = orientation
    data = saved(CORNERS, form, exif=tag, **all_options.get(form, {}))
    assert near(decoded(data), upright(CORNERS, orientation), 60 if form == "JPEG" else 0)
    # At a reduced size as well, of which the upright size is reported.
    image, _, size = decode(data, max_edge=16)
    assert size == (upright(CORNERS, orientation).shape[1::-1]) and max(image.size) == 16
    assert near(np.asarray(image)[[0, 0, -1], [0, -1, 0]], upright(CORNERS, orientation)[[0, 0, -1], [0, -1, 0]], 60)


TIFF_MODES: dict[str, tuple[int, int, int, dict[str, Any]]] = {
    "black on white": (0, 1, 1, {}),
    "white on black": (1, 1, 1, {}),
    "grey of 4 bits": (1, 4, 1, {}),
    "inverted grey of 4 bits": (0, 4, 1, {}),
    "grey": (1, 8, 1, {}),
    "inverted grey": (0, 8, 1, {}),
    "grey with alpha": (1, 8, 2, {"t338": 2}),
    "grey with premultiplied alpha": (1, 8, 2, {"t338": 1}),
    "grey of 12 bits": (1, 12, 1, {}),
    "grey of 16 bits": (1, 16, 1, {}),
    "palette": (3, 8, 1, {"t320": tuple(range(0, 65536, 256)) * 3}),
    "RGB": (2, 8, 3, {}),
    "RGB of 16 bits": (2, 16, 3, {}),
    "RGB with alpha": (2, 8, 4, {"t338": 2}),
    "RGB with premultiplied alpha": (2, 8, 4, {"t338": 1}),
    "RGB with something else": (2, 8, 4, {"t338": 0}),
    "RGB of 16 bits with alpha": (2, 16, 4, {"t338": 2}),
    "CMYK": (5, 8, 4, {}),
    "CMYK of 16 bits": (5, 16, 4, {}),
}


def seen_in_tiff(samples: npt.NDArray[Any], name: str) -> npt.NDArray[Any]:
    """Compute the colours of samples, as TIFF 6.0 defines them."""
    photometric, bits, channels, tags = TIFF_MODES[name]
    values = samples / (2**bits - 1) * 255 if bits < 8 else samples >> (bits - 8)
    if photometric == 5:
        return (255 - values[..., :3].astype(float)) * (255 - values[..., 3:]) / 255
    colours = np.repeat(values[..., :1], 3, axis=2) if channels < 3 else values[..., :3]
    colours = 255 - colours if photometric == 0 else colours
    if tags.get("t338") == 1:
        return np.minimum(colours.astype(float) + 255 - values[..., -1:], 255)
    return over_white(colours, values[..., -1]) if tags.get("t338") == 2 else colours


@pytest.mark.parametrize("name", TIFF_MODES)
def test_tiffs_of_every_mode_are_upright_over_white(name: str) -> None:
    photometric, bits, channels, tags = TIFF_MODES[name]
    samples = RANDOM.integers(0, 2**bits, (6, 10, channels))
    if tags.get("t338") == 1:
        samples[..., :-1] = samples[..., :-1] * samples[..., -1:] // 255
    expected = seen_in_tiff(samples, name)
    # Pillow reads neither 12 bits nor BigTIFF in big-endian order.
    for order, big in [("<", False), ("<", True)] + [(">", False)] * (bits != 12):
        for orientation in range(1, 9):
            data = tiff(samples, photometric, bits, order, big, t274=orientation, **tags)
            assert near(decoded(data), upright(expected, orientation), 2), (order, big, orientation)


def test_inverted_grey_of_16_bits() -> None:
    samples = RANDOM.integers(0, 2**16, (6, 10, 1))
    assert near(decoded(tiff(samples, 0, 16)), np.repeat(255 - (samples >> 8), 3, axis=2))


@pytest.mark.parametrize(
    ("bits", "kind", "dtype"), [(16, 2, "<i2"), (32, 1, "<u4"), (32, 2, "<i4"), (32, 3, "<f4"), (8, 2, "i1")]
)
def test_pixels_without_a_known_range_are_refused(bits: int, kind: int, dtype: str) -> None:
    data = tiff(np.zeros((4, 4, 1), np.uint8), 1, 8, t258=bits, t339=kind, t279=(4 * 2 * bits // 8,) * 2)
    with pytest.raises(UnsupportedImage, match="no known range"):
        decoded(data + bytes(200))


# ---- transparency


@settings(max_examples=300, deadline=None)
@given(st.data())
def test_pngs_of_every_kind_are_laid_over_white(data: st.DataObject) -> None:
    colours, bits = data.draw(
        st.sampled_from([(0, 1), (0, 2), (0, 4), (0, 8), (0, 16), (2, 8), (2, 16), (3, 1), (3, 2), (3, 4), (3, 8)])
        | st.sampled_from([(4, 8), (4, 16), (6, 8), (6, 16)])
    )
    random = np.random.default_rng(data.draw(st.integers(0, 2**32)))
    channels = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}[colours]
    # Few values, so that many pixels have the key's, or miss it by the lower byte only.
    samples = random.choice(random.integers(0, 2**bits, 3), (random.integers(1, 9), random.integers(1, 9), channels))
    if bits == 16:
        samples ^= random.integers(0, 2, samples.shape)
    eight = samples * 255 // (2**bits - 1) if bits < 8 else samples >> (bits - 8)
    before, alpha = b"", np.full(samples.shape[:2], 255)
    if colours == 3:
        palette = random.integers(0, 256, (2**bits, 3))
        opacity = random.choice([0, 100, 255], random.integers(1, 2**bits + 1))
        before = chunk(b"PLTE", palette.astype(np.uint8).tobytes())
        seen = palette[samples[..., 0]]
        if data.draw(st.booleans()):
            before += chunk(b"tRNS", opacity.astype(np.uint8).tobytes())
            alpha = np.concatenate([opacity, np.full(2**bits - len(opacity), 255)])[samples[..., 0]]
    else:
        seen = np.repeat(eight[..., :1], 3, axis=2) if channels < 3 else eight[..., :3]
        if channels in (2, 4):
            alpha = eight[..., -1]
        elif data.draw(st.booleans()):
            key = samples[0, 0]
            # Only the lower bits count (PNG, 11.3.1.1).
            before = chunk(b"tRNS", b"".join(struct.pack(">H", value | (0x100 if bits < 16 else 0)) for value in key))
            alpha = np.where((samples == key).all(axis=2), 0, 255)
    assert near(decoded(png(samples, colours, bits, before)), over_white(seen, alpha))


def test_a_grey_that_is_all_transparent_is_white() -> None:
    for value in (0, 255, 256, 40_000, 65_535):
        data = png(np.full((5, 5, 1), value), 0, 16, chunk(b"tRNS", struct.pack(">H", value)))
        assert decoded(data).min() == 255


@pytest.mark.parametrize("colours", [0, 2, 3])
def test_hidden_colours_do_not_bleed_into_their_neighbours(colours: int) -> None:
    """Every second pixel is transparent black, the others are white: shrunk, nothing but white may be left."""
    board = np.indices((64, 64)).sum(axis=0)[..., None] % 2
    keys = {
        0: (board * 255, chunk(b"tRNS", bytes(2))),
        2: (np.repeat(board * 255, 3, axis=2), chunk(b"tRNS", bytes(6))),
        3: (board, chunk(b"PLTE", bytes(3) + b"\xff" * 3) + chunk(b"tRNS", b"\0")),
    }
    samples, before = keys[colours]
    assert np.asarray(decode(png(samples, colours, 8, before), max_edge=24).image).min() == 255


@pytest.mark.parametrize("form", ["PNG", "WEBP", "TIFF", "BMP"])
def test_alpha_is_laid_over_white(form: str) -> None:
    pixels = RANDOM.integers(0, 256, (12, 10, 4), np.uint8)
    options = {"lossless": True, "exact": True} if form == "WEBP" else {}
    expected = (
        pixels[..., :3] if form == "BMP" else over_white(pixels[..., :3], pixels[..., 3])
    )  # 32 bits, the last unused
    assert near(decoded(saved(pixels, form, **options)), expected)


def gif(left: int, top: int, transparent: bool) -> bytes:
    """Return a GIF of 12 by 8 pixels, whose first frame covers 5 by 3 of them with the colours 1 and 2."""
    frame = saved(
        Image.fromarray(np.indices((3, 5)).sum(axis=0).astype(np.uint8) % 2 + 1, "P"),
        "GIF",
        interlace=0,
        optimize=False,
    )
    pixels = frame[frame.index(b",\0\0\0\0\x05\0\x03\0") + 10 : -1]
    palette = bytes([10, 20, 30, 200, 0, 0, 0, 0, 200, 1, 1, 1]) + bytes(3 * 252)
    control = b"!\xf9\x04\x01\0\0\x02\0" if transparent else b""
    return (
        b"GIF89a"
        + struct.pack("<HHBBB", 12, 8, 0xF7, 0, 0)
        + palette
        + control
        + (b"," + struct.pack("<HHHHB", left, top, 5, 3, 0) + pixels + b";")
    )


@pytest.mark.parametrize("transparent", [False, True])
def test_nothing_is_white_beside_the_first_frame_of_a_gif(transparent: bool) -> None:
    expected = np.full((8, 12, 3), 255)
    second = (255, 255, 255) if transparent else (0, 0, 200)
    for y, x in np.ndindex(3, 5):
        expected[2 + y, 4 + x] = second if (x + y) % 2 else (200, 0, 0)
    assert np.array_equal(decoded(gif(4, 2, transparent)), expected)


def test_nothing_is_white_beside_the_first_frame_of_a_webp() -> None:
    frame = saved(np.full((4, 6, 3), 40, np.uint8), "WEBP", lossless=True)[12:]
    place = b"".join(value.to_bytes(3, "little") for value in (1, 2, 5, 3, 100)) + b"\0"
    body = chunks_of_webp({b"VP8X": b"\x02\0\0\0\x0f\0\0\x0b\0\0", b"ANIM": bytes(6), b"ANMF": place + frame})
    expected = np.full((12, 16, 3), 255)
    expected[4:8, 2:8] = 40
    assert np.array_equal(decoded(body), expected)


def chunks_of_webp(chunks: dict[bytes, bytes]) -> bytes:
    body = b"WEBP" + b"".join(name + struct.pack("<I", len(content)) + content for name, content in chunks.items())
    return b"RIFF" + struct.pack("<I", len(body)) + body


@pytest.mark.parametrize("form", ["PNG", "GIF", "WEBP", "TIFF"])
def test_the_first_of_several_pictures_counts(form: str) -> None:
    frames = [Image.new("RGB", (30, 20), colour) for colour in ("red", "blue")]
    options = {"lossless": True} if form == "WEBP" else {}
    data = saved(frames[0], form, save_all=True, append_images=frames[1:], **options)
    assert (decoded(data) == (255, 0, 0)).all()


def test_cmyk_jpegs_have_their_colours() -> None:
    inks = np.repeat(np.repeat(RANDOM.integers(0, 256, (3, 5, 4), np.uint8), 16, axis=0), 16, axis=1)
    data = saved(Image.fromarray(inks, "CMYK"), "JPEG", quality=100, subsampling=0)
    expected = (255 - inks[..., :3].astype(float)) * (255 - inks[..., 3:]) / 255
    assert near(decoded(data), expected, 6)


# ---- limits and messages


def test_limits_and_formats_are_the_callers() -> None:
    data = saved(CORNERS, "PNG")
    with pytest.raises(ImageTooLarge, match=f"has {len(data)} bytes; the limit is 50$"):
        decode(data, max_bytes=50)
    with pytest.raises(ImageTooLarge, match="80x48 pixels; the limit is 3839 in total"):
        decode(data, max_pixels=3839)
    with pytest.raises(UnsupportedImage, match="The format PNG is not supported; known formats are JPEG, GIF"):
        decode(data, formats=("JPEG", "GIF"))
    assert decode(data, max_bytes=len(data), max_pixels=3840, formats=("PNG",)).format == "PNG"


@pytest.mark.parametrize(
    ("data", "name"),
    [
        (b"\0\0\0\x18ftypheic\0\0\0\0mif1heic", "HEIC"),
        (b"\0\0\0\x18ftypmif1\0\0\0\0mif1heic", "HEIC"),
        (b"\0\0\0\x1cftypavif\0\0\0\0avifmif1miaf", "AVIF"),
        (b"\0\0\0\x1cftypmif1\0\0\0\0mif1avifmiaf", "AVIF"),
    ],
)
def test_formats_that_cameras_write_are_named(data: bytes, name: str) -> None:
    with pytest.raises(UnsupportedImage, match=f"The format {name} is not supported; known formats are JPEG, PNG"):
        decoded(data + bytes(100))


@settings(max_examples=300, deadline=None)
@given(st.sampled_from(FORMATS), st.binary(max_size=40), st.integers(0, 2000))
def test_no_message_has_an_address_of_memory_in_it(form: str, noise: bytes, where: int) -> None:
    data = bytearray(saved(CORNERS, form))
    data[where : where + len(noise)] = noise
    try:
        decode(bytes(data))
    except ImageError as error:
        assert not re.search(r"\bat 0x|object at", str(error))
        assert len(str(error)) < 400


def test_pixels_beyond_what_a_header_declares_are_not_unpacked() -> None:
    small = chunk(b"IDAT", zlib.compress(bytes(4)))
    data = png(np.zeros((1, 1, 3), np.uint8), 2, 8)
    assert small in data
    with pytest.raises(UnsupportedImage, match="more pixel data than its header declares"):
        decode(data.replace(small, chunk(b"IDAT", zlib.compress(bytes(4 * 2**20)))))


def test_a_frame_far_larger_than_its_gif_is_refused() -> None:
    screen = struct.pack("<HHBBB", 1, 1, 0x80, 0, 0) + bytes(6)
    frame = b"," + struct.pack("<HHHHB", 0, 0, 65535, 65535, 0)
    with pytest.raises(ImageTooLarge, match="far more pixels"):
        decode(b"GIF89a" + screen + frame + b"\x02\x02\x4c\x01\0;")
