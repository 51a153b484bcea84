"""The features of a capture: measurements of its pixels, and of the model's prediction."""

import math
import os
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from itertools import islice
from multiprocessing import get_context

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageChops

from common.capture import Capture
from common.labels import NEITHER as NEITHER
from src.serialize import decoder

#: Numeric features, each with the label of its axis.
NUMERIC = {
    "brightness": "mean luma, 0 to 1",
    "shadows": "luma that the darkest 2% of the pixels stay below, 0 to 1",
    "contrast": "standard deviation of luma, 0 to 0.5",
    "sharpness": "log10 of the variance of luma's Laplacian",
    "saturation": "mean saturation, 0 to 1",
    "entropy": "entropy of luma, bits",
    "blockiness": "steps at the edges of 8x8 blocks, over other steps",
    "pixels": "width x height",
    "aspect_ratio": "width / height",
    "confidence": "highest probability of a label",
}
#: Categorical features: the prediction (a label or "neither"), and whether its confidence passes the threshold.
CATEGORICAL = ("answer", "outcome")
PASSES, UNSURE = "passes", "unsure"
#: Images are measured at no more than this many pixels a side; the workflow sends smaller ones (MaxEdge).
MEASURED_EDGE = 512

#: JPEG's blocks (ITU-T T.81, A.1.3).
_BLOCK = 8
_DARKEST = 0.02
# A flat image has no detail at all; its logarithm must be finite.
_LEAST_SHARPNESS = 1e-7
_BATCH = 200
# With fewer captures, starting processes takes longer than it saves.
_SERIAL = 1000


class UnreadableImage(ValueError):
    """Captured bytes that cannot be measured."""


@dataclass(frozen=True)
class Observation:
    """The features of one capture: numeric features by name, the prediction (``answer``) and its outcome."""

    numeric: dict[str, float]
    answer: str
    outcome: str


@dataclass(frozen=True)
class Model:
    """The labels, in the order of the model's probabilities, and the threshold."""

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
    """Decode a captured image as the endpoint does; shrink it if it is larger than any that the workflow sends.

    Returns
    -------
    tuple of (PIL.Image.Image, int)
        The image (RGB, at most `MEASURED_EDGE` pixels a side), and its original number of pixels.

    Raises
    ------
    UnreadableImage
        If the endpoint rejects it.
    """
    try:
        image, _, (width, height) = decoder.decode(data, at_least=2 * MEASURED_EDGE)
    except decoder.ImageError as error:
        raise UnreadableImage("an image that the endpoint rejects") from error
    if max(image.size) > MEASURED_EDGE:
        image.thumbnail((MEASURED_EDGE, MEASURED_EDGE), Image.Resampling.BOX)
    return image, width * height


def measure_pixels(image: Image.Image) -> dict[str, float]:
    """Measure an image.

    Parameters
    ----------
    image : PIL.Image.Image
        Mode RGB.

    Returns
    -------
    dict of str to float
        All of `NUMERIC` except ``pixels`` and ``confidence``. Luma is ITU-R BT.601's, 0 to 1. ``sharpness`` follows
        Pech-Pacheco et al. 2000, "Diatom autofocusing in brightfield microscopy"; ``blockiness`` is, in logarithm, the
        ratio that Wang, Bovik and Evans 2000, "Blind measurement of blocking artifacts in images", look for as a peak:
        mean absolute step across block edges over mean absolute step elsewhere; 0 if an image has no block edge.
    """
    luma8 = image.convert("L")
    luma = np.asarray(luma8, dtype=np.float32) / 255
    shares = np.array(luma8.histogram()) / luma.size
    used = shares[shares > 0]
    laplacian = (
        (luma[:-2, 1:-1] + luma[2:, 1:-1] + luma[1:-1, :-2] + luma[1:-1, 2:] - 4 * luma[1:-1, 1:-1]).var()
        if min(luma.shape) >= 3
        else 0.0
    )
    return {
        "brightness": float(luma.mean()),
        "shadows": float(np.searchsorted(shares.cumsum(), _DARKEST)) / 255,
        "contrast": float(luma.std()),
        "sharpness": math.log10(max(float(laplacian), _LEAST_SHARPNESS)),
        "saturation": _saturation(image),
        "entropy": float(-(used * np.log2(used)).sum()),
        "blockiness": _blockiness(luma),
        "aspect_ratio": image.width / image.height,
    }


def _saturation(image: Image.Image) -> float:
    """Return the mean of HSV's saturation."""
    # About four times as fast as a conversion to HSV.
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
    # A thousandth of white keeps flat images at 0.
    return math.log((outer.mean() + 1e-3) / (inner.mean() + 1e-3))


class Features:
    """The features of many captures, by column; and counts of captures that could not be measured, by reason."""

    def __init__(self) -> None:
        self.numeric: dict[str, list[float]] = {name: [] for name in NUMERIC}
        self.categorical: dict[str, list[str]] = {name: [] for name in CATEGORICAL}
        self.unreadable: Counter[str] = Counter()

    def __len__(self) -> int:
        return len(self.categorical["answer"])

    def add(self, observed: Observation | str) -> None:
        """Append one observation, or count the reason for its absence."""
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
    """Measure captures in order, on all processors if there are many captures.

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
        Instead of an observation, the reason for its absence.
    """
    remaining = iter(captures)
    batches = iter(lambda: tuple(islice(remaining, _BATCH)), ())
    first = list(islice(batches, _SERIAL // _BATCH))
    for batch in first:
        yield from zip(batch, _observe_batch(batch, model), strict=True)
        done(len(batch))
    if len(first) < _SERIAL // _BATCH:
        return
    workers = os.cpu_count() or 1
    # Forking would copy the threads of the progress bar.
    with ProcessPoolExecutor(workers, get_context("forkserver")) as pool:
        # Only as many batches at a time as keep all processes busy: memory must not grow with the window.
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
