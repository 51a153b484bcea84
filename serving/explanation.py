"""Show where in an image the model sees a label, as a heat map over the image."""

import numpy as np
import numpy.typing as npt
from PIL import Image

from serving.model import Model
from serving.preprocess import crop_box, preprocess
from src.serialize.decoder import decode

#: Longest side of a heat map, in pixels.
EDGE = 256
#: Orange, which neither skies nor plants nor roads have; visible on light and on dark parts.
_COLOUR = (255, 96, 0)
# The most that a heat map hides of the image.
_OPACITY = 0.75


def heat_map(model: Model, image_bytes: bytes, label: str) -> Image.Image:
    """Return a heat map to lay over an image: opaque where the model sees the label, transparent elsewhere.

    Only parts above the map's mean are coloured, relative to the highest: colours compare parts of one image, not
    images. What the model's preprocessing crops stays transparent.

    Parameters
    ----------
    model : Model
        One that `has_map`.
    image_bytes : bytes
        An image file.
    label : str
        One of the model's labels.

    Returns
    -------
    PIL.Image.Image
        Mode RGBA, with the proportions of the upright image, at most `EDGE` pixels a side.

    Raises
    ------
    ImageError
        As `serving.preprocess.preprocess`.
    """
    values = model.activation_map(preprocess(image_bytes, model.input_size))[model.labels.index(label)]
    width, height = decode(image_bytes, at_least=EDGE).image.size
    scale = EDGE / max(width, height)
    size = max(1, round(width * scale)), max(1, round(height * scale))
    left, top, right, bottom = (round(side) for side in crop_box(*size))
    alpha = np.zeros((size[1], size[0]), np.float32)
    alpha[top:bottom, left:right] = _heat(values, (right - left, bottom - top))
    picture = Image.new("RGBA", size, (*_COLOUR, 0))
    picture.putalpha(Image.fromarray(np.round(alpha * _OPACITY * 255).astype(np.uint8)))
    return picture


def _heat(values: npt.NDArray[np.float32], size: tuple[int, int]) -> npt.NDArray[np.float32]:
    """Enlarge a map to a size (width, height), from 0 at its mean and below to 1 at its maximum."""
    smooth = np.asarray(Image.fromarray(values).resize(size, Image.Resampling.BICUBIC))
    above = np.clip(smooth - values.mean(), 0, None)
    highest = above.max()
    result: npt.NDArray[np.float32] = above / highest if highest > 0 else above
    return result


def explain(model: Model, image_bytes: bytes, label: str, edge: int = 512) -> Image.Image:
    """Return the upright image, at most ``edge`` pixels a side, with the heat map of a label over it.

    Parameters
    ----------
    model, image_bytes, label
        As for `heat_map`.
    edge : int
        Longest side of the result.
    """
    image = decode(image_bytes, at_least=2 * edge).image
    scale = edge / max(image.size)
    size = max(1, round(image.width * scale)), max(1, round(image.height * scale))
    below = image.resize(size, Image.Resampling.LANCZOS if scale < 1 else Image.Resampling.NEAREST).convert("RGBA")
    over = heat_map(model, image_bytes, label).resize(size, Image.Resampling.BICUBIC)
    return Image.alpha_composite(below, over).convert("RGB")
