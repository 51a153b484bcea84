"""Decode an image file to an upright 8-bit RGB image, or reject it with a named error.

Serialize, the endpoint, training, monitoring and the review page all decode with this module, so that they all see the
same pixels. It imports only the standard library and Pillow, and runs on Python 3.11 too.

Everything that does not affect the pixels is removed before Pillow reads a file: comments, colour profiles, previews,
animation, further pages. Damage there then cannot cause a good image to be rejected, or hide that an image is broken.
"""

import io
import re
import struct
import warnings
import zlib
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

from PIL import Image, ImageChops, ImageFile
from PIL.BmpImagePlugin import BmpImageFile
from PIL.GifImagePlugin import GifImageFile
from PIL.JpegImagePlugin import JpegImageFile
from PIL.PngImagePlugin import PngImageFile
from PIL.TiffImagePlugin import TiffImageFile
from PIL.WebPImagePlugin import WebPImageFile

#: Supported formats; all others are rejected before they reach a decoder.
FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF")
#: Larger than any usual photograph.
MAX_BYTES = 25 * 1024 * 1024
#: 50 megapixels of RGBA are 200 MB, and WebP's decoder keeps four copies.
MAX_PIXELS = 50_000_000

#: Operation that turns the stored pixels upright, by EXIF orientation (EXIF 2.32, tag 0x0112).
TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}

_PNG = b"\x89PNG\r\n\x1a\n"
_TIFF = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
_EXIF = b"Exif\0\0"
# Brands in the file type box (ISO/IEC 14496-12) of formats that cameras and browsers write, which are not supported.
_BRANDS = {
    "AVIF": (b"avif", b"avis"),
    "HEIC": (b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"hevm", b"hevs", b"mif1", b"msf1"),
}
# Tags that TIFF 6.0, its technical notes and libtiff need for the pixels, from ImageWidth to ReferenceBlackWhite.
_TIFF_TAGS = {
    *(256, 257, 258, 259, 262, 266, 273, 277, 278, 279, 284, 292, 293, 317, 320, 322, 323, 324, 325, 332, 334, 338),
    *(339, 347, 512, 513, 514, 515, 517, 518, 519, 520, 521, 529, 530, 531, 532),
}
_ORIENTATION = 274
# A JPEG marker, which fill bytes may precede.
_MARKER = re.compile(rb"\xff+([^\xff])", re.DOTALL)
# Format characters of struct for TIFF's integer types.
_INTEGERS = {1: "B", 3: "H", 4: "I"}


class ImageError(Exception):
    """The file cannot be decoded. The names of the subclasses are part of the event contract."""


class ImageTooLarge(ImageError):
    """The file has too many bytes, or the image too many pixels; nothing was decoded."""


class UnsupportedImage(ImageError):
    """The file is not an image of a supported format, or it is damaged."""


class Picture(NamedTuple):
    """A decoded image.

    ``image`` is upright RGB; ``format`` is one of `FORMATS`; ``size`` is the upright (width, height) in the file, even
    if ``image`` was shrunk.
    """

    image: Image.Image
    format: str
    size: tuple[int, int]


