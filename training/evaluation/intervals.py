"""Confidence intervals of proportions."""

from scipy import stats


def wilson(hits: int, n: int) -> tuple[float, float] | None:
    """Wilson's 95% score interval of the proportion hits / n, rounded to 4 digits; None when n is 0."""
    if not n:
        return None
    interval = stats.binomtest(hits, n).proportion_ci(0.95, "wilson")
    return round(float(interval.low), 4), round(float(interval.high), 4)


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
