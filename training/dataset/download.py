"""Download a file once, resume after an interruption, and verify its checksum."""

import errno
import hashlib
import http.client
import socket
import ssl
import time
import urllib.error
import urllib.request
from pathlib import Path

from common.errors import CommandError
from common.progress import progress

ATTEMPTS = 5
_BLOCK = 1 << 20
_TIMEOUT_SECONDS = 30
# Status codes that a later attempt can change; other 4xx codes are permanent.
_RETRY = {408, 425, 429, 500, 502, 503, 504}

_DISK = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EIO}


def download(url: str, folder: Path, algorithm: str, digest: str, pause_seconds: float = 1.0) -> Path:
    """Download a file into a folder, unless it exists there.

    Received data is kept in ``NAME.part``; a later attempt or run requests only the rest (HTTP Range), and starts
    again if the server ignores that.

    Parameters
    ----------
    url : str
        Address; the last part of its path becomes the file's name.
    folder : pathlib.Path
        Created when missing.
    algorithm, digest : str
        ``md5`` or ``sha256``, and the expected hash in lower-case hexadecimal.
    pause_seconds : float
        Wait before the second attempt; doubled for each further one.

    Returns
    -------
    pathlib.Path
        The complete file, whose checksum has been verified in this call.

    Raises
    ------
    CommandError
        The server refused, every attempt failed, the checksum was wrong twice, or the file cannot be written.
    """
    folder.mkdir(parents=True, exist_ok=True)
    target = folder / url.rsplit("/", 1)[-1]
    if target.is_file() and _hash(target, algorithm) == digest:
        return target
    part = target.with_name(target.name + ".part")
    problem = ""
    wrong = 0
    for attempt in range(ATTEMPTS):
        if attempt:
            time.sleep(pause_seconds * 2 ** (attempt - 1))
        try:
            _fetch(url, part)
        except urllib.error.HTTPError as error:
            problem = f"the server answered {error.code} {error.reason}"
            if error.code == 416 and part.exists():  # the part is longer than the file, so it belongs to another one
                part.unlink()
            elif error.code not in _RETRY:
                break
            continue
        except (OSError, http.client.HTTPException) as error:
            problem = str(error) or type(error).__name__
            if _is_permanent(error):
                break
            continue
        except ValueError as error:  # not a URL
            problem = str(error)
            break
        found = _hash(part, algorithm)
        if found == digest:
            return part.replace(target)
        part.unlink()
        problem = f"its {algorithm} is {found}, expected {digest}"
        wrong += 1
        # A resumed part may come from an older file, or a proxy may have cut it: start again once.
        if wrong == 2:
            break
    raise CommandError(f"could not download {url}: {problem}; try again, or give a local copy with --source PATH")


def _is_permanent(error: OSError | http.client.HTTPException) -> bool:
    """Return whether an error will not go away: a wrong address or certificate, or a disk error."""
    reason = error.reason if isinstance(error, urllib.error.URLError) else error
    if isinstance(reason, ssl.SSLCertVerificationError | http.client.InvalidURL):
        return True
    if isinstance(reason, socket.gaierror):
        return reason.errno == socket.EAI_NONAME
    # Network errors have no file name; errors of a full disk have none either.
    return isinstance(reason, OSError) and (reason.filename is not None or reason.errno in _DISK)


def _fetch(url: str, part: Path) -> None:
    have = part.stat().st_size if part.exists() else 0
    request = urllib.request.Request(url, headers={"Range": f"bytes={have}-"} if have else {})
    with urllib.request.urlopen(request, timeout=_TIMEOUT_SECONDS) as response:
        if response.status != 206:
            have = 0
        length = response.headers.get("Content-Length", "")
        total = have + int(length) if length.isdecimal() else None
        with (
            part.open("r+b" if have else "wb") as file,
            progress(f"download {url}", total, "bytes") as advance,
        ):
            file.seek(have)
            advance(have)
            while block := response.read(_BLOCK):
                file.write(block)
                advance(len(block))
                have += len(block)
    if total is not None and have < total:
        raise OSError(f"the connection ended after {have:,} of {total:,} bytes")


def _hash(path: Path, algorithm: str) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, algorithm).hexdigest()
