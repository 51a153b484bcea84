"""Drift: the exact figures behind a finding, worked out by hand."""

import dataclasses
from typing import Any

import numpy as np
import pytest
from scipy import stats

from monitoring.drift import (
    LEAST_CAPTURES,
    LEAST_PSI,
    SIGNIFICANCE,
    Finding,
    _chi_square,
    categorical_counts,
    compare,
    numeric_bins,
    population_stability_index,
    summarize,
)
from monitoring.features import CATEGORICAL, NUMERIC, PASSES, Features, Observation

FINDING = Finding("sharpness", "KS", 0.43219, 0.000123, 0.456, "median 1", "median 2", True)


def features(values: list[float], answers: list[str]) -> Features:
    """Return features of which every numeric one has the same values."""
    result = Features()
    for value, answer in zip(values, answers, strict=True):
        result.add(Observation(dict.fromkeys(NUMERIC, value), answer, PASSES))
    return result


def found(name: str, baseline: Features, window: Features, **limits: Any) -> Finding:
    (finding,) = [finding for finding in compare(baseline, window, **limits) if finding.feature == name]
    return finding


# 100 values of which a window lacks the lower half; three of four bicycles become one of four.
ALL, HALF = [float(i) for i in range(100)], [float(50 + i % 50) for i in range(100)]
MOSTLY_BICYCLES = ["bicycle"] * 75 + ["motorcycle"] * 25
BEFORE, HALVED = features(ALL, MOSTLY_BICYCLES), features(HALF, MOSTLY_BICYCLES)
NOW = features(ALL, ["bicycle"] * 25 + ["motorcycle"] * 75)


def test_a_numeric_finding() -> None:
    finding = found("brightness", BEFORE, HALVED)
    assert (finding.test, finding.statistic) == ("KS", 0.5)
    assert (finding.baseline, finding.window) == ("median 49.5", "median 74.5")
    # Two samples of 100 are worth one of 50; Holm allows for every feature.
    assert finding.p_value == pytest.approx(stats.kstwo.sf(0.5, 50) * len([*NUMERIC, *CATEGORICAL]))
    assert finding.psi == population_stability_index(*numeric_bins(np.array(ALL), np.array(HALF))) > 1
    assert finding.drifted and not found("brightness", BEFORE, NOW).drifted


def test_confidence_is_compared_by_its_mean() -> None:
    # A fifth of a window is very unsure: too few for KS.
    before, now = features([0.9, 0.95, 1.0] * 27, ["a"] * 81), features([0.9, 0.95, 1.0, 0.9, 0.1] * 20, ["a"] * 100)
    assert found("sharpness", before, now).p_value > 1e-3
    finding = found("confidence", before, now)
    assert finding.test == "difference of means" and finding.statistic == pytest.approx(0.77 - 0.95)
    assert (finding.baseline, finding.window) == ("mean 0.950", "mean 0.770")
    assert finding.drifted and finding.p_value < 1e-3
    assert not found("confidence", before, before).drifted


def test_a_categorical_finding() -> None:
    finding = found("answer", BEFORE, NOW)
    # Every cell is 25 away from the 50 that are expected.
    assert finding.test == "chi-square" and finding.statistic == pytest.approx(4 * 25**2 / 50)
    # Of 20,000 random tables none is as extreme.
    assert finding.p_value == pytest.approx(len([*NUMERIC, *CATEGORICAL]) / 20_001)
    assert finding.baseline == "bicycle 75%, motorcycle 25%" and finding.window == "bicycle 25%, motorcycle 75%"
    p, q = 75.5 / 101, 25.5 / 101
    assert finding.psi == pytest.approx(2 * (q - p) * np.log(q / p))
    assert finding.drifted and not found("outcome", BEFORE, NOW).drifted


def test_a_feature_that_has_one_value_has_not_changed() -> None:
    finding = found("outcome", BEFORE, NOW)
    assert (finding.statistic, finding.p_value, finding.psi) == (0.0, 1.0, 0.0)


def test_a_difference_counts_from_the_least_psi_on_and_below_the_significance() -> None:
    psi, p = found("answer", BEFORE, NOW).psi, found("answer", BEFORE, NOW).p_value
    above_psi, above_p = float(np.nextafter(psi, np.inf)), float(np.nextafter(p, np.inf))
    assert found("answer", BEFORE, NOW, least_psi=psi).drifted
    assert not found("answer", BEFORE, NOW, least_psi=above_psi).drifted
    assert not found("answer", BEFORE, NOW, significance=p).drifted
    assert found("answer", BEFORE, NOW, significance=above_p).drifted


def test_the_limits_that_the_documents_name() -> None:
    assert LEAST_CAPTURES == 30
    assert (SIGNIFICANCE, LEAST_PSI) == (0.001, 0.2)
    defaults = compare.__defaults__
    assert defaults is not None and defaults[:2] == (SIGNIFICANCE, LEAST_PSI)


