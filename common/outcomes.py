"""The outcomes of an image: one word and one colour for each, in tables, pages and pictures."""

from collections.abc import Mapping
from typing import Any

#: Each outcome with its colour on white; `common/page.css` has the same, and those of dark pages.
COLOURS = {"accepted": "#1a7f4b", "unsure": "#a15c00", "neither": "#625d7d", "failed": "#b3261e"}
#: Their colours in a terminal.
STYLES = {"accepted": "green", "unsure": "yellow", "neither": "magenta", "failed": "red"}


def outcome_of(confidence: float, neither: float, threshold: float) -> str:
    """Return the outcome of a prediction, as the workflow's filter does.

    Parameters
    ----------
    confidence : float
        The highest probability of a label.
    neither : float
        The probability of none of the labels.
    threshold : float
        The lowest confidence that is accepted.
    """
    return "accepted" if confidence >= threshold else outcome_below(confidence, neither)


def outcome_below(confidence: float, neither: float) -> str:
    """Return the outcome of a prediction below the threshold: neither if that is more probable than every label."""
    # To a millionth, as the workflow's functions round: a sum of floats is not exact.
    return "neither" if round(neither, 6) > confidence else "unsure"


def outcome_of_execution(error: str | None, event: Mapping[str, Any]) -> str:
    """Return the outcome of an execution that has ended.

    Parameters
    ----------
    error : str or None
        The execution's error.
    event : mapping
        The event after classify, if there was one.
    """
    if error is None:
        return "accepted"
    if error != "ThresholdNotMet":
        return "failed"
    confidence = event.get("confidence", 0.0)
    return outcome_below(confidence, event.get("neither", 1 - sum(event.get("inferences", [1.0]))))
