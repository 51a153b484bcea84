"""How surely drift is found: ``python benchmarks/drift.py --data DIR``.

Windows of images are drawn at random again and again, each with a baseline of its own from the rest of the same
images, so that nothing but chance sets a clean window apart. Each window is damaged in every way and compared with
its baseline as ``python -m monitoring check`` does. Beside it stands what watching the mean confidence alone finds.
"""

import argparse
import io
import json
import sys
from collections import Counter
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from PIL import Image, ImageFilter
from rich.console import Console
from rich.table import Table
from scipy import stats

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from monitoring.capture import Capture  # noqa: E402
from monitoring.drift import SIGNIFICANCE, compare  # noqa: E402
from monitoring.features import Features, Model, Observation, UnreadableImage, observe  # noqa: E402
from training.answers import ImageFile, find_sets, load_model  # noqa: E402
from training.container.preprocess import preprocess  # noqa: E402
from training.container.server import Model as Network  # noqa: E402
from training.errors import CommandError  # noqa: E402
from training.metrics import THRESHOLD  # noqa: E402
from training.progress import progress  # noqa: E402

#: What the stack sends to the endpoint at most, in pixels (MaxEdge).
MAX_EDGE = 224
#: Share of the first label in a window with another mix.
MIX = 0.8


@dataclass(frozen=True)
class Damage:
    """A kind of drift at its mild, middle and severe strength."""

    name: str
    unit: str
    strengths: tuple[float, float, float]


DAMAGES = (
    Damage("darker", "×", (0.7, 0.5, 0.3)),
    Damage("brighter", "×", (1.3, 1.6, 2.0)),
    Damage("less contrast", "×", (0.7, 0.5, 0.3)),
    Damage("blur", "σ ", (0.6, 1.2, 2.0)),
    Damage("noise", "σ ", (0.04, 0.08, 0.16)),
    Damage("JPEG", "quality ", (50, 20, 10)),
)


def damage(image: Image.Image, name: str, strength: float, random: np.random.Generator) -> Image.Image:
    """Return the picture (RGB), darker, brighter and so on. Blur is in pixels; white is 1 to noise."""
    if name == "blur":
        return image.filter(ImageFilter.GaussianBlur(strength))
    if name == "JPEG":
        file = io.BytesIO()
        image.save(file, "JPEG", quality=int(strength))
        return Image.open(file).convert("RGB")
    pixels = np.asarray(image) / 255
    if name == "noise":
        pixels = pixels + random.normal(0, strength, pixels.shape)
    elif name == "less contrast":
        pixels = pixels.mean() + (pixels - pixels.mean()) * strength
    else:
        pixels = pixels * strength
    return Image.fromarray(np.round(pixels.clip(0, 1) * 255).astype(np.uint8))


def look(images: list[ImageFile], network: Network) -> dict[str, list[Observation]]:
    """Observe every image as it is (``clean``) and in every damaged state, as a capture of it would be."""
    model = Model(network.labels, THRESHOLD)
    random = np.random.default_rng(0)
    observed: dict[str, list[Observation]] = {}
    with progress("damage and observe", len(images), "images") as advance:
        for image in images:
            picture = Image.open(image.path).convert("RGB")
            picture.thumbnail((MAX_EDGE, MAX_EDGE), Image.Resampling.BICUBIC)
            states = {"clean": picture}
            for each in DAMAGES:
                for strength in each.strengths:
                    states[f"{each.name} {each.unit}{strength:g}"] = damage(picture, each.name, strength, random)
            for name, state in states.items():
                file = io.BytesIO()
                state.save(file, "PNG")
                answer = network.probabilities(preprocess(file.getvalue(), network.input_size))
                capture = Capture("", _NEVER, "", "", None, "image/png", file.getvalue(), answer)
                observed.setdefault(name, []).append(observe(capture, model))
            advance(1)
    return observed


_NEVER = __import__("datetime").datetime.min


def gather(observations: list[Observation], which: np.ndarray) -> Features:
    """Put some observations into columns."""
    features = Features()
    for i in which:
        features.add(observations[i])
    return features


@dataclass
class Result:
    """Of one kind of window: in how many it was found, by which features, and by mean confidence alone."""

    windows: int
    found: int
    confidence_alone: int
    features: dict[str, int]


def measure(
    images: list[ImageFile], observed: dict[str, list[Observation]], size: int, windows: int, labels: list[str]
) -> dict[str, Result]:
    """Draw windows and their baselines, and count in how many a drift is found."""
    classes = np.array([image.class_name for image in images])
    members = {label: np.flatnonzero(classes == label) for label in labels}
    results = {name: Result(windows, 0, 0, {}) for name in [*observed, f"labels {MIX:.0%}:{1 - MIX:.0%}"]}
    random = np.random.default_rng(1)
    with progress("compare windows", windows, "windows") as advance:
        for _ in range(windows):
            order = random.permutation(len(images))
            window, rest = order[:size], order[size:]
            baseline = gather(observed["clean"], rest)
            for name, state in observed.items():
                _count(results[name], baseline, gather(state, window))
            # The first label's share grows at the cost of the others, of images that are no label's as well.
            first = random.permutation(members[labels[0]])[: round(MIX * size)]
            others = random.permutation(np.setdiff1d(np.arange(len(images)), members[labels[0]]))[: size - len(first)]
            mixed = np.concatenate([first, others])
            baseline = gather(observed["clean"], np.setdiff1d(order, mixed))
            _count(results[f"labels {MIX:.0%}:{1 - MIX:.0%}"], baseline, gather(observed["clean"], mixed))
            advance(1)
    return results


def _count(result: Result, baseline: Features, window: Features) -> None:
    drifted = [finding.feature for finding in compare(baseline, window) if finding.drifted]
    result.found += bool(drifted)
    result.features = dict(Counter(result.features) + Counter(drifted))
    before, now = baseline.numeric["confidence"], window.numeric["confidence"]
    result.confidence_alone += bool(stats.ttest_ind(before, now, equal_var=False).pvalue < SIGNIFICANCE)
