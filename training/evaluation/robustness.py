"""Pictures made worse in known ways, to see what the model still passes."""

import io
import math

import numpy as np
import numpy.typing as npt

from common.images import SENT_EDGE
from serving.preprocess import preprocess
from src.serialize.decoder import decode

# Kind of damage, and its three strengths from mild to severe.
# Brightness and contrast: factors; blur: standard deviation in pixels of the network's input; noise: standard
# deviation where white is 1; JPEG: Pillow's quality.
CORRUPTIONS: dict[str, tuple[float, float, float]] = {
    "brightness": (0.7, 0.5, 1.6),
    "contrast": (0.7, 0.5, 0.3),
    "blur": (0.6, 1.2, 2.0),
    "noise": (0.04, 0.08, 0.16),
    "JPEG": (60, 30, 10),
}
CASES = [(name, strength) for name, strengths in CORRUPTIONS.items() for strength in strengths]


def describe(name: str, strength: float) -> str:
    """Name a strength as people write it: ``×0.5``, ``σ 1.2 px``, ``quality 30``."""
    sigma = f"σ {strength:g}"
    return {"blur": f"{sigma} px", "noise": sigma, "JPEG": f"quality {strength:g}"}.get(name, f"×{strength:g}")


def corrupted(image_bytes: bytes, pixels: npt.NDArray[np.uint8], seed: int) -> list[npt.NDArray[np.uint8]]:
    """Damage one image in every way of `CASES`.

    JPEG is applied to the picture as the workflow sends it, at most `SENT_EDGE` pixels a side, before it is
    preprocessed; everything else to the network's input, so that a blur or a noise means the same for pictures
    of every size.

    Parameters
    ----------
    image_bytes : bytes
        The image file.
    pixels : numpy.ndarray
        What `preprocess` made of it: shape (edge, edge, 3), dtype uint8.
    seed : int
        Of the noise; give each image its own.

    Returns
    -------
    list of numpy.ndarray
        The network's inputs, in the order of `CASES`.

    Raises
    ------
    ImageError
        As `preprocess`.
    """
    x = pixels / 255.0
    mean = x.mean()
    # One pattern at every strength, so that strengths differ in nothing else.
    noise = np.random.default_rng(seed).standard_normal(x.shape)
    picture = decode(image_bytes, max_edge=SENT_EDGE).image

    def damage(name: str, strength: float) -> npt.NDArray[np.uint8]:
        if name == "JPEG":
            file = io.BytesIO()
            picture.save(file, "JPEG", quality=int(strength))
            return preprocess(file.getvalue(), pixels.shape[0])
        if name == "brightness":
            changed = x * strength
        elif name == "contrast":
            changed = mean + (x - mean) * strength
        elif name == "blur":
            changed = _blur(x, strength)
        else:
            changed = x + noise * strength
        return np.round(np.clip(changed, 0, 1) * 255).astype(np.uint8)

    return [damage(name, strength) for name, strength in CASES]


def _blur(x: npt.NDArray[np.float64], sigma: float) -> npt.NDArray[np.float64]:
    """Convolve with a Gaussian along both axes, the image mirrored at its edges."""
    radius = math.ceil(3 * sigma)
    steps = np.arange(-radius, radius + 1)
    line = np.exp(-(steps**2) / (2 * sigma**2))
    line /= line.sum()
    for axis in (0, 1):
        widths = [(radius, radius) if i == axis else (0, 0) for i in range(3)]
        windows = np.lib.stride_tricks.sliding_window_view(np.pad(x, widths, mode="reflect"), len(line), axis)
        x = np.asarray(windows @ line, np.float64)
    return x
