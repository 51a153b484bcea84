"""Sets of labelled image files, given on the command line."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from common.command import printable
from common.errors import CommandError
from common.folders import SUFFIXES, Skip, Skipped, find_in_folder, skipped_lines
from common.manifest import MANIFEST, read_manifest


@dataclass(frozen=True)
class ImageFile:
    """An image file and its class, the name of the folder around it."""

    path: Path
    class_name: str

    @property
    def name(self) -> str:
        """Class and file name, for display."""
        return f"{self.class_name}/{printable(self.path.name)}"


@dataclass(frozen=True)
class ImageSet:
    """The images of a set, and the files skipped in its folders."""

    images: list[ImageFile]
    skipped: list[Skip]


def find_sets(data: Sequence[str], labels: Sequence[str]) -> dict[str, ImageSet]:
    """Find the images of every ``DIR`` or ``NAME=DIR[,DIR...]``.

    Classes are found as in `common.folders.find_in_folder`. Of a staged folder, and of any other that holds a folder
    ``test``, only the test images are taken.

    Parameters
    ----------
    data : sequence of str
        Values of the command line.
    labels : sequence of str
        The model's labels; every other class is background.

    Returns
    -------
    dict
        Each set by name; its images have the same order in every run.

    Raises
    ------
    CommandError
        A folder is missing or holds no images, a set has no folder named after a label, two sets have the same name,
        or as `common.folders.find`.
    """
    sets: dict[str, ImageSet] = {}
    for text in data:
        name, equals, folders = text.partition("=")
        paths = [Path(text)] if not equals or Path(text).is_dir() else [Path(part) for part in folders.split(",")]
        name = name if equals and not Path(text).is_dir() else paths[0].resolve().name
        name = printable(name)
        if not name or name in sets:
            raise CommandError(
                f"--data {printable(text)}: give each set a different name, as NAME={printable(str(paths[0]))}"
            )
        images: list[ImageFile] = []
        skipped = Skipped()
        for path in paths:
            images += _find_images(path, labels, skipped)
        found = sorted({image.class_name for image in images})
        if not set(found) & set(labels):
            shown = ", ".join(found[:10]) + (", …" if len(found) > 10 else "")
            raise CommandError(
                f"{printable(text)}: no folder is named after a label ({', '.join(labels)}); found: {shown}"
                + "".join(f"; {line}" for line in skipped_lines(skipped.summary()))
            )
        sets[name] = ImageSet(images, skipped.summary())
    return sets


def _find_images(folder: Path, labels: Sequence[str], skipped: Skipped) -> list[ImageFile]:
    shown = printable(str(folder))
    if not folder.is_dir():
        raise CommandError(f"{shown} is not a folder; create a staged folder with: python -m training stage")
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
