"""Load staged images as tensors, and assign them to folds."""

import hashlib
import re
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from common.errors import CommandError
from common.folders import JPEG_SUFFIXES
from common.image_sets import find_sets
from common.labels import NEITHER
from common.manifest import Entry, Manifest
from common.progress import progress
from serving.preprocess import preprocess
from src.serialize.decoder import ImageError
from training.fit.recipe import Recipe


@dataclass(frozen=True)
class Images:
    """Images, and what is known about each.

    Attributes
    ----------
    pixels : list of torch.Tensor
        Each of shape (edge, edge, 3), dtype uint8; an image smaller than the network's input keeps its own edge.
    targets : torch.Tensor
        Shape (n,): the index of the label, or the number of labels for background.
    background_classes : torch.Tensor
        Shape (n,): numbers the classes of background images, from 0; 0 for images with a label.
    compressed : torch.Tensor
        Shape (n,), dtype bool: the pixels come from a JPEG file, not resized.
    """

    pixels: list[torch.Tensor]
    targets: torch.Tensor
    background_classes: torch.Tensor
    compressed: torch.Tensor

    def take(self, which: torch.Tensor) -> "Images":
        """Select images by their indices (m,)."""
        pixels = [self.pixels[i] for i in which.tolist()]
        return Images(pixels, self.targets[which], self.background_classes[which], self.compressed[which])

    def partition(self, labels: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the indices of the images with a label, and those of background."""
        return (self.targets < labels).nonzero().flatten(), (self.targets == labels).nonzero().flatten()


def load_images(data: Path, manifest: Manifest, split: str, recipe: Recipe) -> Images:
    """Read one split of a staged folder, preprocessed as the endpoint does, but not enlarged yet.

    Raises
    ------
    CommandError
        An image is missing or has changed.
    """
    index = {label: i for i, label in enumerate([*manifest.labels, NEITHER])}
    entries = [entry for entry in manifest.images if entry.split == split]
    background_classes = find_background_classes(entries, recipe)
    pixels = []
    compressed = torch.zeros(len(entries), dtype=torch.bool)
    with progress(f"read {split} images", len(entries), "images") as advance:
        for i, entry in enumerate(entries):
            path = data / entry.path
            content = path.read_bytes() if path.is_file() else b""
            if hashlib.sha256(content).hexdigest() != entry.sha256:
                raise CommandError(f"{path} is missing or has changed since it was staged; stage again")
            width, height = (int.from_bytes(content[at : at + 4], "big") for at in (16, 20))  # PNG's header, IHDR
            pixels.append(torch.from_numpy(preprocess(content, min(width, height, recipe.input_size))))
            # Shrinking removes compression artefacts.
            compressed[i] = width <= recipe.input_size and entry.source.lower().endswith(JPEG_SUFFIXES)
            advance(1)
    targets = torch.tensor([index[entry.label] for entry in entries], dtype=torch.long)
    return Images(pixels, targets, background_classes, compressed)


def load_folder(folder: Path, labels: list[str], recipe: Recipe) -> tuple[list[torch.Tensor], torch.Tensor]:
    """Read a folder of class folders as the endpoint does.

    Returns
    -------
    tuple
        The pixels of each image and of its mirror image, of shape (edge, edge, 3) and dtype uint8; and their targets as
        in `Images`.

    Raises
    ------
    CommandError
        As for `common.image_sets.find_sets`, an image cannot be read, or no image is background.
    """
    (found,) = find_sets([str(folder)], labels).values()
    index = {label: i for i, label in enumerate(labels)}
    pixels: list[torch.Tensor] = []
    with progress("read images for calibration", len(found.images), "images") as advance:
        for image in found.images:
            try:
                view = torch.from_numpy(preprocess(image.path.read_bytes(), recipe.input_size))
            except ImageError as error:
                raise CommandError(f"{image.path}: {error}") from error
            pixels += [view, view.flip(1)]
            advance(1)
    targets = torch.tensor([index.get(image.class_name, len(labels)) for image in found.images])
    if (targets < len(labels)).all():
        raise CommandError(f"{folder} needs images without a label too, in a folder of another name, such as other")
    return pixels, targets.repeat_interleave(2)


def enlarge(pixels: list[torch.Tensor], edge: int) -> torch.Tensor:
    """Enlarge square images to the network's input as `serving.preprocess` does.

    Returns
    -------
    torch.Tensor
        Shape (n, edge, edge, 3), dtype uint8.
    """
    size, linear = (edge, edge), Image.Resampling.BILINEAR
    return torch.stack(
        [
            x if len(x) == edge else torch.from_numpy(np.array(Image.fromarray(x.numpy()).resize(size, linear)))
            for x in pixels
        ]
    )


def find_background_classes(entries: list[Entry], recipe: Recipe) -> torch.Tensor:
    """Number the classes that background images had in their source; 0 is for the small ones, together.

    `training.dataset.staging` names such an image after its class and its name in the source.
    """
    names = [
        re.sub(r"(_train|_test)?_[^_]*$", "", Path(entry.path).stem) if entry.label == NEITHER else ""
        for entry in entries
    ]
    counts = Counter(name for name in names if name)
    most_common = counts.most_common(recipe.max_background_classes)
    large = [name for name, count in most_common if count >= recipe.min_background_class]
    first = int(len(large) < len(counts))
    numbers = {name: first + i for i, name in enumerate(sorted(large))}
    return torch.tensor([numbers.get(name, 0) for name in names], dtype=torch.long)


def assign_folds(
    targets: torch.Tensor,
    labels: int,
    folds: int,
    generator: torch.Generator,
    background_classes: torch.Tensor | None = None,
) -> torch.Tensor:
    """Assign the images of each label, and the background, evenly to folds; return each image's fold (n,).

    With the class of each image (n,) as in `Images`, classes of background stay together if there are enough of them.

    Raises
    ------
    CommandError
        A label has fewer than two images.
    """
    fold = torch.empty_like(targets)
    for target in range(labels + 1):
        members = (targets == target).nonzero().flatten()
        if target < labels and len(members) < 2:
            raise CommandError("every label needs at least two training images, one of them to validate on")
        fold[members[torch.randperm(len(members), generator=generator)]] = torch.arange(len(members)) % folds
    background = targets == labels
    if background_classes is not None and len(background_classes[background].unique()) >= folds:
        fold[background] = background_classes[background] % folds
    return fold
