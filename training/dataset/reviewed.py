"""Images that reviewers have labelled: ``{hash}.json``, each beside its image.

``python -m operations review`` writes them; ``docs/review.md`` has the fields.
"""

import datetime
import hashlib
import json
import re
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from common.command import printable
from common.errors import CommandError
from common.progress import progress
from training.dataset.sources import SourceImage

#: Concurrent reads from S3; each mostly waits for the network.
THREADS = 16
_RECORD = re.compile(r"[0-9a-f]{16}\.json")
_IMAGE = re.compile(r"[0-9a-f]{16}\.(jpg|png|webp|gif|bmp|tiff)")


class ReviewedSource:
    """A folder of reviewed images; all of them are training images.

    Parameters
    ----------
    place : str
        A folder or ``s3://bucket/prefix``.

    Attributes
    ----------
    left_out : list of str
        Unusable records and images, with the reason; complete after `images` has been read to its end.

    Raises
    ------
    CommandError
        There are no reviews.
    """

    split = "train"

    def __init__(self, place: str) -> None:
        self.left_out: list[str] = []
        self._contents: dict[str, str]
        self._read: Callable[[str], bytes]
        if place.startswith("s3://"):
            self._open_s3(place)
        else:
            self._open_folder(Path(place))
        names = [name for name in self._contents if _RECORD.fullmatch(name)]
        if not names:
            raise CommandError(f"{place} contains no reviews; python -m operations review prints where it writes them")
        records = []
        for name, content in self._read_all(names, "read reviews"):
            try:
                records.append(_parse(name, content))
            except ValueError as error:
                self.left_out.append(f"{self.name}/{name}: {error}")
        # Newest first: it counts if an image was reviewed twice.
        self._records = sorted(records, key=lambda record: record["reviewed_at"], reverse=True)

    def _open_folder(self, folder: Path) -> None:
        self.name = printable(folder.resolve().name)
        paths = [path for path in folder.iterdir() if _is_review(path.name)] if folder.is_dir() else []
        self._contents = {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in paths if path.is_file()}
        self._read = lambda name: (folder / name).read_bytes()

    def _open_s3(self, place: str) -> None:
        # Imported late, because stage works on folders without boto3.
        import boto3

        from common.storage import naming, parse_s3

        bucket, prefix = parse_s3(place)
        base = f"{prefix}/" if prefix else ""
        s3 = boto3.client("s3")
        pages = s3.get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=base, Delimiter="/")
        self.name = f"s3://{bucket}/{base}".rstrip("/")
        with naming(self.name):
            items = [item for page in pages for item in page.get("Contents", [])]
        listed = ((item["Key"].removeprefix(base), item["ETag"]) for item in items)
        self._contents = {name: etag for name, etag in listed if _is_review(name)}
        self._read = lambda name: s3.get_object(Bucket=bucket, Key=base + name)["Body"].read()

    def sha256(self) -> str:
        """Hash every name with its content's hash, as hexadecimal text."""
        listing = "".join(f"{name}\0{content}\n" for name, content in sorted(self._contents.items()))
        return hashlib.sha256(listing.encode()).hexdigest()

    def classes(self) -> set[str]:
        """Return every label that a reviewer has given."""
        return {record["label"] for record in self._records}

    def labels_by_execution(self) -> dict[str, str]:
        """Return the label of each review by the ARN of the execution whose answer it corrects; the newest counts."""
        # In order of time, so that the newest stays.
        known = [record for record in reversed(self._records) if isinstance(record.get("execution_id"), str)]
        return {record["execution_id"]: record["label"] for record in known}

    def images(self) -> Iterator[SourceImage]:
        """Read every image whose content has not changed since the review, newest review first."""
        records = {record["image"]: record for record in self._records}
        there = [name for name in records if name in self._contents]
        self.left_out += [
            f"{self.name}/{name}: it was reviewed, but the image is missing" for name in records.keys() - there
        ]
        for name, content in self._read_all(there, "read reviewed images"):
            record = records[name]
            if hashlib.sha256(content).hexdigest() != record["sha256"]:
                self.left_out.append(f"{self.name}/{name}: the image has changed since the review (SHA-256 differs)")
                continue
            # Without an underscore in its name, training gives it no background class.
            stem = f"reviewed-{record['sha256'][:16]}"
            origin = f"{self.name}/{name}"
            yield SourceImage(record["label"], self.split, stem, origin, content, reviewed=True)

    def _read_all(self, names: list[str], what: str) -> Iterator[tuple[str, bytes]]:
        with progress(what, len(names), "files") as advance, ThreadPoolExecutor(THREADS) as pool:
            # In batches, to limit the memory.
            for start in range(0, len(names), THREADS):
                batch = names[start : start + THREADS]
                yield from zip(batch, pool.map(self._read, batch), strict=True)
                advance(len(batch))


def _is_review(name: str) -> bool:
    """Return whether a file is a record or its image, and not something that a system left in the folder."""
    return bool(_RECORD.fullmatch(name) or _IMAGE.fullmatch(name))


def _parse(name: str, content: bytes) -> dict[str, Any]:
    """Parse a record; raise a ValueError with the reason if it is invalid."""
    record = json.loads(content)
    if not isinstance(record, dict):
        raise ValueError("not a review: not a JSON object")
    for field in ("label", "image", "sha256", "reviewed_at"):
        if not isinstance(record.get(field), str):
            raise ValueError(f"not a review: {field} is missing")
    stem = Path(name).stem
    if not (_IMAGE.fullmatch(record["image"]) and record["image"].startswith(stem) and record["sha256"][:16] == stem):
        raise ValueError(f"its image must be {stem}.jpg (.png, …), named after the beginning of its SHA-256")
    record["reviewed_at"] = datetime.datetime.fromisoformat(record["reviewed_at"]).astimezone(datetime.UTC)
    return record
