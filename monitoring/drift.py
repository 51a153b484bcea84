"""Compare a window of captures with the baseline, feature by feature, and its images' content."""

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import stats

from monitoring.content import NEIGHBOURS, Content
from monitoring.features import CATEGORICAL, NUMERIC, Features

#: Probability of a false alarm in one check of a window without drift, over all features together.
SIGNIFICANCE = 0.001
#: Least population stability index that counts as drift, however certain the difference is: the customary bounds are
#: 0.1 for "look at it" and 0.25 for "act" (Siddiqi 2006, "Credit Risk Scorecards").
LEAST_PSI = 0.2
#: Fewer captures than this are not compared.
LEAST_CAPTURES = 30

#: The name of the content among the features.
CONTENT = "content"

#: How people say that a feature is low, and that it is high.
_LOW_HIGH = {
    "brightness": ("darker", "brighter"),
    "shadows": ("darker in the shadows", "lighter in the shadows"),
    "contrast": ("flatter", "richer in contrast"),
    "sharpness": ("blurrier", "sharper"),
    "saturation": ("paler", "more colourful"),
    "entropy": ("plainer", "richer in detail"),
    "blockiness": ("less blocky", "blockier"),
    "pixels": ("smaller", "larger"),
    "aspect_ratio": ("narrower", "wider"),
    "confidence": ("less certain", "more certain"),
}
#: Which part of the baseline is named, and the least share of the window beyond it for that; the first that applies.
_BEYOND = (("any", 1.0, 0.1), ("95% of those", 0.95, 0.15), ("half of those", 0.5, 0.0))

_BINS = 10
# Smaller p-values are not shown.
_LEAST_SHOWN = 1e-12
# Random tables for the p-values of categories and means.
_TABLES = 20_000
_MEAN_BINS = 20

Counts = tuple[npt.NDArray[np.integer], npt.NDArray[np.integer]]


@dataclass(frozen=True)
class Finding:
    """One feature, compared.

    ``statistic`` is Kolmogorov and Smirnov's D, a difference of means, chi-square, or `Content.statistic`. ``p_value``
    is corrected for the number of features. ``baseline`` and ``window`` describe typical values: a median, or shares.
    ``summary`` says in words how the window differs.
    """

    feature: str
    test: str
    statistic: float
    p_value: float
    psi: float
    baseline: str
    window: str
    drifted: bool
    summary: str = ""

    @property
    def description(self) -> str:
        """Return the finding as a sentence."""
        before_after = f"{self.window} in the window, {self.baseline} in the baseline"
        if self.feature == CONTENT:
            before_after = f"the images show something else: {self.window}, {self.baseline}"
        if self.summary:
            before_after = f"{self.summary}; {before_after}"
        p_value = f"{self.p_value:.1g}" if self.p_value >= _LEAST_SHOWN else f"below {_LEAST_SHOWN:g}"
        return (
            f"{self.feature}: {before_after} "
            f"({self.test} {self.statistic:.3f}, corrected p {p_value}; PSI {self.psi:.2f})"
        )


def compare(
    baseline: Features,
    window: Features,
    significance: float = SIGNIFICANCE,
    least_psi: float = LEAST_PSI,
    content: Content | None = None,
) -> list[Finding]:
    """Test every feature; it has drifted if the difference is both significant and large.

    Numeric features are tested with Kolmogorov and Smirnov's two-sample test, but confidence by its mean, which notices
    a few very low values; categorical ones with chi-square, and content as `monitoring.content` describes. Holm's
    procedure (1979, "A simple sequentially rejective multiple test procedure") keeps the probability of any false alarm
    at ``significance``, even if features depend on each other.

    Parameters
    ----------
    baseline, window : Features
        At least one observation each; a window of fewer than `LEAST_CAPTURES` has little power.
    significance : float
        0 to 1.
    least_psi : float
        Least population stability index that counts as drift.
    content : Content or None
        The comparison of what the images show, if it could be made.

    Returns
    -------
    list of Finding
        One per feature, in the order of `NUMERIC` and `CATEGORICAL`; and one for the content, if given.
    """
    return judge(differences(baseline, window, content), significance, least_psi)


