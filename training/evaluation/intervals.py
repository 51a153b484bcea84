"""Confidence intervals of proportions."""

import math

from scipy import stats


def wilson(hits: int, n: int) -> tuple[float, float] | None:
    """Wilson's 95% score interval of the proportion hits / n, rounded to 4 digits; None when n is 0."""
    if not n:
        return None
    interval = stats.binomtest(hits, n).proportion_ci(0.95, "wilson")
    return round(float(interval.low), 4), round(float(interval.high), 4)


def paired_difference(both: int, first: int, second: int, n: int) -> tuple[float, float, float] | None:
    """Return the difference of two proportions of the same n images, and its 95% interval; None when n is 0.

    The interval is Newcombe's 10th (1998, https://doi.org/10.1002/(SICI)1097-0258(19981130)17:22<2635::AID-SIM954>3.0.CO;2-C):
    Wilson's intervals of both proportions, combined with their correlation.

    Parameters
    ----------
    both, first, second : int
        Images that count for both, only for the first, and only for the second.
    n : int
        All images.

    Returns
    -------
    tuple of float
        The second proportion minus the first, and the ends of its interval, rounded to 4 digits.
    """
    if not n:
        return None
    none = n - both - first - second
    before, after = both + first, both + second
    correlation = 0.0
    if product := before * (n - before) * after * (n - after):
        excess = both * none - first * second
        correlation = (max(excess - n / 2, 0) if excess > 0 else excess) / math.sqrt(product)
    ends = [stats.binomtest(hits, n).proportion_ci(0.95, "wilson") for hits in (before, after)]
    (low1, high1), (low2, high2) = (
        (hits / n - end.low, end.high - hits / n) for hits, end in zip((before, after), ends, strict=True)
    )

    def root(a: float, b: float) -> float:
        return math.sqrt(max(0.0, a * a - 2 * correlation * a * b + b * b))

    difference = (second - first) / n
    return round(difference, 4), round(difference - root(low2, high1), 4), round(difference + root(high2, low1), 4)


def certified_accuracy(errors: int, n: int, confidence_level: float) -> float:
    """Exact one-sided lower bound (Clopper-Pearson) on the accuracy behind n independent predictions.

    Parameters
    ----------
    errors, n : int
        Errors among n predictions.
    confidence_level : float
        Probability that the bound holds, 0 to 1.

    Returns
    -------
    float
        0 if there are no predictions, or none is correct.
    """
    if errors >= n:
        return 0.0
    return float(stats.beta.ppf(1 - confidence_level, n - errors, errors + 1))
