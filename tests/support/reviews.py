"""Folders of images as people and the review page leave them."""

import hashlib
import json
from pathlib import Path


def write_folder(root: Path, files: dict[str, bytes]) -> Path:
    """Write files by their path in a folder; return the folder."""
    for name, content in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(content)
    return root


def write_review(folder: Path, label: str, content: bytes, suffix: str = "png", **changed: str) -> str:
    """Write an image and its record as the review does; return the hash that names them."""
    sha256 = hashlib.sha256(content).hexdigest()
    name = sha256[:16]
    record = {"label": label, "image": f"{name}.{suffix}", "sha256": sha256, "reviewed_at": "2026-11-23T12:00:00+00:00"}
    files = {f"{name}.{suffix}": content, f"{name}.json": json.dumps({**record, **changed}).encode()}
    write_folder(folder, files)
    return name
