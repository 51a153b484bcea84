"""Evaluate a model on real image files, through the code that serves it. Needs no torch."""

import json
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from rich.console import Console
from rich.table import Table
from rich.text import Text

from common.folders import Skip, Skipped, class_counts, skipped_lines
from common.image_sets import find_sets
from common.labels import NEITHER
from serving.model import load_model
from training.evaluation.advice import advise, certified_accuracy, sentence
from training.evaluation.answers import Answers, ask
from training.evaluation.metrics import calibration_bins, calibration_error_by_chance, risk_coverage, summarise, wilson
from training.evaluation.report import write_report
from training.evaluation.robustness import CASES, describe

# The figures that are printed, in this order.
FIGURES = ("n", "accuracy", "coverage", "selective_accuracy", "ece", "other_n", "other_passing")


def figures(answers: Answers, labels: list[str], threshold: float, wanted: float, certainty: float) -> dict[str, Any]:
    """Compute everything that ``evaluation.json`` says about one set.

    Shares come with Wilson's 95% intervals. ``ece`` is the expected calibration error over 15 bins of equal
    width, over images with a label, the confidence being the highest probability of a label;
    ``ece_by_chance`` is what a perfectly calibrated model would have on so many images.

    Parameters
    ----------
    answers : Answers
        Of one set.
    labels : list of str
        The model's.
    threshold : float
        An answer passes when its confidence is at least this.
    wanted, certainty : float
        For the advised threshold, as `training.evaluation.advice.advise`.

    Returns
    -------
    dict
        Plain values, ready for JSON.
    """
    probabilities, targets = answers.probabilities, answers.targets
    known = targets < len(labels)
    confidence, answer = probabilities.max(axis=1), probabilities.argmax(axis=1)
    correct, passes = (answer == targets)[known], confidence >= threshold
    sure = confidence[known]
    passing, errors = int(passes[known].sum()), int((passes[known] & ~correct).sum())
    # The third answer, "none of the labels", is what is missing to one.
    with_other = np.column_stack([probabilities, 1 - probabilities.sum(axis=1)]).argmax(axis=1)
    count, mean_confidence, accuracy = calibration_bins(sure, correct)
    edges = np.linspace(0, 1, len(count) + 1)
    return {
        **summarise(probabilities, targets, threshold),
        "intervals": {
            "accuracy": wilson(int(correct.sum()), len(correct)),
            "coverage": wilson(passing, len(correct)),
            "selective_accuracy": wilson(passing - errors, passing),
            "other_passing": wilson(int(passes[~known].sum()), int((~known).sum())),
        },
        "ece_by_chance": round(calibration_error_by_chance(sure), 4),
        "certified_at_threshold": round(certified_accuracy(errors, passing, certainty), 4),
        "advice": asdict(advise(sure, correct, wanted, certainty)),
        "per_class": _per_class(answers, labels, threshold),
        "confusion": _table([*labels, NEITHER], targets, with_other),
        "outcomes": _table([*labels, NEITHER], targets, np.where(passes, answer, len(labels))),
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
        "risk_coverage": [[round(value, 6) for value in point] for point in risk_coverage(sure, correct)],
        "robustness": [
            {
                "corruption": "none",
                "strength": None,
                "shown": "as it is",
                **summarise(probabilities[answers.damaged], targets[answers.damaged], threshold),
            },
            *(
                {
                    "corruption": name,
                    "strength": strength,
                    "shown": describe(name, strength),
                    **summarise(changed, targets[answers.damaged], threshold),
                }
                for (name, strength), changed in zip(CASES, answers.damaged_probabilities, strict=True)
            ),
        ],
        "unreadable": answers.unreadable,
        "conflicts": answers.conflicts,
    }


def _table(rows: list[str], targets: npt.NDArray[np.integer], answers: npt.NDArray[np.integer]) -> dict[str, list[int]]:
    """Count the answers (columns, in the order of the rows) to the images of each class."""
    return {row: np.bincount(answers[targets == i], minlength=len(rows)).tolist() for i, row in enumerate(rows)}


