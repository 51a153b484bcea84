"""`python -m training evaluate`: its figures, its guarantee, its files, and what it refuses."""

import json
import math
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from common.errors import CommandError
from common.image_sets import find_sets
from common.outcomes import outcome_of
from demo.drawing import bicycle, encoded, house, motorcycle
from serving.model import Model
from serving.preprocess import preprocess
from tests.support.onnx_model import write_model
from tests.support.pages import Page, assert_self_contained
from tests.support.stack import HANG_SECONDS
from training.__main__ import main
from training.evaluation import plots
from training.evaluation.intervals import certified_accuracy, paired_difference, wilson
from training.evaluation.metrics import (
    calibration_bins,
    calibration_error_by_chance,
    expected_calibration_error,
    risk_coverage,
)
from training.evaluation.robustness import CASES, corrupt
from training.evaluation.threshold import recommend_threshold

REPOSITORY = Path(__file__).parents[2]
MODEL = REPOSITORY / "training/model/model.onnx"
LABELS = ["bicycle", "motorcycle"]


@pytest.fixture(scope="module")
def drawn(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder of drawn images, of different sizes and formats."""
    folder = tmp_path_factory.mktemp("images") / "drawn"
    for name, draw in {"bicycle": bicycle, "motorcycle": motorcycle, "other": house}.items():
        (folder / name).mkdir(parents=True)
        draw(48, 40, 1).save(folder / name / "a.png")
        draw(64, 64, 2).save(folder / name / "b.JPG")
        draw(90, 60, 3).save(folder / name / "c.webp")
    return folder


@pytest.fixture(scope="module")
def written(drawn: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder that one evaluation has written."""
    out = tmp_path_factory.mktemp("evaluation")
    assert main(["evaluate", "--model", str(MODEL), "--data", str(drawn), "--out", str(out)]) == 0
    return out


# Figures


@given(st.integers(1, 400).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))))
def test_wilson_interval_contains_the_share(hits_and_n: tuple[int, int]) -> None:
    hits, n = hits_and_n
    interval = wilson(hits, n)
    assert interval is not None
    # Rounded to four digits.
    assert 0 <= interval[0] <= hits / n + 5e-5 and hits / n - 5e-5 <= interval[1] <= 1


def test_wilson_interval_by_hand_and_of_nothing() -> None:
    assert wilson(0, 0) is None
    assert wilson(0, 200) == (0.0, round(1.96**2 / (200 + 1.96**2), 4))
    assert wilson(50, 100) == (0.4038, 0.5962)


def test_wilson_interval_holds_the_truth_about_as_often_as_it_says() -> None:
    hits = np.random.default_rng(0).binomial(80, 0.93, 2000)
    intervals = [wilson(int(h), 80) for h in hits]
    assert 0.93 <= np.mean([i is not None and i[0] <= 0.93 <= i[1] for i in intervals]) <= 0.97


@pytest.mark.parametrize(("n", "first", "second", "both"), [(60, 0.02, 0.08, 0.85), (300, 0.04, 0.04, 0.9)])
def test_paired_interval_holds_the_truth_about_as_often_as_it_says(
    n: int, first: float, second: float, both: float
) -> None:
    draws = np.random.default_rng(0).multinomial(n, [both, first, second, 1 - both - first - second], 1500)
    intervals = [paired_difference(int(draw[0]), int(draw[1]), int(draw[2]), n) for draw in draws]
    held = [each is not None and each[1] <= second - first <= each[2] for each in intervals]
    assert 0.93 <= np.mean(held) <= 0.99
    # The images are the same, so the interval is narrower than that of two independent proportions.
    widths = [each[2] - each[1] for each in intervals if each]
    spread = sum(p * (1 - p) / n for p in (both + first, both + second)) ** 0.5
    assert np.mean(widths) < 2 * 1.96 * spread


def test_paired_interval_of_equal_answers_holds_zero_and_of_nothing_is_none() -> None:
    assert paired_difference(0, 0, 0, 0) is None
    difference = paired_difference(50, 0, 0, 100)
    assert difference and difference[0] == 0 and difference[1] <= 0 <= difference[2]
    # Swapping the models swaps the signs.
    one, two = paired_difference(40, 12, 3, 60), paired_difference(40, 3, 12, 60)
    assert one and two and one == (-0.15, -two[2], -two[1]) and two[1] > 0