def decode(
    data: bytes,
    *,
    max_edge: int | None = None,
    at_least: int | None = None,
    formats: Sequence[str] = FORMATS,
    max_bytes: int = MAX_BYTES,
    max_pixels: int = MAX_PIXELS,
) -> Picture:
    """Decode an image file.

    Transparent pixels are blended with white before the image is shrunk; otherwise their hidden colour would bleed into
    the neighbouring pixels. Only the first frame or page is decoded. The orientation is EXIF's; XMP's is ignored, as
    libvips does with the files that it was compared with.

    Parameters
    ----------
    data : bytes
        The file's content.
    max_edge : int or None
        Shrink to at most this many pixels a side, as the workflow does before it calls the endpoint.
    at_least : int or None
        Decode a JPEG at 1/2, 1/4 or 1/8 of its size, as long as both sides keep at least this many pixels. This is
        several times faster, for callers that shrink the image themselves.
    formats : sequence of str
        Accepted formats, out of `FORMATS`.
    max_bytes, max_pixels : int
        Limits for the file's size, and for width times height.

    Returns
    -------
    Picture
        The image with its format and size.

    Raises
    ------
    ImageTooLarge
        Over one of the limits.
    UnsupportedImage
        The file is empty, damaged, or of another format.
    """
    known = f"known formats are {', '.join(formats)}"
    if not data:
        raise UnsupportedImage(f"The image is empty (0 bytes); {known}")
    if len(data) > max_bytes:
        raise ImageTooLarge(f"The image has {len(data)} bytes; the limit is {max_bytes}")
    image_format = _format(data)
    if image_format not in formats:
        what = f"The format {image_format} is not supported" if image_format else "Not a readable image"
        raise UnsupportedImage(f"{what}; {known}")
    opener, strip = _READERS[image_format]
    try:
        # Anything that matters is an error; a warning would not name the file.
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            pixels, orientation = strip(data)
            image = opener(io.BytesIO(pixels))
            width, height = image.size
            if width * height > max_pixels:
                raise ImageTooLarge(f"The image has {width}x{height} pixels; the limit is {max_pixels} in total")
            if at_least:
                image.draft("RGB", (at_least, at_least))
            if max_edge and isinstance(image, JpegImageFile):
                _shrink(image, max_edge)  # before it is loaded, at a reduced size; it has no transparency
            rgb = _load_rgb(image, pixels)
            if max_edge:
                _shrink(rgb, max_edge)
    except ImageError:
        raise
    except Image.DecompressionBombError as error:
        raise ImageTooLarge(f"The image has far more pixels than the limit of {max_pixels}") from error
    # On hostile input decoders raise many types of errors: OSError, SyntaxError, struct.error, …
    except Exception as error:
        what = f"The {image_format} is damaged or uses unsupported features ({error!s:.200})"
        raise UnsupportedImage(f"{what}; {known}") from error
    rgb.info.clear()
    if orientation in TURNS:
        rgb = rgb.transpose(TURNS[orientation])
    # Orientations 5 to 8 swap width and height.
    return Picture(rgb, image_format, (height, width) if orientation >= 5 else (width, height))


def _format(data: bytes) -> str:
    """Return the format by the file's first bytes, or an empty string if they are unknown."""
    if data.startswith(b"\xff\xd8\xff"):
        return "JPEG"
    if data.startswith(_PNG):
        return "PNG"
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        return "WEBP"
    if data.startswith((b"GIF87a", b"GIF89a")):
        return "GIF"
    if data.startswith(b"BM"):
        return "BMP"
    if data.startswith(_TIFF):
        return "TIFF"
    if data[4:8] == b"ftyp":
        # The major brand may be a general one (mif1); the compatible brands are more specific.
        brands = {data[8:12], *(data[i : i + 4] for i in range(16, min(int.from_bytes(data[:4], "big"), 256), 4))}
        return next((name for name, known in _BRANDS.items() if brands & {*known}), "")
    return ""


def _shrink(image: Image.Image, max_edge: int) -> None:
    image.thumbnail((max_edge, max_edge), Image.Resampling.BICUBIC, reducing_gap=2.0)


