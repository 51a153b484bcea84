"""Drift of what images show: the test itself, and the way from captures to the report."""

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from common.errors import CommandError
from demo.drawing import encoded
from monitoring.__main__ import main
from monitoring.baseline import CONSTRAINTS, CONTENT_MODEL, CONTENT_ROWS, VIOLATIONS, load_baseline
from monitoring.content import MOST_IMAGES, NEIGHBOURS, Rows, compare_content
from monitoring.window import read_window
from serving.model import Model
from tests.support.captures import write_captures
from tests.support.onnx_model import EDGE, FEATURES, write_model
from tests.support.scenes import MODEL, captured

END = "2026-11-23T12:00:00+00:00"


def rows(seed: int, count: int, shift: float = 0.0) -> Rows:
    """Return features of differing scales; a shift is in standard deviations, in a few of 40 directions."""
    random = np.random.default_rng(seed)
    values = random.normal(0, 1, (count, 40))
    values[:, :8] += shift
    return (values * np.geomspace(0.01, 10, 40)).astype(np.float16)


def test_a_fifth_of_something_new_is_found_and_comes_first() -> None:
    window = np.concatenate([rows(1, 80), rows(2, 20, shift=4)])
    content = compare_content(rows(0, 300), window)
    assert content and content.p_value < 1e-4
    assert content.expected == 0.25 and content.window.mean() > 0.35
    assert len(set(content.most_unusual()[:20].tolist()) & set(range(80, 100))) >= 18


def test_a_small_change_of_everything_is_found() -> None:
    content = compare_content(rows(0, 300), rows(1, 100, shift=1.5))
    assert content and content.p_value < 1e-4


