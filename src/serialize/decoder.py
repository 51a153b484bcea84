"""Decode an image file to an upright 8-bit RGB picture, or refuse it with a named error.

Serialize, the endpoint, training, monitoring and the review page all decode with this module, so that they all see the
same picture. It imports only the standard library and Pillow, and runs on Python 3.11 too.

Before Pillow sees a file, everything that does not make pixels is left out: comments, colour profiles, previews,
animation, further pages. Damage there can then neither refuse a good picture nor hide that a picture is broken.
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

#: Formats that can be decoded; everything else is refused before a decoder sees it.
FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF")
#: A larger file is hardly a photograph for a classifier.
MAX_BYTES = 25 * 1024 * 1024
#: 50 megapixels of RGBA are 200 MB, and the worst decoder (WebP) holds four copies.
MAX_PIXELS = 50_000_000

#: How to turn the stored pixels upright, by EXIF orientation (EXIF 2.32, tag 0x0112).
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
# Brands of files in boxes (ISO/IEC 14496-12), which cameras and browsers write and Pillow does not decode here.
_BRANDS = {
    "AVIF": (b"avif", b"avis"),
    "HEIC": (b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"hevm", b"hevs", b"mif1", b"msf1"),
}
# The tags that TIFF 6.0, its technical notes and libtiff need for the pixels, from ImageWidth to ReferenceBlackWhite.
_TIFF_TAGS = {
    *(256, 257, 258, 259, 262, 266, 273, 277, 278, 279, 284, 292, 293, 317, 320, 322, 323, 324, 325, 332, 334, 338),
    *(339, 347, 512, 513, 514, 515, 517, 518, 519, 520, 521, 529, 530, 531, 532),
}
_ORIENTATION = 274
# Of JPEG; filling may stand before it.
_MARKER = re.compile(rb"\xff+([^\xff])", re.DOTALL)
# How struct reads TIFF's types of integers that an orientation may have.
_INTEGERS = {1: "B", 3: "H", 4: "I"}


class ImageError(Exception):
    """The file cannot be decoded; the message says why. Subclasses' names are part of the event contract."""


class ImageTooLarge(ImageError):
    """The file has too many bytes, or the image too many pixels; no pixel has been decoded."""


class UnsupportedImage(ImageError):
    """The file is not an image of a known format, or it is damaged."""


class Picture(NamedTuple):
    """A decoded image.

    ``image`` is upright RGB; ``format`` is one of `FORMATS`; ``size`` is the file's (width, height) as it is meant to
    be seen, also where ``image`` is smaller.
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

    Transparency is laid over white, at full size: shrunk before, transparent pixels would lend their hidden colour to
    their neighbours. Of several frames or pages the first counts. The orientation is EXIF's; XMP's is ignored, as
    libvips does with the files that it was compared with.

    Parameters
    ----------
    data : bytes
        The file's content.
    max_edge : int or None
        Shrink to at most this many pixels a side, as the workflow does before it asks the endpoint.
    at_least : int or None
        A JPEG may be decoded at a half, a quarter or an eighth of its size, as long as neither side falls below this
        many pixels: several times faster, for callers that shrink the picture themselves.
    formats : sequence of str
        Those of `FORMATS` that are accepted.
    max_bytes, max_pixels : int
        Limits of the file's size, and of width times height.

    Returns
    -------
    Picture
        The image with its format and size.

    Raises
    ------
    ImageTooLarge
        Over one of the limits.
    UnsupportedImage
        Empty, damaged, or of another format.
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
        # What matters becomes an error; a warning could not even name the file.
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            pixels, orientation = strip(data)
            image = opener(io.BytesIO(pixels))
            width, height = image.size
            if width * height > max_pixels:
                raise ImageTooLarge(f"The image has {width}x{height} pixels; the limit is {max_pixels} in all")
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
        raise ImageTooLarge(f"The image has far more than the {max_pixels} pixels that are the limit") from error
    # Decoders meet hostile bytes here, and raise whatever they like: OSError, SyntaxError, struct.error, …
    except Exception as error:
        what = f"The {image_format} is damaged or of a kind that cannot be read ({error!s:.200})"
        raise UnsupportedImage(f"{what}; {known}") from error
    rgb.info.clear()
    if orientation in TURNS:
        rgb = rgb.transpose(TURNS[orientation])
    # From the fifth on, orientations lie on their side.
    return Picture(rgb, image_format, (height, width) if orientation >= 5 else (width, height))


def _format(data: bytes) -> str:
    """Name the format by the file's first bytes; an empty text where they say nothing."""
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
        # The first brand may be a general one (mif1); those behind the version are more exact.
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
        raise UnsupportedImage("Signed, 32-bit and fractional pixels have no known range; save the image with 8 bits")
    for stream in _zlib_streams(image, data):
        _check_zlib(stream, 16 * image.width * image.height)
    image.load()
    picture: Image.Image = image
    if image.mode.startswith("I;16"):
        picture = _from_16_bits(image, key)
    elif key and tile and tile.args == "RGB;16B":
        # The key has 16 bits a colour, but of the pixels only the upper eight are here.
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
        # A first frame may cover a part of the picture only; the rest is transparent, as in browsers.
        frame, rgb = rgb.crop(tile.extents), Image.new("RGB", rgb.size, "white")
        rgb.paste(frame, tile.extents)
    return rgb