def _load_rgb(image: ImageFile.ImageFile, data: bytes) -> Image.Image:
    """Load the pixels of an image that was opened from data, as 8-bit RGB over white."""
    tile = image.tile[0] if image.tile else None
    key = image.info.get("transparency")
    if image.mode in ("I", "F") or (isinstance(image, TiffImageFile) and 2 in image.tag_v2.get(339, ())):
        raise UnsupportedImage("Signed, 32-bit and float pixels have no known range; save the image with 8 bits")
    for stream in _zlib_streams(image, data):
        _check_zlib(stream, 16 * image.width * image.height)
    image.load()
    picture: Image.Image = image
    if image.mode.startswith("I;16"):
        picture = _from_16_bits(image, key)
    elif key and tile and tile.args == "RGB;16B":
        # The key has 16 bits per channel, but Pillow has loaded only the upper eight of the pixels.
        lower = PngImageFile(io.BytesIO(data))
        lower.tile = [tile._replace(args="RGB;16L")]
        differs = ImageChops.lighter(_differs(image, [v >> 8 for v in key]), _differs(lower, [v & 255 for v in key]))
        picture.info.clear()
        picture.putalpha(differs)
    elif image.mode == "La":
        picture = image.convert("LA")
    if picture.has_transparency_data:
        if picture.mode != "RGBA":
            picture = picture.convert("RGBA")
        rgb = Image.new("RGB", picture.size, "white")
        rgb.paste(picture, (0, 0), picture)
    else:
        rgb = picture if picture.mode == "RGB" else picture.convert("RGB")
    if isinstance(image, GifImageFile) and tile and tile.extents != (0, 0, *rgb.size):
        # The first frame may cover only a part of the image; the rest is transparent, as in browsers.
        frame, rgb = rgb.crop(tile.extents), Image.new("RGB", rgb.size, "white")
        rgb.paste(frame, tile.extents)
    return rgb


def _zlib_streams(image: ImageFile.ImageFile, data: bytes) -> Iterator[bytes]:
    if isinstance(image, PngImageFile):
        # _png has left one IDAT; its content ends before its checksum and the IEND.
        yield data[image.tile[0].offset : -16]
    elif isinstance(image, TiffImageFile) and image.tag_v2.get(259) in (8, 32946):
        tags = image.tag_v2
        for offset, count in zip(tags.get(324, tags.get(273)), tags.get(325, tags.get(279)), strict=False):
            if count:
                yield data[offset : offset + count]


def _check_zlib(stream: bytes, most: int) -> None:
    """Inflate a stream up to the checksum at its end, which image decoders do not reach."""
    inflater = zlib.decompressobj()
    while not inflater.eof:
        inflated = len(inflater.decompress(stream, 2**23))
        stream, most = inflater.unconsumed_tail, most - inflated
        if not (inflated or stream or inflater.eof):
            raise ValueError("the pixel data are truncated")
        if most < -(2**20):
            raise ValueError("it has more pixel data than its header declares")


def _from_16_bits(image: ImageFile.ImageFile, key: int | None) -> Image.Image:
    """Keep the upper eight bits of each grey value, and make the grey value of the key transparent."""
    # Pillow supports few operations in the mode of big-endian files, so convert all to 32 bits.
    wide = image.convert("I")
    bits, inverted = 16, False
    if isinstance(image, TiffImageFile):
        bits, inverted = image.tag_v2[258][0], image.tag_v2.get(262) == 0
    scale, most = 2 ** (bits - 8), 2**bits - 1
    grey = wide.point(lambda v: (v * -1 + most) / scale if inverted else v / scale).convert("L")
    if key is None:
        return grey
    opaque = [255] * 2**16
    opaque[key] = 0
    return Image.merge("LA", (grey, wide.point(opaque, "L")))


def _differs(image: Image.Image, colour: Sequence[int]) -> Image.Image:
    """Return a mask of an RGB image that is 0 where a pixel has this colour, 255 elsewhere."""
    red, green, blue = (
        band.point([255 * (value != wanted) for value in range(256)])
        for band, wanted in zip(image.split(), colour, strict=True)
    )
    return ImageChops.lighter(ImageChops.lighter(red, green), blue)


# Each function below returns a file's content without everything that does not affect its first image, and the
# orientation. Data that cannot be parsed stay as they are, and the decoder rejects them.


