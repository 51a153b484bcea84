"""Predictions of the served model for sets of images, and for corrupted copies of them."""

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
from training.evaluation.robustness import CASES, corrupt

# Each image is corrupted in 15 ways; more images per class than this take minutes and add no information.
_CORRUPTED_PER_CLASS = 500


@dataclass(frozen=True)
class Predictions:
    """Predictions for a set of images.

    Attributes
    ----------
    images : list of ImageFile
        The n images that count.
    targets : numpy.ndarray
        Shape (n,): the index of the correct label, or len(labels) for background.
    probabilities : numpy.ndarray
        Shape (n, labels).
    corrupted : numpy.ndarray
        Shape (m,): indices of the images that were also corrupted.
    corrupted_probabilities : numpy.ndarray
        Shape (cases, m, labels).
    unreadable : list of str
        Images that cannot be read, with the reason.
    conflicts : list of str
        Images that occur under two labels, and do not count.
    """

    images: list[ImageFile]
    targets: npt.NDArray[np.integer]
    probabilities: npt.NDArray[np.floating]
    corrupted: npt.NDArray[np.integer]
    corrupted_probabilities: npt.NDArray[np.floating]
    unreadable: list[str]
    conflicts: list[str]


def predict(name: str, images: list[ImageFile], model: Model, corrupted: bool = True) -> Predictions:
    """Run the model on every image of a set, and on corrupted copies of many unless `corrupted` is false.

    Raises
    ------
    CommandError
        No image with a label could be read.
    """
    index = {label: i for i, label in enumerate(model.labels)}
    targets = np.array([index.get(image.class_name, len(index)) for image in images])
    chosen = set(_spread(targets)) if corrupted else set()
    read: list[int] = []
    pictures: list[bytes] = []
    probabilities: dict[int, list[float]] = {}
    degraded: dict[int, list[list[float]]] = {}
    unreadable = []
    with progress(f"evaluate {name}", len(images), "images") as advance:
        for i, image in enumerate(images):
            advance(1)
            try:
                content = image.path.read_bytes()
                pixels = preprocess(content, model.input_size)
                copies = corrupt(content, pixels, seed=i) if i in chosen else []
            except ImageError as error:
                unreadable.append(f"{image.name}: {error}")
                continue
            if copies:
                degraded[i] = [model.probabilities(copy) for copy in copies]
            read.append(i)
            pictures.append(hashlib.sha256(pixels.tobytes()).digest())
            probabilities[i] = model.probabilities(pixels)
    conflicts, ambiguous = _conflicts([images[i] for i in read], targets[read], pictures)
    read = [i for i, both in zip(read, ambiguous, strict=True) if not both]
    if not (targets[read] < len(index)).any():
        example = next(iter([*unreadable, *conflicts]), "")
        raise CommandError(f"{name}: no image with a label can be read, for example {example}")
    kept = [position for position, i in enumerate(read) if i in degraded]
    return Predictions(
        [images[i] for i in read],
        targets[read],
        np.array([probabilities[i] for i in read]),
        np.array(kept, int),
        np.array([degraded[read[position]] for position in kept])
        .reshape(-1, len(CASES), len(index))
        .transpose(1, 0, 2),
        unreadable,
        conflicts,
    )


def _conflicts(
    images: list[ImageFile], targets: npt.NDArray[np.integer], pictures: list[bytes]
) -> tuple[list[str], list[bool]]:
    """Name images that are equal to the network and have different targets; return which images those are."""
    first: dict[bytes, dict[int, ImageFile]] = {}
    for image, target, picture in zip(images, targets, pictures, strict=True):
        first.setdefault(picture, {}).setdefault(int(target), image)
    named = [" and ".join(image.name for image in seen.values()) for seen in first.values() if len(seen) > 1]
    return named, [len(first[picture]) > 1 for picture in pictures]


def _spread(targets: npt.NDArray[np.integer]) -> list[int]:
    """Choose at most `_CORRUPTED_PER_CLASS` images of each class, evenly spread."""
    chosen: list[int] = []
    for target in np.unique(targets):
        members = np.flatnonzero(targets == target)
        chosen += members[:: math.ceil(len(members) / _CORRUPTED_PER_CLASS)].tolist()
    return chosen
