"""Stage images of any source as PNG files by split and label, with a manifest."""

import difflib
import hashlib
import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path

from common.errors import CommandError
from common.folders import SPLITS, Skip, Skipped, skipped_lines
from common.labels import NEITHER
from common.manifest import MANIFEST, Manifest, read_manifest
from common.progress import progress
from training.dataset.reviewed import ReviewedSource
from training.dataset.sources import Source
from training.dataset.staged import StagedSource
from training.dataset.writer import Writer

#: With fewer images of a class its figures are mostly chance: 30 correct test images certify an accuracy of 90%.
THIN = {"train": 100, "test": 30}
#: With more times as many training images of one label as of another, a model prefers it.
LOPSIDED = 3


def warn_of_counts(counts: Mapping[str, Mapping[str, int]], labels: Sequence[str]) -> list[str]:
    """Return what is wrong with the numbers of staged images, in sentences.

    Parameters
    ----------
    counts : mapping
        Images by split, and by label or "neither".
    labels : sequence of str
        Classes to learn.
    """
    warnings = []
    for split, least in THIN.items():
        thin = [f"{counts[split].get(label, 0)} {label}" for label in labels if counts[split].get(label, 0) < least]
        if thin:
            warnings.append(f"few {split} images: {', '.join(thin)}; at least {least} of each label are advisable")
    train = counts["train"]
    (least, rarest), *_, (most, commonest) = sorted((train.get(label, 0), label) for label in labels)
    if most > LOPSIDED * least:
        warnings.append(f"lopsided: {most} training images of {commonest}, but {least} of {rarest}")
    if train.get(NEITHER, 0) < most:
        warnings.append(
            f"{train.get(NEITHER, 0)} training images are {NEITHER}: with fewer than of a label ({most}), the model "
            "takes other things for one; add classes of other things to a source"
        )
    return warnings


def stage(
    sources: Sequence[Source | StagedSource],
    labels: list[str],
    out: Path,
    neither_limit: int | None = None,
    reviewed: Sequence[ReviewedSource] = (),
) -> Manifest:
    """Write every image of the sources to ``OUT/{train,test}/{label or neither}/NAME.png``.

    An image that occurs twice is kept once, in the test split if it is in both: test images must not be trained on.
    An image that sources have under two labels is skipped, unless a reviewer has labelled it as a training image. A
    second run with the same sources verifies the folder and changes nothing.

    Parameters
    ----------
    sources : sequence of Source or StagedSource
        Read in this order.
    labels : list of str
        Classes to learn; images of every other class are staged as "neither".
    out : pathlib.Path
        Created when missing.
    neither_limit : int or None
        Keep at most this many "neither" images per split, selected by a hash of their origin. Reviewed images
        are kept in addition.
    reviewed : sequence of ReviewedSource
        Images that join the training split under the label that a reviewer gave them.

    Returns
    -------
    Manifest
        Also written to ``OUT/manifest.json``.

    Raises
    ------
    CommandError
        A label that no source has, a label without training images, a reviewed label that is not in `labels`, or as
        for `common.folders.find`.
    """
    every: list[Source | StagedSource | ReviewedSource] = [*reviewed, *sources]
    skips = Skipped()
    for source in sources:
        skips.update(source.find(labels).skipped, f"{source.name}/")
    skipped = skips.summary()
    classes = set().union(*(source.classes() for source in reviewed), *(source.classes(labels) for source in sources))
    _check_labels(labels, classes, skipped)
    for reviews in reviewed:
        if unknown := reviews.classes() - {*labels, NEITHER}:
            raise CommandError(
                f"{reviews.name} has reviews with other labels: {', '.join(sorted(unknown))}; expected "
                f"{', '.join(labels)} or {NEITHER}. Give every label, in the order of the stack's parameter"
            )
    described = [
        {"name": source.name, "split": source.split or "as in source", "sha256": source.sha256()} for source in every
    ]
    before = read_manifest(out) if (out / MANIFEST).is_file() else None
    requested = (labels, neither_limit, described, skipped)
    existing = (before.labels, before.neither_limit, before.sources, before.skipped) if before else None
    if before and existing == requested and _is_intact(out, before):
        return before

    # Without a manifest, a half-written folder cannot be mistaken for a complete one.
    (out / MANIFEST).unlink(missing_ok=True)
    writer = Writer(out, labels, neither_limit)
    with progress("stage", None, "images") as advance:
        # Reviewed images first, because the first of two duplicates in the training split is kept.
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
    distinct = set(writer.reviewed)
    joined = sum(digest in writer.entries and writer.entries[digest].split == "train" for digest in distinct)
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
            "test": len(distinct) - joined,
            "duplicates": len(writer.reviewed) - len(distinct),
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
