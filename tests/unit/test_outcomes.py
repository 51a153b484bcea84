"""The outcomes: one rule and one colour for each, wherever they are shown."""

import io
import re
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from common.outcomes import COLOURS, STYLES, outcome_of, outcome_of_execution
from demo.contact_sheet import draw_contact_sheet
from demo.drawing import bicycle, encoded
from src.filter import app as filter_

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize("threshold", ["0", "0.3", "0.7", "1"])
@pytest.mark.parametrize("inferences", [[0.9, 0.05], [0.75, 0.125], [0.5, 0.25], [0.3, 0.1], [0.3, 0.3], [0.01, 0.0]])
def test_pages_and_the_filter_agree(
    monkeypatch: pytest.MonkeyPatch, context: Any, inferences: list[float], threshold: str
) -> None:
    monkeypatch.setenv("THRESHOLD", threshold)
    event = {"s3_bucket": "b", "s3_key": "k", "label": "a", "inferences": inferences, "confidence": max(inferences)}
    wanted = outcome_of(max(inferences), 1 - sum(inferences), float(threshold))
    try:
        filter_.lambda_handler(dict(event), context)
        error, said = None, "accepted"
    except filter_.ThresholdNotMet as raised:
        error, said = "ThresholdNotMet", str(raised).split(":")[0]
    assert said == wanted
    # An event of before "neither" was one of its fields gives the same.
    neither = {"neither": 1 - sum(inferences)}
    assert {outcome_of_execution(error, event), outcome_of_execution(error, event | neither)} == {wanted}


def test_any_other_error_is_a_failure() -> None:
    assert outcome_of_execution("ObjectNotFound", {}) == "failed"


def test_every_outcome_has_its_colour_everywhere() -> None:
    assert set(STYLES) == set(COLOURS) == {"accepted", "unsure", "neither", "failed"}
    page = (ROOT / "common/page.css").read_text()
    light, dark = page.split("prefers-color-scheme: dark")
    for outcome, colour in COLOURS.items():
        assert f"--{outcome}: {colour};" in light
        assert re.search(rf"--{outcome}: #\w{{6}};", dark) and f".{outcome} {{ color: var(--{outcome}); }}" in dark
    dashboard = (ROOT / "template.yaml").read_text()
    for outcome in ("accepted", "unsure", "neither"):
        assert re.search(rf'"{outcome.title()}",[^\n]*"color": "{COLOURS[outcome]}"', dashboard)


def test_the_contact_sheet_shows_each_outcome_and_what_a_file_was(tmp_path: Path) -> None:
    data = [encoded(bicycle(64, 64, 0)), encoded(bicycle(64, 64, 1)), encoded(bicycle(64, 64, 2)), b"text"]
    rows = [
        {"data": content, "outcome": outcome, "subtitle": outcome, "what": "not an image"}
        for content, outcome in zip(data, COLOURS, strict=True)
    ]
    sheets = []
    for what in ("not an image", "half a file"):
        rows[-1]["what"] = what
        draw_contact_sheet(rows, tmp_path / "sheet.png", columns=4)
        sheets.append(Image.open(io.BytesIO((tmp_path / "sheet.png").read_bytes())).convert("RGB"))
    for place, colour in enumerate(COLOURS.values()):
        assert "#{:02x}{:02x}{:02x}".format(*sheets[0].getpixel((12 + place * 216, 100))) == colour  # type: ignore[misc]
    # The name of what the file was stands where its picture would.
    box = (3 * 216 + 16, 16, 3 * 216 + 216, 216)
    assert sheets[0].crop(box).tobytes() != sheets[1].crop(box).tobytes()
    assert sheets[0].crop((0, 0, 3 * 216, 216)).tobytes() == sheets[1].crop((0, 0, 3 * 216, 216)).tobytes()