@pytest.mark.parametrize(
    ("p_value", "said"),
    [(0.000123, "corrected p 0.0001"), (1e-12, "corrected p 1e-12"), (9.9e-13, "corrected p below 1e-12")],
)
def test_the_sentence_about_a_finding(p_value: float, said: str) -> None:
    finding = dataclasses.replace(FINDING, p_value=p_value)
    assert finding.description == (
        f"sharpness: median 2 in the window, median 1 in the baseline (KS 0.432, {said}; PSI 0.46)"
    )


def chi_square(*columns: tuple[int, int]) -> tuple[float, float]:
    before, now = np.array(columns).T
    return _chi_square((before, now))


@pytest.mark.parametrize("columns", [((81, 95), (0, 5)), ((300, 90), (10, 10)), ((40, 45), (9, 5)), ((9, 1), (1, 4))])
def test_rare_categories_have_exact_p_values(columns: tuple[tuple[int, int], ...]) -> None:
    table = np.array(columns).T
    statistic, p_value = chi_square(*columns)
    assert statistic == pytest.approx(stats.chi2_contingency(table, correction=False).statistic)
    # The exact p-value: the probability of all tables with these totals and at least this statistic.
    window, (first, second) = table[1].sum(), table.sum(axis=0)
    tables = np.array([[[first - k, second - (window - k)], [k, window - k]] for k in range(int(first) + 1)])
    tables = tables[(tables >= 0).all(axis=(1, 2))]
    extreme = [t for t in tables if stats.chi2_contingency(t, correction=False).statistic >= statistic - 1e-9]
    exact = sum(stats.hypergeom.pmf(t[1, 0], first + second, first, window) for t in extreme)
    assert p_value == pytest.approx(exact, abs=4 * np.sqrt(exact / 20_000) + 1e-4)


@pytest.mark.parametrize("columns", [[(70, 30)], [(100, 50), (200, 100)]])
def test_equal_shares_are_no_difference(columns: list[tuple[int, int]]) -> None:
    assert chi_square(*columns) == (0.0, 1.0)


def test_three_categories() -> None:
    statistic, p_value = chi_square((100, 90), (96, 106), (50, 50))
    assert statistic == pytest.approx(10**2 / 190 + 10**2 / 202)
    assert p_value == pytest.approx(np.exp(-statistic / 2), rel=0.1)  # chi-square of two degrees of freedom


def test_categories_of_either_sample_are_counted() -> None:
    categories, (before, now) = categorical_counts(["b", "a", "b"], ["c", "b"])
    assert (categories, before.tolist(), now.tolist()) == (["a", "b", "c"], [1, 2, 0], [0, 1, 1])


def test_bins_are_tenths_of_the_baseline_and_its_outside() -> None:
    before, now = numeric_bins(np.arange(99.0), np.array([-1.0, 0, 9, 10, 98, 99, 1000]))
    assert before.tolist() == [0, *[10] * 9, 9, 0]
    assert now.tolist() == [1, 2, 1, *[0] * 7, 1, 2]


@pytest.mark.parametrize(("values", "bins"), [([7.0] * 50, [0, 50, 0]), ([1.0] * 95 + [2.0] * 5, [0, 95, 5, 0])])
def test_bins_that_would_be_the_same_are_one(values: list[float], bins: list[int]) -> None:
    before, _ = numeric_bins(np.array(values), np.array(values))
    assert before.tolist() == bins


@pytest.mark.parametrize(
    ("baseline", "window", "psi"),
    [
        ([9, 0], [0, 9], 2 * 0.9 * np.log(9.5 / 0.5)),
        ([1, 0, 0], [1, 0, 0], 0),
        ([3, 1], [1, 3], 2 * (3.5 - 1.5) / 5 * np.log(3.5 / 1.5)),
    ],
)
def test_half_a_count_is_added_to_every_bin(baseline: list[int], window: list[int], psi: Any) -> None:
    assert population_stability_index(np.array(baseline), np.array(window)) == pytest.approx(psi)


@pytest.mark.parametrize(
    ("name", "window", "summary"),
    [
        ("sharpness", [-1.0] * 44 + [50.0] * 56, "44% of the images are blurrier than any in the baseline"),
        ("sharpness", [101.0] * 50 + [50.0] * 50, "50% of the images are sharper than any in the baseline"),
        ("brightness", [2.0] * 30 + [50.0] * 70, "30% of the images are darker than 95% of those in the baseline"),
        ("blockiness", [60.0] * 80 + [1.0] * 20, "20% of the images are less blocky than 95% of those in the baseline"),
        ("blockiness", [60.0] * 90 + [1.0] * 10, "90% of the images are blockier than half of those in the baseline"),
        ("confidence", [-1.0] * 60 + [9.0] * 40, "60% of the predictions are less certain than any in the baseline"),
    ],
)
def test_a_finding_says_in_words_how_the_window_differs(name: str, window: list[float], summary: str) -> None:
    assert summarize(name, np.arange(101.0), np.array(window)) == summary
    before, now = (features(values, ["bicycle"] * len(values)) for values in ([*map(float, range(101))], window))
    assert found(name, before, now).description.startswith(f"{name}: {summary}; ")
