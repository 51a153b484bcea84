"""Measure how reliably drift is detected: ``python -m benchmarks.drift --data DIR``.

Random windows of images are drawn repeatedly, each with a baseline from the remaining images, so a clean window differs
only by chance. Every corruption is applied to each window, which is then compared with its baseline as in
``python -m monitoring check``. A test of the mean confidence alone is shown for comparison.
"""

import argparse
import datetime
import io
import sys
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageFilter
from rich.console import Console
from rich.table import Table
from scipy import stats

from common.command import positive_int
from common.errors import CommandError
from common.image_sets import ImageFile, find_sets
from common.progress import progress
from demo.drawing import encoded
from monitoring.capture import Capture
from monitoring.drift import SIGNIFICANCE, compare
from monitoring.features import Features, Model, Observation, observe
from serving.model import Model as Network
from serving.preprocess import preprocess
from src.serialize.decoder import decode
from training.evaluation.metrics import THRESHOLD

ROOT = Path(__file__).resolve().parents[1]

#: What the stack sends to the endpoint at most, in pixels (MaxEdge).
MAX_EDGE = 224
#: Fraction of the first label in a window with another mix of labels.
MIX = 0.8
MIXED = f"labels {MIX:.0%}:{1 - MIX:.0%}"
#: Targets: fraction of windows in which drift of medium strength is detected, and of clean windows with a false alarm.
TARGET_DETECTED, MAX_FALSE_ALARMS = 0.98, 0.03


@dataclass(frozen=True)
class Damage:
    """A kind of drift at mild, medium and severe strength."""

    name: str
    unit: str
    strengths: tuple[float, float, float]

    def named(self, strength: float) -> str:
        """Format one strength."""
        return f"{self.name} {self.unit}{strength:g}"


DAMAGES = (
    Damage("darker", "×", (0.7, 0.5, 0.3)),
    Damage("brighter", "×", (1.3, 1.6, 2.0)),
    Damage("less contrast", "×", (0.7, 0.5, 0.3)),
    Damage("blur", "σ ", (0.6, 1.2, 2.0)),
    Damage("noise", "σ ", (0.04, 0.08, 0.16)),
    Damage("JPEG", "quality ", (50, 20, 10)),
)


def damage(image: Image.Image, name: str, strength: float, random: np.random.Generator) -> Image.Image:
    """Apply one kind of drift to an RGB image. Blur is in pixels; noise is relative to white = 1."""
    if name == "blur":
        return image.filter(ImageFilter.GaussianBlur(strength))
    if name == "JPEG":
        return Image.open(io.BytesIO(encoded(image, "JPEG", quality=int(strength)))).convert("RGB")
    pixels = np.asarray(image) / 255
    if name == "noise":
        pixels = pixels + random.normal(0, strength, pixels.shape)
    elif name == "less contrast":
        pixels = pixels.mean() + (pixels - pixels.mean()) * strength
    else:
        pixels = pixels * strength
    return Image.fromarray(np.round(pixels.clip(0, 1) * 255).astype(np.uint8))


def look(images: list[ImageFile], network: Network) -> dict[str, list[Observation]]:
    """Observe every image unchanged (``clean``) and with every kind of drift, as its capture would be observed."""
    model = Model(network.labels, THRESHOLD)
    random = np.random.default_rng(0)
    observed: dict[str, list[Observation]] = {}
    with progress("damage and observe", len(images), "images") as advance:
        for image in images:
            picture = decode(image.path.read_bytes(), at_least=2 * MAX_EDGE).image
            picture.thumbnail((MAX_EDGE, MAX_EDGE), Image.Resampling.BICUBIC)
            states = {"clean": picture}
            for each in DAMAGES:
                for strength in each.strengths:
                    states[each.named(strength)] = damage(picture, each.name, strength, random)
            for name, state in states.items():
                content = encoded(state)
                answer = network.probabilities(preprocess(content, network.input_size))
                capture = Capture("", datetime.datetime.min, "", "", None, "image/png", content, answer)
                observed.setdefault(name, []).append(observe(capture, model))
            advance(1)
    return observed


def gather(observations: list[Observation], which: npt.NDArray[np.integer]) -> Features:
    """Put some observations into columns."""
    features = Features()
    for i in which:
        features.add(observations[i])
    return features