def test_p_values_of_clean_windows_are_uniform() -> None:
    # A baseline and a window of few images, where components fitted to either sample alone would give false alarms.
    p_values = []
    for seed in range(200):
        content = compare_content(rows(2 * seed, 60), rows(2 * seed + 1, 40))
        assert content
        p_values.append(content.p_value)
    # Of 200, 10 are expected below .05 and 100 below .5: four standard deviations around these.
    assert sum(p <= 0.05 for p in p_values) <= 22
    assert 72 <= sum(p <= 0.5 for p in p_values) <= 128


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 1000), old=st.integers(30, 60), new=st.integers(30, 60), scale=st.sampled_from([0.1, 8.0]))
def test_neither_order_nor_scale_nor_repeated_images_matter(seed: int, old: int, new: int, scale: float) -> None:
    before, now = rows(seed, old), rows(seed + 5000, new)
    first = compare_content(before, now)
    random = np.random.default_rng(seed)
    mixed = random.permutation(np.concatenate([now, now[: new // 2], before[:3]]))
    second = compare_content((random.permutation(before) * np.float16(scale)), mixed * np.float16(scale))
    assert first and second
    # Rounding may exchange neighbours that are equally near.
    assert second.window.mean() == pytest.approx(first.window.mean(), abs=0.01)
    assert len(second.window) == new and len(second.baseline) == old
    assert set(np.unique(np.round(first.window * NEIGHBOURS, 9)) % 1) == {0}


@pytest.mark.parametrize(("old", "new"), [(29, 100), (100, 29)])
def test_too_few_different_images_are_not_compared(old: int, new: int) -> None:
    assert compare_content(rows(0, old), rows(1, new)) is None
    assert compare_content(np.repeat(rows(0, old), 9, axis=0), np.repeat(rows(1, new), 9, axis=0)) is None


@pytest.mark.parametrize("constant", [0.0, 3.0])
def test_features_that_never_vary_are_no_drift(constant: float) -> None:
    before, now = (np.concatenate([rows(seed, 50), np.full((50, 9), constant, np.float16)], axis=1) for seed in (0, 1))
    content = compare_content(before, now)
    assert content and content.p_value > 0.001


def test_a_model_returns_its_features_or_has_none(tmp_path: Path) -> None:
    pixels = np.arange(EDGE * EDGE * 3, dtype=np.uint8).reshape(EDGE, EDGE, 3)
    model = Model(write_model(tmp_path / "a.onnx"))
    assert model.has_features and model.features(pixels).tolist() == list(range(FEATURES))
    assert model.probabilities(pixels) == [0.5, 0.5]
    model = Model(write_model(tmp_path / "b.onnx", features=False))
    assert not model.has_features and model.probabilities(pixels) == [0.5, 0.5]


def picture(seed: int, new: bool) -> Image.Image:
    """Return a picture of the same colours as all others, in its rows or, if it is new, in its columns."""
    random = np.random.default_rng(seed)
    pixels = random.permutation(np.repeat([40, 90, 140, 190], 4)[:, None] + random.integers(0, 8, (16, 3)))
    order = np.argsort(pixels[:, 0])
    stripes = pixels[order].reshape(4, 4, 3)
    return Image.fromarray((stripes.transpose(1, 0, 2) if new else stripes).astype(np.uint8))


def traffic(folder: Path, first: int, old: int, new: int = 0) -> str:
    images = [picture(first + i, i >= old) for i in range(old + new)]
    write_captures(folder, ((encoded(image), [0.9, 0.05]) for image in images))
    return str(folder)


def test_content_drift_from_captures_to_the_report(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model = write_model(tmp_path / "model.onnx")
    place = ["--baseline", str(tmp_path / "baseline"), "--end", END]
    good = traffic(tmp_path / "good", 0, 120)
    assert main(["baseline", "--captures", good, "--model", str(model), "--output", place[1]]) == 0
    assert "content will be compared with 120 images" in capsys.readouterr().out

    clean = ["--captures", traffic(tmp_path / "clean", 1000, 60), "--output", str(tmp_path / "check")]
    assert main(["check", *clean, *place]) == 0

    drifted = ["--captures", traffic(tmp_path / "drifted", 2000, 45, 15), "--output", str(tmp_path / "check")]
    assert main(["check", *drifted, *place]) == 3
    violations = json.loads((tmp_path / "check" / VIOLATIONS).read_text())["violations"]
    (found,) = [each for each in violations if each["feature_name"] == "content"]
    assert "the images show something else" in found["description"]
    page = (tmp_path / "check" / "report.html").read_text()
    unusual = page[page.index('<h3 id="unusual">') : page.index('<h3 id="newest">')]
    first = [f"<code>execution-{number}</code>" in unusual[: len(unusual) * 2 // 3] for number in range(45, 60)]
    assert sum(first) >= 13, "the new pictures come first"


def test_without_features_the_other_tests_remain(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model = write_model(tmp_path / "model.onnx", features=False)
    good = traffic(tmp_path / "good", 0, 60)
    assert main(["baseline", "--captures", good, "--model", str(model), "--output", str(tmp_path / "baseline")]) == 0
    assert "content will not be compared" in capsys.readouterr().out
    assert not (tmp_path / "baseline" / CONTENT_MODEL).exists()
    assert load_baseline(str(tmp_path / "baseline")).network is None


def test_a_baseline_of_another_format_or_damaged_says_what_to_run(tmp_path: Path) -> None:
    address = str(tmp_path / "baseline")
    model = write_model(tmp_path / "model.onnx")
    good = traffic(tmp_path / "good", 0, 60)
    assert main(["baseline", "--captures", good, "--model", str(model), "--output", address]) == 0
    path = Path(address) / CONSTRAINTS
    whole = path.read_text()
    for found, written in ((1, None), (3, 3)):
        limits = json.loads(whole)
        limits["image_classifier"] |= {"format": written}
        if not written:
            del limits["image_classifier"]["format"]
        path.write_text(json.dumps(limits))
        with pytest.raises(CommandError, match=rf"has format {found}.*python -m monitoring baseline"):
            load_baseline(address)
    path.write_text(whole)
    for name in (CONTENT_ROWS, CONTENT_MODEL):
        content = (Path(address) / name).read_bytes()
        (Path(address) / name).write_bytes(b"damaged")
        with pytest.raises(CommandError, match=r"is not valid .*create it again"):
            load_baseline(address)
        (Path(address) / name).write_bytes(content)
    (Path(address) / CONTENT_ROWS).unlink()
    with pytest.raises(CommandError, match=r"content\.npz does not exist; create the drift baseline with"):
        load_baseline(address)


def test_content_is_compared_on_a_sample_of_a_large_window() -> None:
    captures = [captured(Image.new("RGB", (1, 1), (i % 256, i // 256, 0)), [0.9, 0.05]) for i in range(3 * MOST_IMAGES)]
    sample = read_window(captures, MODEL).sample
    assert len(sample) == MOST_IMAGES and len({each.image for each in sample}) == MOST_IMAGES
    places = [captures.index(captured_) for captured_ in captures if captured_.image in {each.image for each in sample}]
    assert np.mean(places) == pytest.approx(1.5 * MOST_IMAGES, rel=0.05)
