"""ETL: images of any source become PNG files by split and label, with a manifest of what they are."""

import difflib
import hashlib
import heapq
import io
import json
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from PIL import Image

from common.errors import CommandError
from common.folders import SPLITS, Skip, Skipped, skipped_lines
from common.labels import NEITHER
from common.manifest import MANIFEST, Entry, Manifest, read_manifest
from common.progress import progress
from src.serialize.decoder import ImageError, decode
from training.dataset.reviewed import ReviewedSource
from training.dataset.sources import Source, SourceImage

# Photographs are shrunk to this many pixels: a multiple of what the network sees, a fraction of the storage.
MAX_EDGE = 256

# Characters of a staged file's name, without what makes it unique; file systems take 255.
_LONGEST = 120


def stage(
    sources: Sequence[Source],
    labels: list[str],
    out: Path,
    neither_limit: int | None = None,
    reviewed: Sequence[ReviewedSource] = (),
) -> Manifest:
    """Write every image of the sources to ``OUT/{train,test}/{label or neither}/NAME.png``.

    An image that occurs twice is kept once, in the test split if it is in both: what is tested on must not be
    trained on. An image that sources have under two labels is left out, unless a person has labelled it as training
    image. A second run with the same sources verifies what is there and changes nothing.

    Parameters
    ----------
    sources : sequence of Source
        Read in this order.
    labels : list of str
        Classes to learn; images of every other class are staged as "neither".
    out : pathlib.Path
        Created when missing.
    neither_limit : int or None
        Keep at most this many "neither" images per split, drawn evenly by a hash of where they come from. Reviewed
        ones are kept beside them.
    reviewed : sequence of ReviewedSource
        Images that join the training split under the label that a person gave them.

    Returns
    -------
    Manifest
        Also written to ``OUT/manifest.json``.

    Raises
    ------
    CommandError
        A label that no source has, a label without training images, a reviewed label that is none of `labels`, or as
        `common.folders.find`.
    """
    every: list[Source | ReviewedSource] = [*reviewed, *sources]
    skips = Skipped()
    for source in sources:
        skips.update(source.find(labels).skipped, f"{source.name}/")
    skipped = skips.summary()
    classes = set().union(*(source.classes() for source in reviewed), *(source.classes(labels) for source in sources))
    _check_labels(labels, classes, skipped)
    for reviews in reviewed:
        if unknown := reviews.classes() - {*labels, NEITHER}:
            raise CommandError(
                f"{reviews.name} has reviews that say {', '.join(sorted(unknown))}; the labels are "
                f"{', '.join(labels)}, and {NEITHER}. Name every label, in the order that the stack has"
            )
    described = [
        {"name": source.name, "split": source.split or "as in source", "sha256": source.sha256()} for source in every
    ]
    before = read_manifest(out) if (out / MANIFEST).is_file() else None
    asked = (labels, neither_limit, described, skipped)
    told = (before.labels, before.neither_limit, before.sources, before.skipped) if before else None
    if before and told == asked and _is_intact(out, before):
        return before

    # Without a manifest nobody takes a half-written folder for a whole one.
    (out / MANIFEST).unlink(missing_ok=True)
    writer = _Writer(out, labels, neither_limit)
    with progress("stage", None, "images") as advance:
        # Reviewed ones first: of what occurs twice in the training split, the first is kept.
        for images in (*(source.images() for source in reviewed), *(source.images(labels) for source in sources)):
            for image in images:
                writer.add(image)
                advance(1)
    conflicts = writer.drop_conflicts()
    for each in every:
        writer.unreadable += each.left_out
    unusable = writer.unusable_reviews + sum(len(reviews.left_out) for reviews in reviewed)
    entries = sorted(writer.entries.values(), key=lambda entry: entry.path)
    staged = Counter((entry.split, entry.label) for entry in entries)
    different = set(writer.reviewed)
    joined = sum(digest in writer.entries and writer.entries[digest].split == "train" for digest in different)
    manifest = Manifest(
        labels=labels,
        neither_limit=neither_limit,
        sources=described,
        counts={split: {label: staged[split, label] for label in [*labels, NEITHER]} for split in SPLITS},
        duplicates=writer.duplicates,
        unreadable=sorted(writer.unreadable),
        images=entries,
        reviewed={
            "joined": joined,
            "test": len(different) - joined,
            "duplicates": len(writer.reviewed) - len(different),
            "unusable": unusable,
        },
        neither_classes=dict(sorted(writer.neither_classes.items(), key=lambda item: (-item[1], item[0]))),
        skipped=skipped,
        conflicts=conflicts,
    )
    for label in labels:
        if not staged["train", label]:
            held_out = staged["test", label]
            raise CommandError(
                f"no readable training image of {label!r} was found in the sources"
                + (f"; {held_out} are test images, see --source in: python -m training stage --help" * bool(held_out))
                + "".join(f"; {text}" for text in [*conflicts, *sorted(writer.unreadable)][:3])
                + "".join(f"; {line}" for line in skipped_lines(skipped))
            )
    kept = {entry.path for entry in entries}
    for entry in before.images if before else []:
        if entry.path not in kept:
            (out / entry.path).unlink(missing_ok=True)
    part = out / (MANIFEST + ".part")
    part.write_text(json.dumps(asdict(manifest), indent=1) + "\n")
    part.replace(out / MANIFEST)
    return manifest


