"""Measure how reliably drift is detected: ``python -m benchmarks.drift --data DIR``.

Windows of images are drawn at random, each with a baseline of other images, so a clean window differs only by chance.
Then the window's images are damaged, or some of them are replaced by images of a class that the baseline lacks, and the
window is compared as in ``python -m monitoring check``. Images are damaged in the size that the workflow sends, and
then encoded as the workflow encodes them.

The damage: the 15 corruptions of ImageNet-C (Hendrycks and Dietterich 2019, "Benchmarking Neural Network Robustness to
Common Corruptions and Perturbations") at severity 2, and six simpler kinds in windows of twice the size.
"""

import argparse
import datetime
import io
import sys
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageFilter
from rich.console import Console
from rich.table import Table
from scipy import stats

from common.capture import Capture
from common.command import positive_int, quietly
from common.errors import CommandError
from common.image_sets import ImageFile, find_sets
from common.images import SENT_EDGE
from common.progress import progress
from demo.drawing import encoded
from monitoring.content import Rows, compare_content
from monitoring.drift import SIGNIFICANCE, Finding, differences, judge
from monitoring.features import Features, Model, Observation, observe
from serving.model import Model as Network
from serving.preprocess import preprocess
from src.serialize.decoder import decode
from src.serialize.encoder import encode
from training.evaluation.metrics import THRESHOLD

ROOT = Path(__file__).resolve().parents[1]

#: Corruptions of ImageNet-C, under the package's names, and their severity of 1 to 5.
CORRUPTIONS = (
    "gaussian_noise",
    "shot_noise",
    "impulse_noise",
    "defocus_blur",
    "glass_blur",
    "motion_blur",
    "zoom_blur",
    "snow",
    "frost",
    "fog",
    "brightness",
    "contrast",
    "elastic_transform",
    "pixelate",
    "jpeg_compression",
)
SEVERITY = 2
#: Simpler damage, with its strength. Blur is in pixels; noise is relative to white = 1.
DAMAGES = {
    "darker ×": 0.5,
    "brighter ×": 1.6,
    "less contrast ×": 0.5,
    "blur σ": 1.2,
    "noise σ": 0.08,
    "JPEG quality": 20,
}
#: Fraction of the first label in a window with another mix of labels.
MIX = 0.8
MIXED = f"labels {MIX:.0%}:{1 - MIX:.0%}"
#: Fraction of a window that shows a class that the baseline lacks.
NEW = 0.2
#: Fraction of background in the usual traffic, where that traffic has background.
BACKGROUND = 0.2
#: No more images than this are damaged, or are in a baseline.
MOST_DAMAGED, MOST_IN_BASELINE = 400, 400
#: Smaller images cannot be damaged.
LEAST_EDGE = 32
#: Targets: fraction of windows in which drift is detected, and of clean windows with a false alarm.
TARGET_DETECTED, MAX_FALSE_ALARMS = 0.95, 0.003

Numbers = npt.NDArray[np.integer]


def damage(image: Image.Image, name: str, random: np.random.Generator) -> Image.Image:
    """Apply one kind of damage to an RGB image."""
    if name in CORRUPTIONS:
        # Not at the top: compiles functions, which takes seconds.
        from imagecorruptions import corrupt

        np.random.seed(random.integers(1 << 31))  # the package has no other way
        return Image.fromarray(np.ascontiguousarray(corrupt(np.asarray(image), SEVERITY, name)))
    strength = DAMAGES[name]
    if name == "blur σ":
        return image.filter(ImageFilter.GaussianBlur(strength))
    if name == "JPEG quality":
        return Image.open(io.BytesIO(encoded(image, "JPEG", quality=int(strength)))).convert("RGB")
    pixels = np.asarray(image) / 255
    if name == "noise σ":
        pixels = pixels + random.normal(0, strength, pixels.shape)
    elif name == "less contrast ×":
        pixels = pixels.mean() + (pixels - pixels.mean()) * strength
    else:
        pixels = pixels * strength
    return Image.fromarray(np.round(pixels.clip(0, 1) * 255).astype(np.uint8))


@dataclass(frozen=True)
class Look:
    """What is observed of images in one state: everything that is compared; ``content`` if the model has features."""

    observations: list[Observation]
    content: Rows

    def features(self, which: Numbers) -> Features:
        """Put some observations into columns."""
        features = Features()
        for i in which:
            features.add(self.observations[i])
        return features


