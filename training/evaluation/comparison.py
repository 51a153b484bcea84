"""Compare two models on the same images: paired differences, and every answer that changed."""

import json
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from rich.table import Table
from rich.text import Text

from common.command import console
from common.errors import CommandError
from common.image_sets import ImageFile, find_sets
from common.labels import NEITHER
from common.outcomes import outcome_of
from common.page import THUMBNAIL, render_template, thumbnail
from serving.model import Model
from src.serialize.decoder import decode
from training.evaluation.intervals import paired_difference
from training.evaluation.predictions import Predictions, predict

#: Figures, each with its meaning, and whether more is better.
FIGURES = {
    "accuracy": ("images with a label, those whose most probable label is correct", True),
    "accepted": ("images with a label, those that pass the threshold", True),
    "accepted_wrong": ("images with a label, those that pass under another one", False),
    "background_accepted": ("background images, those that pass", False),
}
#: What else a set may have: of captured images few have a label.
MORE_FIGURES = {"passing": ("captured images, those that pass the threshold", True)}
#: The class of an image that no person has labelled.
UNLABELLED = "not reviewed"
#: What a changed answer is worth.
CHANGES = {
    "worse": "for the worse",
    "equal": "as good as before",
    "better": "for the better",
    "unknown": "on images without a label",
}
#: Changed answers that are shown with their picture; the others by name only.
_PICTURES = 200


def compare(first: Path, second: Path, data: Sequence[str], out: Path, threshold: float) -> dict[str, Any]:
    """Run two models on every set; write ``comparison.json`` and ``comparison.html``.

    Parameters
    ----------
    first, second : pathlib.Path
        ONNX files that ``python -m training train`` wrote; the second is compared with the first.
    data : sequence of str
        ``DIR`` or ``NAME=DIR[,DIR...]``, one per set.
    out : pathlib.Path
        Folder to write into; created when missing.
    threshold : float
        A prediction passes if its confidence is at least this.

    Returns
    -------
    dict
        The content of ``comparison.json``.

    Raises
    ------
    CommandError
        The models have different labels; or as for `Model`, `find_sets` and `predict`.
    """
    models = [Model(first), Model(second)]
    labels = models[0].labels
    if set(labels) != set(models[1].labels):
        raise CommandError(f"the models have different labels: {', '.join(labels)} and {', '.join(models[1].labels)}")
    comparison: dict[str, Any] = {
        "models": [
            {"file": str(path), "sha256": model.sha256} for path, model in zip((first, second), models, strict=True)
        ],
        "labels": labels,
        "threshold": threshold,
        "sets": {},
    }
    pictures: dict[str, ImageFile] = {}
    for name, found in find_sets(data, labels).items():
        images, before, after = _common(
            labels, *((model, predict(name, found.images, model, corrupted=False)) for model in models)
        )
        comparison["sets"][name] = compare_set(images, before, after, labels, threshold)
        pictures |= {f"{name}:{place}": image for place, image in enumerate(images)}
    write_comparison(comparison, out, lambda name: pictures[name].path.read_bytes())
    return comparison


def write_comparison(comparison: dict[str, Any], out: Path, read: Callable[[str], bytes | None]) -> None:
    """Write ``comparison.json`` and ``comparison.html``; ``read`` returns the file of image ``SET:PLACE``, or None."""
    out.mkdir(parents=True, exist_ok=True)
    (out / "comparison.json").write_text(json.dumps(comparison, indent=1, allow_nan=False) + "\n")
    (out / "comparison.html").write_text(_page(comparison, read))


def _common(
    labels: list[str], *runs: tuple[Model, Predictions]
) -> tuple[list[ImageFile], npt.NDArray[np.floating], npt.NDArray[np.floating]]:
    """Return the images that count for both models, and both models' probabilities in the order of the labels."""
    tables = []
    for model, got in runs:
        order = [model.labels.index(label) for label in labels]
        tables.append({image.path: row[order] for image, row in zip(got.images, got.probabilities, strict=True)})
    images = [image for image in runs[0][1].images if image.path in tables[1]]
    before, after = (np.array([table[image.path] for image in images]) for table in tables)
    return images, before, after


