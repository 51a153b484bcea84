"""Write images as PNG files by split and label, one per distinct content."""

import hashlib
import heapq
import io
import re
from collections import Counter
from pathlib import Path

from PIL import Image

from common.folders import SPLITS
from common.labels import NEITHER
from common.manifest import Entry
from src.serialize.decoder import ImageError, decode
from training.dataset.sources import SourceImage

# Photographs are shrunk to this many pixels: a multiple of the network's input, a fraction of the storage.
MAX_EDGE = 256

# Characters of a file name, without the suffix that makes it unique; file systems accept 255.
_LONGEST = 120


class Writer:
    """Writes images, and collects their manifest entries.

    Parameters
    ----------
    out : pathlib.Path
        The staged folder.
    labels : list of str
        Images of all other classes become "neither".
    neither_limit : int or None
        Keep at most this many "neither" images per split.
    """

    def __init__(self, out: Path, labels: list[str], neither_limit: int | None) -> None:
        self.out = out
        self.labels = labels
        self.neither_limit = neither_limit
        self.entries: dict[str, Entry] = {}
        self.duplicates = 0
        self.unreadable: list[str] = []
        # The hashes of the reviewed images that could be read.
        self.reviewed: list[str] = []
        self.unusable_reviews = 0
        # Number of images of each class that is not a label.
        self.neither_classes: Counter[str] = Counter()
        # In lower case, because some file systems ignore case.
        self._paths: set[str] = set()
        # By hash, the labels that sources give it, each with the first such image.
        self._labels: dict[str, dict[str, str]] = {}
        # Per split, the rank (negated, because heapq pops the smallest) and hash of each "neither" image.
        self._drawn: dict[str, list[tuple[int, str]]] = {split: [] for split in SPLITS}

    def add(self, image: SourceImage) -> None:
        """Write an image, unless it is a duplicate, unreadable or beyond the limit."""
        label = image.class_name if image.class_name in self.labels else NEITHER
        named = image.reviewed or image.staged
        if label == NEITHER and not named:
            self.neither_classes[image.class_name] += 1
        limited = label == NEITHER and self.neither_limit is not None and not image.reviewed
        rank = -int(hashlib.sha256(image.origin.encode()).hexdigest()[:15], 16)
        drawn = self._drawn[image.split]
        if limited and len(drawn) == self.neither_limit and (not drawn or rank < drawn[0][0]):
            return
        try:
            png = _to_png(image)
        except ImageError as error:
            self.unreadable.append(f"{image.origin}: {error}")
            self.unusable_reviews += image.reviewed
            return
        digest = hashlib.sha256(png).hexdigest()
        if image.reviewed:
            self.reviewed.append(digest)
        else:
            self._labels.setdefault(digest, {}).setdefault(label, image.origin)
        known = self.entries.get(digest)
        if known:
            self.duplicates += len(self._labels.get(digest, ())) < 2  # two labels are a conflict
            if not (known.split == "train" and image.split == "test"):
                return
            self._drop(known)
        stem = image.stem if label != NEITHER or named else f"{image.class_name}_{image.stem}"
        path = self._free_path(f"{image.split}/{label}/", stem, digest)
        _write_if_different(self.out / path, png)
        self._paths.add(path.lower())
        self.entries[digest] = Entry(path, label, image.split, digest, image.origin)
        if limited:
            heapq.heappush(drawn, (rank, digest))
            if len(drawn) > (self.neither_limit or 0):
                self._drop(self.entries[heapq.heappop(drawn)[1]])

    def _free_path(self, folder: str, stem: str, digest: str) -> str:
        name = re.sub(r"[^A-Za-z0-9_-]", "-", stem)
        # Keep the class at the beginning: training reads the class before the last underscore.
        numbered = f"{name[:_LONGEST]}-{digest[:12]}"
        wanted = name if len(name) <= _LONGEST else numbered
        for candidate in (wanted, numbered, f"{numbered[:_LONGEST]}-{digest}"):
            if f"{folder}{candidate}.png".lower() not in self._paths:
                break
        return f"{folder}{candidate}.png"

    def drop_conflicts(self) -> list[str]:
        """Drop images that sources have under two labels and no reviewer has labelled; return their names."""
        conflicts = []
        for digest, origins in self._labels.items():
            entry = self.entries.get(digest)
            if len(origins) < 2 or (entry and entry.split == "train" and digest in self.reviewed):
                continue
            if entry:
                self._drop(entry)
            conflicts.append(" and ".join(f"{origin} ({label})" for label, origin in sorted(origins.items())))
        return sorted(conflicts)

    def _drop(self, entry: Entry) -> None:
        del self.entries[entry.sha256]
        self._paths.discard(entry.path.lower())
        (self.out / entry.path).unlink()
        self._drawn[entry.split] = [item for item in self._drawn[entry.split] if item[1] != entry.sha256]
        heapq.heapify(self._drawn[entry.split])


def _to_png(image: SourceImage) -> bytes:
    if isinstance(image.content, bytes):
        picture = decode(image.content, at_least=2 * MAX_EDGE).image
        if max(picture.size) > MAX_EDGE:
            picture.thumbnail((MAX_EDGE, MAX_EDGE), Image.Resampling.BOX)
    else:
        picture = Image.fromarray(image.content)
    file = io.BytesIO()
    picture.save(file, "PNG")
    return file.getvalue()


def _write_if_different(path: Path, content: bytes) -> None:
    if path.is_file() and path.read_bytes() == content:
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
