"""The report page of a window of captures: one HTML file that needs no network."""

from monitoring.baseline import Baseline
from monitoring.check import Check
from monitoring.window import Window


def render(window: Window, baseline: Baseline, result: Check) -> str:
    """Return the page."""
    return "<!doctype html><title>to be written</title>"
