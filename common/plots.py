"""SVG plots that take their colours from the page around them, light or dark."""

import io
import re
from html import escape
from typing import Any

from markupsafe import Markup
from matplotlib.figure import Figure

# Placeholders for the page's own colours, light or dark; those of the outcomes by name.
INK, SOFT, FAINT, FIRST, SECOND, PAPER = "#010101", "#020202", "#030303", "#040404", "#050505", "#060606"
OUTCOME_COLOURS = {"accepted": "#070707", "unsure": "#080808", "neither": "#090909"}
_VARIABLES = {
    INK: "--ink",
    SOFT: "--soft",
    FAINT: "--faint",
    FIRST: "--first",
    SECOND: "--second",
    PAPER: "--paper",
    **{colour: f"--{outcome}" for outcome, colour in OUTCOME_COLOURS.items()},
}
#: For `matplotlib.rc_context`, with a different salt for every figure of a page.
STYLE: dict[Any, Any] = {
    "svg.fonttype": "none",
    "font.size": 10,
    "text.color": INK,
    "axes.labelcolor": INK,
    "axes.edgecolor": SOFT,
    "xtick.color": SOFT,
    "ytick.color": SOFT,
    "xtick.labelcolor": INK,
    "ytick.labelcolor": INK,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "hatch.linewidth": 0.8,
    "legend.frameon": False,
    "legend.fontsize": 9,
}


def to_svg(figure: Figure, title: str) -> Markup:
    """Return the figure for use inside HTML: without prolog and metadata, and with ids that are unique on the page.

    Parameters
    ----------
    figure : matplotlib.figure.Figure
        Drawn in the colours above, within `STYLE`.
    title : str
        Plain text, which a screen reader reads in place of the figure.
    """
    file = io.StringIO()
    figure.savefig(file, format="svg", transparent=True, metadata={"Date": None})
    svg = file.getvalue()
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.DOTALL)
    svg = re.sub(r'<g id="[^"]*"', "<g", svg)
    head = f'role="img" aria-label="{escape(title)}"'
    svg = re.sub(r'<svg [^>]*?(viewBox="[^"]*")[^>]*>', lambda found: f"<svg {found[1]} {head}>", svg, count=1)
    for placeholder, variable in _VARIABLES.items():
        svg = svg.replace(placeholder, f"var({variable})")
    return Markup(svg)
