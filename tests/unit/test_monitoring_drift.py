"""Drift: what is measured of a picture, and when a difference counts."""

import io

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image, ImageFilter

from common.capture import Capture
from demo.drawing import encoded
from monitoring.drift import compare, holm, numeric_bins, population_stability_index
from monitoring.features import (
    CATEGORICAL,
    NEITHER,
    NUMERIC,
    PASSES,
    UNSURE,
    Features,
    Observation,
    UnreadableImage,
    decode,
    measure_pixels,
    observe,
)
from tests.support.captures import BEGIN
from tests.support.scenes import BASELINE, CLEAN, MODEL, captured, features, scene


def drifted(window: Features, baseline: Features = BASELINE) -> set[str]:
    return {finding.feature for finding in compare(baseline, window) if finding.drifted}


def noisy(image: Image.Image) -> Image.Image:
    noise = np.random.default_rng(image.tobytes()[0]).normal(0, 0.08 * 255, (32, 32, 3))
    return Image.fromarray(np.clip(np.asarray(image) + noise, 0, 255).astype(np.uint8))


def squeezed(image: Image.Image) -> Image.Image:
    return Image.open(io.BytesIO(encoded(image, "JPEG", quality=20))).convert("RGB")


def test_a_clean_window_does_not_drift() -> None:
    assert drifted(features(CLEAN)) == set()


@pytest.mark.parametrize(
    ("change", "found"),
    [
        (lambda image: image.point(lambda value: value * 0.5), "brightness"),
        (lambda image: image.point(lambda value: value * 0.5 + 64), "contrast"),
        (lambda image: image.filter(ImageFilter.GaussianBlur(1.2)), "sharpness"),
        (noisy, "sharpness"),
        (squeezed, "blockiness"),
        (lambda image: image.convert("L").convert("RGB"), "saturation"),
        (lambda image: image.quantize(8).convert("RGB"), "entropy"),
        (lambda image: image.resize((48, 48)), "pixels"),
        (lambda image: image.resize((64, 16)), "aspect_ratio"),
    ],
)
def test_a_changed_picture_is_found_by_its_feature(change, found: str) -> None:  # type: ignore[no-untyped-def]
    assert found in drifted(features([change(image) for image in CLEAN]))


@pytest.mark.parametrize(
    ("probabilities", "found"),
    [
        ([[0.9, 0.05]] * 80 + [[0.05, 0.9]] * 20, "answer"),
        ([[0.3, 0.2]] * 50 + [[0.1, 0.9]] * 50, "answer"),
        ([[0.6, 0.3]] * 50 + [[0.3, 0.6]] * 50, "outcome"),
        ([[0.71, 0.2]] * 50 + [[0.2, 0.71]] * 50, "confidence"),
    ],
)
def test_changed_answers_are_found_where_pictures_are_the_same(probabilities: list[list[float]], found: str) -> None:
    assert found in drifted(features(CLEAN, probabilities))


def test_a_trifle_is_no_drift_however_many_captures_show_it() -> None:
    random = np.random.default_rng(0)

    def made(shift: float) -> Features:
        result = Features()
        for _ in range(6000):
            numeric = {name: float(random.normal(shift, 1)) for name in NUMERIC}
            result.add(Observation(numeric, "bicycle" if random.random() < 0.5 + shift / 2 else "motorcycle", PASSES))
        return result

    findings = compare(made(0), made(0.15))
    assert max(finding.p_value for finding in findings if finding.feature != "outcome") < 1e-3
    assert not any(finding.drifted for finding in findings)


def test_most_windows_of_the_same_make_raise_no_alarm() -> None:
    random = np.random.default_rng(1)

    def made(count: int) -> Features:
        result = Features()
        shared = random.normal(0, 1, count)  # features of one picture go together
        for i in range(count):
            numeric = {name: float(shared[i] + random.normal(0, 1)) for name in NUMERIC}
            result.add(
                Observation(numeric, str(random.choice(MODEL.labels)), PASSES if random.random() < 0.9 else UNSURE)
            )
        return result

    baseline = made(500)
    alarms = sum(any(finding.drifted for finding in compare(baseline, made(100))) for _ in range(60))
    assert alarms <= 1


