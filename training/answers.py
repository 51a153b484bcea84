"""Sets of image files, and what the served model says about them."""

import hashlib
import math
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from src.serialize.decoder import ImageError

from .command import printable
from .container.preprocess import preprocess
from .container.server import MODEL_FILE, Model, ModelError
from .errors import CommandError
from .finding import SUFFIXES, Skip, Skipped, find_in_folder, skipped_lines
from .progress import progress
from .robustness import CASES, corrupted
from .staging import MANIFEST, read_manifest

# Each image is damaged in 15 ways; beyond this many per class that costs minutes and tells nothing new.
_DAMAGED_PER_CLASS = 500


@dataclass(frozen=True)
class ImageFile:
    """An image file, and the class that the folder around it is named after."""

    path: Path
    class_name: str

    @property
    def name(self) -> str:
        """Class and file name, for people."""
        return f"{self.class_name}/{printable(self.path.name)}"


@dataclass(frozen=True)
class ImageSet:
    """The images of a set, and what was skipped in its folders."""

    images: list[ImageFile]
    skipped: list[Skip]


@dataclass(frozen=True)
class Answers:
    """What the model said about a set of images.

    ``targets`` (n,) holds the index of the right label, or len(labels) for other things; ``probabilities`` is
    (n, labels). ``damaged`` (m,) lists the images that were also damaged, and ``damaged_probabilities``
    (cases, m, labels) what the model said then. ``conflicts`` names pictures under two labels; neither counts.
    """

    images: list[ImageFile]
    targets: npt.NDArray[np.integer]
    probabilities: npt.NDArray[np.floating]
    damaged: npt.NDArray[np.integer]
    damaged_probabilities: npt.NDArray[np.floating]
    unreadable: list[str]
    conflicts: list[str]


def load_model(path: Path) -> tuple[Model, str]:
    """Load an ONNX file, of any name, as the endpoint does; return it with its SHA-256.

    Raises
    ------
    CommandError
        The file is missing, or is not a model of this project.
    """
    if not path.is_file():
        raise CommandError(f"model {path} does not exist; make one with: python -m training train")
    with tempfile.TemporaryDirectory() as folder:
        link = Path(folder) / MODEL_FILE  # the endpoint knows its model by this name only
        link.symlink_to(path.resolve())
        try:
            return Model(link.parent), hashlib.sha256(path.read_bytes()).hexdigest()
        except ModelError as error:
            raise CommandError(str(error).replace(str(link), str(path))) from error


def find_sets(data: Sequence[str], labels: Sequence[str]) -> dict[str, ImageSet]:
    """Find the images of every ``DIR`` or ``NAME=DIR[,DIR...]``.

    Classes are found as in `training.finding.find_in_folder`. Of a staged folder, and of any other that holds a folder
    ``test``, only the test images are taken.

    Parameters
    ----------
    data : sequence of str
        What the user typed.
    labels : sequence of str
        The model's labels; every other class is "other".

    Returns
    -------
    dict
        By the set's name, images in an order that does not change between runs.

    Raises
    ------
    CommandError
        A folder is missing or holds no images, a set has no folder named as a label, two sets have one name, or as
        `training.finding.find`.
    """
    sets: dict[str, ImageSet] = {}
    for text in data:
        name, equals, folders = text.partition("=")
        paths = [Path(text)] if not equals or Path(text).is_dir() else [Path(part) for part in folders.split(",")]
        name = name if equals and not Path(text).is_dir() else paths[0].resolve().name
        name = printable(name)
        if not name or name in sets:
            raise CommandError(
                f"--data {printable(text)}: give each set a name of its own, as NAME={printable(str(paths[0]))}"
            )
        images: list[ImageFile] = []
        skipped = Skipped()
        for path in paths:
            images += _find_images(path, labels, skipped)
        found = sorted({image.class_name for image in images})
        if not set(found) & set(labels):
            shown = ", ".join(found[:10]) + (", …" if len(found) > 10 else "")
            raise CommandError(
                f"{printable(text)}: no folder is named as a label ({', '.join(labels)}); found: {shown}"
                + "".join(f"; {line}" for line in skipped_lines(skipped.summary()))
            )
        sets[name] = ImageSet(images, skipped.summary())
    return sets