def differences(baseline: Features, window: Features, content: Content | None = None) -> list[Finding]:
    """Test every feature as `compare` does, without a correction of the p-values and without a decision."""
    tested: list[tuple[str, str, float, float, float, str, str]] = []
    summaries: dict[str, str] = {}
    for name in NUMERIC:
        before, now = np.array(baseline.numeric[name]), np.array(window.numeric[name])
        psi = population_stability_index(*numeric_bins(before, now))
        summaries[name] = summarize(name, before, now)
        if name == "confidence":
            means = (f"mean {before.mean():.3f}", f"mean {now.mean():.3f}")
            tested.append((name, "difference of means", *_difference_of_means(before, now), psi, *means))
            continue
        result: Any = stats.ks_2samp(before, now, method="asymp")
        typical = medians(before, now)
        tested.append((name, "KS", float(result.statistic), float(result.pvalue), psi, *typical))
    for name in CATEGORICAL:
        categories, counts = categorical_counts(baseline.categorical[name], window.categorical[name])
        chi_square, p_value = _chi_square(counts)
        psi = population_stability_index(*counts)
        typical = (_shares(categories, counts[0]), _shares(categories, counts[1]))
        tested.append((name, "chi-square", chi_square, p_value, psi, *typical))
    if content:
        psi = population_stability_index(*numeric_bins(content.baseline, content.window))
        typical = (
            f"{content.expected:.0%} by chance",
            f"{content.window.mean():.0%} of an image's {NEIGHBOURS} most similar images are in the window itself",
        )
        tested.append((CONTENT, "neighbours", content.statistic, content.p_value, psi, *typical))
    return [Finding(*each, drifted=False, summary=summaries.get(each[0], "")) for each in tested]


@dataclass(frozen=True)
class Beyond:
    """The values of a window that lie beyond a limit in the baseline, on the side where more of them are.

    ``share`` is their fraction, ``word`` says in which way they differ, and ``part`` of what in the baseline.
    """

    share: float
    word: str
    part: str
    limit: float
    above: bool

    def holds(self, value: float) -> bool:
        """Return whether a value is one of them."""
        return value > self.limit if self.above else value < self.limit


def find_beyond(name: str, baseline: npt.NDArray[np.floating], window: npt.NDArray[np.floating]) -> Beyond:
    """Find how the values of a window lie beyond those of the baseline.

    Parameters
    ----------
    name : str
        A numeric feature.
    baseline, window : numpy.ndarray
        Its values.

    Returns
    -------
    Beyond
        Beyond all of the baseline if enough of the window is, or else beyond 95% or half of it.
    """
    low, high = _LOW_HIGH[name]

    def side(part: str, level: float) -> Beyond:
        bottom, top = (float(np.quantile(baseline, each)) for each in (1 - level, level))
        below, above = float((window < bottom).mean()), float((window > top).mean())
        if (below, low) > (above, high):
            return Beyond(below, low, part, bottom, above=False)
        return Beyond(above, high, part, top, above=True)

    return next(found for part, level, least in _BEYOND if (found := side(part, level)).share >= least)


def summarize(name: str, baseline: npt.NDArray[np.floating], window: npt.NDArray[np.floating]) -> str:
    """Say how a window lies beyond the baseline: "44% of the images are blurrier than any in the baseline"."""
    beyond = find_beyond(name, baseline, window)
    subject = "predictions" if name == "confidence" else "images"
    return f"{beyond.share:.0%} of the {subject} are {beyond.word} than {beyond.part} in the baseline"


def judge(tested: Sequence[Finding], significance: float = SIGNIFICANCE, least_psi: float = LEAST_PSI) -> list[Finding]:
    """Correct the p-values for testing all these features at once, and decide which of them have drifted."""
    corrected = holm([each.p_value for each in tested])
    return [
        replace(each, p_value=p, drifted=p < significance and each.psi >= least_psi)
        for each, p in zip(tested, corrected, strict=True)
    ]


def holm(p_values: Sequence[float]) -> list[float]:
    """Return p-values corrected for testing all of them at once, in the same order.

    Holm 1979, "A simple sequentially rejective multiple test procedure", Scandinavian Journal of Statistics 6.
    """
    order = np.argsort(p_values)
    factors = len(p_values) - np.arange(len(p_values))
    corrected = np.minimum(np.maximum.accumulate(np.array(p_values)[order] * factors), 1)
    return [float(corrected[rank]) for rank in np.argsort(order)]


