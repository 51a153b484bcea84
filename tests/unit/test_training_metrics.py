"""The figures, worked out by hand on small cases, and what the committed model reaches."""

import json
import os
from pathlib import Path

import numpy as np
import pytest

from serving.model import Model
from serving.preprocess import preprocess
from training.evaluation.metrics import compute_metrics, expected_calibration_error

REPOSITORY = Path(__file__).parents[2]
DATA = Path(os.environ.get("IMAGE_DATA_DIR", REPOSITORY.parent / "shared" / "data"))


def test_figures_by_hand() -> None:
    probabilities = np.array([[0.9, 0.1], [0.7, 0.2], [0.6, 0.3], [0.1, 0.8], [0.75, 0.0], [0.2, 0.1]])
    targets = np.array([0, 1, 0, 1, 2, 2])
    assert compute_metrics(probabilities, targets) == {
        "n": 4,
        "other_n": 2,
        "accuracy": 0.75,
        "coverage": 0.75,  # .70 itself passes
        "selective_accuracy": 0.6667,
        "ece": pytest.approx((0.1 + 0.7 + 0.4 + 0.2) / 4),
        "other_passing": 0.5,
    }


def test_nothing_to_count_is_none_and_not_zero() -> None:
    figures = compute_metrics(np.array([[0.9, 0.0]]), np.array([2]))
    assert figures["accuracy"] is figures["selective_accuracy"] is figures["ece"] is None
    assert figures["other_passing"] == 1.0
    assert json.loads(json.dumps(figures, allow_nan=False)) == figures


def test_calibration_error_of_honest_and_of_boastful_answers() -> None:
    correct = np.arange(100) < 80
    assert expected_calibration_error(np.full(100, 0.8), correct) == pytest.approx(0.0)
    assert expected_calibration_error(np.full(100, 1.0), correct) == pytest.approx(0.2)
    assert np.isnan(expected_calibration_error(np.zeros(0), np.zeros(0, bool)))


def test_the_committed_model_reaches_its_figures() -> None:
    if not (DATA / "vehicles").is_dir():
        pytest.skip(f"no real images in {DATA} (set IMAGE_DATA_DIR)")
    model = Model(REPOSITORY / "training/model/model.onnx")
    assert model.labels == ["bicycle", "motorcycle"]
    folders = [DATA / "vehicles/test/bicycle", DATA / "vehicles/test/motorcycle", DATA / "neither"]
    files = [(path, target) for target, folder in enumerate(folders) for path in sorted(folder.rglob("*.*g"))]
    probabilities = [model.probabilities(preprocess(path.read_bytes(), model.input_size)) for path, _ in files]
    figures = compute_metrics(np.array(probabilities), np.array([target for _, target in files]))
    stated = json.loads((REPOSITORY / "training/model/metrics.json").read_text())["test"]
    assert (figures["n"], figures["other_n"]) == (100, 200)
    # Two libraries may round one image at the threshold differently.
    for name in ("accuracy", "coverage", "selective_accuracy", "other_passing", "ece"):
        assert figures[name] == pytest.approx(stated[name], abs=0.011), name
    assert stated["accuracy"] >= 0.93
    assert stated["other_passing"] <= 0.08


def test_the_committed_model_is_small() -> None:
    assert (REPOSITORY / "training/model/model.onnx").stat().st_size <= 6_000_000
