"""A staged folder as the source of another one: its images keep their names, splits and origins."""

import hashlib
from collections.abc import Iterator, Sequence
from pathlib import Path

from common.command import printable
from common.errors import CommandError
from common.folders import Found, Skipped
from common.manifest import read_manifest
from training.dataset.sources import SourceImage
from training.provenance import data_checksum


class StagedSource:
    """The images of a staged folder.

    As class folders the images would lose their origin, which tells training whether JPEG has left its marks in them.

    Parameters
    ----------
    path : pathlib.Path
        Written by `training.dataset.staging.stage`.

    Raises
    ------
    CommandError
        The folder is not staged.
    """

    split = None

    def __init__(self, path: Path) -> None:
        self.path = path
        self.name = printable(path.resolve().name)
        self.left_out: list[str] = []
        self.manifest = read_manifest(path)

    def sha256(self) -> str:
        """Hash the manifest, which has the hash of every image."""
        return data_checksum(self.path)

    def find(self, labels: Sequence[str]) -> Found:
        """Return no names and no skipped files: the manifest lists the images."""
        return Found([], Skipped())

    def classes(self, labels: Sequence[str]) -> set[str]:
        """Return every label, and "neither" if it occurs."""
        return {entry.label for entry in self.manifest.images}

    def images(self, labels: Sequence[str]) -> Iterator[SourceImage]:
        """Read every image.

        Raises
        ------
        CommandError
            An image is missing or has changed.
        """
        for entry in self.manifest.images:
            path = self.path / entry.path
            content = path.read_bytes() if path.is_file() else b""
            if hashlib.sha256(content).hexdigest() != entry.sha256:
                raise CommandError(f"{path} is missing or has changed since it was staged; stage again")
            yield SourceImage(entry.label, entry.split, path.stem, entry.source, content, staged=True)
