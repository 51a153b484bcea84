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

from .container.preprocess import preprocess
from .container.server import MODEL_FILE, Model, ModelError
from .errors import CommandError
from .progress import progress
from .robustness import CASES, corrupted
from .staging import MANIFEST, read_manifest

_SUFFIXES = (".png", ".jpg", ".jpeg", ".webp")
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
        return f"{self.class_name}/{self.path.name}"


@dataclass(frozen=True)
class Answers:
    """What the model said about a set of images.

    ``targets`` (n,) holds the index of the right label, or len(labels) for other things; ``probabilities`` is
    (n, labels). ``damaged`` (m,) lists the images that were also damaged, and ``damaged_probabilities``
    (cases, m, labels) what the model said then.
    """

    images: list[ImageFile]
    targets: npt.NDArray[np.integer]
    probabilities: npt.NDArray[np.floating]
    damaged: npt.NDArray[np.integer]
    damaged_probabilities: npt.NDArray[np.floating]
    unreadable: list[str]


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


def find_sets(data: Sequence[str], labels: Sequence[str]) -> dict[str, list[ImageFile]]:
    """Find the images of every ``DIR`` or ``NAME=DIR[,DIR...]``.

    An image's class is the folder that it lies in. Of a staged folder, and of any other that holds a folder
    ``test``, only the test images are taken. A folder without class folders is itself one class.

    Parameters
    ----------
    data : sequence of str
        What the user typed.
    labels : sequence of str
        The model's labels; every other class is "other".

    Returns
    -------
    dict
        Images by the set's name, in an order that does not change between runs.

    Raises
    ------
    CommandError
        A folder is missing or holds no images, a set has no folder named as a label, or two sets have one name.
    """
    sets: dict[str, list[ImageFile]] = {}
    for text in data:
        name, equals, folders = text.partition("=")
        paths = [Path(text)] if not equals or Path(text).is_dir() else [Path(part) for part in folders.split(",")]
        name = name if equals and not Path(text).is_dir() else paths[0].resolve().name
        if not name or name in sets:
            raise CommandError(f"--data {text}: give each set a name of its own, as NAME={paths[0]}")
        images = [image for path in paths for image in _find_images(path)]
        found = sorted({image.class_name for image in images})
        if not set(found) & set(labels):
            shown = ", ".join(found[:10]) + (", …" if len(found) > 10 else "")
            raise CommandError(f"{text}: no folder is named as a label ({', '.join(labels)}); found: {shown}")
        sets[name] = images
    return sets


def _find_images(folder: Path) -> list[ImageFile]:
    if not folder.is_dir():
        raise CommandError(f"{folder} is not a folder; stage one with: python -m training stage, or name another one")
    if (folder / MANIFEST).is_file():
        entries = [entry for entry in read_manifest(folder).images if entry.split == "test"]
        found = [ImageFile(folder / entry.path, entry.label) for entry in entries]
    else:
        paths = sorted(path for path in folder.rglob("*") if path.suffix.lower() in _SUFFIXES and path.is_file())
        inner = [path for path in paths if path.parent != folder] or paths
        tested = [path for path in inner if "test" in path.relative_to(folder).parts[:-1]]
        found = [ImageFile(path, path.absolute().parent.name) for path in tested or inner]
    if not found:
        kind = "staged test images" if (folder / MANIFEST).is_file() else f"images ({', '.join(_SUFFIXES)})"
        raise CommandError(f"{folder} holds no {kind}")
    return found


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
    kept: list[int] = []
    probabilities, worse, unreadable = [], [], []
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
                kept.append(len(read))
                worse.append([model.probabilities(copy) for copy in copies])
            read.append(i)
            probabilities.append(model.probabilities(pixels))
    if not (targets[read] < len(index)).any():
        raise CommandError(f"{name}: no image of a label can be read, for example {unreadable[0]}")
    return Answers(
        [images[i] for i in read],
        targets[read],
        np.array(probabilities),
        np.array(kept, int),
        np.array(worse).reshape(-1, len(CASES), len(index)).transpose(1, 0, 2),
        unreadable,
    )


def _spread(targets: npt.NDArray[np.integer]) -> list[int]:
    """Choose at most `_DAMAGED_PER_CLASS` images of each class, evenly spread."""
    chosen: list[int] = []
    for target in np.unique(targets):
        members = np.flatnonzero(targets == target)
        chosen += members[:: math.ceil(len(members) / _DAMAGED_PER_CLASS)].tolist()
    return chosen
