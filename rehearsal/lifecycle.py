"""Start and stop the rehearsal, and clean up.

``up`` starts a supervisor, and the supervisor starts the server. Every process below them has the rehearsal's
folder in its environment, which identifies it even if its parent or process group has changed. If supervisor or server
dies, the other one ends all processes and removes the folder. They also end when their folder is removed.
"""

import contextlib
import json
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from dataclasses import asdict, dataclass
from pathlib import Path

from rehearsal.environment import inherited
from rehearsal.patches import RehearsalError
from rehearsal.settings import read_settings

#: Limits for a server that hangs, and for a process that does not end after SIGKILL.
START_SECONDS, END_SECONDS = 600, 60
#: The environment variable that marks every process of a rehearsal with its folder.
MARK = "REHEARSAL_FOLDER"
READY_FILE = "ready"
STATE_FILE = "state.json"
LOG_FILE = "server.log"


@dataclass(frozen=True)
class Running:
    """A rehearsal that is up."""

    port: int
    supervisor: int
    region: str

    @property
    def endpoint_url(self) -> str:
        """Where every AWS API answers. ``localhost``: moto understands path-style template addresses with it only."""
        return f"http://localhost:{self.port}"


def free_port() -> int:
    """Return a port of the loopback interface that is free, and stays so until a server listens on it.

    A port that the kernel chooses could be given to an outgoing connection in between; it takes those from 32768 up.
    """
    while True:
        port = random.randrange(16_384, 32_768)
        with socket.socket() as listener, contextlib.suppress(OSError):
            listener.bind(("127.0.0.1", port))
            return port


def processes(folder: Path) -> list[int]:
    """Return the ids of all processes of the rehearsal in a folder, except the caller's own."""
    mark = f"{MARK}={folder.resolve()}".encode()
    found = []
    for environ in Path("/proc").glob("[0-9]*/environ"):
        try:
            marked = mark in environ.read_bytes().split(b"\0")
        except OSError:  # it ended, or is another user's
            continue
        if marked and int(environ.parent.name) != os.getpid():
            found.append(int(environ.parent.name))
    return found


def find(folder: Path) -> Running | None:
    """Return the rehearsal that runs in a folder, or None."""
    state = _state(folder)
    return state if state and state.supervisor in processes(folder) else None


def _state(folder: Path) -> Running | None:
    try:
        return Running(**json.loads((folder / STATE_FILE).read_text()))
    except (OSError, ValueError, TypeError):
        return None


def up(folder: Path, project: Path = Path(), *, tied: bool = False) -> Running:
    """Start the rehearsal of a project and wait until it is ready; return the running one if there is one.

    Parameters
    ----------
    folder : pathlib.Path
        Where its state lives.
    project : pathlib.Path
        Folder of the project's ``pyproject.toml``.
    tied : bool
        Whether a rehearsal that is started here ends with this process, even if that is killed.

    Raises
    ------
    RehearsalError
        If the project's settings are wrong, or it does not get ready; the message ends with the log.
    """
    running = find(folder)
    if running:
        return running
    settings = read_settings(project)
    down(folder)
    folder.mkdir(parents=True, exist_ok=True)
    port = free_port()
    # The supervisor reads its input until this process closes the other end of the pipe, that is, until it ends.
    end_of_pipe, _ = os.pipe() if tied else (os.open(os.devnull, os.O_RDONLY), None)
    command = [sys.executable, "-m", "rehearsal.lifecycle", str(folder.resolve()), str(port), str(project.resolve())]
    supervisor = subprocess.Popen(
        [*command, *(["tied"] if tied else [])],
        cwd=Path(__file__).parents[1],
        env={**inherited(os.environ), MARK: str(folder.resolve())},
        stdin=end_of_pipe,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    os.close(end_of_pipe)
    running = Running(port, supervisor.pid, settings.region)
    try:
        (folder / STATE_FILE).write_text(json.dumps(asdict(running)))
        _wait(supervisor, folder)
    except BaseException:  # Ctrl-C too
        end(folder)
        raise
    supervisor.returncode = 0  # it outlives this object on purpose, which would warn otherwise
    return running


def _wait(supervisor: "subprocess.Popen[bytes]", folder: Path) -> None:
    """Wait until the server is ready."""
    output = ""
    deadline = time.monotonic() + START_SECONDS
    while not (folder / READY_FILE).exists():
        if (folder / LOG_FILE).exists():
            output = (folder / LOG_FILE).read_text(errors="replace")
        if supervisor.poll() is not None or time.monotonic() > deadline:
            raise RehearsalError(f"The rehearsal did not start.\n{output[-2000:]}")
        time.sleep(0.05)


def down(folder: Path) -> bool:
    """End the rehearsal, also one that crashed or whose folder was removed; return whether there was one.

    Raises
    ------
    RehearsalError
        If the folder holds something else, which is then left alone.
    """
    if not folder.exists():
        if not processes(folder):
            return False
    elif _state(folder) is None and any(folder.iterdir()):
        raise RehearsalError(f"{folder} is not a rehearsal's folder; choose another one, or empty it")
    end(folder)
    return True


def end(folder: Path) -> None:
    """End every process of the rehearsal except the caller's own, and remove the folder if it is still its own."""
    deadline = time.monotonic() + END_SECONDS
    while (running := processes(folder)) and time.monotonic() < deadline:
        for process in running:
            with contextlib.suppress(ProcessLookupError):
                os.kill(process, signal.SIGKILL)
            with contextlib.suppress(ChildProcessError):
                os.waitpid(process, os.WNOHANG)  # reaps it where it is a child of this process
        time.sleep(0.01)
    if not (folder / STATE_FILE).exists():
        with contextlib.suppress(OSError):
            folder.rmdir()  # if it is empty
        return
    # The state goes last: without it, what is left of the folder could not be known for a rehearsal's.
    for path in folder.iterdir():
        if path.name != STATE_FILE:
            shutil.rmtree(path, ignore_errors=True) if path.is_dir() else path.unlink(missing_ok=True)
    shutil.rmtree(folder, ignore_errors=True)


def supervise(folder: Path, port: int, project: Path, *, tied: bool) -> None:
    """Run the server; when it ends, on SIGTERM, and if tied at the end of the input, end everything."""

    def stop(*_: object) -> None:
        end(folder)
        sys.exit(0)

    signal.signal(signal.SIGTERM, stop)
    signal.signal(signal.SIGINT, stop)
    abandoned = threading.Event()
    with (folder / LOG_FILE).open("wb") as log:
        server = subprocess.Popen(
            [sys.executable, "-m", "rehearsal.server", str(folder), str(port), str(project)],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
        )

        def watch() -> None:
            sys.stdin.buffer.read()
            abandoned.set()
            server.kill()

        if tied:
            threading.Thread(target=watch, daemon=True).start()
        server.wait()
    if not (folder / READY_FILE).exists() and not abandoned.is_set():
        sys.exit(1)  # the parent process reads the log first
    end(folder)


if __name__ == "__main__":
    supervise(Path(sys.argv[1]), int(sys.argv[2]), Path(sys.argv[3]), tied=sys.argv[4:] == ["tied"])