def test_an_answer_is_neither_where_that_is_likelier_than_any_label() -> None:
    observed = observe(captured(scene(0), [0.3, 0.2]), MODEL)
    assert (observed.answer, observed.outcome) == (NEITHER, UNSURE)
    observed = observe(captured(scene(0), [0.1, 0.7]), MODEL)
    assert (observed.answer, observed.outcome) == ("motorcycle", PASSES)  # the threshold is inclusive


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "L", "LA", "P", "1"])
def test_pictures_of_all_modes_are_measured(mode: str) -> None:
    observed = observe(captured(scene(0).convert(mode), [0.9, 0.1]), MODEL)
    assert set(observed.numeric) == set(NUMERIC)
    assert all(np.isfinite(value) for value in observed.numeric.values())


def test_transparency_is_laid_over_white() -> None:
    clear = Image.new("RGBA", (16, 16), (0, 0, 0, 0))
    assert observe(captured(clear, [0.9, 0.1]), MODEL).numeric["brightness"] == 1


@pytest.mark.parametrize("size", [(1, 1), (2, 2), (9, 1), (1, 200), (8, 8), (17, 9)])
def test_tiny_and_flat_pictures_have_finite_features(size: tuple[int, int]) -> None:
    for image in (Image.new("RGB", size), scene(0, size)):
        assert all(np.isfinite(value) for value in measure_pixels(image).values())


def test_a_huge_picture_is_shrunk_before_it_is_measured_and_one_beyond_the_limit_is_refused() -> None:
    large = captured(Image.new("RGB", (6000, 400), "red"), [0.9, 0.1])
    picture, pixels = decode(large.image)
    assert (picture.size, pixels) == ((512, 34), 6000 * 400)
    with pytest.raises(UnreadableImage, match="rejects"):
        observe(captured(Image.new("1", (8000, 8000)), [0.9, 0.1]), MODEL)


def test_a_turned_photograph_is_measured_upright() -> None:
    turned = Image.Exif()
    turned[0x0112] = 6
    content = encoded(scene(0, (64, 32)), "JPEG", exif=turned)
    observed = observe(Capture("", BEGIN, "", "", None, "", content, [0.9, 0.1]), MODEL)
    assert observed.numeric["aspect_ratio"] == 0.5


def test_what_cannot_be_measured_says_why() -> None:
    with pytest.raises(UnreadableImage, match="3 probabilities for 2 labels"):
        observe(captured(scene(0), [0.1, 0.1, 0.1]), MODEL)
    with pytest.raises(UnreadableImage, match="rejects"):
        observe(Capture("", BEGIN, "", "", None, "", b"no image", [0.1, 0.1]), MODEL)


def test_holm_agrees_with_a_worked_example() -> None:
    # Smallest of four times 4, the next times 3, …; never less than one before it.
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])


@given(st.lists(st.floats(0, 1), min_size=1, max_size=20))
def test_holm_never_lowers_a_p_value_and_keeps_their_order(p_values: list[float]) -> None:
    corrected = holm(p_values)
    assert all(p <= q <= 1 for p, q in zip(p_values, corrected, strict=True))
    order = np.argsort(p_values, kind="stable")
    assert np.all(np.diff(np.array(corrected)[order]) >= 0)


def test_psi_agrees_with_its_formula() -> None:
    p, q = np.array([500, 500]), np.array([800, 200])
    exact = 0.3 * np.log(0.8 / 0.5) - 0.3 * np.log(0.2 / 0.5)
    assert population_stability_index(p, q) == pytest.approx(exact, rel=0.01)


@given(st.lists(st.tuples(st.integers(0, 1000), st.integers(0, 1000)), min_size=1, max_size=12))
def test_psi_is_symmetric_finite_and_never_negative(pairs: list[tuple[int, int]]) -> None:
    p, q = np.array(pairs).T
    psi = population_stability_index(p, q)
    assert np.isfinite(psi)
    assert psi >= 0
    assert psi == pytest.approx(population_stability_index(q, p))
    assert population_stability_index(p, p) == 0


@given(
    st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=60),
    st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=60),
)
def test_bins_count_everything_once(before: list[float], now: list[float]) -> None:
    counted_before, counted_now = numeric_bins(np.array(before), np.array(now))
    assert counted_before.sum() == len(before)
    assert counted_now.sum() == len(now)
    assert counted_before[0] == counted_before[-1] == 0  # outside of the baseline there is nothing of it


def test_a_constant_that_changes_is_seen_in_both_directions() -> None:
    for now in (900.0, 1100.0):
        assert population_stability_index(*numeric_bins(np.full(100, 1024.0), np.full(100, now))) > 1


def test_every_feature_is_compared_once() -> None:
    assert [finding.feature for finding in compare(BASELINE, features(CLEAN))] == [*NUMERIC, *CATEGORICAL]