def test_calibration_error_of_a_perfect_model_is_what_chance_makes_it() -> None:
    random = np.random.default_rng(0)
    confidence = random.beta(8, 1, 20_000)
    correct = random.random(20_000) < confidence
    assert expected_calibration_error(confidence, correct) < 0.012
    assert calibration_error_by_chance(confidence, 5) < 0.012
    # Of few images the error of the same model is larger by chance alone.
    assert calibration_error_by_chance(confidence[:100]) > 0.02
    assert math.isnan(calibration_error_by_chance(np.zeros(0), 2))


@given(st.lists(st.tuples(st.floats(0, 1), st.booleans()), max_size=50))
def test_bins_hold_every_answer_and_make_up_the_error(answers: list[tuple[float, bool]]) -> None:
    confidence, correct = np.array([a for a, _ in answers], float), np.array([b for _, b in answers], bool)
    count, mean_confidence, accuracy = calibration_bins(confidence, correct)
    assert count.sum() == len(answers)
    filled = count > 0
    assert np.isnan(accuracy[~filled]).all()
    if answers:
        gaps = np.abs(mean_confidence[filled] - accuracy[filled])
        assert expected_calibration_error(confidence, correct) == pytest.approx(np.average(gaps, weights=count[filled]))


@given(st.lists(st.tuples(st.sampled_from([0.1, 0.5, 0.7, 0.9, 1.0]), st.booleans()), max_size=40))
def test_coverage_falls_with_the_threshold(answers: list[tuple[float, bool]]) -> None:
    confidence, correct = np.array([a for a, _ in answers], float), np.array([b for _, b in answers], bool)
    points = risk_coverage(confidence, correct)
    assert len(points) == len(set(confidence))
    assert [t for t, _, _ in points] == sorted((t for t, _, _ in points), reverse=True)
    assert [c for _, c, _ in points] == sorted(c for _, c, _ in points)
    for threshold, coverage, selective in points:
        assert coverage == pytest.approx((confidence >= threshold).mean())
        assert selective == pytest.approx(correct[confidence >= threshold].mean())


# The recommended threshold


@given(st.integers(1, 60).flatmap(lambda n: st.tuples(st.integers(0, n - 1), st.just(n))), st.floats(0.01, 0.99))
def test_bound_is_the_accuracy_at_which_so_few_errors_are_this_unlikely(
    errors_and_n: tuple[int, int], level: float
) -> None:
    errors, n = errors_and_n
    right = certified_accuracy(errors, n, level)
    tail = math.fsum(math.comb(n, i) * (1 - right) ** i * right ** (n - i) for i in range(errors + 1))
    assert tail == pytest.approx(1 - level, abs=1e-9)


def test_bound_by_hand() -> None:
    assert certified_accuracy(0, 299, 0.95) >= 0.99 > certified_accuracy(0, 298, 0.95)
    assert certified_accuracy(0, 59, 0.95) == pytest.approx(0.05 ** (1 / 59))
    # Clopper and Pearson: 10 of 100, one-sided 95%, upper bound on the error rate.
    assert certified_accuracy(10, 100, 0.95) == pytest.approx(1 - 0.1637, abs=1e-4)
    assert certified_accuracy(0, 0, 0.95) == certified_accuracy(5, 5, 0.95) == 0.0
    assert certified_accuracy(100, 20_000, 0.95) == pytest.approx(0.9941, abs=2e-4)


def test_advice_goes_as_low_as_the_images_allow() -> None:
    confidence = np.concatenate([np.full(100, 0.97), np.full(50, 0.80), np.full(20, 0.60)])
    correct = np.concatenate([np.ones(150, bool), np.zeros(20, bool)])
    advice = recommend_threshold(confidence, correct, 0.95, 0.95)
    assert (advice.threshold, advice.passing, advice.errors) == (0.61, 150, 0)
    assert recommend_threshold(confidence, np.ones(170, bool), 0.95, 0.95).threshold == 0.5


