"""What is measured of a capture: the picture's pixels, and the model's view of it."""

import math
import os
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from itertools import batched, islice
from multiprocessing import get_context

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageChops

from monitoring.capture import Capture
from src.serialize import decoder

NEITHER = "neither"
#: Numeric features, each with what one reads on its axis.
NUMERIC = {
    "brightness": "mean luma, 0 to 1",
    "contrast": "standard deviation of luma, 0 to 0.5",
    "sharpness": "log10 of the variance of luma's Laplacian",
    "saturation": "mean saturation, 0 to 1",
    "entropy": "entropy of luma, bits",
    "blockiness": "steps at the edges of 8x8 blocks, over other steps",
    "pixels": "width x height",
    "aspect_ratio": "width / height",
    "confidence": "highest probability of a label",
}
#: Categorical features: the most probable answer, "neither" being one, and whether it passes the threshold.
CATEGORICAL = ("answer", "outcome")
PASSES, UNSURE = "passes", "unsure"
#: Pictures are measured at no more than this many pixels a side, above what the workflow sends at most (MaxEdge).
MEASURED_EDGE = 512

#: JPEG's blocks (ITU-T T.81, A.1.3).
_BLOCK = 8
# The darkest picture has no detail at all; its logarithm must be finite.
_LEAST_SHARPNESS = 1e-7
_BATCH = 200
# Below this, starting processes takes longer than it saves.
_ALONE = 1000


class UnreadableImage(ValueError):
    """Captured bytes that are no image."""


@dataclass(frozen=True)
class Observation:
    """The features of one capture: the pixels' and the confidence by name, the answer and its outcome."""

    numeric: dict[str, float]
    answer: str
    outcome: str


@dataclass(frozen=True)
class Model:
    """What must be known of the model to read its probabilities: labels in their order, and the threshold."""

    labels: list[str]
    threshold: float


def observe(capture: Capture, model: Model) -> Observation:
    """Measure one capture.

    Raises
    ------
    UnreadableImage
        If the image cannot be decoded, or the probabilities are not one per label.
    """
    if len(capture.probabilities) != len(model.labels):
        raise UnreadableImage(f"{len(capture.probabilities)} probabilities for {len(model.labels)} labels")
    image, pixels = decode(capture.image)
    confidence = max(capture.probabilities)
    label = model.labels[capture.probabilities.index(confidence)]
    neither = 1 - sum(capture.probabilities)
    return Observation(
        {**measure_pixels(image), "pixels": float(pixels), "confidence": confidence},
        label if confidence >= neither else NEITHER,
        PASSES if confidence >= model.threshold else UNSURE,
    )


def decode(data: bytes) -> tuple[Image.Image, int]:
    """Decode a captured image as the endpoint does, and shrink what is larger than the workflow ever sends.

    Returns
    -------
    tuple of (PIL.Image.Image, int)
        The picture (RGB, at most `MEASURED_EDGE` pixels a side), and how many pixels it had.

    Raises
    ------
    UnreadableImage
        If it is no image, or one that the endpoint refuses.
    """
    try:
        image, _, (width, height) = decoder.decode(data, at_least=2 * MEASURED_EDGE)
    except decoder.ImageError as error:
        raise UnreadableImage("an image that the endpoint refuses") from error
    if max(image.size) > MEASURED_EDGE:
        image.thumbnail((MEASURED_EDGE, MEASURED_EDGE), Image.Resampling.BOX)
    return image, width * height


def measure_pixels(image: Image.Image) -> dict[str, float]:
    """Measure a picture.

    Parameters
    ----------
    image : PIL.Image.Image
        Mode RGB.

    Returns
    -------
    dict of str to float
        All of `NUMERIC` but ``pixels`` and ``confidence``. Luma is ITU-R BT.601's, 0 to 1. ``sharpness`` follows
        Pech-Pacheco et al. 2000, "Diatom autofocusing in brightfield microscopy"; ``blockiness`` is, in logarithm, the
        ratio that Wang, Bovik and Evans 2000, "Blind measurement of blocking artifacts in images", look for as a peak:
        mean absolute step across block edges over mean absolute step elsewhere, 0 where a picture has no block edge.
    """
    luma8 = image.convert("L")
    luma = np.asarray(luma8, dtype=np.float32) / 255
    share = np.array(luma8.histogram()) / luma.size
    used = share[share > 0]
    laplacian = (
        (luma[:-2, 1:-1] + luma[2:, 1:-1] + luma[1:-1, :-2] + luma[1:-1, 2:] - 4 * luma[1:-1, 1:-1]).var()
        if min(luma.shape) >= 3
        else 0.0
    )
    return {
        "brightness": float(luma.mean()),
        "contrast": float(luma.std()),
        "sharpness": math.log10(max(float(laplacian), _LEAST_SHARPNESS)),
        "saturation": _saturation(image),
        "entropy": float(-(used * np.log2(used)).sum()),
        "blockiness": _blockiness(luma),
        "aspect_ratio": image.width / image.height,
    }


