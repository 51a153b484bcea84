"""What is known of each format's layout: recognise a file, and remove from it what does not affect its first image.

Imports only the standard library, and runs on Python 3.11 too.
"""

import re
import struct
import zlib
from collections.abc import Iterator

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


def detect(data: bytes) -> str:
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


def strip(data: bytes, image_format: str) -> tuple[bytes, int]:
    """Return a file without what does not affect its first image, and its EXIF orientation: 0 or 1 without one.

    Data that cannot be parsed stay as they are, so that the decoder rejects them, or raise an error of any type.
    """
    stripper = _STRIPPERS.get(image_format)
    return stripper(data) if stripper else (data, 1)


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
            return value if 1 <= value <= 8 else 1
    return 1


def _exif_orientation(content: bytes) -> int:
    """Return the orientation, or 1 if there is none or the metadata are damaged."""
    try:
        order, _, _, entries = _directory(content.removeprefix(_EXIF))
    except (struct.error, OverflowError):
        return 1
    return _orientation(order, entries)


_STRIPPERS = {"JPEG": _jpeg, "PNG": _png, "WEBP": _webp, "TIFF": _tiff}
