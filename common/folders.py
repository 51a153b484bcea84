"""Find labelled images: which files of a folder or an archive are images, and which class each belongs to.

Staging, evaluation, the drift baseline and the demo all find class folders with it.
"""

import difflib
import os
import posixpath
import re
import unicodedata
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import takewhile
from pathlib import Path, PurePosixPath
from typing import TypedDict

from common.command import printable
from common.errors import CommandError

SPLITS = ("train", "test")
JPEG_SUFFIXES = (".jpg", ".jpeg", ".jfif", ".jpe")
SUFFIXES = (".png", *JPEG_SUFFIXES, ".webp", ".gif", ".bmp", ".tif", ".tiff")

_EXAMPLES = 3
_MOST_CLASSES = 12
#: Names that operating systems, file servers and tools create, in lower case; skipped, as are names with a leading dot.
_SYSTEM = {
    "__macosx",
    "__pycache__",
    "@eadir",
    "@recently-snapshot",
    "@recycle",
    "@sharebin",
    "@tmp",
    "#recycle",
    "#snapshot",
    "~snapshot",
    "$recycle.bin",
    "recycled",
    "recycler",
    "system volume information",
    "lost+found",
    "lost.dir",
    "found.000",
    "network trash folder",
    "temporary items",
    "thumbs.db",
    "ehthumbs.db",
    "ehthumbs_vista.db",
    "desktop.ini",
    "icon\r",
}


class Skip(TypedDict):
    """How many files or folders were skipped for one reason, and the names of a few."""

    reason: str
    count: int
    examples: list[str]


class Skipped:
    """Names of skipped files and folders, by reason."""

    def __init__(self) -> None:
        self._names: dict[str, set[str]] = {}

    def add(self, reason: str, name: str) -> None:
        """Record a file or folder; the same one counts once."""
        self._names.setdefault(reason, set()).add(name)

    def update(self, other: "Skipped", place: str = "") -> None:
        """Add everything from `other`, with `place` in front of each name."""
        for reason, names in other._names.items():
            self._names.setdefault(reason, set()).update(place + name for name in names)

    def summary(self) -> list[Skip]:
        """Return counts with a few examples, the most frequent reason first; plain values, ready for JSON."""
        most_first = sorted(self._names.items(), key=lambda item: (-len(item[1]), item[0]))
        return [
            Skip(reason=reason, count=len(names), examples=[printable(name) for name in sorted(names)[:_EXAMPLES]])
            for reason, names in most_first
        ]


def skipped_lines(skips: Iterable[Skip]) -> Iterator[str]:
    """Yield one readable line per reason."""
    for skip in skips:
        examples = ", ".join(printable(name, 100) for name in skip["examples"])
        more = ", …" if skip["count"] > len(skip["examples"]) else ""
        yield f"skipped {skip['count']}: {skip['reason']} ({examples}{more})"


def class_counts(counts: Mapping[str, int], labels: Sequence[str]) -> str:
    """List classes that are not labels with their image counts: first those that resemble a label, then the largest."""
    close = {name for label in labels for name in difflib.get_close_matches(label.lower(), counts, 3, 0.75)}
    order = sorted(counts, key=lambda name: (name not in close, -counts[name], name))
    shown = ", ".join(f"{printable(name, 60)} ({counts[name]})" for name in order[:_MOST_CLASSES])
    rest = f" and {len(order) - _MOST_CLASSES} more" if len(order) > _MOST_CLASSES else ""
    return f"{len(order)} class{'es' * (len(order) > 1)}: {shown}{rest}"


def is_image_name(name: str) -> bool:
    """Return whether a file has the extension of an image."""
    return name.lower().endswith(SUFFIXES)


@dataclass
class Scan:
    """The names of image files, with ``/`` between folders, in reading order; and the files that are not images."""

    names: list[str] = field(default_factory=list)
    skipped: Skipped = field(default_factory=Skipped)

    def add(self, name: str) -> None:
        """Add a file by its name."""
        parts = _parts(name)
        for i, part in enumerate(parts):
            if _is_system(part):
                # One folder counts once, however many files it holds.
                self.skipped.add(
                    "hidden or system file or folder", "/".join(parts[: i + 1]) + "/" * (i + 1 < len(parts))
                )
                return
        suffix = PurePosixPath(name).suffix.lower()
        if is_image_name(name):
            self.names.append(name)
        elif re.fullmatch(r"\.[a-z0-9]{1,12}", suffix):
            self.skipped.add(f"file type {suffix}", name)
        else:
            self.skipped.add("file name without the extension of an image", name)

    def add_empty(self, folders: Iterable[str]) -> None:
        """Record which of all `folders` hold no images; of nested ones the outermost."""
        direct = {_parts(name)[:-1] for name in self.names}
        used = {parts[:i] for parts in direct for i in range(len(parts) + 1)} | {()}
        for folder in sorted(folders):
            parts = _parts(folder)
            if parts not in used and parts[:-1] in used and not any(_is_system(part) for part in parts):
                self.skipped.add("folder without images", "/".join(parts) + "/")