def _saturation(image: Image.Image) -> float:
    """Return the mean of HSV's saturation, about four times as fast as a conversion to HSV."""
    red, green, blue = image.split()
    highest = np.asarray(ImageChops.lighter(ImageChops.lighter(red, green), blue), dtype=np.float32)
    lowest = np.asarray(ImageChops.darker(ImageChops.darker(red, green), blue), dtype=np.float32)
    return float(((highest - lowest) / np.maximum(highest, 1)).mean())


def _blockiness(luma: npt.NDArray[np.floating]) -> float:
    inside, across = [], []
    for axis in (0, 1):
        steps = np.abs(np.diff(luma, axis=axis)).mean(axis=1 - axis)
        edges = np.arange(len(steps)) % _BLOCK == _BLOCK - 1
        inside.append(steps[~edges])
        across.append(steps[edges])
    outer, inner = np.concatenate(across), np.concatenate(inside)
    if not len(outer) or not len(inner):
        return 0.0
    # A thousandth of white keeps flat pictures at 0.
    return math.log((outer.mean() + 1e-3) / (inner.mean() + 1e-3))


class Features:
    """The features of many captures, by column, with what could not be measured, by reason."""

    def __init__(self) -> None:
        self.numeric: dict[str, list[float]] = {name: [] for name in NUMERIC}
        self.categorical: dict[str, list[str]] = {name: [] for name in CATEGORICAL}
        self.unreadable: Counter[str] = Counter()

    def __len__(self) -> int:
        return len(self.categorical["answer"])

    def add(self, observed: Observation | str) -> None:
        """Append one observation, or count the reason why there is none."""
        if isinstance(observed, str):
            self.unreadable[observed] += 1
            return
        for name, column in self.numeric.items():
            column.append(observed.numeric[name])
        self.categorical["answer"].append(observed.answer)
        self.categorical["outcome"].append(observed.outcome)


def observe_all(
    captures: Iterable[Capture], model: Model, done: Callable[[int], None]
) -> Iterator[tuple[Capture, Observation | str]]:
    """Measure captures in their order, on all processors if there are many.

    Parameters
    ----------
    captures : iterable of Capture
        Read a batch at a time.
    model : Model
        Labels and threshold.
    done : callable
        Takes the number of captures measured since the last call.

    Yields
    ------
    tuple of (Capture, Observation or str)
        In place of an observation, the reason why there is none.
    """
    batches = batched(captures, _BATCH)
    alone = list(islice(batches, _ALONE // _BATCH))
    for batch in alone:
        yield from zip(batch, _observe_batch(batch, model), strict=True)
        done(len(batch))
    if len(alone) < _ALONE // _BATCH:
        return
    workers = os.cpu_count() or 1
    # Forking would copy the threads that show progress.
    with ProcessPoolExecutor(workers, get_context("forkserver")) as pool:
        # As many batches at a time as keep all processes busy, so that memory does not grow with the window.
        while some := list(islice(batches, 4 * workers)):
            for batch, observed in zip(some, pool.map(_observe_batch, some, [model] * len(some)), strict=True):
                yield from zip(batch, observed, strict=True)
                done(len(batch))


def _observe_batch(batch: tuple[Capture, ...], model: Model) -> list[Observation | str]:
    return [_observe_or_reason(capture, model) for capture in batch]


def _observe_or_reason(capture: Capture, model: Model) -> Observation | str:
    try:
        return observe(capture, model)
    except UnreadableImage as error:
        return str(error)
