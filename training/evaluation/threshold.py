"""Recommend a threshold, with a guarantee that also holds for few images."""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from training.evaluation.intervals import certified_accuracy

# Below this a prediction is less likely than all alternatives together; such thresholds are never recommended.
MIN_THRESHOLD = 0.50


@dataclass(frozen=True)
class Recommendation:
    """A threshold or None; how many predictions pass it (or the strictest one tried), how many of these are wrong."""

    threshold: float | None
    passing: int
    errors: int
    reason: str


def recommend_threshold(
    confidence: npt.NDArray[np.floating],
    correct: npt.NDArray[np.bool_],
    target_accuracy: float,
    confidence_level: float,
) -> Recommendation:
    """Find the lowest threshold above which predictions certainly reach a target accuracy.

    Learn then test (Angelopoulos et al. 2021, https://arxiv.org/abs/2110.01052) with a fixed sequence: the
    thresholds `target_accuracy`, then each hundredth below it down to `MIN_THRESHOLD`, each tested at level
    1 - `confidence_level` by the exact binomial bound, until one fails. Choosing among those that passed costs
    nothing, because the order does not depend on the images. The sequence begins at `target_accuracy`, since a
    calibrated model reaches that accuracy there. (Geifman and El-Yaniv 2017, https://arxiv.org/abs/1705.08500,
    search the thresholds of the images themselves instead, and divide the level in return.)

    Parameters
    ----------
    confidence, correct : numpy.ndarray
        Shape (n,), of independent images with a label, from the same distribution as those in production.
    target_accuracy : float
        Selective accuracy to reach, `MIN_THRESHOLD` to 1.
    confidence_level : float
        Probability, over the draw of the images, that the threshold reaches it; below 1.

    Returns
    -------
    Recommendation
        Its threshold is None if these images certify none; its reason explains why.
    """
    percents = range(math.ceil(target_accuracy * 100 - 1e-9) - 1, round(MIN_THRESHOLD * 100) - 1, -1)
    found: Recommendation | None = None
    for threshold in (target_accuracy, *(percent / 100 for percent in percents)):
        passes = confidence >= threshold
        passing, errors = int(passes.sum()), int((passes & ~correct).sum())
        if certified_accuracy(errors, passing, confidence_level) < target_accuracy:
            break
        found = Recommendation(threshold, passing, errors, f"{passing} images pass, {errors} of them wrong")
    if found:
        return found
    bound, best = (certified_accuracy(wrong, passing, confidence_level) for wrong in (errors, 0))
    reason = f"none: {passing} images pass {threshold:g}, {errors} of them wrong, which certifies {bound:.2%}"
    return Recommendation(None, passing, errors, f"{reason}; without errors, {passing} images would certify {best:.2%}")


def sentence(recommendation: dict[str, Any], target_accuracy: float) -> str:
    """Describe in one line the fields of a `Recommendation`."""
    threshold, reason = recommendation["threshold"], recommendation["reason"]
    found = reason if threshold is None else f"{threshold:g} ({reason})"
    return f"recommended threshold for an accuracy of {target_accuracy:g}: {found}"
