"""Plots of an evaluation, as SVG that takes its colours from the page around it."""

from typing import Any

import matplotlib
import numpy as np
import numpy.typing as npt
from markupsafe import Markup
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from common.plots import FAINT, FIRST, INK, SECOND, SOFT, STYLE, to_svg
from training.evaluation.intervals import wilson
from training.evaluation.robustness import CORRUPTIONS, describe


def reliability(figures: dict[str, Any], key: str) -> Markup:
    """Draw the accuracy over the confidence, with the number of images in each bin below."""
    with matplotlib.rc_context({**STYLE, "svg.hashsalt": key}):
        figure = Figure(figsize=(4.8, 4.4), layout="constrained")
        upper, lower = figure.subplots(2, 1, sharex=True, height_ratios=(3, 1))
        upper.plot([0, 1], [0, 1], color=SOFT, linestyle="--", linewidth=1, label="perfectly calibrated")
        bins = figures["reliability"]
        x = np.array([each["confidence"] for each in bins])
        y = np.array([each["accuracy"] for each in bins])
        ends = np.array([wilson(round(each["accuracy"] * each["n"]), each["n"]) for each in bins])
        upper.vlines(x, ends[:, 0], ends[:, 1], color=FIRST, linewidth=1.2)
        upper.plot(x, y, "o", color=FIRST, markersize=6, label="bin, with its 95% interval")
        upper.set(ylabel="accuracy", ylim=(-0.02, 1.04), xlim=(0, 1.01))
        figure.legend(loc="outside upper left")  # inside it would cover intervals
        width = bins[0]["to"] - bins[0]["from"]
        bars = lower.bar([each["from"] for each in bins], [each["n"] for each in bins], 0.92 * width, align="edge")
        for bar in bars:
            bar.set_facecolor(FAINT)
            bar.set_edgecolor(SOFT)
        lower.bar_label(bars, fontsize=8, padding=1, color=INK)
        lower.margins(y=0.3)
        lower.set(ylabel="images", xlabel="confidence")
        return to_svg(figure, "Reliability diagram")


def risk_coverage(figures: dict[str, Any], threshold: float, key: str) -> Markup:
    """Draw the fraction of wrong predictions among those that pass, over the fraction of images that pass."""
    points = np.array(figures["risk_coverage"])
    passing = np.round(points[:, 1] * figures["n"]).astype(int)
    right = np.round(points[:, 2] * passing).astype(int)
    ends = np.array([wilson(int(hits), int(n)) for hits, n in zip(right, passing, strict=True)])
    with matplotlib.rc_context({**STYLE, "svg.hashsalt": key}):
        figure = Figure(figsize=(4.8, 4.4), layout="constrained")
        axes = figure.subplots()
        axes.fill_between(points[:, 1], 1 - ends[:, 1], 1 - ends[:, 0], color=FAINT, linewidth=0, label="95% interval")
        axes.plot(points[:, 1], 1 - points[:, 2], color=FIRST, linewidth=1.8, drawstyle="steps-post")
        marks = [(threshold, "o", FIRST, f"threshold in use, {threshold:g}")]
        if figures["advice"]["threshold"] is not None:
            advised = figures["advice"]["threshold"]
            marks.append((advised, "s", SECOND, f"recommended threshold, {advised:g}"))
        for value, marker, colour, text in marks:
            if (passes := points[:, 0] >= value).any():
                x, y = points[passes][-1, 1:]
                axes.plot(x, 1 - y, marker, color=colour, markersize=10, fillstyle="none", mew=2.2, label=text)
        axes.set(xlabel="coverage: fraction of images that pass", ylabel="risk: fraction of those that are wrong")
        axes.set(xlim=(0, 1.03), ylim=(-0.01, max(0.2, 1.5 * float(1 - points[:, 2].min()))))
        axes.legend(loc="upper right")
        return to_svg(figure, "Risk-coverage curve")


def histogram(
    labelled: npt.NDArray[np.floating], background: npt.NDArray[np.floating], threshold: float, key: str
) -> Markup:
    """Draw the confidence on images with a label, and on background images."""
    edges = np.linspace(0, 1, 21)
    with matplotlib.rc_context({**STYLE, "svg.hashsalt": key}):
        figure = Figure(figsize=(4.8, 4.4), layout="constrained")
        axes = figure.subplots()
        for values, colour, hatch, text in (
            (labelled, FIRST, "", f"with a label ({len(labelled)})"),
            (background, SECOND, "////", f"background ({len(background)})"),
        ):
            if len(values):
                share = np.histogram(values, edges)[0] / len(values)
                axes.stairs(share, edges, fill=True, color=colour, alpha=0.35 if not hatch else 0.0, linewidth=0)
                axes.stairs(share, edges, color=colour, linewidth=1.6, hatch=hatch, label=text)
        axes.axvline(threshold, color=INK, linestyle="--", linewidth=1.2, label=f"threshold, {threshold:g}")
        axes.set(xlabel="highest probability of a label", ylabel="fraction of images", xlim=(0, 1.01))
        figure.legend(loc="outside upper left")  # inside it would cover the bars or the threshold
        return to_svg(figure, "Histogram of confidence")


def robustness(figures: dict[str, Any], name: str, key: str) -> Markup:
    """Draw the effect of one corruption, from none to severe."""
    rows = [row for row in figures["robustness"] if row["corruption"] in ("none", name)]
    with matplotlib.rc_context({**STYLE, "svg.hashsalt": key}):
        figure = Figure(figsize=(3.6, 2.5), layout="constrained")
        axes: Axes = figure.subplots()
        for column, marker, line, colour in (
            ("accuracy", "o", "-", SOFT),
            ("coverage", "s", ":", SECOND),
            ("selective_accuracy", "^", "--", FIRST),
        ):
            values = [np.nan if row[column] is None else row[column] for row in rows]
            axes.plot(values, line, marker=marker, color=colour, linewidth=1.6, markersize=6)
        shown = ["none", *(describe(name, strength) for strength in CORRUPTIONS[name])]
        axes.set_xticks(range(len(shown)), shown, fontsize=9)
        axes.set(ylim=(-0.03, 1.05), title=name)
        axes.grid(axis="y", color=FAINT, linewidth=0.8)
        return to_svg(figure, f"Robustness: {name}")
