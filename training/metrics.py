"""Figures that say how far a classifier can be trusted. numpy only: evaluation needs no torch."""

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
    which = np.clip(np.ceil(confidence * bins).astype(int) - 1, 0, bins - 1)
    count = np.bincount(which, minlength=bins)
    gap = np.abs(
        np.bincount(which, weights=confidence, minlength=bins) - np.bincount(which, weights=correct, minlength=bins)
    )
    return float(gap.sum() / count.sum())


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
