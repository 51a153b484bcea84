"""Where a model comes from: the commit of the code and the checksum of the data."""

import hashlib
import os
import subprocess
from pathlib import Path

from common.manifest import MANIFEST


def commit() -> str | None:
    """Return the commit of this code, with ``-dirty`` after uncommitted changes; None if it is not known.

    The environment variable ``TRAINING_COMMIT`` says it where the code comes without its repository, as in a job.
    """
    if given := os.environ.get("TRAINING_COMMIT"):
        return given
    try:
        done = subprocess.run(
            ["git", "describe", "--always", "--abbrev=40", "--exclude=*", "--dirty"],
            cwd=Path(__file__).parent,
            capture_output=True,
            text=True,
            check=True,
        )
    except (OSError, subprocess.CalledProcessError):
        return None
    return done.stdout.strip()


def data_checksum(folder: Path) -> str:
    """Return the SHA-256 of a staged folder's manifest, which lists the checksum of every image."""
    return hashlib.sha256((folder / MANIFEST).read_bytes()).hexdigest()
