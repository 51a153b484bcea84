"""Plots of a window of captures, as SVG that takes its colours from the page around it."""

import datetime

import matplotlib
import numpy as np
import numpy.typing as npt
from markupsafe import Markup
from matplotlib import dates
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patheffects import withStroke
from matplotlib.ticker import NullLocator, PercentFormatter, StrMethodFormatter

from common.plots import FAINT, FIRST, INK, OUTCOME_COLOURS, PAPER, SOFT, STYLE, to_svg

Numbers = npt.NDArray[np.floating]

#: The outcomes of a capture, each with the SVG path of its glyph, relative to its centre, in points.
OUTCOMES = {"accepted": "h0", "unsure": "m0-2.2l2.2 3.9h-4.4z", "neither": "m-1.7-1.7l3.4 3.4m0-3.4l-3.4 3.4"}

_DAY = 86400
# Lengths of a bar, in seconds: the first one with which `_MOST_BARS` cover the time range is used.
_LENGTHS = (60, 300, 600, 1800, 3600, 7200, 10800, 21600, 43200, _DAY, 7 * _DAY)
_MOST_BARS = 36
#: With fewer captures the glyphs alone are shown: the median would cover them.
LEAST_FOR_MEDIAN = 5
_BINS = 24
# Glyph positions are rounded to this, in points; glyphs at the same position are drawn once.
_GRID = 0.5
# The axis of confidence ends where 1 - confidence is this; its ticks, those near the threshold left out.
_RESOLUTION = 0.005
_TICKS = (0, 0.5, 0.9, 0.99, 1)