def look(job: tuple[int, ImageFile, list[str], Path]) -> tuple[list[Observation], Rows]:
    """Observe an image unchanged, and with each kind of damage, as its capture would be observed."""
    number, image, damages, path = job
    network = _network(path)
    model = Model(network.labels, THRESHOLD)
    random = np.random.default_rng(number)
    original = image.path.read_bytes()
    picture = decode(original, max_edge=SENT_EDGE).image
    sent = [encode(picture, original)[0]]
    sent += [encode(damage(picture, name, random), b"")[0] for name in damages]
    observations = []
    content: list[npt.NDArray[np.float32]] = []
    for data in sent:
        pixels = preprocess(data, network.input_size)
        answer = network.probabilities(pixels)
        observations.append(observe(Capture("", datetime.datetime.min, "", "", None, "", data, answer), model))
        content.append(network.features(pixels) if network.has_features else np.zeros(0, np.float32))
    return observations, np.array(content, np.float16)


_networks: dict[Path, Network] = {}


def _network(path: Path) -> Network:
    """Return the model of this process."""
    if path not in _networks:
        _networks[path] = Network(path)
    return _networks[path]


def look_at_all(
    images: list[ImageFile], damages: list[str], model: Path, pool: ProcessPoolExecutor, task: str
) -> dict[str, Look]:
    """Observe every image ``clean`` and with each kind of damage."""
    jobs = [(number, image, damages, model) for number, image in enumerate(images)]
    results = []
    with progress(task, len(jobs), "images") as advance:
        for result in pool.map(look, jobs, chunksize=8):
            results.append(result)
            advance(1)
    states = ["clean", *damages]
    return {
        state: Look([each[0][i] for each in results], np.stack([each[1][i] for each in results]))
        for i, state in enumerate(states)
    }


@dataclass(frozen=True)
class Draw:
    """A window and its baseline: the numbers of their images among the clean ones, and the state of the window's.

    In any state but clean the window's images are numbered among the damaged ones.
    """

    kind: str
    baseline: Numbers
    window: Numbers
    state: str = "clean"


# The observations in a process that compares windows.
_looks: dict[str, Look] = {}


def _share(looks: dict[str, Look]) -> None:
    _looks.update(looks)


def compare(draw: Draw) -> tuple[str, list[Finding], bool]:
    """Compare a window with its baseline: each feature's test, and whether the mean confidence alone detects drift."""
    before, now = _looks["clean"], _looks[draw.state]
    baseline, window = before.features(draw.baseline), now.features(draw.window)
    content = None
    if before.content.shape[1]:
        content = compare_content(before.content[draw.baseline], now.content[draw.window])
    # Welch 1947: two means, variances unknown and unequal.
    means = stats.ttest_ind(baseline.numeric["confidence"], window.numeric["confidence"], equal_var=False)
    return draw.kind, differences(baseline, window, content), bool(means.pvalue < SIGNIFICANCE)


@dataclass
class Result:
    """For one kind of window: in how many drift was detected, by what, by what alone, and without what not."""

    windows: int = 0
    found: int = 0
    confidence_alone: int = 0
    by: Counter[str] = field(default_factory=Counter)
    alone: Counter[str] = field(default_factory=Counter)
    without: Counter[str] = field(default_factory=Counter)

    def count(self, tested: list[Finding], confidence_alone: bool) -> None:
        """Count one window."""
        drifted = [each.feature for each in judge(tested) if each.drifted]
        self.windows += 1
        self.found += bool(drifted)
        self.confidence_alone += confidence_alone
        self.by.update(drifted)
        for each in tested:
            self.alone[each.feature] += judge([each])[0].drifted
            self.without[each.feature] += any(other.drifted for other in judge([t for t in tested if t is not each]))


def clean_windows(images: int, size: int, windows: int) -> Iterator[Draw]:
    """Cut all images, shuffled, into windows with baselines; shuffle again when they are used up.

    Windows of one shuffle share no image, and neither do their baselines.
    """
    random = np.random.default_rng(1)
    block = min(images, size + MOST_IN_BASELINE)
    made = 0
    while made < windows:
        shuffled = random.permutation(images)
        for start in range(0, images - block + 1, block):
            if made < windows:
                yield Draw("clean", shuffled[start + size : start + block], shuffled[start : start + size])
            made += 1


