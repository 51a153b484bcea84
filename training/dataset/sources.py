"""Sources of images: the CIFAR-100 binary archive, folders and tar files of class folders.

Nothing is unpickled, and archive members are not extracted to disk.
"""

import gzip
import hashlib
import lzma
import re
import tarfile
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import IO

import numpy as np
import numpy.typing as npt

from common.command import printable
from common.errors import CommandError
from common.folders import Found, FoundImage, Scan, Skipped, check_spelling, find, is_image_name, scan_folder
from training.dataset.download import download

CIFAR_URL = "https://www.cs.toronto.edu/~kriz/cifar-100-binary.tar.gz"
# Published on the CIFAR home page.
CIFAR_MD5 = "03b5dce01913d631647c71ecec9e9cb8"
DEFAULT_SOURCE = f"{CIFAR_URL}#md5={CIFAR_MD5}"

# CIFAR-100 binary records (https://www.cs.toronto.edu/~kriz/cifar.html): coarse label, fine label, then 32x32
# pixels as planes of red, green and blue.
_EDGE = 32
_RECORD = 2 + 3 * _EDGE * _EDGE
_CIFAR_NAMES = "fine_label_names.txt"


@dataclass(frozen=True)
class SourceImage:
    """One image of a source.

    ``content`` is a whole image file, or an array (height, width, 3) of uint8. ``stem`` names it inside its
    class, ``origin`` inside its source. ``reviewed``: a reviewer has labelled this image. ``staged``: an earlier run of
    ``stage`` has named it.
    """

    class_name: str
    split: str
    stem: str
    origin: str
    content: bytes | npt.NDArray[np.uint8]
    reviewed: bool = False
    staged: bool = False


