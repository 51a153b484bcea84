"""Metrics of a classifier that abstains below a threshold."""

import numpy as np
import numpy.typing as npt

# The workflow's default threshold, and the number of bins in which calibration is usually reported.
THRESHOLD = 0.70
BINS = 15
# Printed in this order.
METRICS = ("n", "accuracy", "coverage", "selective_accuracy", "ece", "other_n", "other_passing")


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
        Shape (n,), whether that prediction was correct.
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
    """Sort predictions into bins of equal width by their confidence: bin i covers i/bins < confidence <= (i+1)/bins.

    Parameters
    ----------
    confidence, correct, bins
        As for `expected_calibration_error`; a confidence of 0 falls into the first bin.

    Returns
    -------
    tuple of numpy.ndarray
        Each of shape (bins,): number of predictions, their mean confidence, and the fraction that was
        correct; the last two are NaN in empty bins.
    """
    which = np.clip(np.ceil(confidence * bins).astype(int) - 1, 0, bins - 1)
    count = np.bincount(which, minlength=bins)
    divisor = np.where(count > 0, count, np.nan)
    confidences = np.bincount(which, weights=confidence, minlength=bins) / divisor
    return count, confidences, np.bincount(which, weights=correct, minlength=bins) / divisor


def calibration_error_by_chance(confidence: npt.NDArray[np.floating], draws: int = 200) -> float:
    """Average calibration error of a perfectly calibrated model with these confidences, by chance alone.

    Each draw makes a prediction correct with its own confidence as the probability (seeded). The error is biased
    upwards on few images, so a measured one means little unless it is clearly above this.

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


def compute_metrics(
    probabilities: npt.NDArray[np.floating], targets: npt.NDArray[np.integer], threshold: float = THRESHOLD
) -> dict[str, float | int | None]:
    """Compute the metrics of one set of images.

    Parameters
    ----------
    probabilities : numpy.ndarray
        Shape (n, labels): one probability per label, summing to at most one.
    targets : numpy.ndarray
        Shape (n,): the index of the correct label, or `labels` for a background image.
    threshold : float
        A prediction passes if its confidence is at least this.

    Returns
    -------
    dict
        ``n`` and ``other_n`` (images with a label, and background), ``accuracy``, ``coverage`` (fraction that
        passes), ``selective_accuracy`` (among those that pass), ``ece``, all over images with a label; and
        ``other_passing``, the fraction of background that passes. None where there is nothing to count.
    """
    labels = probabilities.shape[1]
    confidence, prediction = probabilities.max(axis=1), probabilities.argmax(axis=1)
    known, passing = targets < labels, confidence >= threshold
    correct = prediction == targets

    def fraction(of: npt.NDArray[np.bool_], among: npt.NDArray[np.bool_]) -> float | None:
        return round(float(of[among].mean()), 4) if among.any() else None

    ece = expected_calibration_error(confidence[known], correct[known])
    return {
        "n": int(known.sum()),
        "other_n": int((~known).sum()),
        "accuracy": fraction(correct, known),
        "coverage": fraction(passing, known),
        "selective_accuracy": fraction(correct, known & passing),
        "ece": None if np.isnan(ece) else round(ece, 4),
        "other_passing": fraction(passing, ~known),
    }


def risk_coverage(
    confidence: npt.NDArray[np.floating], correct: npt.NDArray[np.bool_]
) -> list[tuple[float, float, float]]:
    """Trace coverage and selective accuracy over all thresholds.

    Returns
    -------
    list of tuple
        (threshold, coverage, selective accuracy), one per distinct confidence, from the strictest threshold
        to the one that all predictions pass.
    """
    order = np.argsort(-confidence, kind="stable")
    ranked, hits = confidence[order], np.cumsum(correct[order])
    # Equal confidences pass or fail together: only the last of each run is a point of the curve.
    last = np.flatnonzero(np.append(ranked[1:] != ranked[:-1], True)[: len(ranked)]).tolist()
    return [(float(ranked[i]), (i + 1) / len(ranked), float(hits[i] / (i + 1))) for i in last]
