"""The labels of a model, and the name of the class for everything else."""

import re

from common.errors import CommandError

NEITHER = "neither"

_LABEL = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,62}")


def parse_labels(text: str) -> list[str]:
    """Split ``bicycle,motorcycle`` into labels, in that order.

    Raises
    ------
    CommandError
        Fewer than two labels, two that differ only in case, one called "neither", or one with other characters than
        letters, digits, ``_`` and ``-``.
    """
    labels = [label.strip() for label in text.split(",")]
    for label in labels:
        if not _LABEL.fullmatch(label):
            raise CommandError(f"label {label!r}: use letters, digits, _ and - only, separated by commas")
    if NEITHER in [label.lower() for label in labels]:
        raise CommandError(f'"{NEITHER}" is reserved for images without a label; it cannot be a label')
    if len(labels) < 2 or len({label.lower() for label in labels}) < len(labels):
        raise CommandError(f"give at least two different labels, not {text!r}")
    return labels