def damaged_windows(damaged: Numbers, damages: list[str], size: int, windows: int) -> Iterator[Draw]:
    """Draw windows of the damaged images, with baselines of the others of them."""
    random = np.random.default_rng(2)
    for _ in range(windows):
        shuffled = random.permutation(len(damaged))
        for kind in damages:
            yield Draw(kind, damaged[shuffled[size:]], shuffled[:size], kind)


def mixed_windows(classes: npt.NDArray[np.str_], label: str, size: int, windows: int) -> Iterator[Draw]:
    """Draw windows with another mix of labels than the images have."""
    random = np.random.default_rng(3)
    for _ in range(windows):
        first = random.choice(np.flatnonzero(classes == label), round(MIX * size), replace=False)
        rest = random.choice(np.flatnonzero(classes != label), size - len(first), replace=False)
        window = np.concatenate([first, rest])
        others = random.permutation(np.setdiff1d(np.arange(len(classes)), window))
        yield Draw(MIXED, others[:MOST_IN_BASELINE], window)


def new_content_windows(
    classes: npt.NDArray[np.str_], labels: list[str], size: int, windows: int
) -> Iterator[tuple[str, int, Iterator[Draw]]]:
    """Draw windows of which a part shows a background class that the baseline lacks.

    Yields
    ------
    tuple of (str, int, iterator of Draw)
        The class and the traffic otherwise, the number of images in each baseline, and the windows.
    """
    labelled = np.flatnonzero(np.isin(classes, labels))
    part = round(NEW * size)
    for name in np.unique(classes[~np.isin(classes, labels)]).tolist():
        new = np.flatnonzero(classes == name)
        others = np.flatnonzero(~np.isin(classes, [*labels, name]))
        for share in (0, BACKGROUND):
            usual = min(len(labelled) * (1 if not share else 1 / (1 - share)), size - part + MOST_IN_BASELINE)
            background = round(usual * share)
            kept = int(usual) - background
            if len(new) < part or len(others) < background or kept + background < 2 * (size - part):
                continue

            def draws(new: Numbers, others: Numbers, kept: int, background: int, kind: str) -> Iterator[Draw]:
                random = np.random.default_rng(4)
                for _ in range(windows):
                    traffic = np.concatenate(
                        [
                            random.choice(labelled, kept, replace=False),
                            random.choice(others, background, replace=False),
                        ]
                    )
                    traffic = random.permutation(traffic)
                    window = np.concatenate([traffic[: size - part], random.choice(new, part, replace=False)])
                    yield Draw(kind, traffic[size - part :], window)

            kind = f"{NEW:.0%} {name}, {share:.0%} other background"
            yield kind, kept + background - size + part, draws(new, others, kept, background, kind)


def measure(draws: list[Draw], pool: ProcessPoolExecutor, task: str) -> dict[str, Result]:
    """Compare all windows with their baselines, and count by their kind in how many drift is detected."""
    results: dict[str, Result] = {}
    with progress(task, len(draws), "windows") as advance:
        for kind, tested, confidence_alone in pool.map(compare, draws, chunksize=8):
            results.setdefault(kind, Result()).count(tested, confidence_alone)
            advance(1)
    return results


def show(title: str, results: dict[str, Result]) -> None:
    """Print how often each kind was detected, and by what."""
    table = Table("window", title=title, title_justify="left", box=None, pad_edge=False)
    for heading in ("windows", "detected", "by mean confidence alone"):
        table.add_column(heading, justify="right")
    table.add_column("features, with counts")
    for name, result in results.items():
        features = ", ".join(f"{feature} {count}" for feature, count in result.by.most_common(5))
        table.add_row(name, str(result.windows), str(result.found), str(result.confidence_alone), features)
    Console(highlight=False, width=140).print(table, "")