def _jpeg(data: bytes) -> tuple[bytes, int]:
    # Layout: ITU-T T.81, B.1.1
    kept, position, orientation = [data[:2]], 2, 0
    while (found := _MARKER.search(data, position)) and found.end() + 2 <= len(data):
        start, marker = found.end() - 2, found[1][0]
        (length,) = struct.unpack_from(">H", data, found.end())
        position = found.end() + length
        # A marker without a length, the start of the pixels, or a segment that exceeds the file.
        if marker < 0xC0 or 0xD0 <= marker <= 0xDA or length < 2 or position > len(data):
            kept.append(data[start:])
            break
        segment = data[start + 4 : position]
        if marker == 0xE1 and segment.startswith(_EXIF):
            orientation = orientation or _exif_orientation(segment)
        # Of application data and comments only these two affect colours; libjpeg ignores them if they are shorter.
        if (
            not (0xE0 <= marker <= 0xEF or marker == 0xFE)
            or (marker == 0xE0 and segment.startswith(b"JFIF\0") and len(segment) >= 14)
            or (marker == 0xEE and segment.startswith(b"Adobe") and len(segment) >= 12)
        ):
            kept.append(data[start:position])
    return b"".join(kept), orientation


def _png(data: bytes) -> tuple[bytes, int]:
    # Layout and checksums: https://www.w3.org/TR/png-3/#5DataRep
    header, before, pixels, orientation = b"", [], [], 0
    for name, content, intact in _png_chunks(data):
        if name in (b"IHDR", b"PLTE", b"IDAT") and not intact:
            raise ValueError(f"the checksum of its {name.decode()} is wrong")
        if name == b"IHDR" and not header:
            header = bytes(content)
        elif name == b"IDAT":
            pixels.append(content)
        elif name == b"eXIf" and intact:
            orientation = orientation or _exif_orientation(bytes(content))
        elif pixels:
            continue
        elif name == b"PLTE":
            before.append(_png_chunk(name, content))
        elif name == b"tRNS" and intact:
            before.append(_png_key(bytes(content), header))
        elif name[:1].isupper():
            raise ValueError(f"it has the unknown critical chunk {name.decode()}")
    if not pixels:
        raise ValueError("the pixel data are truncated or missing")
    chunks = [_png_chunk(b"IHDR", header), *before, _png_chunk(b"IDAT", b"".join(pixels)), _png_chunk(b"IEND", b"")]
    return b"".join([_PNG, *chunks]), orientation


def _png_chunks(data: bytes) -> Iterator[tuple[bytes, memoryview, bool]]:
    """Yield each valid chunk's name and content, and whether its checksum is right, up to the first invalid one."""
    position, view = len(_PNG), memoryview(data)
    while position + 12 <= len(data):
        length, name = struct.unpack_from(">I4s", data, position)
        end = position + 12 + length
        if end > len(data) or not name.isalpha() or name == b"IEND":
            return
        checksum = int.from_bytes(view[end - 4 : end], "big")
        yield name, view[position + 8 : end - 4], zlib.crc32(view[position + 4 : end - 4]) == checksum
        position = end


def _png_chunk(name: bytes, content: bytes | memoryview) -> bytes:
    checksum = zlib.crc32(content, zlib.crc32(name))
    return b"".join([struct.pack(">I", len(content)), name, content, struct.pack(">I", checksum)])


def _png_key(content: bytes, header: bytes) -> bytes:
    """Return the transparency chunk as Pillow expects it, or nothing if it is invalid."""
    depth, colours = header[8], {0: 1, 2: 3, 3: 0}.get(header[9])
    if colours is None or not content or (colours and len(content) != 2 * colours):
        return b""
    if colours:
        # Below eight bits Pillow scales the pixels, but not the key.
        widening = 255 // (2**depth - 1) if depth < 8 else 1
        key = [(value & 2**depth - 1) * widening for value in struct.unpack(f">{colours}H", content)]
        content = struct.pack(f">{colours}H", *key)
    return _png_chunk(b"tRNS", content)