class _Writer:
    """Writes images and keeps the entries, one per different content."""

    def __init__(self, out: Path, labels: list[str], neither_limit: int | None) -> None:
        self.out = out
        self.labels = labels
        self.neither_limit = neither_limit
        self.entries: dict[str, Entry] = {}
        self.duplicates = 0
        self.unreadable: list[str] = []
        # Of each reviewed image that could be read, the hash.
        self.reviewed: list[str] = []
        self.unusable_reviews = 0
        # Images of each class that is no label.
        self.neither_classes: Counter[str] = Counter()
        # In lower case: not every file system tells capitals apart.
        self._paths: set[str] = set()
        # By hash, the labels that sources give, each with the image that it was first seen on.
        self._labels: dict[str, dict[str, str]] = {}
        # Per split, the rank (negated: heapq pops the smallest) and hash of each "neither" image.
        self._drawn: dict[str, list[tuple[int, str]]] = {split: [] for split in SPLITS}

    def add(self, image: SourceImage) -> None:
        label = image.class_name if image.class_name in self.labels else NEITHER
        if label == NEITHER and not image.reviewed:
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
        stem = image.stem if label != NEITHER or image.reviewed else f"{image.class_name}_{image.stem}"
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
        # Names of the same class must go on beginning with it: training takes what comes before the last underscore.
        numbered = f"{name[:_LONGEST]}-{digest[:12]}"
        wanted = name if len(name) <= _LONGEST else numbered
        for candidate in (wanted, numbered, f"{numbered[:_LONGEST]}-{digest}"):
            if f"{folder}{candidate}.png".lower() not in self._paths:
                break
        return f"{folder}{candidate}.png"

    def drop_conflicts(self) -> list[str]:
        """Drop what sources have under two labels and no person has decided; name it."""
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


def _is_intact(out: Path, manifest: Manifest) -> bool:
    with progress("verify", len(manifest.images), "images") as advance:
        for entry in manifest.images:
            path = out / entry.path
            if not path.is_file() or hashlib.sha256(path.read_bytes()).hexdigest() != entry.sha256:
                return False
            advance(1)
    return True


def _check_labels(labels: list[str], classes: set[str], skipped: list[Skip]) -> None:
    for label in labels:
        if label not in classes:
            close = difflib.get_close_matches(label, sorted(classes), n=1)
            hint = f"; did you mean {close[0]!r}?" if close else "."
            found = ", ".join(sorted(classes)) or "none"
            lines = "".join(f"; {line}" for line in skipped_lines(skipped))
            raise CommandError(f"no source has a class {label!r}{hint} Classes found: {found}{lines}")
