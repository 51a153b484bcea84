"""Encode a decoded image for the workflow. Imports only the standard library and Pillow."""

import io
import struct

from PIL import Image

#: Above this size a JPEG of the same image is several times smaller, with no visible difference for a classifier.
MAX_PNG_BYTES = 64 * 1024
JPEG_QUALITY = 90
#: Of zlib. The default takes twice as long and gives files of photographs the same size.
PNG_LEVEL = 3
_IEND = b"\0\0\0\0IEND\xaeB`\x82"


def encode(image: Image.Image, original: bytes) -> tuple[bytes, str]:
    """Encode an image; return the original file unchanged if it is small and already in the right form.

    Parameters
    ----------
    image : PIL.Image.Image
        An RGB image.
    original : bytes
        The file that the image was decoded from.

    Returns
    -------
    tuple of (bytes, str)
        The file's content and its media type: PNG, or JPEG if a PNG would be large.
    """
    if len(original) <= MAX_PNG_BYTES and _is_bare_png(original, image.size):
        return original, "image/png"
    buffer = io.BytesIO()
    image.save(buffer, "PNG", compress_level=PNG_LEVEL)
    if buffer.tell() <= MAX_PNG_BYTES:
        return buffer.getvalue(), "image/png"
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=JPEG_QUALITY)
    return buffer.getvalue(), "image/jpeg"


def _is_bare_png(data: bytes, size: tuple[int, int]) -> bool:
    """Return whether data is an 8-bit RGB PNG of this size that contains nothing but pixels."""
    # Layout: https://www.w3.org/TR/png-3/#5DataRep
    if data[:8] != b"\x89PNG\r\n\x1a\n" or struct.unpack_from(">IIBB", data, 16) != (*size, 8, 2):
        return False
    chunks, position = set(), 8
    while position + 12 <= len(data):
        length, name = struct.unpack_from(">I4s", data, position)
        chunks.add(name)
        position += 12 + length
        if name == b"IEND":
            break
    return data.endswith(_IEND) and position == len(data) and chunks == {b"IHDR", b"IDAT", b"IEND"}
