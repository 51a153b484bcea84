"""Start and end the rehearsal, so that nothing of it stays behind.

``up`` starts a supervisor as the leader of a new process group; the supervisor starts the server, and every
process that the server starts stays in the group. Whichever of the two dies first, however it dies, the other
ends the whole group and removes the folder.
"""

import contextlib
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path

from rehearsal.gaps import RehearsalError

REGION = "us-east-1"
START_SECONDS = 60
READY_FILE = "ready"
STATE_FILE = "state.json"
LOG_FILE = "server.log"


@dataclass(frozen=True)
class Running:
    """A rehearsal that is up."""

    port: int
    supervisor: int

    @property
    def endpoint_url(self) -> str:
        """Where every AWS API answers. ``localhost``: moto understands path-style template addresses with it only."""
        return f"http://localhost:{self.port}"


def free_port() -> int:
    """Return a port of the loopback interface that nobody listens on."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


def credentials(port: int) -> dict[str, str]:
    """Return the environment that sends SAM CLI and the AWS SDKs to the rehearsal, and nowhere else."""
    return {
        "AWS_ENDPOINT_URL": f"http://localhost:{port}",
        "AWS_ACCESS_KEY_ID": "rehearsal",
        "AWS_SECRET_ACCESS_KEY": "rehearsal",
        "AWS_SESSION_TOKEN": "rehearsal",
        "AWS_DEFAULT_REGION": REGION,
        "AWS_REGION": REGION,
        # A profile or a configuration file could name another endpoint or account.
        "AWS_CONFIG_FILE": os.devnull,
        "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
        "AWS_EC2_METADATA_DISABLED": "true",
        "SAM_CLI_TELEMETRY": "0",
    }


def find(folder: Path) -> Running | None:
    """Return the rehearsal that runs in a folder, or None."""
    try:
        running = Running(**json.loads((folder / STATE_FILE).read_text()))
        os.kill(running.supervisor, 0)
    except (OSError, ValueError, TypeError):
        return None
    return running


def up(folder: Path) -> Running:
    """Start the rehearsal and wait until it is ready; return the running one if there is one.

    Raises
    ------
    RehearsalError
        If it does not get ready; the message ends with what it said.
    """
    running = find(folder)
    if running:
        return running
    down(folder)
    folder.mkdir(parents=True)
    port = free_port()
    supervisor = subprocess.Popen(
        [sys.executable, "-m", "rehearsal.lifecycle", str(folder.resolve()), str(port)],
        cwd=Path(__file__).parents[1],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    running = Running(port, supervisor.pid)
    (folder / STATE_FILE).write_text(json.dumps(asdict(running)))
    said = ""
    deadline = time.monotonic() + START_SECONDS
    while not (folder / READY_FILE).exists():
        if (folder / LOG_FILE).exists():
            said = (folder / LOG_FILE).read_text(errors="replace")
        if supervisor.poll() is not None or time.monotonic() > deadline:
            down(folder)
            raise RehearsalError(f"The rehearsal did not start.\n{said[-2000:]}")
        time.sleep(0.05)
    return running


def down(folder: Path) -> bool:
    """End the rehearsal, also one that crashed; return whether there was one.

    Returns
    -------
    bool
        False if the folder did not exist.
    """
    if not folder.exists():
        return False
    try:
        group = Running(**json.loads((folder / STATE_FILE).read_text())).supervisor
    except (OSError, ValueError, TypeError):
        group = None
    if group is not None:
        _end_group(group)
    shutil.rmtree(folder, ignore_errors=True)
    return True


def _end_group(group: int) -> None:
    for process_signal, seconds in ((signal.SIGTERM, 5.0), (signal.SIGKILL, 5.0)):
        deadline = time.monotonic() + seconds
        try:
            os.killpg(group, process_signal)
            while time.monotonic() < deadline:
                with contextlib.suppress(ChildProcessError):
                    os.waitpid(group, os.WNOHANG)  # reaps it where it is a child of this process
                os.killpg(group, 0)
                time.sleep(0.02)
        except ProcessLookupError:
            return


def end_group_and_clean(folder: Path) -> None:
    """Remove the folder, and end every process of this group, the caller included."""
    shutil.rmtree(folder, ignore_errors=True)
    os.killpg(0, signal.SIGKILL)


def supervise(folder: Path, port: int) -> None:
    """Run the server; when it ends, or on SIGTERM, end everything."""

    def stop(*_: object) -> None:
        end_group_and_clean(folder)

    signal.signal(signal.SIGTERM, stop)
    signal.signal(signal.SIGINT, stop)
    with (folder / LOG_FILE).open("wb") as log:
        server = subprocess.Popen(
            [sys.executable, "-m", "rehearsal.server", str(folder), str(port)], stdout=log, stderr=log
        )
        server.wait()
    if not (folder / READY_FILE).exists():
        sys.exit(1)  # the one who waits for it reads the log first
    end_group_and_clean(folder)


if __name__ == "__main__":
    supervise(Path(sys.argv[1]), int(sys.argv[2]))
