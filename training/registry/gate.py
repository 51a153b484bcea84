"""Judge a model: limits of its metrics, and a paired comparison with the model in service."""

import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import stats

from common.errors import CommandError
from training.evaluation.metrics import METRICS
from training.evaluation.predictions import Predictions


@dataclass(frozen=True)
class Gate:
    """Limits of metrics by name, and the significance level of the comparison."""

    minimum: dict[str, float]
    maximum: dict[str, float]
    significance: float


@dataclass(frozen=True)
class Paired:
    """How many images changed for the worse and for the better, and the probability of that by chance.

    Attributes
    ----------
    harm : str
        What a model does on an image that counts as worse.
    images : int
        Images that both models were shown and that can count.
    worse, better : int
        Images on which only the new model, and only the one in service, does the harm.
    p : float
        Probability of at least as many worse ones if each change had gone either way (exact one-sided McNemar test).
    """

    harm: str
    images: int
    worse: int
    better: int
    p: float

    def __str__(self) -> str:
        changes = f"{self.worse} images became worse, {self.better} better of {self.images}"
        return f"{self.harm}: {changes} (p {self.p:.2g})"


def read_gate(path: Path) -> Gate:
    """Read the limits.

    Raises
    ------
    CommandError
        The file is missing or malformed, or names an unknown metric.
    """
    try:
        table = tomllib.loads(path.read_text(encoding="utf-8"))
        gate = Gate(table["minimum"], table["maximum"], table["comparison"]["significance"])
        numbers = [*gate.minimum.values(), *gate.maximum.values(), gate.significance]
    except FileNotFoundError as error:
        raise CommandError(f"--gate {path} does not exist") from error
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise CommandError(
            f"--gate {path}: expected the tables minimum, maximum and comparison (significance): {error}"
        ) from error
    if unknown := sorted({*gate.minimum, *gate.maximum} - set(METRICS)):
        raise CommandError(f"--gate {path}: unknown metrics {', '.join(unknown)}; known are {', '.join(METRICS)}")
    if not all(isinstance(number, int | float) for number in numbers) or not 0 < gate.significance < 1:
        raise CommandError(f"--gate {path}: limits must be numbers, and significance one between 0 and 1")
    return gate


def compare(new: Predictions, served: Predictions, labels: int, threshold: float) -> list[Paired]:
    """Compare two models on the images that both could be shown.

    Parameters
    ----------
    new, served : Predictions
        Of the same set of images.
    labels : int
        How many labels both have.
    threshold : float
        A prediction passes if its confidence is at least this.

    Returns
    -------
    list of Paired
        Wrong predictions (of images with a label); predictions that pass and are wrong (background included); and
        images with a label that no longer pass with the correct one.
    """
    position = {image.path: i for i, image in enumerate(served.images)}
    pairs = [(i, position[image.path]) for i, image in enumerate(new.images) if image.path in position]
    mine, theirs = np.array(pairs, int).reshape(-1, 2).T
    targets = new.targets[mine]
    known = targets < labels

    def harms(probabilities: npt.NDArray[np.floating]) -> dict[str, npt.NDArray[np.bool_]]:
        wrong = probabilities.argmax(axis=1) != targets
        passes = probabilities.max(axis=1) >= threshold
        return {
            "predicts the wrong label": wrong[known],
            "passes a wrong prediction": passes & wrong,
            "does not pass the correct label": ~(passes & ~wrong)[known],
        }

    before = harms(served.probabilities[theirs])
    return [_paired(harm, after, before[harm]) for harm, after in harms(new.probabilities[mine]).items()]


def _paired(harm: str, after: npt.NDArray[np.bool_], before: npt.NDArray[np.bool_]) -> Paired:
    worse, better = int((after & ~before).sum()), int((before & ~after).sum())
    p = stats.binomtest(worse, worse + better, 0.5, alternative="greater").pvalue if worse + better else 1.0
    return Paired(harm, len(after), worse, better, float(p))


def judge(metrics: dict[str, Any], comparison: list[Paired], gate: Gate) -> list[str]:
    """Return the reasons to reject a model; none if it passes.

    Parameters
    ----------
    metrics : dict
        As `training.evaluation.metrics.compute_metrics` returns them.
    comparison : list of Paired
        With the model in service; empty if there is none.
    gate : Gate
        The limits.
    """
    reasons = []
    for name, limit in gate.minimum.items():
        if metrics[name] is None or metrics[name] < limit:
            reasons.append(f"{name} is {_shown(metrics[name])}, below {limit:g}")
    for name, limit in gate.maximum.items():
        if metrics[name] is None or metrics[name] > limit:
            reasons.append(f"{name} is {_shown(metrics[name])}, above {limit:g}")
    # Any of the tests may reject, so each gets its part of the error.
    reasons += [
        f"{each.harm} more often than the model in service: {each.worse} images became worse and {each.better} better "
        f"(p {each.p:.2g})"
        for each in comparison
        if each.p * len(comparison) < gate.significance
    ]
    return reasons


def _shown(value: float | None) -> str:
    return "unknown (there is no such image)" if value is None else f"{value:g}"