def _zlib_streams(image: ImageFile.ImageFile, data: bytes) -> Iterator[bytes]:
    if isinstance(image, PngImageFile):
        # From the start of the one IDAT to its checksum and the IEND.
        yield data[image.tile[0].offset : -16]
    elif isinstance(image, TiffImageFile) and image.tag_v2.get(259) in (8, 32946):
        tags = image.tag_v2
        for offset, count in zip(tags.get(324, tags.get(273)), tags.get(325, tags.get(279)), strict=False):
            if count:
                yield data[offset : offset + count]


def _check_zlib(stream: bytes, most: int) -> None:
    """Inflate a stream to its checksum at the end; decoders of images stop once they have all pixels."""
    inflater = zlib.decompressobj()
    while not inflater.eof:
        inflated = len(inflater.decompress(stream, 2**23))
        stream, most = inflater.unconsumed_tail, most - inflated
        if not (inflated or stream or inflater.eof):
            raise ValueError("the end of its pixels is missing")
        if most < -(2**20):
            raise ValueError("it has more pixels than it says")


def _from_16_bits(image: ImageFile.ImageFile, key: int | None) -> Image.Image:
    """Keep the upper eight bits of grey, and make the key's grey transparent."""
    # The mode of big-endian files knows hardly any operation, so all pass through 32 bits.
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
    """Return 0 where an RGB image has just this colour, 255 elsewhere."""
    red, green, blue = (
        band.point([255 * (value != wanted) for value in range(256)])
        for band, wanted in zip(image.split(), colour, strict=True)
    )
    return ImageChops.lighter(ImageChops.lighter(red, green), blue)


# Each of the functions below returns a file's content with all left out that does not make its first picture, and the
# orientation. What cannot be taken apart stays as it is, for the decoder to refuse.


def _jpeg(data: bytes) -> tuple[bytes, int]:
    # Layout: ITU-T T.81, B.1.1
    kept, position, orientation = [data[:2]], 2, 0
    while (found := _MARKER.search(data, position)) and found.end() + 2 <= len(data):
        start, marker = found.end() - 2, found[1][0]
        (length,) = struct.unpack_from(">H", data, found.end())
        position = found.end() + length
        # Markers without a length, the pixels, or a segment that ends nowhere.
        if marker < 0xC0 or 0xD0 <= marker <= 0xDA or length < 2 or position > len(data):
            kept.append(data[start:])
            break
        segment = data[start + 4 : position]
        if marker == 0xE1 and segment.startswith(_EXIF):
            orientation = orientation or _exif_orientation(segment)
        # Of application data and comments, two decide on colours; libjpeg ignores them where they are shorter.
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
            raise ValueError(f"it needs a decoder for {name.decode()}")
    if not pixels:
        raise ValueError("its pixels are truncated or missing")
    chunks = [_png_chunk(b"IHDR", header), *before, _png_chunk(b"IDAT", b"".join(pixels)), _png_chunk(b"IEND", b"")]
    return b"".join([_PNG, *chunks]), orientation


def _png_chunks(data: bytes) -> Iterator[tuple[bytes, memoryview, bool]]:
    """Yield each chunk's name and content, and whether its checksum is right, up to the end or to what is no chunk."""
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
    """Return the chunk for transparency as Pillow understands it, or nothing if it says nothing."""
    depth, colours = header[8], {0: 1, 2: 3, 3: 0}.get(header[9])
    if colours is None or not content or (colours and len(content) != 2 * colours):
        return b""
    if colours:
        # In a file of fewer than eight bits, Pillow widens the pixels and not the key.
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
            # Of its flags, transparency and animation stay. An animation is transparent where no frame is.
            flags = content[0] & 0x12
            kept.append(data[position : position + 8] + bytes([flags | 0x10 if flags & 2 else flags]) + content[1:])
        elif name in (b"ANIM", b"ALPH", b"VP8 ", b"VP8L", b"ANMF") and not complete:
            # Only the last byte of an odd length, which is no part of the content, may be missing.
            kept.append(data[position : position + 8] + content + bytes(length % 2 * (len(content) == length)))
            complete = name not in (b"ANIM", b"ALPH")
        position = end
    body = b"WEBP" + b"".join(kept)
    return b"RIFF" + struct.pack("<I", len(body)) + body, orientation


def _tiff(data: bytes) -> tuple[bytes, int]:
    # Layout: TIFF 6.0, section 2
    order, start, count, entries = _directory(data)
    if len(entries) < count:
        raise ValueError("its directory is not complete")
    kept = [entry for entry in entries if struct.unpack_from(f"{order}H", entry)[0] in _TIFF_TAGS]
    # In the place of the old directory, so that the file does not grow: what is missing at its end stays missing.
    big = len(entries[0]) == 20
    directory = b"".join([struct.pack(f"{order}{'Q' if big else 'H'}", len(kept)), *kept, bytes(8 if big else 4)])
    return data[:start] + directory + data[start + len(directory) :], _orientation(order, entries)


def _directory(data: bytes) -> tuple[str, int, int, list[bytes]]:
    """Return the order of bytes, where a TIFF's first directory is, its number of entries, and those that are there."""
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
    """Return the orientation, 1 where there is none; damaged metadata are no reason to refuse a picture."""
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