def numeric_bins(
    baseline: npt.NDArray[np.floating], window: npt.NDArray[np.floating]
) -> tuple[npt.NDArray[np.integer], npt.NDArray[np.integer]]:
    """Count both samples in bins that each hold a tenth of the baseline, and in one below and one above all of it.

    Where the baseline has few distinct values, equal bins are merged.

    Returns
    -------
    tuple of numpy.ndarray
        The baseline's counts and the window's, of equal shape (bins,).
    """
    lowest = np.nextafter(baseline.min(), -np.inf)
    edges = np.unique([lowest, *np.quantile(baseline, np.linspace(0, 1, _BINS + 1)[1:], method="inverted_cdf")])
    bins = len(edges) + 1
    before, now = (np.bincount(np.searchsorted(edges, sample), minlength=bins) for sample in (baseline, window))
    return before, now


def population_stability_index(baseline: npt.NDArray[np.integer], window: npt.NDArray[np.integer]) -> float:
    """Measure the distance between two distributions over the same bins; 0 means equal.

    The sum of (q - p) ln(q / p) over the bins' shares p and q (Siddiqi 2006, "Credit Risk Scorecards"), with half a
    count added to every bin, which keeps empty bins finite.

    Parameters
    ----------
    baseline, window : numpy.ndarray
        Shape (bins,), counts.
    """
    p, q = ((counts + 0.5) / (counts.sum() + 0.5 * len(counts)) for counts in (baseline, window))
    return float(((q - p) * np.log(q / p)).sum())


def categorical_counts(
    baseline: Sequence[str], window: Sequence[str]
) -> tuple[list[str], tuple[npt.NDArray[np.integer], npt.NDArray[np.integer]]]:
    """Count both samples in every category that occurs in either of them."""
    counted = Counter(baseline), Counter(window)
    categories = sorted(set(baseline) | set(window))
    before, now = (np.array([counts[category] for category in categories]) for counts in counted)
    return categories, (before, now)


def _chi_square(counts: Counts) -> tuple[float, float]:
    """Return Pearson's statistic, and its p-value."""
    totals, window = counts[0] + counts[1], counts[1].sum()
    expected = totals * window / totals.sum()
    weights = totals / (expected * (totals - expected))
    return _against_chance(counts, lambda now: ((now - expected) ** 2 * weights).sum(axis=-1))


def _difference_of_means(before: npt.NDArray[np.floating], now: npt.NDArray[np.floating]) -> tuple[float, float]:
    """Return how much larger the window's mean is, and the p-value of that, for values in bins of equal width."""
    pooled = np.concatenate([before, now])
    edges = np.histogram_bin_edges(pooled, _MEAN_BINS)
    counts = np.histogram(before, edges)[0], np.histogram(now, edges)[0]
    middles = (edges[1:] + edges[:-1]) / 2
    expected = (counts[0] + counts[1]) @ middles * len(now) / len(pooled)
    _, p_value = _against_chance(counts, lambda drawn: np.abs(drawn @ middles - expected))
    return float(now.mean() - before.mean()), p_value


def _against_chance(
    counts: Counts, statistic: Callable[[npt.NDArray[np.integer]], npt.NDArray[np.floating]]
) -> tuple[float, float]:
    """Return a statistic of the window's counts, and the fraction of random tables of the same totals that reach it."""
    before, now = counts
    random = np.random.default_rng(0)
    tables = random.multivariate_hypergeometric(before + now, int(now.sum()), _TABLES, method="marginals")
    found = float(statistic(now))
    # Equal tables may differ in the last digit.
    extreme = int((statistic(tables) >= found * (1 - 1e-9)).sum())
    return found, (extreme + 1) / (_TABLES + 1)


def _shares(categories: list[str], counts: npt.NDArray[np.integer]) -> str:
    return ", ".join(f"{name} {count / counts.sum():.0%}" for name, count in zip(categories, counts, strict=True))


def medians(before: npt.NDArray[np.floating], now: npt.NDArray[np.floating]) -> tuple[str, str]:
    """Return two medians as texts with three digits, or as many more as tell them apart."""
    for digits in range(3, 7):
        first, second = (float(f"{np.median(values):.{digits}g}") for values in (before, now))
        if first != second:
            return _median(first, digits), _median(second, digits)
    return _median(float(f"{first:.3g}"), 3), _median(float(f"{second:.3g}"), 3)


def _median(value: float, digits: int) -> str:
    return f"median {value:,.0f}" if abs(value) >= 1000 else f"median {value:.{digits}g}"
