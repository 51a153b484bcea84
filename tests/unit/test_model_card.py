"""The model card says what the committed model is and does."""

import hashlib
import json
import re
from pathlib import Path

import pytest

from training.__main__ import main

MODEL = Path(__file__).parents[2] / "training" / "model"
CARD = (MODEL / "README.md").read_text()
#: One image of a hundred: 8-bit arithmetic rounds differently on processors without instructions for it.
TOLERANCE = 0.0125
FIGURES = ("accuracy", "coverage", "selective_accuracy", "ece", "other_passing")


def figures_of_the_card() -> dict[str, list[float]]:
    rows = re.findall(r"^\| (test|photos) \|(.+)\|$", CARD, re.MULTILINE)
    return {name: [float(cell) for cell in cells.split("|")] for name, cells in rows}


def test_the_checksum_is_that_of_the_file() -> None:
    digest = hashlib.sha256((MODEL / "model.onnx").read_bytes()).hexdigest()
    assert digest in CARD
    assert json.loads((MODEL / "metrics.json").read_text())["model_sha256"] == digest


def test_the_figures_are_those_of_evaluate(
    image_data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    test = f"test={image_data / 'vehicles' / 'test'},{image_data / 'neither'}"
    photos = f"photos={image_data / 'photos'}"
    assert main(["evaluate", "--data", test, "--data", photos, "--out", str(tmp_path), "--json"]) == 0
    measured = json.loads(capsys.readouterr().out)
    stated = figures_of_the_card()
    assert set(stated) == {"test", "photos"}
    for name, row in stated.items():
        for figure, value in zip(FIGURES, row, strict=True):
            assert measured[name][figure] == pytest.approx(value, abs=TOLERANCE), (name, figure)
