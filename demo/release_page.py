"""The page of a release: requests by the model that answered, their latency, and what happened when."""

import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import matplotlib
import numpy as np
from markupsafe import Markup
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullLocator, StrMethodFormatter

from common.page import render_template
from common.plots import FAINT, FIRST, INK, OUTCOME_COLOURS, SECOND, SOFT, STYLE, to_svg
from demo.traffic import Request

#: Colour, hatch and marker of each model, in the order of their release.
_LOOKS = ((FIRST, "", "o"), (SECOND, "////", "s"), (OUTCOME_COLOURS["accepted"], "....", "^"))
_MOST_BARS = 90
#: Fraction of the width below which the numbers of two marks would touch.
_CLOSE = 0.035


@dataclass(frozen=True)
class Mark:
    """Something that happened, so many seconds after the traffic began."""

    at: float
    text: str


@dataclass(frozen=True)
class Counts:
    """The answers of one model: how many, how many were wrong, and their times in milliseconds."""

    model: str
    name: str
    answers: int
    wrong: int
    median_ms: float
    p95_ms: float


def count(requests: Sequence[Request], models: dict[str, str]) -> list[Counts]:
    """Count the answers of each model that has answered.

    Parameters
    ----------
    requests : sequence of Request
        The traffic.
    models : dict
        The models' names, by the first digits of their SHA-256.
    """
    rows = []
    for model, name in models.items():
        mine = [request for request in requests if request.model == model]
        if mine:
            times = [1e3 * request.seconds for request in mine]
            wrong = sum(request.wrong for request in mine)
            rows.append(
                Counts(model, name, len(mine), wrong, statistics.median(times), float(np.quantile(times, 0.95)))
            )
    return rows


def write_page(path: Path, requests: Sequence[Request], marks: Sequence[Mark], counts: Sequence[Counts]) -> None:
    """Write the page: the picture, the list of what happened, and the counts."""
    failed = sum(bool(request.error) for request in requests)
    page = render_template(
        "demo/release.html",
        sent=len(requests),
        failed=failed,
        marks=marks,
        counts=counts,
        picture=_draw(requests, marks, counts),
    )
    path.write_text(page, encoding="utf-8")


def _draw(requests: Sequence[Request], marks: Sequence[Mark], counts: Sequence[Counts]) -> Markup:
    """Draw the rate of requests by the model that answered, above the time of each request."""
    title = "Requests over time, by the model that answered"
    with matplotlib.rc_context({**STYLE, "svg.hashsalt": title}):
        figure = Figure(figsize=(5.8, 5.0), dpi=72, layout="constrained")
        upper, lower = figure.subplots(2, 1, sharex=True, height_ratios=(3, 2))
        end = max(request.at + request.seconds for request in requests)
        width = np.ceil(end / _MOST_BARS)
        edges = np.arange(0.0, end + width, width)
        below = np.zeros(len(edges) - 1)
        for row, (colour, hatch, marker) in zip(counts, _LOOKS, strict=False):
            mine = [request for request in requests if request.model == row.model]
            at = np.array([request.at + request.seconds for request in mine])
            bars = np.histogram(at, edges)[0] / width
            there = bars > 0
            upper.bar(
                edges[:-1][there],
                bars[there],
                width,
                below[there],
                align="edge",
                facecolor="none" if hatch else (colour, 0.3),
                edgecolor=colour,
                linewidth=0.6,
                hatch=hatch,
                label=row.name,
            )
            below += bars
            times = [1e3 * request.seconds for request in mine]
            lower.plot(at, times, marker, color=colour, markersize=3, fillstyle="none", markeredgewidth=0.8)
        for chosen, marker, text in (
            ([request for request in requests if request.wrong], "x", "wrong answer"),
            ([request for request in requests if request.error], "X", "failed call"),
        ):
            if chosen:
                at = np.array([request.at + request.seconds for request in chosen])
                times = [1e3 * request.seconds for request in chosen]
                lower.plot(at, times, marker, color=INK, markersize=5, markeredgewidth=1, label=text)
        last, high = -end, False
        for number, mark in enumerate(marks, start=1):
            high = not high if mark.at - last < _CLOSE * end else False
            last = mark.at
            for axes in (upper, lower):
                axes.axvline(mark.at, color=SOFT, linestyle=":", linewidth=1)
            upper.text(mark.at, 1.08 if high else 1.02, str(number), transform=upper.get_xaxis_transform(), ha="center")
        upper.set(ylabel="requests a second", xlim=(0, end))
        upper.locator_params(axis="y", nbins=5, integer=True)
        lower.set(ylabel="time of a request, ms", xlabel="seconds", yscale="log")
        lower.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        lower.yaxis.set_minor_locator(NullLocator())
        lower.yaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
        for axes in (upper, lower):
            axes.grid(axis="y", color=FAINT, linewidth=0.8)
            axes.set_axisbelow(True)
        figure.legend(loc="outside upper left", ncols=4)
        return to_svg(figure, title)