@dataclass
class Result:
    """For one kind of window: how often drift was detected, by which features, and by mean confidence alone."""

    found: int = 0
    confidence_alone: int = 0
    features: Counter[str] = field(default_factory=Counter)

    def count(self, baseline: Features, window: Features) -> None:
        """Compare a window with its baseline."""
        drifted = [finding.feature for finding in compare(baseline, window) if finding.drifted]
        self.found += bool(drifted)
        self.features.update(drifted)
        before, now = baseline.numeric["confidence"], window.numeric["confidence"]
        # Welch 1947: two means, variances unknown and unequal.
        self.confidence_alone += bool(stats.ttest_ind(before, now, equal_var=False).pvalue < SIGNIFICANCE)


def measure(
    labelled: npt.NDArray[np.bool_], observed: dict[str, list[Observation]], size: int, windows: int
) -> dict[str, Result]:
    """Draw windows and their baselines, and count in how many drift is detected.

    Parameters
    ----------
    labelled : numpy.ndarray
        Shape (images,), whether an image shows the first label.
    observed : dict
        The result of `look`.
    size, windows : int
        Images in a window, and how many windows are drawn.
    """
    results = {name: Result() for name in [*observed, MIXED]}
    random = np.random.default_rng(1)
    everything = np.arange(len(labelled))
    with progress("compare windows", windows, "windows") as advance:
        for _ in range(windows):
            window = random.choice(everything, size, replace=False)
            baseline = gather(observed["clean"], np.setdiff1d(everything, window))
            for name, state in observed.items():
                results[name].count(baseline, gather(state, window))
            first = random.choice(everything[labelled], round(MIX * size), replace=False)
            rest = random.choice(everything[~labelled], size - len(first), replace=False)
            mixed = np.concatenate([first, rest])
            baseline = gather(observed["clean"], np.setdiff1d(everything, mixed))
            results[MIXED].count(baseline, gather(observed["clean"], mixed))
            advance(1)
    return results


def main() -> int:
    """Print the results; return 1 if a target is missed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True, help="images in class folders")
    parser.add_argument(
        "--model", type=Path, default=ROOT / "training/model/model.onnx", help="default: the committed one"
    )
    parser.add_argument("--size", type=positive_int, default=100, help="images in a window (default: %(default)s)")
    parser.add_argument("--windows", type=positive_int, default=100, help="windows of each kind (default: %(default)s)")
    options = parser.parse_args()
    try:
        network = Network(options.model)
        (image_set,) = find_sets([options.data], network.labels).values()
    except CommandError as error:
        raise SystemExit(f"error: {error}") from error
    images = image_set.images
    labelled = np.array([image.class_name == network.labels[0] for image in images])
    if min(labelled.sum(), (~labelled).sum(), len(images) - options.size) < options.size:
        raise SystemExit(
            f"error: windows of {options.size} need at least {options.size} images of the first label, of the others, "
            "and for the baseline"
        )
    results = measure(labelled, look(images, network), options.size, options.windows)

    title = f"{options.windows} windows of {options.size}, baselines of {len(images) - options.size} images"
    table = Table("window", title=title, title_justify="left", box=None, pad_edge=False)
    for heading in ("detected", "by mean confidence alone"):
        table.add_column(heading, justify="right")
    table.add_column("features, with counts")
    for name, result in results.items():
        features = ", ".join(f"{feature} {count}" for feature, count in result.features.most_common(4))
        table.add_row(name, str(result.found), str(result.confidence_alone), features)
    Console(highlight=False, width=120).print(table)

    middle = [MIXED, *(each.named(each.strengths[1]) for each in DAMAGES)]
    missed = [name for name in middle if results[name].found < TARGET_DETECTED * options.windows]
    alarms = results["clean"].found
    print(f"\nfalse alarms: {alarms} of {options.windows} (target: at most {MAX_FALSE_ALARMS:.0%})")
    found = f"{len(middle) - len(missed)} of {len(middle)} medium strengths"
    print(f"detected in at least {TARGET_DETECTED:.0%} of windows: {found}")
    return int(bool(missed) or alarms > MAX_FALSE_ALARMS * options.windows)


if __name__ == "__main__":
    sys.exit(main())