def test_no_advice_says_what_would_be_possible_at_best() -> None:
    advice = recommend_threshold(np.full(58, 0.99), np.ones(58, bool), 0.95, 0.95)
    assert advice.threshold is None
    assert advice.reason == (
        "none: 58 images pass 0.95, 0 of them wrong, which certifies 94.97%; "
        "without errors, 58 images would certify 94.97%"
    )
    assert recommend_threshold(np.full(59, 0.99), np.ones(59, bool), 0.95, 0.95).threshold == 0.5
    assert recommend_threshold(np.zeros(0), np.zeros(0, bool), 0.95, 0.95).threshold is None


@pytest.mark.parametrize("honesty", ["just too bad everywhere", "bad in the middle", "calibrated"])
def test_advice_breaks_its_promise_no_more_often_than_it_says(honesty: str) -> None:
    """Draw many sets from a known model, and count recommended thresholds that miss the target."""
    target, level, sets = 0.90, 0.90, 400
    random = np.random.default_rng(1)
    population = random.beta(4, 1, 200_000)
    right = {
        "just too bad everywhere": np.full(len(population), 0.899),
        "bad in the middle": np.where(np.abs(population - 0.8) < 0.08, 0.6, 0.97),
        "calibrated": population,
    }[honesty]
    broken = 0
    for _ in range(sets):
        drawn = random.integers(0, len(population), 150)
        advice = recommend_threshold(population[drawn], random.random(150) < right[drawn], target, level)
        if advice.threshold is not None:
            broken += bool(right[population >= advice.threshold].mean() < target)
    # Three standard deviations of a count above the promised rate.
    assert broken <= sets * 0.1 + 3 * math.sqrt(sets * 0.1 * 0.9)


@pytest.mark.parametrize("recommended", [0.61, None])
def test_the_plot_marks_the_threshold_in_use_and_the_recommended_one(recommended: float | None) -> None:
    confidence = np.linspace(0.5, 0.99, 50)
    points = risk_coverage(confidence, confidence > 0.6)
    figures = {"n": 50, "risk_coverage": points, "advice": {"threshold": recommended}}
    svg = plots.risk_coverage(figures, 0.7, "key")
    assert "threshold in use, 0.7" in svg
    assert ("recommended threshold, 0.61" in svg) == (recommended is not None)


# Damage


def test_damage_is_what_it_says_and_the_same_every_time(drawn: Path) -> None:
    content = (drawn / "bicycle/c.webp").read_bytes()
    pixels = preprocess(content, 32)
    copies = dict(zip(CASES, corrupt(content, pixels, seed=3), strict=True))
    again = corrupt(content, pixels, seed=3)
    assert all(np.array_equal(a, b) for a, b in zip(copies.values(), again, strict=True))
    assert all(copy.shape == pixels.shape and copy.dtype == np.uint8 for copy in copies.values())
    assert copies["brightness", 0.5].mean() == pytest.approx(pixels.mean() / 2, abs=0.5)
    assert copies["contrast", 0.3].std() == pytest.approx(pixels.std() * 0.3, rel=0.02)
    difference = copies["noise", 0.08].astype(float) - pixels
    inside = (pixels > 80) & (pixels < 175)  # where clipping cannot reach
    assert difference[inside].std() / 255 == pytest.approx(0.08, rel=0.1)
    assert not np.array_equal(copies["noise", 0.08], corrupt(content, pixels, seed=4)[CASES.index(("noise", 0.08))])
    jpeg = [np.abs(copies["JPEG", quality].astype(float) - pixels).mean() for quality in (60, 30, 10)]
    assert jpeg == sorted(jpeg)


def test_blur_spreads_a_point_as_a_gaussian() -> None:
    pixels = np.zeros((33, 33, 3), np.uint8)
    pixels[16, 16] = 255
    blurred = corrupt(encoded(Image.fromarray(pixels)), pixels, 0)[CASES.index(("blur", 0.04))][:, :, 0] / 255
    assert blurred[16, 16] == pytest.approx(1 / (2 * math.pi * (0.04 * 33) ** 2), abs=0.004)
    assert blurred.sum() == pytest.approx(1, abs=0.05)


