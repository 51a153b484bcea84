"""How strict a threshold has to be, with a guarantee that holds for few images too."""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

# Below this an answer is less likely than everything else together; such thresholds are never advised.
LEAST_THRESHOLD = 0.50


def binomial_tail(errors: int, n: int, rate: float) -> float:
    """Probability of at most that many errors among n, each made independently with probability rate (0 to 1)."""
    if rate <= 0 or errors >= n:
        return 1.0
    if rate >= 1:
        return 0.0
    total = sum(
        math.exp(
            math.lgamma(n + 1)
            - math.lgamma(i + 1)
            - math.lgamma(n - i + 1)
            + i * math.log(rate)
            + (n - i) * math.log1p(-rate)
        )
        for i in range(errors + 1)
    )
    return min(1.0, total)


def certified_accuracy(errors: int, n: int, certainty: float) -> float:
    """One-sided exact lower bound on the accuracy behind n independent answers.

    Clopper and Pearson 1934, "The use of confidence or fiducial limits illustrated in the case of the
    binomial", Biometrika 26, 404-413: the error rate at which so few errors have probability 1 - certainty.

    Parameters
    ----------
    errors, n : int
        Errors among n answers.
    certainty : float
        Probability that the bound holds, 0 to 1.

    Returns
    -------
    float
        0 when there are no answers, or none is right.
    """
    if errors >= n:
        return 0.0
    low, high = errors / n, 1.0
    for _ in range(60):  # halves the interval down to the precision of a float
        middle = (low + high) / 2
        low, high = (middle, high) if binomial_tail(errors, n, middle) > 1 - certainty else (low, middle)
    return 1 - high


@dataclass(frozen=True)
class Advice:
    """An advised threshold, or None; how many answers pass it (or the strictest one tried) and how many err."""

    threshold: float | None
    passing: int
    errors: int
    reason: str


def advise(
    confidence: npt.NDArray[np.floating], correct: npt.NDArray[np.bool_], wanted: float, certainty: float
) -> Advice:
    """Find the lowest threshold at which what passes is right at least as often as wanted, with certainty.

    Learn then test (Angelopoulos et al. 2021, https://arxiv.org/abs/2110.01052) with a fixed sequence: the
    thresholds `wanted`, then each hundredth below it down to `LEAST_THRESHOLD`, each tested at level
    1 - certainty by the exact binomial tail, up to the first that fails. Choosing among those that held costs
    nothing, because the order does not depend on the images. The sequence begins at `wanted`, since that is
    where a calibrated model is sure to keep it. (Geifman and El-Yaniv 2017, https://arxiv.org/abs/1705.08500,
    search the thresholds of the images themselves instead, and pay for it by dividing the level.)

    Parameters
    ----------
    confidence, correct : numpy.ndarray
        Shape (n,), of independent images with a label, drawn as those that the model will meet.
    wanted : float
        Selective accuracy to keep, `LEAST_THRESHOLD` to 1.
    certainty : float
        Probability, over the draw of the images, that the advice keeps it; below 1.

    Returns
    -------
    Advice
        Its threshold is None where these images certify none, and its reason says why.
    """
    percents = range(math.ceil(wanted * 100 - 1e-9) - 1, round(LEAST_THRESHOLD * 100) - 1, -1)
    kept: tuple[float, int, int] | None = None
    for threshold in (wanted, *(percent / 100 for percent in percents)):
        passes = confidence >= threshold
        passing, errors = int(passes.sum()), int((passes & ~correct).sum())
        if not passing or binomial_tail(errors, passing, 1 - wanted) > 1 - certainty:
            break
        kept = threshold, passing, errors
    if kept:
        _, passing, errors = kept
        return Advice(*kept, f"{passing} images pass, {errors} of them wrong")
    bound, best = certified_accuracy(errors, passing, certainty), certified_accuracy(0, passing, certainty)
    reason = f"none: {passing} images pass {threshold:g}, {errors} of them wrong, which certifies {bound:.2%}"
    return Advice(None, passing, errors, f"{reason}; {passing} without error certify at most {best:.2%}")


def sentence(advice: dict[str, Any], wanted: float) -> str:
    """Say in one line what `advise` found, given as the fields of its `Advice`."""
    found = "" if advice["threshold"] is None else f"{advice['threshold']:g}: "
    return f"threshold to keep {wanted:g} of what passes right: {found}{advice['reason']}"