def time_edges(seconds: Numbers) -> Numbers:
    """Return the edges of bars of equal, customary length that cover all times, in seconds since 1970."""
    first, last = float(seconds.min()), float(seconds.max())
    length = next((each for each in _LENGTHS if last - first < (_MOST_BARS - 1) * each), None)
    if length is None:
        length = _DAY * int(np.ceil((last - first + 1) / _DAY / (_MOST_BARS - 1)))
    start = first // length * length
    return start + length * np.arange((last - start) // length + 2)


def confidence_over_time(
    seconds: Numbers, confidence: Numbers, outcomes: npt.NDArray[np.str_], edges: Numbers, threshold: float, title: str
) -> Markup:
    """Draw every confidence over its time, with the median in each bar's length.

    The glyphs of an outcome are one path of the SVG, with the outcome's name as its ``data-outcome``.

    Parameters
    ----------
    seconds, confidence, outcomes : numpy.ndarray
        Shape (captures,): seconds since 1970, 0 to 1, and names of `OUTCOMES`.
    edges : numpy.ndarray
        From `time_edges`, for all captures of the page: its plots share one axis.
    threshold : float
        Drawn as a line.
    title : str
        Text that a screen reader reads in place of the figure.
    """
    median = np.full(len(edges) - 1, np.nan)
    place = np.searchsorted(edges, seconds, side="right") - 1
    for bar, count in zip(*np.unique(place, return_counts=True), strict=True):
        if count >= LEAST_FOR_MEDIAN:
            median[bar] = np.median(confidence[place == bar])
    with matplotlib.rc_context({**STYLE, "svg.hashsalt": title}):
        # At 72 dots per inch a pixel is a point, the unit of the SVG.
        figure = Figure(figsize=(4.4, 2.7), dpi=72)
        axes = figure.add_axes((0.1, 0.17, 0.84, 0.79))
        axes.grid(axis="y", color=FAINT, linewidth=0.8)
        axes.axhline(threshold, color=INK, linestyle="--", linewidth=1.2)
        line = axes.stairs(median, edges / _DAY, baseline=None, color=INK, linewidth=1.8)
        line.set_path_effects([withStroke(linewidth=4, foreground=PAPER)])
        axes.set_yscale("function", functions=(_spread, _gather))
        axes.set_ylim(*_gather(_spread(np.array([0.0, 1.0])) + np.array([-0.1, 0.1])))
        ticks = [tick for tick in _TICKS if abs(_spread(np.array(tick)) - _spread(np.array(threshold))) >= 0.2]
        axes.set_yticks([threshold, *ticks], [f"{tick:g}" for tick in (threshold, *ticks)])
        axes.minorticks_off()
        _time_axis(axes, edges)
        at = axes.transData.transform(np.column_stack([seconds / _DAY, confidence]))
        at[:, 1] = figure.bbox.height - at[:, 1]
        svg = to_svg(figure, title)
    at = np.round(at / _GRID) * _GRID
    glyphs = []
    for outcome, glyph in OUTCOMES.items():
        if not len(there := at[outcomes == outcome]):
            continue
        # 123.0 is written 123; equal positions are written once.
        places = "".join(dict.fromkeys(f"M{x:g} {y:g}{glyph}" for x, y in there))
        path = Markup('<path class="glyph {0}" data-outcome="{0}" data-count="{1}" d="{2}"/>')
        glyphs.append(path.format(outcome, len(there), places))
    # First in the SVG: the lines are drawn over the glyphs.
    head = svg.index(">") + 1
    return svg[:head] + Markup().join(glyphs) + svg[head:]


def _spread(confidence: Numbers) -> Numbers:
    """Give the range from .9 to .99 nearly as much room as that from 0 to .9: most predictions are near 1."""
    result: Numbers = -np.log10(np.maximum(1 + _RESOLUTION - confidence, _RESOLUTION / 10))
    return result


def _gather(spread: Numbers) -> Numbers:
    """Undo `_spread`."""
    result: Numbers = 1 + _RESOLUTION - 10.0**-spread
    return result


def shares_over_time(
    seconds: Numbers, outcomes: npt.NDArray[np.str_], edges: Numbers, accepted_before: float, key: str
) -> Markup:
    """Draw the share of each outcome in bars over time, and the number of captures below.

    Parameters
    ----------
    seconds, outcomes, edges
        As in `confidence_over_time`.
    accepted_before : float
        The accepted share of the baseline, drawn as a line.
    key : str
        A text that is unique to the figure on its page.
    """
    counts = np.array([np.histogram(seconds[outcomes == outcome], edges)[0] for outcome in OUTCOMES])
    total = counts.sum(axis=0)
    filled = total > 0
    starts, length = edges[:-1][filled] / _DAY, (edges[1] - edges[0]) / _DAY
    with matplotlib.rc_context({**STYLE, "svg.hashsalt": key}):
        figure = Figure(figsize=(4.4, 3.4), dpi=72, layout="constrained")
        upper, lower = figure.subplots(2, 1, sharex=True, height_ratios=(3, 1))
        below = np.zeros(filled.sum())
        hatches = ("", "////", "....")
        for outcome, row, hatch in zip(OUTCOMES, counts, hatches, strict=True):
            colour = OUTCOME_COLOURS[outcome]
            face = "none" if hatch else (colour, 0.3)
            share = row[filled] / total[filled]
            upper.bar(
                starts,
                share,
                0.9 * length,
                below,
                align="edge",
                facecolor=face,
                edgecolor=colour,
                linewidth=1,
                hatch=hatch,
                label=outcome,
            )
            below += share
        upper.axhline(accepted_before, color=INK, linestyle="--", linewidth=1.6, label="accepted in the baseline")
        upper.set(ylim=(0, 1.005))
        upper.yaxis.set_major_formatter(PercentFormatter(1))
        lower.bar(starts, total[filled], 0.9 * length, align="edge", color=FAINT, edgecolor=SOFT, linewidth=0.8)
        lower.set(ylabel="captures")
        lower.locator_params(axis="y", nbins=3, integer=True)
        _time_axis(lower, edges)
        figure.legend(loc="outside upper left", ncols=2, fontsize=9)  # inside it would cover the bars
        return to_svg(figure, "Outcomes over time")


def distribution(before: Numbers, now: Numbers, name: str, key: str) -> Markup:
    """Draw how a numeric feature is distributed in the window, filled, and in the baseline, dashed.

    Both have the same bins, over all values except the outermost hundredth; the outermost bins hold the rest.

    Parameters
    ----------
    before, now : numpy.ndarray
        The baseline's values and the window's.
    name : str
        The feature.
    key : str
        A text that is unique to the figure on its page.
    """
    ends = np.array([np.quantile(sample, (0.005, 0.995)) for sample in (before, now)])
    low, high = float(ends[:, 0].min()), float(ends[:, 1].max())
    # Image sizes differ by factors.
    scaled = name == "pixels"
    if scaled:
        edges = np.geomspace(low / 1.5, high * 1.5, _BINS + 1)
    else:
        margin = 0.02 * (high - low) or 0.5
        edges = np.linspace(low - margin, high + margin, _BINS + 1)
    with matplotlib.rc_context({**STYLE, "svg.hashsalt": key}):
        figure = Figure(figsize=(3.8, 1.9), dpi=72, layout="constrained")
        axes = figure.subplots()
        window, baseline = (
            np.histogram(sample.clip(edges[0], edges[-1]), edges)[0] / len(sample) for sample in (now, before)
        )
        axes.stairs(window, edges, fill=True, color=FIRST, alpha=0.3, linewidth=0)
        axes.stairs(window, edges, color=FIRST, linewidth=1.4)
        axes.stairs(baseline, edges, color=INK, linestyle=(0, (3, 1.5)), linewidth=1.6)
        if scaled:
            axes.set_xscale("log")
            axes.set_xticks(np.geomspace(low, high, 3 if high > 2 * low else 1))
            axes.xaxis.set_major_formatter(StrMethodFormatter("{x:,.0f}"))
            axes.xaxis.set_minor_locator(NullLocator())
        axes.set(xlim=(edges[0], edges[-1]), ylim=(0, None))
        axes.yaxis.set_major_formatter(PercentFormatter(1, decimals=0))
        axes.locator_params(axis="y", nbins=3)
        return to_svg(figure, f"Distribution of {name.replace('_', ' ')}")


def _time_axis(axes: Axes, edges: Numbers) -> None:
    """Give an axis the range of the edges, and ticks in UTC."""
    locator = dates.AutoDateLocator(datetime.UTC, minticks=3, maxticks=6)
    axes.xaxis.set_major_locator(locator)
    axes.xaxis.set_major_formatter(dates.ConciseDateFormatter(locator, datetime.UTC))
    axes.set_xlim(edges[0] / _DAY, edges[-1] / _DAY)
