"""Figures that say how far a classifier can be trusted. numpy only: evaluation needs no torch."""

import math
from statistics import NormalDist

import numpy as np
import numpy.typing as npt

# The workflow's default threshold, and the number of bins in which calibration is usually reported.
THRESHOLD = 0.70
BINS = 15


def expected_calibration_error(
    confidence: npt.NDArray[np.floating], correct: npt.NDArray[np.bool_], bins: int = BINS
) -> float:
    """Mean distance between confidence and accuracy over bins of equal width.

    As in Guo et al. 2017 (https://arxiv.org/abs/1706.04599), equation 3.

    Parameters
    ----------
    confidence : numpy.ndarray
        Shape (n,), 0 to 1.
    correct : numpy.ndarray
        Shape (n,), whether that answer was right.
    bins : int
        How many bins divide 0 to 1.

    Returns
    -------
    float
        0 is perfect; NaN when n is 0.
    """
    if not len(confidence):
        return float("nan")
    count, mean_confidence, accuracy = calibration_bins(confidence, correct, bins)
    filled = count > 0
    gap = np.abs(mean_confidence[filled] - accuracy[filled])
    return float((gap * count[filled]).sum() / count.sum())


def calibration_bins(
    confidence: npt.NDArray[np.floating], correct: npt.NDArray[np.bool_], bins: int = BINS
) -> tuple[npt.NDArray[np.integer], npt.NDArray[np.floating], npt.NDArray[np.floating]]:
    """Sort answers into bins of equal width by their confidence: bin i covers i/bins < confidence <= (i+1)/bins.

    Parameters
    ----------
    confidence, correct, bins
        As for `expected_calibration_error`; a confidence of 0 falls into the first bin.

    Returns
    -------
    tuple of numpy.ndarray
        Each of shape (bins,): number of answers, their mean confidence, and the share that was right; the
        last two are NaN in empty bins.
    """
    which = np.clip(np.ceil(confidence * bins).astype(int) - 1, 0, bins - 1)
    count = np.bincount(which, minlength=bins)
    divisor = np.where(count > 0, count, np.nan)
    confidences = np.bincount(which, weights=confidence, minlength=bins) / divisor
    return count, confidences, np.bincount(which, weights=correct, minlength=bins) / divisor


def calibration_error_by_chance(confidence: npt.NDArray[np.floating], draws: int = 200) -> float:
    """Calibration error that a perfectly calibrated model of these confidences has on average, by chance alone.

    Each draw makes an answer right with its own confidence as the probability (seeded). The error is biased
    upwards on few images, so a measured one says little before it is clearly above this.

    Parameters
    ----------
    confidence : numpy.ndarray
        Shape (n,), 0 to 1.
    draws : int
        How many to average over.

    Returns
    -------
    float
        NaN when n is 0.
    """
    random = np.random.default_rng(0)
    errors = [expected_calibration_error(confidence, random.random(len(confidence)) < confidence) for _ in range(draws)]
    return float(np.mean(errors))


def summarise(
    probabilities: npt.NDArray[np.floating], targets: npt.NDArray[np.integer], threshold: float = THRESHOLD
) -> dict[str, float | int | None]:
    """Compute the figures of one set of images.

    Parameters
    ----------
    probabilities : numpy.ndarray
        Shape (n, labels): one probability per label, summing to at most one.
    targets : numpy.ndarray
        Shape (n,): the index of the right label, or `labels` for an image that shows none of them.
    threshold : float
        An answer passes when its confidence is at least this.

    Returns
    -------
    dict
        ``n`` and ``other_n`` (images with and without a label), ``accuracy``, ``coverage`` (share that
        passes), ``selective_accuracy`` (among those that pass), ``ece``, all over images with a label; and
        ``other_passing``, the share of the others that passes. None where there is nothing to count.
    """
    labels = probabilities.shape[1]
    confidence, answer = probabilities.max(axis=1), probabilities.argmax(axis=1)
    known, passing = targets < labels, confidence >= threshold
    correct = answer == targets

    def share(of: npt.NDArray[np.bool_], among: npt.NDArray[np.bool_]) -> float | None:
        return round(float(of[among].mean()), 4) if among.any() else None

    ece = expected_calibration_error(confidence[known], correct[known])
    return {
        "n": int(known.sum()),
        "other_n": int((~known).sum()),
        "accuracy": share(correct, known),
        "coverage": share(passing, known),
        "selective_accuracy": share(correct, known & passing),
        "ece": None if np.isnan(ece) else round(ece, 4),
        "other_passing": share(passing, ~known),
    }


def wilson(hits: int, n: int, level: float = 0.95) -> tuple[float, float] | None:
    """Confidence interval of a share, by Wilson's score method.

    Wilson 1927, "Probable inference, the law of succession, and statistical inference", JASA 22, 209-212.

    Parameters
    ----------
    hits, n : int
        The share is hits / n.
    level : float
        Wanted probability that such an interval holds the true share, 0 to 1.

    Returns
    -------
    tuple of float or None
        Lower and upper end, rounded to 4 digits; None when n is 0.
    """
    if not n:
        return None
    z = NormalDist().inv_cdf((1 + level) / 2)
    share = hits / n
    centre = (share + z * z / (2 * n)) / (1 + z * z / n)
    half = z * math.sqrt(share * (1 - share) / n + z * z / (4 * n * n)) / (1 + z * z / n)
    return round(max(0.0, centre - half), 4), round(min(1.0, centre + half), 4)


def risk_coverage(
    confidence: npt.NDArray[np.floating], correct: npt.NDArray[np.bool_]
) -> list[tuple[float, float, float]]:
    """Trace what every threshold lets through, and how often that is right.

    Returns
    -------
    list of tuple
        (threshold, coverage, selective accuracy), one per different confidence, from the strictest threshold
        to the one that lets everything through.
    """
    order = np.argsort(-confidence, kind="stable")
    ranked, right = confidence[order], np.cumsum(correct[order])
    # Equal confidences pass or fail together: only the last of each run is a point of the curve.
    last = np.flatnonzero(np.append(ranked[1:] != ranked[:-1], True)[: len(ranked)]).tolist()
    return [(float(ranked[i]), (i + 1) / len(ranked), float(right[i] / (i + 1))) for i in last]
