"""Turn the bytes of an image file into the network's input.

Training, evaluation and the endpoint's server all call `preprocess`, so the network always gets images from the same
code.
"""

import math
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from PIL import Image

from src.serialize.decoder import FORMATS, decode


def preprocess(image_bytes: bytes, input_size: int, formats: Sequence[str] = FORMATS) -> npt.NDArray[np.uint8]:
    """Decode an image file and shrink it to the network's input.

    A non-square image is partly cropped, partly squeezed: the longer edge is cropped to the geometric mean of both
    edges, and the result is squeezed to a square. Squeezing alone distorts a wide photograph more than training does;
    a centre crop alone would cut the wheels off a vehicle that fills it.

    Shrinking averages over areas, without aliasing. Enlarging interpolates linearly.

    Parameters
    ----------
    image_bytes : bytes
        An image file.
    input_size : int
        Edge of the square result, in pixels.
    formats : sequence of str
        Accepted formats.

    Returns
    -------
    numpy.ndarray
        Shape (input_size, input_size, 3), dtype uint8, sRGB values 0 to 255 as stored.

    Raises
    ------
    ImageTooLarge, UnsupportedImage
        As for `src.serialize.decoder.decode`.
    """
    image = decode(image_bytes, at_least=2 * input_size, formats=formats).image
    box = crop_box(*image.size)
    edge = (input_size, input_size)
    if min(image.size) < input_size:
        squeezed = image.resize(edge, Image.Resampling.BILINEAR, box)
    else:
        squeezed = image.resize(edge, Image.Resampling.BOX, box, reducing_gap=2.0)
    return np.array(squeezed, dtype=np.uint8)


def crop_box(width: int, height: int) -> tuple[float, float, float, float]:
    """Return the part of an image that the network sees: left, top, right and bottom."""
    kept = math.sqrt(width * height)
    across, down = max(0.0, (width - kept) / 2), max(0.0, (height - kept) / 2)
    return across, down, width - across, height - down
