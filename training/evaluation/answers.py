"""What the served model predicts for sets of images, and for damaged copies of them."""

import hashlib
import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from common.errors import CommandError
from common.image_sets import ImageFile
from common.progress import progress
from serving.model import Model
from serving.preprocess import preprocess
from src.serialize.decoder import ImageError
from training.evaluation.robustness import CASES, corrupted

# Each image is damaged in 15 ways; beyond this many per class that costs minutes and tells nothing new.
_DAMAGED_PER_CLASS = 500


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
