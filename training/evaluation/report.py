"""The report page of an evaluation: one HTML file that needs no network."""

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from common.images import SENT_EDGE
from common.labels import NEITHER
from common.outcomes import outcome_of
from common.page import THUMBNAIL, render_template, thumbnail
from common.progress import progress
from serving.explanation import explain
from serving.model import Model
from src.serialize.decoder import decode
from training.evaluation import plots
from training.evaluation.predictions import Predictions
from training.evaluation.robustness import CORRUPTIONS

_MOST_MISTAKES = 12
#: Key, name and meaning of the figures in the summary.
_SUMMARY = (
    ("n", "Images with a label", ""),
    ("accuracy", "Accuracy", "correct, whether it passes or not"),
    ("coverage", "Coverage", "fraction that passes the threshold"),
    ("selective_accuracy", "Selective accuracy", "correct, among those that pass"),
    ("ece", "Calibration error", "expected, 15 bins; in brackets: by chance alone"),
    ("other_n", "Background images", ""),
    ("other_passing", "Background images that pass", ""),
)


def write_report(path: Path, evaluation: dict[str, Any], answers: dict[str, Predictions], model: Model) -> None:
    """Write the page.

    Parameters
    ----------
    path : pathlib.Path
        The HTML file.
    evaluation : dict
        Content of ``evaluation.json``.
    answers : dict
        Predictions by the set's name, for the plots and the images of the worst mistakes.
    model : Model
        Shows where it looked in these images, if it can.
    """
    sets = []
    with progress("draw", len(answers), "sets") as advance:
        for number, (name, got) in enumerate(answers.items(), 1):
            sets.append(_set(f"set-{number}", name, got, evaluation, model))
            advance(1)
    page = render_template(
        "training/evaluation/report.html",
        evaluation=evaluation,
        summary=_SUMMARY,
        sets=sets,
        neither=NEITHER,
        sent_edge=SENT_EDGE,
        has_map=model.has_map,
    )
    path.write_text(page)


def _set(key: str, name: str, answers: Predictions, evaluation: dict[str, Any], model: Model) -> dict[str, Any]:
    figures, labels, threshold = evaluation["sets"][name], evaluation["labels"], evaluation["threshold"]
    confidence = answers.probabilities.max(axis=1)
    known = answers.targets < len(labels)
    wrong = known & (answers.probabilities.argmax(axis=1) != answers.targets)
    return {
        "key": key,
        "name": name,
        "figures": figures,
        "skipped": [*(f"same image under two labels: {pair}" for pair in figures["conflicts"]), *figures["unreadable"]],
        "reason": figures["advice"]["reason"].removeprefix("none: "),
        "plots": {
            "reliability": plots.reliability(figures, f"{key}-reliability"),
            "risk_coverage": plots.risk_coverage(figures, threshold, f"{key}-risk"),
            "histogram": plots.histogram(confidence[known], confidence[~known], threshold, f"{key}-histogram"),
            "robustness": [plots.robustness(figures, each, f"{key}-{each}") for each in CORRUPTIONS],
        },
        "wrong": _most_confident(answers, wrong, threshold, model),
        "background": None if known.all() else _most_confident(answers, ~known, threshold, model),
        "corrupted": len(answers.corrupted),
    }


def _most_confident(
    answers: Predictions, which: npt.NDArray[np.bool_], threshold: float, model: Model
) -> list[dict[str, Any]]:
    confidence, best = answers.probabilities.max(axis=1), answers.probabilities.argmax(axis=1)
    mistakes = []
    for i in sorted(np.flatnonzero(which), key=lambda i: -confidence[i])[:_MOST_MISTAKES]:
        content, label = answers.images[i].path.read_bytes(), model.labels[best[i]]
        neither = max(0.0, 1 - answers.probabilities[i].sum())
        mistakes.append(
            {
                "name": answers.images[i].name,
                "class_name": answers.images[i].class_name,
                "label": label,
                "confidence": confidence[i],
                "outcome": outcome_of(confidence[i], neither, threshold),
                "neither": neither,
                "thumbnail": thumbnail(decode(content, at_least=2 * THUMBNAIL).image),
                "heat": thumbnail(explain(model, content, label, THUMBNAIL)) if model.has_map else None,
            }
        )
    return mistakes
