"""The manifest of a staged folder: which images it holds, with their labels, splits and origins."""

import json
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from common.errors import CommandError
from common.folders import Skip

MANIFEST = "manifest.json"

_PATH = re.compile(r"(train|test)/[A-Za-z0-9][A-Za-z0-9_-]*/[A-Za-z0-9_-][A-Za-z0-9._-]*\.png")


@dataclass(frozen=True)
class Entry:
    """One staged image: its path below the staged folder, label, split, SHA-256 of the file, and origin."""

    path: str
    label: str
    split: str
    sha256: str
    source: str


@dataclass(frozen=True)
class Manifest:
    """The contents of a staged folder, and its sources.

    `neither_classes` counts the images of each class that is not a label, before `neither_limit`. `skipped` lists the
    files that are not images of a class; `conflicts` names images that sources have under two labels, which are
    skipped. `reviewed` counts the images that people have labelled: those that ``joined`` the training split, and those
    skipped as ``test`` images, ``duplicates`` of another reviewed one, or ``unusable`` (named in `unreadable`).
    """

    labels: list[str]
    neither_limit: int | None
    sources: list[dict[str, str]]
    counts: dict[str, dict[str, int]]
    duplicates: int
    unreadable: list[str]
    images: list[Entry]
    reviewed: dict[str, int] = field(default_factory=dict)
    neither_classes: dict[str, int] = field(default_factory=dict)
    skipped: list[Skip] | None = None
    conflicts: list[str] = field(default_factory=list)


def read_manifest(folder: Path) -> Manifest:
    """Read ``manifest.json`` of a staged folder.

    Raises
    ------
    CommandError
        It is missing, is not a manifest, or names a path outside the folder.
    """
    try:
        fields: dict[str, Any] = json.loads((folder / MANIFEST).read_text())
        manifest = Manifest(**{**fields, "images": [Entry(**entry) for entry in fields["images"]]})
    except FileNotFoundError as error:
        raise CommandError(f"{folder} holds no {MANIFEST}; create it with: python -m training stage") from error
    except (ValueError, TypeError, KeyError) as error:
        raise CommandError(f"{folder / MANIFEST} is not a manifest of this version; stage again") from error
    for entry in manifest.images:
        if not _PATH.fullmatch(entry.path):
            raise CommandError(f"{folder / MANIFEST} names {entry.path!r}, which is not a staged image's path")
    return manifest
