"""Evaluate a model on image files with the code that serves it. Needs no torch."""

import json
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from rich.table import Table
from rich.text import Text

from common.command import console
from common.folders import Skip, Skipped, class_counts, skipped_lines
from common.image_sets import find_sets
from common.labels import NEITHER
from serving.model import Model
from training.evaluation.intervals import certified_accuracy, wilson
from training.evaluation.metrics import (
    METRICS,
    calibration_bins,
    calibration_error_by_chance,
    compute_metrics,
    risk_coverage,
)
from training.evaluation.predictions import Predictions, predict
from training.evaluation.report import write_report
from training.evaluation.robustness import CASES, describe
from training.evaluation.threshold import recommend_threshold, sentence


def describe_set(
    predictions: Predictions, labels: list[str], threshold: float, target_accuracy: float, confidence_level: float
) -> dict[str, Any]:
    """Compute the entry of one set in ``evaluation.json``.

    Fractions come with Wilson's 95% intervals. ``ece`` is the expected calibration error over 15 bins of equal
    width, over images with a label, the confidence being the highest probability of a label;
    ``ece_by_chance`` is the expected error of a perfectly calibrated model on as many images.

    Parameters
    ----------
    predictions : Predictions
        Of one set.
    labels : list of str
        The model's.
    threshold : float
        A prediction passes if its confidence is at least this.
    target_accuracy, confidence_level : float
        As for `training.evaluation.threshold.recommend_threshold`.

    Returns
    -------
    dict
        Plain values, ready for JSON.
    """
    probabilities, targets, corrupted = predictions.probabilities, predictions.targets, predictions.corrupted
    known = targets < len(labels)
    confidence, prediction = probabilities.max(axis=1), probabilities.argmax(axis=1)
    correct, passes = (prediction == targets)[known], confidence >= threshold
    labelled = confidence[known]
    passing, errors = int(passes[known].sum()), int((passes[known] & ~correct).sum())
    # The probability of "neither" is what the labels lack to one.
    with_neither = np.column_stack([probabilities, 1 - probabilities.sum(axis=1)]).argmax(axis=1)
    count, mean_confidence, accuracy = calibration_bins(labelled, correct)
    edges = np.linspace(0, 1, len(count) + 1)
    return {
        **compute_metrics(probabilities, targets, threshold),
        "intervals": {
            "accuracy": wilson(int(correct.sum()), len(correct)),
            "coverage": wilson(passing, len(correct)),
            "selective_accuracy": wilson(passing - errors, passing),
            "other_passing": wilson(int(passes[~known].sum()), int((~known).sum())),
        },
        "ece_by_chance": round(calibration_error_by_chance(labelled), 4),
        "certified_at_threshold": round(certified_accuracy(errors, passing, confidence_level), 4),
        "advice": asdict(recommend_threshold(labelled, correct, target_accuracy, confidence_level)),
        "per_class": _per_class(predictions, labels, threshold),
        "confusion": _table([*labels, NEITHER], targets, with_neither),
        "outcomes": _table([*labels, NEITHER], targets, np.where(passes, prediction, len(labels))),
        "reliability": [
            {
                "from": round(edges[i], 4),
                "to": round(edges[i + 1], 4),
                "n": int(count[i]),
                "confidence": round(mean_confidence[i], 4),
                "accuracy": round(accuracy[i], 4),
            }
            for i in np.flatnonzero(count)
        ],
        "risk_coverage": [[round(value, 6) for value in point] for point in risk_coverage(labelled, correct)],
        "robustness": [
            {
                "corruption": "none",
                "strength": None,
                "shown": "as it is",
                **compute_metrics(probabilities[corrupted], targets[corrupted], threshold),
            },
            *(
                {
                    "corruption": name,
                    "strength": strength,
                    "shown": describe(name, strength),
                    **compute_metrics(changed, targets[corrupted], threshold),
                }
                for (name, strength), changed in zip(CASES, predictions.corrupted_probabilities, strict=True)
            ),
        ],
        "unreadable": predictions.unreadable,
        "conflicts": predictions.conflicts,
    }


def _table(
    rows: list[str], targets: npt.NDArray[np.integer], outcomes: npt.NDArray[np.integer]
) -> dict[str, list[int]]:
    """Count the outcomes (columns, in the order of the rows) for the images of each class."""
    return {row: np.bincount(outcomes[targets == i], minlength=len(rows)).tolist() for i, row in enumerate(rows)}