@dataclass(frozen=True)
class FoundImage:
    """An image file, by its name in its folder or archive.

    ``split`` is the nearest folder around it that is called ``train`` or ``test``, else ``train``.
    """

    name: str
    class_name: str
    split: str


@dataclass
class Found:
    """The images of a folder or archive, and what was skipped."""

    images: list[FoundImage]
    skipped: Skipped


def scan_folder(root: Path) -> Scan:
    """List the image files in a folder, at any depth. Links are followed, unless they lead back.

    Raises
    ------
    OSError
        A folder cannot be read.
    """
    scan, folders = Scan(), []
    pending: list[tuple[str, tuple[str, ...]]] = [("", (os.path.realpath(root),))]
    while pending:
        base, around = pending.pop()
        with os.scandir(root / base) as entries:
            for entry in entries:
                name = base + entry.name
                if _is_system(entry.name):
                    is_folder = entry.is_dir(follow_symlinks=False)
                    scan.skipped.add("hidden or system file or folder", name + "/" * is_folder)
                elif _is(entry.is_dir):
                    real = os.path.realpath(entry.path)
                    if entry.is_symlink() and any(Path(place).is_relative_to(real) for place in around):
                        scan.skipped.add("link to a folder around it", name)
                        continue
                    folders.append(name)
                    pending.append((f"{name}/", (*around, real)))
                elif _is(entry.is_file):
                    scan.add(name)
                elif entry.is_symlink():
                    scan.skipped.add("broken link", name)
                else:
                    scan.skipped.add("not a regular file", name)
    scan.names.sort(key=lambda name: name.split("/"))
    scan.add_empty(folders)
    return scan


def find_in_folder(root: Path, labels: Sequence[str]) -> Found:
    """Find the images of a folder.

    Parameters
    ----------
    root : pathlib.Path
        A folder of class folders, or a class folder: its own name counts if images lie directly in it and no folder in
        it is named after a label, and if it is called ``train`` or ``test``.
    labels : sequence of str
        As for `find`.

    Raises
    ------
    CommandError
        As `find`.
    """
    return find(scan_folder(root), labels, printable(root.resolve().name), root)


def find(scan: Scan, labels: Sequence[str], source: str, root: Path | None = None) -> Found:
    """Decide the class and the split of every image.

    Images at any depth below a folder that is named after a label belong to that label. The class of any other image is
    the folder at the level of the label folders or, where there are none, the outermost one.

    Parameters
    ----------
    scan : Scan
        The files of the folder or archive.
    labels : sequence of str
        The classes that count.
    source : str
        The source's name, for messages.
    root : pathlib.Path or None
        The folder, see `find_in_folder`; None for an archive, in which a folder around everything does not count.

    Raises
    ------
    CommandError
        A folder's name is nearly a label, see `check_spelling`, or an image lies in the folders of two labels.
    """
    skipped = Skipped()
    skipped.update(scan.skipped)
    places = _places(scan.names, labels)
    if root:
        places = _with_own_name(places, labels, root, source)
    unlabelled = {place.folders for place in places if not set(place.folders) & set(labels)}
    check_spelling({name for folders in unlabelled for name in folders}, labels, source)
    found = []
    class_of = _class_finder(places, labels, source, wrapped=root is None)
    for place in places:
        if class_name := class_of(place.folders):
            shown = printable(unicodedata.normalize("NFC", class_name))
            found.append(FoundImage(place.name, shown, place.split or "train"))
        else:
            skipped.add("in no class folder", place.name)
    return Found(found, skipped)