def _webp(data: bytes) -> tuple[bytes, int]:
    # Layout: RFC 9649, section 2
    kept, position, orientation, complete = [], 12, 0, False
    while position + 8 <= len(data):
        name, length = struct.unpack_from("<4sI", data, position)
        end = position + 8 + length + length % 2
        content = data[position + 8 : position + 8 + length]
        if name == b"EXIF":
            orientation = orientation or _exif_orientation(content)
        elif name == b"VP8X" and len(content) >= 10:
            # Keep the flags for transparency and animation. An animation is transparent where there is no frame.
            flags = content[0] & 0x12
            kept.append(data[position : position + 8] + bytes([flags | 0x10 if flags & 2 else flags]) + content[1:])
        elif name in (b"ANIM", b"ALPH", b"VP8 ", b"VP8L", b"ANMF") and not complete:
            # The padding byte after an odd length may be missing.
            kept.append(data[position : position + 8] + content + bytes(length % 2 * (len(content) == length)))
            complete = name not in (b"ANIM", b"ALPH")
        position = end
    body = b"WEBP" + b"".join(kept)
    return b"RIFF" + struct.pack("<I", len(body)) + body, orientation


def _tiff(data: bytes) -> tuple[bytes, int]:
    # Layout: TIFF 6.0, section 2
    order, start, count, entries = _directory(data)
    if len(entries) < count:
        raise ValueError("its directory is truncated")
    kept = [entry for entry in entries if struct.unpack_from(f"{order}H", entry)[0] in _TIFF_TAGS]
    # Overwrite the old directory, so that the file keeps its length and truncated data stay truncated.
    big = len(entries[0]) == 20
    directory = b"".join([struct.pack(f"{order}{'Q' if big else 'H'}", len(kept)), *kept, bytes(8 if big else 4)])
    return data[:start] + directory + data[start + len(directory) :], _orientation(order, entries)


def _directory(data: bytes) -> tuple[str, int, int, list[bytes]]:
    """Return the byte order, the offset of a TIFF's first directory, its number of entries, and the whole entries."""
    order = "<" if data.startswith(b"II") else ">"
    big = data[2:4] in (b"+\0", b"\0+")
    (start,) = struct.unpack_from(f"{order}{'Q' if big else 'I'}", data, 8 if big else 4)
    (count,) = struct.unpack_from(f"{order}{'Q' if big else 'H'}", data, start)
    first, width = (start + 8, 20) if big else (start + 2, 12)
    last = min(first + count * width, len(data) - width + 1)
    return order, start, count, [data[i : i + width] for i in range(first, last, width)]


def _orientation(order: str, entries: list[bytes]) -> int:
    for entry in entries:
        tag, kind = struct.unpack_from(f"{order}HH", entry)
        if tag == _ORIENTATION and kind in _INTEGERS:
            (value,) = struct.unpack_from(
                f"{order}{_INTEGERS[kind]}", entry, len(entry) - (8 if len(entry) == 20 else 4)
            )
            return value if value in TURNS else 1
    return 1


def _exif_orientation(content: bytes) -> int:
    """Return the orientation, or 1 if there is none or the metadata are damaged."""
    try:
        order, _, _, entries = _directory(content.removeprefix(_EXIF))
    except (struct.error, OverflowError):
        return 1
    return _orientation(order, entries)


def _unchanged(data: bytes) -> tuple[bytes, int]:
    return data, 1


_READERS: dict[str, tuple[Callable[[io.BytesIO], ImageFile.ImageFile], Callable[[bytes], tuple[bytes, int]]]] = {
    "JPEG": (JpegImageFile, _jpeg),
    "PNG": (PngImageFile, _png),
    "WEBP": (WebPImageFile, _webp),
    "GIF": (GifImageFile, _unchanged),
    "BMP": (BmpImageFile, _unchanged),
    "TIFF": (TiffImageFile, _tiff),
}