# Sets of images


def test_a_set_of_several_folders_and_which_images_are_taken(tmp_path: Path, drawn: Path) -> None:
    image = (drawn / "bicycle/a.png").read_bytes()
    for name in (
        "v/train/bicycle/1.png",
        "v/test/bicycle/2.png",
        "n/cat/3.png",
        "n/4.png",
        "dogs/5.png",
        "v/test/x.txt",
    ):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(image)
    images = find_sets([f"all={tmp_path / 'v'},{tmp_path / 'n'},{tmp_path / 'dogs'}"], LABELS)["all"].images
    assert [image.name for image in images] == ["bicycle/2.png", "cat/3.png", "dogs/5.png"]
    assert list(find_sets([str(tmp_path / "v"), f"w={tmp_path / 'v'}"], LABELS)) == ["v", "w"]
    (tmp_path / "a=b,c").mkdir()
    (tmp_path / "v").rename(tmp_path / "a=b,c/v")
    assert list(find_sets([str(tmp_path / "a=b,c")], LABELS)) == ["a=b,c"]


def test_of_a_staged_folder_the_test_split_is_taken(tmp_path: Path, drawn: Path) -> None:
    staged = tmp_path / "staged"
    for name, draw in {"bicycle": bicycle, "motorcycle": motorcycle}.items():
        (tmp_path / "learnt" / name).mkdir(parents=True)
        draw(32, 32, 9).save(tmp_path / "learnt" / name / "z.png")
    sources = ["--source", str(tmp_path / "learnt"), "--source", f"{drawn}@test"]
    assert main(["stage", *sources, "--out", str(staged)]) == 0
    images = find_sets([str(staged)], LABELS)["staged"].images
    assert len(images) == 9
    assert {image.class_name for image in images} == {"bicycle", "motorcycle", "neither"}
    assert {image.path.relative_to(staged).parts[0] for image in images} == {"test"}


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        ("missing", "is not a folder"),
        ("empty", r"holds no images \(.png, .jpg"),
        ("drawn/other", "no folder is named after a label \\(bicycle, motorcycle\\); found: other"),
        ("set=drawn,missing", "is not a folder"),
        ("=drawn", "a different name"),
    ],
)
def test_what_is_no_set_is_refused_in_one_line(
    drawn: Path, monkeypatch: pytest.MonkeyPatch, data: str, reason: str
) -> None:
    monkeypatch.chdir(drawn.parent)
    (drawn.parent / "empty").mkdir(exist_ok=True)
    with pytest.raises(CommandError, match=reason) as caught:
        find_sets([data], LABELS)
    assert "\n" not in str(caught.value)


def test_two_sets_of_one_name_are_refused(drawn: Path) -> None:
    with pytest.raises(CommandError, match="a different name"):
        find_sets([str(drawn), str(drawn)], LABELS)


def test_a_model_may_have_any_name_and_must_be_one(tmp_path: Path) -> None:
    (tmp_path / "seed-3.onnx").write_bytes(MODEL.read_bytes())
    assert Model(tmp_path / "seed-3.onnx").labels == LABELS
    (tmp_path / "broken.onnx").write_bytes(b"no model")
    with pytest.raises(CommandError, match=r"broken\.onnx is not a usable ONNX model"):
        Model(tmp_path / "broken.onnx")
    with pytest.raises(CommandError, match="does not exist"):
        Model(tmp_path / "missing.onnx")


# The command