def _per_class(answers: Answers, labels: list[str], threshold: float) -> dict[str, dict[str, Any]]:
    names = np.array([image.class_name for image in answers.images])
    result: dict[str, dict[str, Any]] = {}
    for name in [*labels, *sorted(set(names) - set(labels))]:
        these = summarise(answers.probabilities[names == name], answers.targets[names == name], threshold)
        kept = ("n", "accuracy", "coverage", "selective_accuracy") if name in labels else ("other_n", "other_passing")
        result[str(name)] = {figure: these[figure] for figure in kept}
    return result


def evaluate(
    model_path: Path, data: Sequence[str], out: Path, threshold: float, wanted: float, certainty: float
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
    threshold, wanted, certainty : float
        As for `figures`.

    Returns
    -------
    dict
        What ``evaluation.json`` holds.

    Raises
    ------
    CommandError
        As `load_model`, `find_sets` and `ask`.
    """
    model, digest = load_model(model_path)
    sets = find_sets(data, model.labels)
    answers = {name: ask(name, found.images, model) for name, found in sets.items()}
    evaluation = {
        "model_sha256": digest,
        "labels": model.labels,
        "input_size": model.input_size,
        "threshold": threshold,
        "wanted": wanted,
        "confidence": certainty,
        "sets": {
            name: {
                **figures(got, model.labels, threshold, wanted, certainty),
                "skipped": [*sets[name].skipped, *_left_out(got)],
            }
            for name, got in answers.items()
        },
    }
    for name, got in answers.items():
        for pair in got.conflicts:
            print(f"warning: left out one picture under two labels: {pair}", file=sys.stderr)
        for reason in got.unreadable:
            print(f"left out {reason}", file=sys.stderr)
        for line in skipped_lines(sets[name].skipped):
            print(line, file=sys.stderr)
    out.mkdir(parents=True, exist_ok=True)
    (out / "evaluation.json").write_text(json.dumps(evaluation, indent=1, allow_nan=False) + "\n")
    write_report(out / "report.html", evaluation, answers)
    return evaluation


def _left_out(answers: Answers) -> list[Skip]:
    """Summarise the images that were found and do not count."""
    skipped = Skipped()
    for pair in answers.conflicts:
        skipped.add("picture under two labels", pair)
    for reason in answers.unreadable:
        skipped.add("unreadable image", reason)
    return skipped.summary()


def short(evaluation: dict[str, Any]) -> dict[str, Any]:
    """Pick what scripts ask for: one flat object for one set, an object by name for several."""
    sets = {
        name: {
            **{figure: figures[figure] for figure in FIGURES},
            "threshold": evaluation["threshold"],
            "advised_threshold": figures["advice"]["threshold"],
            "skipped": figures["skipped"],
            "model_sha256": evaluation["model_sha256"],
        }
        for name, figures in evaluation["sets"].items()
    }
    return next(iter(sets.values())) if len(sets) == 1 else sets


def print_tables(evaluation: dict[str, Any]) -> None:
    """Print one table per set, and the advice below it."""
    console = Console()
    for name, figures in evaluation["sets"].items():
        title = Text(f"{name}, threshold {evaluation['threshold']:g}")  # a name may look like rich's markup
        table = Table("figure", title=title, title_justify="left")
        table.add_column("value", justify="right")
        table.add_column("95% interval")
        for figure in FIGURES:
            value, interval = figures[figure], figures["intervals"].get(figure)
            shown = f"{interval[0]:.3f} to {interval[1]:.3f}" if interval else ""
            if figure == "ece":
                shown = f"({figures['ece_by_chance']:.3f} by chance alone)"
            table.add_row(
                figure, "–" if value is None else f"{value:{'d' if isinstance(value, int) else '.3f'}}", shown
            )
        console.print(table)
        others = {name: each["other_n"] for name, each in figures["per_class"].items() if "other_n" in each}
        if others:
            print(f"other things come from {class_counts(others, evaluation['labels'])}")
        print(f"{sentence(figures['advice'], evaluation['wanted'])}\n")