def _find_images(folder: Path, labels: Sequence[str], skipped: Skipped) -> list[ImageFile]:
    shown = printable(str(folder))
    if not folder.is_dir():
        raise CommandError(f"{shown} is not a folder; stage one with: python -m training stage, or name another one")
    if (folder / MANIFEST).is_file():
        entries = [entry for entry in read_manifest(folder).images if entry.split == "test"]
        if not entries:
            raise CommandError(f"{shown} holds no staged test images")
        return [ImageFile(folder / entry.path, entry.label) for entry in entries]
    found = find_in_folder(folder, labels)
    tested = [image for image in found.images if image.split == "test"]
    if not found.images:
        lines = "".join(f"; {line}" for line in skipped_lines(found.skipped.summary()))
        raise CommandError(f"{shown} holds no images ({', '.join(SUFFIXES)}){lines}")
    for image in found.images:
        if tested and image.split != "test":
            found.skipped.add("training image, beside a folder named test", image.name)
    skipped.update(found.skipped, f"{printable(folder.resolve().name)}/")
    return [ImageFile(folder / image.name, image.class_name) for image in tested or found.images]


def ask(name: str, images: list[ImageFile], model: Model) -> Answers:
    """Show every image of a set to the model, and damaged copies of it too.

    Raises
    ------
    CommandError
        No image with a label could be read.
    """
    index = {label: i for i, label in enumerate(model.labels)}
    targets = np.array([index.get(image.class_name, len(index)) for image in images])
    damaged = set(_spread(targets))
    read: list[int] = []
    pictures: list[bytes] = []
    probabilities: dict[int, list[float]] = {}
    worse: dict[int, list[list[float]]] = {}
    unreadable = []
    with progress(f"evaluate {name}", len(images), "images") as advance:
        for i, image in enumerate(images):
            advance(1)
            try:
                content = image.path.read_bytes()
                pixels = preprocess(content, model.input_size)
                copies = corrupted(content, pixels, seed=i) if i in damaged else []
            except ImageError as error:
                unreadable.append(f"{image.name}: {error}")
                continue
            if copies:
                worse[i] = [model.probabilities(copy) for copy in copies]
            read.append(i)
            pictures.append(hashlib.sha256(pixels.tobytes()).digest())
            probabilities[i] = model.probabilities(pixels)
    conflicts, unclear = _conflicts([images[i] for i in read], targets[read], pictures)
    read = [i for i, both in zip(read, unclear, strict=True) if not both]
    if not (targets[read] < len(index)).any():
        example = next(iter([*unreadable, *conflicts]), "")
        raise CommandError(f"{name}: no image of a label can be read, for example {example}")
    kept = [position for position, i in enumerate(read) if i in worse]
    return Answers(
        [images[i] for i in read],
        targets[read],
        np.array([probabilities[i] for i in read]),
        np.array(kept, int),
        np.array([worse[read[position]] for position in kept]).reshape(-1, len(CASES), len(index)).transpose(1, 0, 2),
        unreadable,
        conflicts,
    )


def _conflicts(
    images: list[ImageFile], targets: npt.NDArray[np.integer], pictures: list[bytes]
) -> tuple[list[str], list[bool]]:
    """Name images that are the same to the network and have different targets; tell which images those are."""
    first: dict[bytes, dict[int, ImageFile]] = {}
    for image, target, picture in zip(images, targets, pictures, strict=True):
        first.setdefault(picture, {}).setdefault(int(target), image)
    named = [" and ".join(image.name for image in seen.values()) for seen in first.values() if len(seen) > 1]
    return named, [len(first[picture]) > 1 for picture in pictures]


def _spread(targets: npt.NDArray[np.integer]) -> list[int]:
    """Choose at most `_DAMAGED_PER_CLASS` images of each class, evenly spread."""
    chosen: list[int] = []
    for target in np.unique(targets):
        members = np.flatnonzero(targets == target)
        chosen += members[:: math.ceil(len(members) / _DAMAGED_PER_CLASS)].tolist()
    return chosen
