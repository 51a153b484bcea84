"""Filter: the threshold's rule, and everything that must not pass."""

import math
from typing import Any

import pytest

from src.filter import app

EVENT = {
    "s3_bucket": "images",
    "s3_key": "incoming/a.png",
    "inferences": [0.7, 0.3],
    "label": "bicycle",
    "confidence": 0.7,
    "endpoint": "image-classifier",
    "variant": "AllTraffic",
}


@pytest.fixture(autouse=True)
def _threshold(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("THRESHOLD", "0.70")


def event(inferences: list[Any], **changes: Any) -> dict[str, Any]:
    return {**EVENT, "inferences": inferences, "confidence": max(inferences), **changes}


def test_at_the_threshold_the_event_passes_unchanged(context: Any) -> None:
    assert app.lambda_handler(dict(EVENT), context) == EVENT


def test_just_below_the_threshold_it_does_not(context: Any) -> None:
    said = r"^unsure: bicycle has .* 0\.7000, below the threshold 0\.7, .* s3://images/incoming/a\.png needs a review$"
    with pytest.raises(app.ThresholdNotMet, match=said):
        app.lambda_handler(event([math.nextafter(0.7, 0), 0.1]), context)


@pytest.mark.parametrize(
    ("inferences", "setting", "said"),
    [
        (
            [0.01, 0.0],
            None,
            r"^neither: bicycle has probability 0\.0100, .* none of the labels 0\.9900: .* needs a review$",
        ),
        ([0.01, 0.0], "true", r"^neither: .* needs a review$"),
        ([0.01, 0.0], "false", r"^neither: .* needs no review$"),
        # Neither is the most probable, but not as probable as an answer must be.
        ([0.2, 0.15], "false", r"^neither: .* none of the labels 0\.6500: .* needs a review$"),
        ([0.4, 0.25], "false", r"^unsure: .* needs a review$"),
        ([0.5, 0.0], "false", r"^unsure: .* needs a review$"),
    ],
)
def test_the_message_names_the_outcome_and_whether_it_needs_a_review(
    monkeypatch: pytest.MonkeyPatch, context: Any, inferences: list[float], setting: str | None, said: str
) -> None:
    if setting:
        monkeypatch.setenv("REVIEW_NEITHER", setting)
    with pytest.raises(app.ThresholdNotMet, match=said):
        app.lambda_handler(event(inferences), context)


def test_a_label_that_reaches_a_low_threshold_is_accepted_although_neither_is_more_probable(
    monkeypatch: pytest.MonkeyPatch, context: Any
) -> None:
    monkeypatch.setenv("THRESHOLD", "0.3")
    assert app.lambda_handler(event([0.3, 0.1]), context)


@pytest.mark.parametrize(
    ("threshold", "passes"), [("0", True), ("0.5", True), ("0.6", False), ("1", False), ("1.0", False)]
)
def test_the_threshold_is_a_setting(
    monkeypatch: pytest.MonkeyPatch, context: Any, threshold: str, passes: bool
) -> None:
    monkeypatch.setenv("THRESHOLD", threshold)
    if passes:
        assert app.lambda_handler(event([0.55, 0.1]), context)
    else:
        with pytest.raises(app.ThresholdNotMet):
            app.lambda_handler(event([0.55, 0.1]), context)


@pytest.mark.parametrize("threshold", ["", "high", "nan", "-0.1", "1.1", "inf", "70%"])
def test_with_a_broken_setting_nothing_passes(monkeypatch: pytest.MonkeyPatch, context: Any, threshold: str) -> None:
    monkeypatch.setenv("THRESHOLD", threshold)
    with pytest.raises(app.InvalidThreshold, match="from 0 to 1"):
        app.lambda_handler(event([1.0, 0.0]), context)


def test_without_a_setting_nothing_passes(monkeypatch: pytest.MonkeyPatch, context: Any) -> None:
    monkeypatch.delenv("THRESHOLD")
    with pytest.raises(app.InvalidThreshold):
        app.lambda_handler(event([1.0, 0.0]), context)


@pytest.mark.parametrize(
    "change",
    [
        {"inferences": None},
        {"inferences": []},
        {"inferences": "0.9"},
        {"inferences": [math.nan, 0.9], "confidence": 0.9},
        {"inferences": [0.9, math.nan], "confidence": 0.9},
        {"inferences": [math.inf], "confidence": math.inf},
        {"inferences": [1.2], "confidence": 1.2},
        {"inferences": [-0.2, 0.9], "confidence": 0.9},
        {"inferences": ["0.9"], "confidence": "0.9"},
        {"inferences": [True], "confidence": True},
        {"confidence": None},
        {"confidence": math.nan},
        {"confidence": 0.99},
        {"confidence": 0.3},
    ],
)
def test_probabilities_that_cannot_be_believed_do_not_pass(context: Any, change: dict[str, Any]) -> None:
    with pytest.raises(app.InvalidInference):
        app.lambda_handler({**EVENT, **change}, context)


@pytest.mark.parametrize("change", [{"s3_bucket": ""}, {"s3_key": None}, {"label": 3}, {"image_data": "Zm9v"}])
def test_an_event_that_classify_did_not_make_is_invalid(context: Any, change: dict[str, Any]) -> None:
    with pytest.raises(app.InvalidEvent):
        app.lambda_handler({**EVENT, **change}, context)


@pytest.mark.parametrize("wrong", [None, [], 1, "text"])
def test_what_is_no_object_is_invalid(context: Any, wrong: Any) -> None:
    with pytest.raises(app.InvalidEvent):
        app.lambda_handler(wrong, context)


def test_an_unsure_answer_is_logged_as_a_warning(context: Any, logged: Any) -> None:
    lines = logged(app)
    with pytest.raises(app.ThresholdNotMet):
        app.lambda_handler(event([0.5, 0.5], execution_id="arn:x"), context)
    (line,) = lines()
    assert (line["level"], line["error"]) == ("WARNING", "ThresholdNotMet")
    assert (line["s3_key"], line["execution_id"]) == ("incoming/a.png", "arn:x")