def compare_set(
    images: list[ImageFile],
    before: npt.NDArray[np.floating],
    after: npt.NDArray[np.floating],
    labels: list[str],
    threshold: float,
) -> dict[str, Any]:
    """Return the figures and the changed answers of two models' probabilities for the same images."""
    truth = np.array([labels.index(image.class_name) if image.class_name in labels else -1 for image in images])
    known = truth >= 0
    hits = []
    for probabilities in (before, after):
        right, passes = probabilities.argmax(axis=1) == truth, probabilities.max(axis=1) >= threshold
        hits.append(
            {
                "accuracy": right[known],
                "accepted": passes[known],
                "accepted_wrong": (passes & ~right)[known],
                "background_accepted": passes[~known],
            }
        )
    figures = {name: compare_hits(hits[0][name], hits[1][name]) for name in FIGURES}
    return {"n": len(images), "figures": figures, "changed": changed_answers(images, before, after, labels, threshold)}


def compare_hits(before: npt.NDArray[np.bool_], after: npt.NDArray[np.bool_]) -> dict[str, Any]:
    """Return the fractions of the same images (n,) in which each model does something, and their difference."""
    both, first, second = (int(each.sum()) for each in (before & after, before & ~after, ~before & after))
    return {
        "n": len(before),
        "values": [round(float(each.mean()), 4) if len(each) else None for each in (before, after)],
        "difference": paired_difference(both, first, second, len(before)),
    }


def changed_answers(
    images: list[ImageFile],
    before: npt.NDArray[np.floating],
    after: npt.NDArray[np.floating],
    labels: list[str],
    threshold: float,
) -> list[dict[str, Any]]:
    """Return every answer that differs, the worse ones first; without a label it is neither worse nor better."""
    answers = [[answer_of(row, labels, threshold) for row in probabilities] for probabilities in (before, after)]
    changed = []
    for place, (image, one, two) in enumerate(zip(images, *answers, strict=True)):
        if one["answer"] != two["answer"]:
            change = _worth(two["answer"], image, labels) - _worth(one["answer"], image, labels)
            verdict = "better" if change > 0 else "worse" if change < 0 else "equal"
            verdict = "unknown" if image.class_name == UNLABELLED else verdict
            changed.append(
                {
                    "place": place,
                    "image": image.name,
                    "class": image.class_name,
                    "change": verdict,
                    "answers": [one, two],
                }
            )
    changed.sort(key=lambda each: list(CHANGES).index(each["change"]))
    return changed


def answer_of(row: npt.NDArray[np.floating], labels: list[str], threshold: float) -> dict[str, Any]:
    """Return the label if it is accepted, otherwise the outcome; and the probabilities behind it."""
    confidence, neither = float(row.max()), max(0.0, 1 - float(row.sum()))
    label, outcome = labels[int(row.argmax())], outcome_of(confidence, neither, threshold)
    return {
        "answer": label if outcome == "accepted" else outcome,
        "outcome": outcome,
        "label": label,
        "confidence": round(confidence, 4),
        NEITHER: round(neither, 4),
    }


def _worth(answer: str, image: ImageFile, labels: list[str]) -> int:
    """Rank an answer: a wrong label is worst; not accepting is best for background, and in between otherwise."""
    if answer not in labels:
        return 1
    return 2 if answer == image.class_name else 0


def _page(comparison: dict[str, Any], read: Callable[[str], bytes | None]) -> str:
    shown = {}
    for name, each in comparison["sets"].items():
        for change in each["changed"][:_PICTURES]:
            picture = f"{name}:{change['place']}"
            if content := read(picture):
                shown[picture] = thumbnail(decode(content, at_least=2 * THUMBNAIL).image)
    return render_template(
        "training/evaluation/comparison.html",
        comparison=comparison,
        figures=FIGURES | MORE_FIGURES,
        changes=CHANGES,
        pictures=shown,
    )


def print_comparison(comparison: dict[str, Any]) -> None:
    """Print one table per set."""
    output = console()
    for name, each in comparison["sets"].items():
        title = Text(f"{name}, threshold {comparison['threshold']:g}")
        table = Table("figure", title=title, title_justify="left")
        for heading in ("first", "second", "difference"):
            table.add_column(heading, justify="right")
        table.add_column("95% interval")
        for figure, got in each["figures"].items():
            if got["difference"] is None:
                continue
            difference, low, high = got["difference"]
            values = [f"{value:.3f}" for value in got["values"]]
            table.add_row(figure, *values, f"{difference:+.3f}", f"{low:+.3f} to {high:+.3f}")
        output.print(table)
        counts = Counter(change["change"] for change in each["changed"])
        parts = ", ".join(f"{counts[kind]} {text}" for kind, text in CHANGES.items() if counts[kind])
        print(f"{len(each['changed'])} of {each['n']} answers changed: {parts or 'none'}\n")