def run(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> tuple[int, str, str]:
    code = main(["evaluate", "--model", str(MODEL), *arguments])
    captured = capsys.readouterr()
    return code, captured.out, captured.err


def test_evaluation_file_agrees_with_the_endpoint(written: Path, drawn: Path) -> None:
    evaluation = json.loads((written / "evaluation.json").read_text())
    assert evaluation["labels"] == LABELS
    figures = evaluation["sets"]["drawn"]
    assert (figures["n"], figures["other_n"]) == (6, 3)
    model = Model(MODEL)
    right = [
        model.probabilities(preprocess(path.read_bytes(), model.input_size))
        for label in LABELS
        for path in sorted((drawn / label).iterdir())
    ]
    answers = np.array(right).argmax(axis=1)
    assert figures["accuracy"] == pytest.approx((answers == [0, 0, 0, 1, 1, 1]).mean(), abs=1e-4)
    assert len(figures["robustness"]) == 1 + len(CASES)
    assert figures["robustness"][0]["accuracy"] == figures["accuracy"]
    assert sum(sum(row) for row in figures["confusion"].values()) == 9
    assert figures["per_class"]["other"] == {"other_n": 3, "other_passing": figures["other_passing"]}
    assert str(drawn.parent) not in (written / "evaluation.json").read_text()


def test_json_is_one_flat_object_and_the_same_command_writes_the_same_files(
    written: Path, drawn: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code, out, _ = run(["--data", str(drawn), "--out", str(tmp_path), "--json"], capsys)
    assert code == 0
    figures = json.loads(out)
    assert {"accuracy", "coverage", "selective_accuracy", "ece", "other_passing", "n"} <= set(figures)
    assert not any(isinstance(value, dict) for value in figures.values())
    for name in ("evaluation.json", "report.html"):
        assert (tmp_path / name).read_bytes() == (written / name).read_bytes()


def test_json_of_several_sets_is_by_name_and_nothing_to_count_is_null(
    drawn: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    sets = ["--data", f"a={drawn}", "--data", f"b={drawn / 'bicycle'}"]
    code, out, _ = run([*sets, "--out", str(tmp_path), "--json", "--threshold", "1"], capsys)
    assert code == 0
    figures: dict[str, Any] = json.loads(out)
    assert list(figures) == ["a", "b"]
    assert figures["b"]["other_passing"] is None
    assert figures["a"]["coverage"] == 0.0 and figures["a"]["selective_accuracy"] is None


def test_tables_and_what_was_left_out(drawn: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "<b>[i]images"
    (folder / "bicycle").mkdir(parents=True)
    (folder / "bicycle/a.png").write_bytes((drawn / "bicycle/a.png").read_bytes())
    (folder / "bicycle/<i>broken.png").write_bytes(b"\x89PNG")
    code, out, err = run(["--data", str(folder), "--out", str(tmp_path / "out")], capsys)
    assert code == 0
    for word in ("<b>[i]images, threshold 0.7", "selective_accuracy", "95% interval", "by chance alone", "none: "):
        assert word in out
    assert "skipped bicycle/<i>broken.png: Not a readable image" in err
    page = (tmp_path / "out/report.html").read_text()
    assert "&lt;i&gt;broken" in page and "<i>broken" not in page and "<b>" not in page
    (folder / "bicycle/a.png").unlink()
    code, _, err = run(["--data", str(folder), "--out", str(tmp_path / "out")], capsys)
    assert code == 1
    assert "no image with a label can be read" in err


@pytest.mark.parametrize(
    "arguments",
    [["--threshold", "1.5"], ["--threshold", "nan"], ["--target-accuracy", "1"], ["--confidence-level", "x"]],
)
def test_wrong_numbers_are_not_understood(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main(["evaluate", *arguments])
    assert caught.value.code == 2
    assert "is not a number" in capsys.readouterr().err


def test_torch_is_not_needed_and_a_missing_library_is_one_line(tmp_path: Path) -> None:
    for absent, reason in (("torch", "/nonexistent is not a folder"), ("matplotlib", "evaluate needs matplotlib")):
        (tmp_path / absent).mkdir()
        (tmp_path / absent / f"{absent}.py").write_text(f"raise ModuleNotFoundError(name={absent!r})")
        done = subprocess.run(
            [sys.executable, "-m", "training", "evaluate", "--data", "/nonexistent"],
            cwd=REPOSITORY,
            env={**os.environ, "PYTHONPATH": str(tmp_path / absent)},
            capture_output=True,
            text=True,
            timeout=HANG_SECONDS,
            check=False,
        )
        assert done.returncode == 1
        assert done.stderr.startswith("error: ") and reason in done.stderr and done.stderr.count("\n") == 1


# Two models


def test_two_models_on_the_same_images(drawn: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    # Gives every image a half for each label: the first label is the most probable, and nothing passes.
    other = write_model(tmp_path / "other.onnx")
    command = ["evaluate", "--model", str(other), "--model", str(MODEL), "--data", str(drawn), "--out", str(tmp_path)]
    assert main([*command, "--json"]) == 0
    comparison = json.loads(capsys.readouterr().out)
    assert comparison == json.loads((tmp_path / "comparison.json").read_text())
    assert main(["evaluate", "--model", str(MODEL), "--data", str(drawn), "--out", str(tmp_path), "--json"]) == 0
    alone = json.loads(capsys.readouterr().out)
    found = comparison["sets"]["drawn"]
    assert found["figures"]["accuracy"]["values"] == [0.5, alone["accuracy"]]
    assert found["figures"]["accepted"]["values"] == [0, alone["coverage"]]
    assert found["figures"]["background_accepted"]["values"] == [0, alone["other_passing"]]
    for figure in found["figures"].values():
        difference, low, high = figure["difference"]
        assert low <= difference <= high
        assert difference == pytest.approx(figure["values"][1] - figure["values"][0], abs=2e-4)
    # The other model is unsure of everything.
    model = Model(MODEL)
    changed = {each["image"]: each for each in found["changed"]}
    for path in sorted(drawn.glob("*/*")):
        probabilities = model.probabilities(preprocess(path.read_bytes(), model.input_size))
        outcome = outcome_of(max(probabilities), 1 - sum(probabilities), 0.7)
        answer = LABELS[probabilities.index(max(probabilities))] if outcome == "accepted" else outcome
        name = f"{path.parent.name}/{path.name}"
        assert (name in changed) == (answer != "unsure")
        if name in changed:
            assert [each["answer"] for each in changed[name]["answers"]] == ["unsure", answer]
            right = {path.parent.name: "better", "neither": "equal"}.get(answer, "worse")
            assert changed[name]["change"] == right
    html = (tmp_path / "comparison.html").read_text()
    assert_self_contained(html)
    page = Page(html)
    assert all(name in page.text for name in changed) and len(page.of("img")) == len(changed)


def test_more_or_different_models_are_not_compared(
    drawn: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["evaluate", *["--model", str(MODEL)] * 3, "--data", str(drawn), "--out", str(tmp_path)]) == 1
    assert "once, or twice" in capsys.readouterr().err
    content = write_model(tmp_path / "other.onnx").read_bytes()
    (tmp_path / "other.onnx").write_bytes(content.replace(b'"bicycle"', b'"unicorn"'))
    models = ["--model", str(MODEL), "--model", str(tmp_path / "other.onnx")]
    assert main(["evaluate", *models, "--data", str(drawn), "--out", str(tmp_path)]) == 1
    assert "the models have different labels: bicycle, motorcycle and unicorn" in capsys.readouterr().err


# The page


def test_mistakes_show_where_the_model_looked(tmp_path: Path) -> None:
    for name, colour in {"bicycle": (30, 230, 30), "motorcycle": (230, 30, 30)}.items():
        (tmp_path / name).mkdir()
        Image.new("RGB", (40, 30), colour).save(tmp_path / name / "a.png")
    for maps in (False, True):
        model = write_model(tmp_path / "model.onnx", maps=maps)
        assert main(["evaluate", "--model", str(model), "--data", str(tmp_path), "--out", str(tmp_path / "out")]) == 0
        page = Page((tmp_path / "out/report.html").read_text())
        assert len(page.of("img", alt="Where the model sees bicycle")) == maps


def test_page_is_whole_and_needs_no_network(written: Path) -> None:
    html = (written / "report.html").read_text()
    assert_self_contained(html)
    page = Page(html)
    assert all(image["alt"] for image in page.of("img")) and all(plot["aria-label"] for plot in page.of("svg"))
    assert len(page.of("svg")) == 8
    assert len(page.of("h1")) == len(page.of("main")) == 1
    for phrase in ("Recommended threshold", "noise σ 0.08", "blur σ 4%", "contrast ×0.3", "after preprocessing"):
        assert phrase in page.text