def _per_class(predictions: Predictions, labels: list[str], threshold: float) -> dict[str, dict[str, Any]]:
    names = np.array([image.class_name for image in predictions.images])
    result: dict[str, dict[str, Any]] = {}
    for name in [*labels, *sorted(set(names) - set(labels))]:
        metrics = compute_metrics(
            predictions.probabilities[names == name], predictions.targets[names == name], threshold
        )
        kept = ("n", "accuracy", "coverage", "selective_accuracy") if name in labels else ("other_n", "other_passing")
        result[str(name)] = {metric: metrics[metric] for metric in kept}
    return result


def evaluate(
    model_path: Path,
    data: Sequence[str],
    out: Path,
    threshold: float,
    target_accuracy: float,
    confidence_level: float,
) -> dict[str, Any]:
    """Evaluate a model on every set; write ``evaluation.json`` and ``report.html``.

    Parameters
    ----------
    model_path : pathlib.Path
        An ONNX file that ``python -m training train`` wrote.
    data : sequence of str
        ``DIR`` or ``NAME=DIR[,DIR...]``, one per set.
    out : pathlib.Path
        Folder to write into; created when missing.
    threshold, target_accuracy, confidence_level : float
        As for `describe_set`.

    Returns
    -------
    dict
        The content of ``evaluation.json``.

    Raises
    ------
    CommandError
        As for `Model`, `find_sets` and `predict`.
    """
    model = Model(model_path)
    sets = find_sets(data, model.labels)
    predictions = {name: predict(name, found.images, model) for name, found in sets.items()}
    evaluation = {
        "model_sha256": model.sha256,
        "labels": model.labels,
        "input_size": model.input_size,
        "threshold": threshold,
        "wanted": target_accuracy,
        "confidence": confidence_level,
        "sets": {
            name: {
                **describe_set(got, model.labels, threshold, target_accuracy, confidence_level),
                "skipped": [*sets[name].skipped, *_uncounted(got)],
            }
            for name, got in predictions.items()
        },
    }
    for name, got in predictions.items():
        for pair in got.conflicts:
            print(f"warning: skipped an image under two labels: {pair}", file=sys.stderr)
        for reason in got.unreadable:
            print(f"skipped {reason}", file=sys.stderr)
        for line in skipped_lines(sets[name].skipped):
            print(line, file=sys.stderr)
    out.mkdir(parents=True, exist_ok=True)
    (out / "evaluation.json").write_text(json.dumps(evaluation, indent=1, allow_nan=False) + "\n")
    write_report(out / "report.html", evaluation, predictions, model)
    return evaluation


def _uncounted(predictions: Predictions) -> list[Skip]:
    skipped = Skipped()
    for pair in predictions.conflicts:
        skipped.add("image under two labels", pair)
    for reason in predictions.unreadable:
        skipped.add("unreadable image", reason)
    return skipped.summary()


def short(evaluation: dict[str, Any]) -> dict[str, Any]:
    """Select what ``--json`` prints: one flat object for one set, an object by name for several."""
    sets = {
        name: {
            **{metric: entry[metric] for metric in METRICS},
            "threshold": evaluation["threshold"],
            "advised_threshold": entry["advice"]["threshold"],
            "skipped": entry["skipped"],
            "model_sha256": evaluation["model_sha256"],
        }
        for name, entry in evaluation["sets"].items()
    }
    return next(iter(sets.values())) if len(sets) == 1 else sets


def print_tables(evaluation: dict[str, Any]) -> None:
    """Print one table per set, and the recommended threshold below it."""
    output = console()
    for name, entry in evaluation["sets"].items():
        title = Text(f"{name}, threshold {evaluation['threshold']:g}")  # a name may look like rich's markup
        table = Table("metric", title=title, title_justify="left")
        table.add_column("value", justify="right")
        table.add_column("95% interval")
        for metric in METRICS:
            value, interval = entry[metric], entry["intervals"].get(metric)
            shown = f"{interval[0]:.3f} to {interval[1]:.3f}" if interval else ""
            if metric == "ece":
                shown = f"({entry['ece_by_chance']:.3f} by chance alone)"
            table.add_row(
                metric, "–" if value is None else f"{value:{'d' if isinstance(value, int) else '.3f'}}", shown
            )
        output.print(table)
        background = {name: each["other_n"] for name, each in entry["per_class"].items() if "other_n" in each}
        if background:
            print(f"background comes from {class_counts(background, evaluation['labels'])}")
        print(f"{sentence(entry['advice'], evaluation['wanted'])}\n")
