"""Decode an image file to an upright 8-bit RGB image, or reject it with a named error.

Serialize, the endpoint, training, monitoring and the review page all decode with this module, so that they all see the
same pixels. It imports only the standard library, Pillow and `layouts`, and runs on Python 3.11 too.

Everything that does not affect the pixels is removed before Pillow reads a file: comments, colour profiles, previews,
animation, further pages. Damage there then cannot cause a good image to be rejected, or hide that an image is broken.
"""

import io
import warnings
import zlib
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from PIL import Image, ImageChops, ImageFile
from PIL.BmpImagePlugin import BmpImageFile
from PIL.GifImagePlugin import GifImageFile
from PIL.JpegImagePlugin import JpegImageFile
from PIL.PngImagePlugin import PngImageFile
from PIL.TiffImagePlugin import TiffImageFile
from PIL.WebPImagePlugin import WebPImageFile

# In Lambda the modules of this folder are on the path; everywhere else it is a package.
if __package__:
    from src.serialize import layouts
else:
    import layouts  # type: ignore[import-not-found, no-redef]

_OPENERS: dict[str, type[ImageFile.ImageFile]] = {
    "JPEG": JpegImageFile,
    "PNG": PngImageFile,
    "WEBP": WebPImageFile,
    "GIF": GifImageFile,
    "BMP": BmpImageFile,
    "TIFF": TiffImageFile,
}
#: Supported formats; all others are rejected before they reach a decoder.
FORMATS = tuple(_OPENERS)
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
    image_format = layouts.detect(data)
    if image_format not in formats:
        what = f"The format {image_format} is not supported" if image_format else "Not a readable image"
        raise UnsupportedImage(f"{what}; {known}")
    try:
        # Anything that matters is an error; a warning would not name the file.
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            pixels, orientation = layouts.strip(data, image_format)
            image = _OPENERS[image_format](io.BytesIO(pixels))
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
        # Stripping has left one IDAT; its content ends before its checksum and the IEND.
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