def check_spelling(names: Iterable[str], labels: Sequence[str], source: str) -> None:
    """Reject class names that differ from a label only in case, surrounding spaces or invisible characters.

    Counting their images as the label's would be a guess, and so would counting them as background.

    Parameters
    ----------
    names : iterable of str
        Classes of the source.
    labels : sequence of str
        The classes that count.
    source : str
        The source's name, for the message.

    Raises
    ------
    CommandError
        There is such a name.
    """
    keys = {_key(label): label for label in labels}
    if near := {name: keys[_key(name)] for name in names if name not in labels and _key(name) in keys}:
        listed = " and ".join(f"{name!r} for {label!r}" for name, label in sorted(near.items()))
        raise CommandError(
            f"{source} has {listed}, which differ only in case, spaces or invisible characters; give the class the "
            "label's name, or a clearly different one if it is another class"
        )


@dataclass(frozen=True)
class _Place:
    """An image's place: the folders around it that may be classes, and the split that other folders name."""

    name: str
    folders: tuple[str, ...]
    split: str | None


def _places(names: Iterable[str], labels: Sequence[str]) -> list[_Place]:
    paths = [(name, _parts(name)[:-1]) for name in names]
    # "train" may be a label too; around folders of labels it is a split.
    around_labels = {
        parts[: i + 1]
        for parts in {parts for _, parts in paths}
        for i, part in enumerate(parts)
        if _is_split(part) and any(inner in labels for inner in parts[i + 1 :])
    }
    places = []
    for name, parts in paths:
        folders, split = [], None
        for i, part in enumerate(parts):
            if _is_split(part) and (part not in labels or parts[: i + 1] in around_labels):
                split = part.lower()
            else:
                folders.append(part)
        places.append(_Place(name, tuple(folders), split))
    return places


def _with_own_name(places: list[_Place], labels: Sequence[str], root: Path, source: str) -> list[_Place]:
    """Let the name of the folder itself count as a split or a class."""
    absolute = Path(os.path.abspath(root))
    own = absolute.parent if _is_split(absolute.name) else absolute
    # The name that was given, and the target of a link.
    above = [absolute.name, absolute.resolve().name]
    direct = sum(not place.folders for place in places)
    if not any(name in labels for place in places for name in place.folders):
        is_label = _key(own.name) in {_key(label) for label in labels}
        if is_label and places and not direct:
            raise CommandError(
                f"{source} is named after a label, but no folder in it is. If all its images belong to that label, "
                "give the folder around it; otherwise rename it"
            )
        if direct and (is_label or direct == len(places)):
            places = [replace(place, folders=(own.name, *place.folders)) for place in places]
            above.append(own.parent.name)
    split = next((name.lower() for name in above if _is_split(name)), None)
    return [replace(place, split=place.split or split) for place in places]


def _class_finder(
    places: list[_Place], labels: Sequence[str], source: str, wrapped: bool
) -> Callable[[tuple[str, ...]], str | None]:
    """Make a function that picks the class from the folders around an image; None if they only hold class folders."""
    levels = {}
    for place in places:
        named = [i for i, name in enumerate(place.folders) if name in labels]
        if len({place.folders[i] for i in named}) > 1:
            raise CommandError(
                f"{source}/{printable(place.name)} lies in folders of two labels, "
                f"{' and '.join(place.folders[i] for i in named)}; move it, or give a folder further down"
            )
        if named:
            levels[place.folders] = named[0]
    containers = {()} | {folders[:i] for folders, level in levels.items() for i in range(level + 1)}
    level = min(levels.values(), default=0)
    every = {place.folders for place in places if place.folders}
    if wrapped and not levels and every:
        common = sum(1 for _ in takewhile(lambda names: len(set(names)) == 1, zip(*every, strict=False)))
        level = min(common, min(len(folders) for folders in every) - 1)

    def class_of(folders: tuple[str, ...]) -> str | None:
        if folders in levels:
            return folders[levels[folders]]
        if folders in containers:
            return None
        outermost = next(i for i in range(len(folders)) if folders[: i + 1] not in containers)
        return folders[min(max(outermost, level), len(folders) - 1)]

    return class_of


def _parts(name: str) -> tuple[str, ...]:
    """Split a name at / and, since archives are made on Windows too, at backslashes."""
    return tuple(part for part in posixpath.normpath(name.replace("\\", "/")).split("/") if part not in ("", ".", ".."))


def _is_split(name: str) -> bool:
    return name.lower() in SPLITS


def _is_system(name: str) -> bool:
    return name.startswith((".", "~$")) or name.lower() in _SYSTEM


def _is(check: Callable[[], bool]) -> bool:
    try:
        return check()
    except OSError:  # a link to itself
        return False


def _key(name: str) -> str:
    """Map names that look alike to the same key."""
    visible = (char for char in unicodedata.normalize("NFKC", name) if unicodedata.category(char)[0] != "C")
    return "".join(visible).strip().casefold()