def show_contribution(results: dict[str, Result]) -> None:
    """Print for each feature where it is enough alone, and what is lost without it."""
    drifts = {name: result for name, result in results.items() if name != "clean"}
    table = Table("feature", title="what each feature contributes", title_justify="left", box=None, pad_edge=False)
    for heading in ("windows it detects alone", "windows lost without it"):
        table.add_column(heading, justify="right")
    table.add_column("kinds lost most often")
    total = sum(result.windows for result in drifts.values())
    for feature in next(iter(drifts.values())).alone:
        lost = Counter({name: max(0, result.found - result.without[feature]) for name, result in drifts.items()})
        kinds = ", ".join(f"{name} {count}" for name, count in lost.most_common(4) if count)
        alone = sum(result.alone[feature] for result in drifts.values())
        table.add_row(feature, f"{alone} of {total}", str(lost.total()), kinds)
    Console(highlight=False, width=140).print(table, "")


def main() -> int:
    """Print the results; return 1 if a target is missed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True, help="images in class folders")
    parser.add_argument(
        "--model", type=Path, default=ROOT / "training/model/model.onnx", help="default: the committed one"
    )
    parser.add_argument("--size", type=positive_int, default=50, help="images in a window (default: %(default)s)")
    parser.add_argument("--windows", type=positive_int, default=100, help="windows of each kind (default: %(default)s)")
    parser.add_argument("--clean", type=positive_int, default=1000, help="clean windows (default: %(default)s)")
    parser.add_argument("--processes", type=positive_int, default=2, help="default: %(default)s")
    options = parser.parse_args()
    try:
        network = Network(options.model)
        (image_set,) = find_sets([options.data], network.labels).values()
    except CommandError as error:
        raise SystemExit(f"error: {error}") from error
    images, size = image_set.images, options.size
    if len(images) < 3 * size:
        raise SystemExit(f"error: windows of {size} need at least {3 * size} images, got {len(images)}")
    classes = np.array([image.class_name for image in images])
    random = np.random.default_rng(0)
    damaged = np.sort(random.permutation(len(images))[:MOST_DAMAGED])
    damaged = np.array([i for i in damaged if min(Image.open(images[i].path).size) >= LEAST_EDGE])

    context = get_context("forkserver")
    with ProcessPoolExecutor(options.processes, context) as pool:
        looks = look_at_all(
            [images[i] for i in damaged], [*CORRUPTIONS, *DAMAGES], options.model, pool, "damage and observe"
        )
        looks["clean"] = look_at_all(images, [], options.model, pool, "observe")["clean"]
    with ProcessPoolExecutor(options.processes, context, _share, (looks,)) as pool:
        clean = measure(list(clean_windows(len(images), size, options.clean)), pool, "compare clean windows")
        corrupted = measure(
            list(damaged_windows(damaged, list(CORRUPTIONS), size, options.windows)), pool, "compare corrupted windows"
        )
        simple: dict[str, Result] = {}
        if len(images) >= 3 * size:
            twice = min(2 * size, len(damaged) // 2)
            draws = list(damaged_windows(damaged, list(DAMAGES), twice, options.windows))
            of_first = int((classes == network.labels[0]).sum())
            if min(of_first, len(images) - of_first) >= round(MIX * twice):
                draws += mixed_windows(classes, network.labels[0], twice, options.windows)
            simple = measure(draws, pool, "compare damaged windows")
        content = measure(
            [
                draw
                for _, _, draws in new_content_windows(classes, network.labels, 2 * size, options.windows)
                for draw in draws
            ],
            pool,
            "compare content",
        )
    baseline = min(len(images), size + MOST_IN_BASELINE) - size
    uses = options.clean * size / len(images)
    show(f"clean windows of {size}, baselines of {baseline} of {len(images)} images; each in {uses:.0f} windows", clean)
    show(f"ImageNet-C, severity {SEVERITY}; windows of {size}, baselines of {len(damaged) - size}", corrupted)
    if simple:
        show(f"windows of {twice}", simple)
    if content:
        show(f"windows of {2 * size} in which a class is new", content)
    results = corrupted | simple | content
    show_contribution(results)

    alarms = clean["clean"].found
    print(f"false alarms: {alarms} of {options.clean} (target: at most {MAX_FALSE_ALARMS:.1%})")
    missed = [name for name, result in results.items() if result.found < TARGET_DETECTED * result.windows]
    found = f"{len(results) - len(missed)} of {len(results)} kinds"
    print(
        f"detected in at least {TARGET_DETECTED:.0%} of windows: {found}{'; not: ' * bool(missed)}{', '.join(missed)}"
    )
    return int(bool(missed) or alarms > MAX_FALSE_ALARMS * options.clean)


if __name__ == "__main__":
    sys.exit(quietly(main))
