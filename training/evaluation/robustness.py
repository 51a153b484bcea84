"""Corrupt images in known ways, to measure how robust the model is."""

import io

import numpy as np
import numpy.typing as npt
from scipy.ndimage import gaussian_filter

from common.images import SENT_EDGE
from serving.preprocess import preprocess
from src.serialize.decoder import decode

# Corruption, and its three strengths from mild to severe.
# Brightness and contrast: factors; blur: standard deviation as a fraction of the input's edge; noise: standard
# deviation where white is 1; JPEG: Pillow's quality.
CORRUPTIONS: dict[str, tuple[float, float, float]] = {
    "brightness": (0.7, 0.5, 1.6),
    "contrast": (0.7, 0.5, 0.3),
    "blur": (0.02, 0.04, 0.06),
    "noise": (0.04, 0.08, 0.16),
    "JPEG": (60, 30, 10),
}
CASES = [(name, strength) for name, strengths in CORRUPTIONS.items() for strength in strengths]


def describe(name: str, strength: float) -> str:
    """Format a strength: ``×0.5``, ``σ 4%``, ``quality 30``."""
    shown = {"blur": f"σ {strength:.0%}", "noise": f"σ {strength:g}", "JPEG": f"quality {strength:g}"}
    return shown.get(name, f"×{strength:g}")


def corrupt(image_bytes: bytes, pixels: npt.NDArray[np.uint8], seed: int) -> list[npt.NDArray[np.uint8]]:
    """Apply every corruption of `CASES` to one image.

    JPEG is applied to the image as the workflow sends it, at most `SENT_EDGE` pixels a side, before it is
    preprocessed; all others to the network's input, so that they mean the same for images of every size, and blur for
    networks of every input size.

    Parameters
    ----------
    image_bytes : bytes
        The image file.
    pixels : numpy.ndarray
        The same image after `preprocess`: shape (edge, edge, 3), dtype uint8.
    seed : int
        Of the noise; use a different one for each image.

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
    # The same pattern at every strength, so that only the strength differs.
    noise = np.random.default_rng(seed).standard_normal(x.shape)
    picture = decode(image_bytes, max_edge=SENT_EDGE).image

    def apply(name: str, strength: float) -> npt.NDArray[np.uint8]:
        if name == "JPEG":
            file = io.BytesIO()
            picture.save(file, "JPEG", quality=int(strength))
            return preprocess(file.getvalue(), pixels.shape[0])
        if name == "brightness":
            changed = x * strength
        elif name == "contrast":
            changed = mean + (x - mean) * strength
        elif name == "blur":
            changed = gaussian_filter(x, strength * len(x), mode="mirror", truncate=3.0, axes=(0, 1))
        else:
            changed = x + noise * strength
        return np.round(np.clip(changed, 0, 1) * 255).astype(np.uint8)

    return [apply(name, strength) for name, strength in CASES]
