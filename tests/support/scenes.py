"""Pictures for drift: alike enough to make a baseline, and what is measured of them."""

import numpy as np
from PIL import Image

from common.capture import Capture
from demo.drawing import encoded
from monitoring.features import Features, Model, observe
from tests.support.captures import BEGIN

MODEL = Model(["bicycle", "motorcycle"], 0.7)


def scene(seed: int, size: tuple[int, int] = (32, 32)) -> Image.Image:
    """Return a picture with large shapes and some texture."""
    random = np.random.default_rng(seed)
    coarse = Image.fromarray(random.integers(40, 216, (5, 5, 3), np.uint8)).resize(size, Image.Resampling.BICUBIC)
    return Image.fromarray(np.clip(np.asarray(coarse) + random.normal(0, 6, (*size[::-1], 3)), 0, 255).astype(np.uint8))


def captured(image: Image.Image, probabilities: list[float], form: str = "PNG") -> Capture:
    return Capture("id", BEGIN, "endpoint", "variant", None, "", encoded(image, form), probabilities)


def features(images: list[Image.Image], probabilities: list[list[float]] | None = None) -> Features:
    random = np.random.default_rng(5)
    result = Features()
    for i, image in enumerate(images):
        sure = float(random.uniform(0.6, 1))
        answer = probabilities[i] if probabilities else [sure, 1 - sure] if i % 2 else [1 - sure, sure]
        result.add(observe(captured(image, answer), MODEL))
    return result


BASELINE = features([scene(seed) for seed in range(300)])
CLEAN = [scene(seed) for seed in range(1000, 1100)]