class Source:
    """A file or folder of images.

    Parameters
    ----------
    path : pathlib.Path
        A folder of class folders, a tar file of class folders, or a CIFAR-100 binary archive.
    split : str or None
        The split of all its images; None takes the nearest folder above an image that is named ``train`` or
        ``test``, the source itself included, else ``train``.

    Attributes
    ----------
    left_out : list of str
        Images that cannot be read, with the reason; complete after `images` has been read to its end.

    Raises
    ------
    CommandError
        The path does not exist, or is neither a folder nor a tar file.
    """

    def __init__(self, path: Path, split: str | None = None) -> None:
        self.path = path
        self.name = printable(path.resolve().name)
        self.split = split
        self.left_out: list[str] = []
        self._scan = Scan()
        self._cifar_names: list[str] = []
        if path.is_dir():
            self._scan = scan_folder(path)
        elif path.is_file():
            self._scan_archive()
        else:
            raise CommandError(f"source {printable(str(path))} does not exist; give a folder, a tar file or a URL")

    def _scan_archive(self) -> None:
        folders = []
        with self._tar() as tar:
            for member in tar:
                if PurePosixPath(member.name).name == _CIFAR_NAMES and (file := tar.extractfile(member)):
                    self._cifar_names = file.read().decode("ascii", "replace").split()
                    return
                if member.isdir():
                    folders.append(member.name)
                elif member.isreg() or ((member.islnk() or member.issym()) and is_image_name(member.name)):
                    self._scan.add(member.name)
                else:
                    kind = "link in an archive" if member.issym() or member.islnk() else "not a regular file"
                    self._scan.skipped.add(kind, member.name)
        self._scan.add_empty(folders)

    def sha256(self) -> str:
        """Hash the archive, or every name and content in the folder, as hexadecimal text."""
        if self.path.is_file():
            with self.path.open("rb") as file:
                return hashlib.file_digest(file, "sha256").hexdigest()
        whole = hashlib.sha256()
        for name in self._scan.names:
            content = hashlib.sha256((self.path / name).read_bytes()).hexdigest()
            whole.update(f"{name}\0{content}\n".encode(errors="backslashreplace"))
        return whole.hexdigest()

    def find(self, labels: Sequence[str]) -> Found:
        """Find the images and their classes; those of a CIFAR-100 archive have no names and are not listed.

        Raises
        ------
        CommandError
            As for `common.folders.find`.
        """
        if self._cifar_names:
            check_spelling(self._cifar_names, labels, self.name)
            return Found([], Skipped())
        return find(self._scan, labels, self.name, self.path if self.path.is_dir() else None)

    def classes(self, labels: Sequence[str]) -> set[str]:
        """Return every class of the source."""
        return set(self._cifar_names) or {image.class_name for image in self.find(labels).images}

    def images(self, labels: Sequence[str]) -> Iterator[SourceImage]:
        """Read every image, in the same order in every run."""
        if self._cifar_names:
            yield from self._cifar_images()
            return
        found = self.find(labels).images
        if self.path.is_dir():
            for image in found:
                yield self._class_image(image, (self.path / image.name).read_bytes())
            return
        by_name = {image.name: image for image in found}
        with self._tar() as tar:
            for member in tar:
                if not (named := by_name.get(member.name)):
                    continue
                try:
                    file = tar.extractfile(member)
                except (KeyError, RecursionError):  # a link to a missing member, or to itself
                    file = None
                if file:
                    yield self._class_image(named, file.read())
                else:
                    self.left_out.append(f"{self.name}/{printable(named.name)}: broken link")

    def _class_image(self, image: FoundImage, content: bytes) -> SourceImage:
        stem = PurePosixPath(image.name.replace("\\", "/")).stem
        origin = f"{self.name}/{printable(image.name)}"
        return SourceImage(image.class_name, self.split or image.split, stem, origin, content)

    @contextmanager
    def _tar(self) -> Iterator[tarfile.TarFile]:
        try:
            with tarfile.open(self.path, "r:*") as tar:
                yield tar
        # A truncated archive shows only at its end, and each compression has its own error class.
        except (tarfile.TarError, EOFError, zlib.error, lzma.LZMAError, gzip.BadGzipFile) as error:
            place = printable(str(self.path))
            raise CommandError(f"source {place} is not a complete tar file (plain, gz, bz2 or xz): {error}") from error

    def _cifar_images(self) -> Iterator[SourceImage]:
        names = self._cifar_names
        with self._tar() as tar:
            for member in tar:
                name = PurePosixPath(member.name).name
                if name not in ("train.bin", "test.bin") or not (file := tar.extractfile(member)):
                    continue
                if member.size % _RECORD:
                    raise CommandError(
                        f"{self.path}: {member.name} has {member.size} bytes, not a multiple of the "
                        f"{_RECORD} bytes of a CIFAR-100 record"
                    )
                own_split = PurePosixPath(name).stem
                for index, record in enumerate(_records(file)):
                    if record[1] >= len(names):
                        raise CommandError(
                            f"{self.path}: record {index} of {name} has fine label {record[1]}, but "
                            f"{_CIFAR_NAMES} names only {len(names)} classes"
                        )
                    pixels = record[2:].reshape(3, _EDGE, _EDGE).transpose(1, 2, 0)
                    yield SourceImage(
                        names[record[1]],
                        self.split or own_split,
                        f"{own_split}_{index:05d}",
                        f"{self.name}/{name}#{index}",
                        np.ascontiguousarray(pixels),
                    )


def open_source(text: str, cache: Path) -> Source:
    """Open a source, after downloading it if it is a URL.

    Parameters
    ----------
    text : str
        ``PATH`` or ``URL#md5=HEX`` or ``URL#sha256=HEX``, followed by ``@train`` or ``@test`` to put all its
        images into that split.
    cache : pathlib.Path
        Folder for downloads.

    Raises
    ------
    CommandError
        The path does not exist, the URL has no checksum, or its download failed.
    """
    place, split = text, None
    if match := re.fullmatch(r"(.+)@(train|test)", text):
        place, split = match.groups()
    if not re.match(r"https?://", place):
        return Source(Path(place), split)
    if place == CIFAR_URL:
        place = DEFAULT_SOURCE
    url, _, checksum = place.partition("#")
    if not re.fullmatch(r"md5=[0-9a-f]{32}|sha256=[0-9a-f]{64}", checksum):
        raise CommandError(f"source {url} needs its checksum: {url}#sha256=HEX (or #md5=HEX), in lower case")
    algorithm, _, digest = checksum.partition("=")
    return Source(download(url, cache, algorithm, digest), split)


def _records(file: IO[bytes]) -> Iterator[npt.NDArray[np.uint8]]:
    while block := file.read(1000 * _RECORD):
        yield from np.frombuffer(block, np.uint8).reshape(-1, _RECORD)
