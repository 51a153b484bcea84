"""From the bytes of an image file to the network's input.

Training, evaluation and the endpoint's server all call `preprocess`, so that what the network learns from and
what it is asked about are made by the same code.
"""

import io
import math
import warnings

import numpy as np
import numpy.typing as npt
from PIL import Image

FORMATS = ("PNG", "JPEG", "WEBP")
# The API documents 6 MiB as the longest body of a real-time endpoint's request (InvokeEndpoint, request body).
MAX_BYTES = 6 * 1024 * 1024
# About 150 MB when decoded to RGB: several workers can each hold one on an ml.m5.xlarge (16 GiB).
MAX_PIXELS = 50_000_000

# EXIF 2.32, tag 0x0112: how to turn the stored pixels upright.
_ORIENTATION_TAG = 0x0112
_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


class ImageError(ValueError):
    """The bytes cannot become an input of the network; the message says why."""


class ImageTooLarge(ImageError):
    """More bytes or more pixels than are ever decoded."""


class UnsupportedImage(ImageError):
    """Empty, damaged, or not one of the formats in `FORMATS`."""


def preprocess(image_bytes: bytes, input_size: int) -> npt.NDArray[np.uint8]:
    """Decode an image file and shrink it to the network's input.

    A frame that is no square is half cropped, half squeezed: of its longer edge the middle is kept, as long as the
    geometric mean of both edges, and squeezed to a square. Squeezing alone distorts a wide photograph more than
    training does; a centre crop alone would cut the wheels off a vehicle that fills it.

    Shrinking averages over areas, so no detail aliases. Enlarging interpolates linearly. Transparency is laid
    over white. Of an animation the first frame counts.

    Parameters
    ----------
    image_bytes : bytes
        A PNG, JPEG or WebP file, at most `MAX_BYTES` bytes and `MAX_PIXELS` pixels.
    input_size : int
        Edge of the square result, in pixels.

    Returns
    -------
    numpy.ndarray
        Shape (input_size, input_size, 3), dtype uint8, sRGB values 0 to 255 as stored.

    Raises
    ------
    ImageTooLarge
        Over the limit of bytes or pixels; found before any pixel is decoded.
    UnsupportedImage
        Empty, truncated, damaged, or of another format.
    """
    image = decode(image_bytes, 2 * input_size)
    width, height = image.size
    kept = math.sqrt(width * height)
    across, down = max(0.0, (width - kept) / 2), max(0.0, (height - kept) / 2)
    box = (across, down, width - across, height - down)
    edge = (input_size, input_size)
    if min(image.size) < input_size:
        squeezed = image.resize(edge, Image.Resampling.BILINEAR, box)
    else:
        squeezed = image.resize(edge, Image.Resampling.BOX, box, reducing_gap=2.0)
    return np.array(squeezed, dtype=np.uint8)


def decode(image_bytes: bytes, at_least: int) -> Image.Image:
    """Decode an image file to upright RGB; a JPEG perhaps at a half, a quarter or an eighth of its size.

    Parameters
    ----------
    image_bytes : bytes
        As for `preprocess`.
    at_least : int
        No edge is reduced below this many pixels while decoding.

    Returns
    -------
    PIL.Image.Image
        Mode RGB, turned upright, over white where it was transparent.

    Raises
    ------
    ImageTooLarge, UnsupportedImage
        As for `preprocess`.
    """
    with _open(image_bytes) as image:
        try:
            upright = _UPRIGHT.get(_orientation(image))
            # Decoding at a reduced size is several times faster, and memory stays small.
            image.draft("RGB", (at_least, at_least))
            rgb = _to_rgb(image)
        # Pillow's decoders raise many kinds of error for hostile bytes (OSError, SyntaxError, struct.error,
        # IndexError, zlib.error, ...); whichever it is, the bytes are at fault.
        except Exception as error:
            raise UnsupportedImage(f"the {image.format} data is truncated or damaged: {error}") from error
    return rgb if upright is None else rgb.transpose(upright)


def _open(image_bytes: bytes) -> Image.Image:
    """Read the header only, and refuse what should not be decoded."""
    if not image_bytes:
        raise UnsupportedImage("the image is empty (0 bytes)")
    if len(image_bytes) > MAX_BYTES:
        raise ImageTooLarge(f"the image has {len(image_bytes):,} bytes; at most {MAX_BYTES:,} are accepted")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            image = Image.open(io.BytesIO(image_bytes), formats=FORMATS)
    except Image.DecompressionBombError as error:
        raise ImageTooLarge(f"the image has more than the accepted {MAX_PIXELS:,} pixels") from error
    except Exception as error:  # as above: hostile bytes, many kinds of error
        raise UnsupportedImage(f"not a readable image; accepted are {', '.join(FORMATS)}") from error
    width, height = image.size
    if width * height > MAX_PIXELS:
        image.close()
        raise ImageTooLarge(f"the image has {width}x{height} pixels; at most {MAX_PIXELS:,} are accepted")
    return image


def _orientation(image: Image.Image) -> int:
    try:
        return int(image.getexif().get(_ORIENTATION_TAG, 1))
    except Exception:  # damaged metadata beside good pixels is common in photographs, and no reason to refuse
        return 1


def _to_rgb(image: Image.Image) -> Image.Image:
    if image.mode.startswith("I;16"):
        # Pillow's own conversion differs between versions; the upper byte is what an 8-bit file would hold.
        return Image.fromarray((np.asarray(image) >> 8).astype(np.uint8)).convert("RGB")
    if image.has_transparency_data:
        layer = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", layer.size, "white"), layer).convert("RGB")
    return image.convert("RGB")
