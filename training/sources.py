"""Where images come from: the CIFAR-100 binary archive, folders and tar files of class folders.

Nothing is unpickled, and no archive member is ever written to disk under a name of its own.
"""

import gzip
import hashlib
import lzma
import re
import tarfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import IO

import numpy as np
import numpy.typing as npt

from .download import download
from .errors import CommandError

CIFAR_URL = "https://www.cs.toronto.edu/~kriz/cifar-100-binary.tar.gz"
# Published beside the archive on the CIFAR home page.
CIFAR_MD5 = "03b5dce01913d631647c71ecec9e9cb8"
DEFAULT_SOURCE = f"{CIFAR_URL}#md5={CIFAR_MD5}"

SPLITS = ("train", "test")
_SUFFIXES = (".png", ".jpg", ".jpeg", ".webp")

# CIFAR-100 binary records (https://www.cs.toronto.edu/~kriz/cifar.html): coarse label, fine label, then 32x32
# pixels as planes of red, green and blue.
_EDGE = 32
_RECORD = 2 + 3 * _EDGE * _EDGE
_CIFAR_NAMES = "fine_label_names.txt"


@dataclass(frozen=True)
class SourceImage:
    """One image of a source.

    ``content`` is a whole image file, or an array (height, width, 3) of uint8. ``stem`` names it inside its
    class, ``origin`` inside its source. ``reviewed``: a person has said of just this image what it shows.
    """

    class_name: str
    split: str
    stem: str
    origin: str
    content: bytes | npt.NDArray[np.uint8]
    reviewed: bool = False


class Source:
    """A file or folder of images.

    Parameters
    ----------
    path : pathlib.Path
        A folder of class folders, a tar file of class folders, or a CIFAR-100 binary archive.
    split : str or None
        The split of all its images; None takes the nearest folder above an image that is named ``train`` or
        ``test``, else ``train``.

    Raises
    ------
    CommandError
        There is no such path, or it is neither a folder nor a tar file.
    """

    def __init__(self, path: Path, split: str | None = None) -> None:
        self.path = path
        self.name = path.resolve().name
        self.split = split
        if path.is_dir():
            self._kind = "folder"
        elif path.is_file():
            self._kind = "cifar" if self._find_cifar_names() else "tar"
        else:
            raise CommandError(f"source {path} does not exist; give a folder, a tar file or a URL")

    def sha256(self) -> str:
        """Hash the archive, or every name and content in the folder, as hexadecimal text."""
        if self._kind != "folder":
            with self.path.open("rb") as file:
                return hashlib.file_digest(file, "sha256").hexdigest()
        whole = hashlib.sha256()
        for path in self._folder_files():
            content = hashlib.sha256(path.read_bytes()).hexdigest()
            whole.update(f"{path.relative_to(self.path).as_posix()}\0{content}\n".encode())
        return whole.hexdigest()

    def classes(self) -> set[str]:
        """Name every class that the source holds."""
        if self._kind == "cifar":
            return set(self._find_cifar_names())
        if self._kind == "folder":
            return {path.parent.name for path in self._folder_files()}
        with self._tar() as tar:
            return {PurePosixPath(member.name).parent.name for member in tar if _is_image(member)}

    def images(self) -> Iterator[SourceImage]:
        """Read every image, in an order that does not change between runs."""
        if self._kind == "cifar":
            yield from self._cifar_images()
        elif self._kind == "folder":
            for path in self._folder_files():
                yield self._class_image(PurePosixPath(path.relative_to(self.path).as_posix()), path.read_bytes())
        else:
            with self._tar() as tar:
                for member in tar:
                    if _is_image(member) and (file := tar.extractfile(member)):
                        yield self._class_image(PurePosixPath(member.name), file.read())

    def _folder_files(self) -> list[Path]:
        files = (path for path in self.path.rglob("*") if path.suffix.lower() in _SUFFIXES and path.is_file())
        # An image directly in the source's folder has no class.
        return sorted(path for path in files if path.parent != self.path)

    def _class_image(self, path: PurePosixPath, content: bytes) -> SourceImage:
        above = [part for part in path.parts[:-2] if part in SPLITS]
        split = self.split or (above[-1] if above else "train")
        return SourceImage(path.parent.name, split, path.stem, f"{self.name}/{path}", content)

    @contextmanager
    def _tar(self) -> Iterator[tarfile.TarFile]:
        try:
            with tarfile.open(self.path, "r:*") as tar:
                yield tar
        # A cut archive shows only when its end is reached, and each compression has an error of its own.
        except (tarfile.TarError, EOFError, zlib.error, lzma.LZMAError, gzip.BadGzipFile) as error:
            raise CommandError(f"source {self.path} is not a whole tar file (plain, gz, bz2 or xz): {error}") from error

    def _find_cifar_names(self) -> list[str]:
        with self._tar() as tar:
            for member in tar:
                if PurePosixPath(member.name).name == _CIFAR_NAMES and (file := tar.extractfile(member)):
                    return file.read().decode("ascii").split()
        return []

    def _cifar_images(self) -> Iterator[SourceImage]:
        names = self._find_cifar_names()
        with self._tar() as tar:
            for member in tar:
                name = PurePosixPath(member.name).name
                if name not in ("train.bin", "test.bin") or not (file := tar.extractfile(member)):
                    continue
                if member.size % _RECORD:
                    raise CommandError(
                        f"{self.path}: {member.name} has {member.size} bytes, which is no multiple of the "
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
    """Find a source by what the user typed, downloading it when it is a URL.

    Parameters
    ----------
    text : str
        ``PATH`` or ``URL#md5=HEX`` or ``URL#sha256=HEX``, with ``@train`` or ``@test`` behind it to put all
        its images into that split.
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


def _is_image(member: tarfile.TarInfo) -> bool:
    path = PurePosixPath(member.name)
    return member.isreg() and path.suffix.lower() in _SUFFIXES and bool(path.parent.name)


def _records(file: IO[bytes]) -> Iterator[npt.NDArray[np.uint8]]:
    while block := file.read(1000 * _RECORD):
        yield from np.frombuffer(block, np.uint8).reshape(-1, _RECORD)
