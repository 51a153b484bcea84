"""The report page of an evaluation: one HTML file that needs no network."""

from html import escape
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from common.images import SENT_EDGE
from common.labels import NEITHER
from common.page import STYLE, THUMBNAIL, scrolling, thumbnail
from common.progress import progress
from src.serialize.decoder import decode
from training.evaluation import plots
from training.evaluation.predictions import Predictions
from training.evaluation.robustness import CORRUPTIONS

_MOST_MISTAKES = 12
_NAMES = {
    "n": "Images with a label",
    "accuracy": "Accuracy",
    "coverage": "Coverage",
    "selective_accuracy": "Selective accuracy",
    "ece": "Calibration error",
    "other_n": "Images of other things",
    "other_passing": "Other things that pass",
}
_MEANINGS = {
    "accuracy": "right, whether it passes or not",
    "coverage": "share that passes the threshold",
    "selective_accuracy": "right, among those that pass",
    "ece": "expected, 15 bins; in brackets: by chance alone",
}


def write_report(path: Path, evaluation: dict[str, Any], answers: dict[str, Predictions]) -> None:
    """Write the page.

    Parameters
    ----------
    path : pathlib.Path
        The HTML file.
    evaluation : dict
        What ``evaluation.json`` holds.
    answers : dict
        By the set's name, for what a picture says better: the worst mistakes and the histogram.
    """
    sections = []
    with progress("draw", len(answers), "sets") as advance:
        for number, (name, got) in enumerate(answers.items(), 1):
            sections.append(_section(f"set-{number}", name, got, evaluation))
            advance(1)
    links = "".join(f'<li><a href="#set-{i}">{escape(name)}</a></li>' for i, name in enumerate(answers, 1))
    path.write_text(f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>Evaluation of model {evaluation["model_sha256"][:12]}</title>
<link rel="icon" href="data:,">
<style>
{STYLE}</style>
</head>
<body>
<header>
<h1>How far can this model be trusted?</h1>
<p>Labels: {escape(", ".join(evaluation["labels"]))}. An answer passes if its confidence, the highest probability of
a label, is at least {evaluation["threshold"]:g}. Every image went through the code that the endpoint runs.<br>
<small>Model <code>{evaluation["model_sha256"]}</code></small></p>
<nav aria-label="Sets of images"><ul>{links}</ul></nav>
</header>
<main>
{_summary(evaluation["sets"])}
{"".join(sections)}
</main>
</body>
</html>
""")


def _section(key: str, name: str, answers: Predictions, evaluation: dict[str, Any]) -> str:
    figures, labels, threshold = evaluation["sets"][name], evaluation["labels"], evaluation["threshold"]
    confidence = answers.probabilities.max(axis=1)
    known = answers.targets < len(labels)
    reasons = [*(f"one picture under two labels: {pair}" for pair in figures["conflicts"]), *figures["unreadable"]]
    left_out = "".join(f"<li>{escape(reason)}</li>" for reason in reasons)
    return f"""
<section aria-labelledby="{key}">
<h2 id="{key}">Set: {escape(name)}</h2>
{f"<details><summary>Left out: {len(reasons)}</summary><ul>{left_out}</ul></details>" if left_out else ""}
{_advice(figures, evaluation)}
<div class="plots">
<figure><h3>Is the confidence honest?</h3>{plots.reliability(figures, f"{key}-reliability")}
<figcaption>Of the answers given with confidence .80, 80% should be right. The bars count the images in each of
15 bins.</figcaption></figure>
<figure><h3>What does caution buy?</h3>{plots.risk_coverage(figures, threshold, f"{key}-risk")}
<figcaption>Risk–coverage: a stricter threshold moves to the left along the curve. Images with a label
only.</figcaption></figure>
<figure><h3>Does it know what is neither?</h3>
{plots.histogram(confidence[known], confidence[~known], threshold, f"{key}-histogram")}
<figcaption>Whatever lies right of the threshold passes.</figcaption></figure>
<div><h3>What is taken for what?</h3>
{_matrix("What the model finds most likely", figures["confusion"], labels, NEITHER)}
{_matrix("What the threshold makes of it", figures["outcomes"], labels, "does not pass")}</div>
</div>
{_classes(figures)}
{_mistakes(answers, labels, threshold)}
{_robustness(key, figures, answers)}
</section>"""


def _summary(sets: dict[str, Any]) -> str:
    heads = "".join(f'<th scope="col">{escape(name)}</th>' for name in sets)
    rows = []
    for figure, text in _NAMES.items():
        cells = []
        for figures in sets.values():
            interval, small = figures["intervals"].get(figure), ""
            if interval:
                small = f"<small>{interval[0]:.3f} – {interval[1]:.3f}</small>"
            elif figure == "ece":
                small = f"<small>({figures['ece_by_chance']:.3f})</small>"
            cells.append(f"<td>{_number(figures[figure])}{small}</td>")
        meaning = f'<br><small style="font-weight: 400">{_MEANINGS[figure]}</small>' if figure in _MEANINGS else ""
        rows.append(f'<tr><th scope="row">{text}{meaning}</th>{"".join(cells)}</tr>')
    table = f"<thead><tr><td></td>{heads}</tr></thead><tbody>{''.join(rows)}</tbody>"
    return scrolling("Summary", f"<caption>Summary, with 95% confidence intervals (Wilson)</caption>{table}")


def _number(value: float | int | None) -> str:
    return "–" if value is None else str(value) if isinstance(value, int) else f"{value:.3f}"


def _advice(figures: dict[str, Any], evaluation: dict[str, Any]) -> str:
    advice, certainty = figures["advice"], f"{evaluation['confidence']:.0%}"
    reason = escape(advice["reason"].removeprefix("none: "))
    found = "None" if advice["threshold"] is None else f"{advice['threshold']:g}"
    return f"""<div class="advice"><p><strong>Advised threshold: {found}</strong>, to be right in at least
{evaluation["wanted"]:.1%} of what passes, with {certainty} confidence. {reason}.
The threshold in use, {evaluation["threshold"]:g}, certifies {figures["certified_at_threshold"]:.1%}.<br>
<small>Exact binomial bound (Clopper and Pearson 1934) over a fixed sequence of thresholds (Angelopoulos et al. 2021,
“Learn then test”). It holds for images with a label that are drawn as these were, and says nothing about other
things.</small></p></div>"""


def _matrix(caption: str, table: dict[str, list[int]], labels: list[str], last: str) -> str:
    heads = "".join(f'<th scope="col">{escape(name)}</th>' for name in [*labels, last])
    rows = []
    for i, (name, counts) in enumerate(table.items()):
        if not sum(counts):
            continue
        cells = "".join(
            f'<td class="heat{" right" * (i == j)}" style="--share: {count / sum(counts):.2f}">{count}</td>'
            for j, count in enumerate(counts)
        )
        rows.append(f'<tr><th scope="row">{escape(name)}</th>{cells}</tr>')
    return scrolling(
        caption,
        f"<caption>{caption} (rows: what it is; bold: right)</caption>"
        f"<thead><tr><td></td>{heads}</tr></thead><tbody>{''.join(rows)}</tbody>",
    )


def _classes(figures: dict[str, Any]) -> str:
    rows = []
    for name, each in figures["per_class"].items():
        passing = each.get("coverage", each.get("other_passing"))
        shares = (each.get("accuracy"), passing, each.get("selective_accuracy"))
        cells = "".join(f"<td>{_number(share)}</td>" for share in (each.get("n", each.get("other_n")), *shares))
        rows.append(f'<tr><th scope="row">{escape(name)}</th>{cells}</tr>')
    titles = ("Images", "Accuracy", "Passing", "Selective")
    heads = "".join(f'<th scope="col">{title}</th>' for title in titles)
    caption = "<caption>Passing: share of the images; selective: accuracy among those</caption>"
    table = f"{caption}<thead><tr><td></td>{heads}</tr></thead><tbody>{''.join(rows)}</tbody>"
    return f"<h3>By class folder</h3>{scrolling('By class folder', table)}"


def _mistakes(answers: Predictions, labels: list[str], threshold: float) -> str:
    confidence, answer = answers.probabilities.max(axis=1), answers.probabilities.argmax(axis=1)
    known = answers.targets < len(labels)

    def worst(which: npt.NDArray[np.bool_]) -> str:
        items = []
        for i in sorted(np.flatnonzero(which), key=lambda i: -confidence[i])[:_MOST_MISTAKES]:
            image, taken = answers.images[i], labels[answer[i]]
            said = f"{taken} {confidence[i]:.3f}"
            outcome = "passes" if confidence[i] >= threshold else "does not pass"
            uri, kind = thumbnail(decode(image.path.read_bytes(), at_least=2 * THUMBNAIL).image)
            items.append(
                f'<li><figure><img src="{uri}" class="{kind}" '
                f'alt="{escape(image.class_name)}, taken for {escape(taken)}"><figcaption>'
                f"<strong>{escape(said)}</strong>, {outcome}<br>{escape(image.name)}</figcaption></figure></li>"
            )
        return f'<ul class="faces">{"".join(items)}</ul>' if items else "<p>There are none.</p>"

    others = f"<h3>The most confident answers to other things</h3>{worst(~known)}" if (~known).any() else ""
    return f"<h3>The most confident wrong answers</h3>{worst(known & (answer != answers.targets))}{others}"


def _robustness(key: str, figures: dict[str, Any], answers: Predictions) -> str:
    columns = {
        "accuracy": "Accuracy",
        "coverage": "Coverage",
        "selective_accuracy": "Selective",
        "other_passing": "Others",
    }
    heads = "".join(f'<th scope="col">{title}</th>' for title in columns.values())
    rows = []
    for row in figures["robustness"]:
        cells = "".join(f"<td>{_number(row[column])}</td>" for column in columns)
        name = "none" if row["corruption"] == "none" else f"{row['corruption']} {row['shown']}"
        rows.append(f'<tr><th scope="row">{name}</th>{cells}</tr>')
    drawn = "".join(f"<figure>{plots.robustness(figures, name, f'{key}-{name}')}</figure>" for name in CORRUPTIONS)
    caption = "<caption>Selective: accuracy among what passes; others: share of other things that passes</caption>"
    table = f"{caption}<thead><tr><td></td>{heads}</tr></thead><tbody>{''.join(rows)}</tbody>"
    return f"""<h3>What does it pass when it cannot see well?</h3>
<p>{len(answers.corrupted)} images, damaged in each way. Brightness, contrast, blur and noise are applied to the
network's input after preprocessing, so that they mean the same for pictures of every size; JPEG to the picture as the
workflow sends it, at most {SENT_EDGE} pixels a side. σ of noise is a share of white.</p>
<p aria-hidden="true">● accuracy, solid &nbsp; ■ coverage, dotted &nbsp; ▲ selective accuracy, dashed</p>
<div class="small">{drawn}</div>
{scrolling("Robustness", table)}"""
