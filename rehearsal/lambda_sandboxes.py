"""Lambda: a sandbox is one process of the Runtime Interface Emulator with one function in it."""

import contextlib
import http.client
import importlib.metadata
import json
import logging
import os
import platform
import re
import select
import signal
import socket
import subprocess
import sys
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import samcli
from moto.core.exceptions import JsonRESTError
from moto.logs.models import logs_backends
from packaging.requirements import Requirement

from rehearsal.lifecycle import MARK, free_port
from rehearsal.patches import RehearsalError

log = logging.getLogger("rehearsal")

#: Sandboxes per function; further requests wait, as this machine has few cores.
MAX_SANDBOXES = 4
#: Lambda returns this much of the end of a log to callers that ask for it.
LOG_TAIL_BYTES = 4096
MEMORY_POLL_SECONDS = 0.02
#: For an emulator that hangs; one that ends is noticed at once.
START_SECONDS = 600
#: The last lines of the log come just after the answer, a report among them, but not after every failure.
REPORT_SECONDS, FAILURE_REPORT_SECONDS = 60, 0.5
#: How long the emulator may take to write what it has already answered.
EXIT_SECONDS = 60
FUNCTION_ERROR_KEYS = {"errorMessage", "errorType", "requestId", "stackTrace"}
PROVIDED_BY_LAMBDA = ("awslambdaric", "boto3")


@dataclass(frozen=True)
class Outcome:
    """The result of an invocation: the payload, whether it is an error, and the end of the log."""

    payload: bytes
    failed: bool
    log: str


@dataclass(frozen=True)
class Settings:
    """The settings of a function's sandboxes, which are replaced when one of them changes."""

    arn: str
    name: str
    handler: str
    code_sha256: str
    timeout: int
    memory: int
    log_group: str
    log_format: str
    environment: tuple[tuple[str, str], ...]


def emulator() -> Path:
    """Return the emulator's path inside the installed SAM CLI.

    Raises
    ------
    RehearsalError
        If there is none for this machine.
    """
    machine = {"x86_64": "x86_64", "aarch64": "arm64"}.get(platform.machine())
    path = Path(samcli.__file__).parent / "local" / "rapid" / f"aws-lambda-rie-{machine}"
    if sys.platform != "linux" or not path.exists():
        raise RehearsalError(
            f"Lambda's emulator runs on Linux on x86_64 and arm64, not on {sys.platform} {platform.machine()}"
        )
    return path


def link_runtime(folder: Path) -> None:
    """Fill a folder with links to the packages that Lambda's Python runtime provides, and nothing else.

    A function that imports what its own ``requirements.txt`` forgot must fail here as it would on AWS.
    """
    folder.mkdir(parents=True)
    waiting, done = list(PROVIDED_BY_LAMBDA), set()
    while waiting:
        name = waiting.pop()
        done.add(name)
        distribution = importlib.metadata.distribution(name)
        for part in {file.parts[0] for file in distribution.files or () if not file.parts[0].startswith("..")}:
            target = Path(str(distribution.locate_file(part)))
            if not (folder / part).exists() and part != "__pycache__":
                (folder / part).symlink_to(target)
        for text in distribution.requires or ():
            requirement = Requirement(text)
            wanted = requirement.marker is None or requirement.marker.evaluate({"extra": ""})
            if wanted and requirement.name not in done:
                waiting.append(requirement.name)


class Sandbox:
    """One emulator process with one function in it; serves one request at a time."""

    def __init__(self, settings: Settings, task: Path, runtime: Path) -> None:
        self.settings = settings
        self.port = free_port()
        self.version = (settings.arn.split(":")[7:] or ["$LATEST"])[0]
        self.stream = f"{time.strftime('%Y/%m/%d')}/[{self.version}]{os.urandom(16).hex()}"
        self._lines: list[str] = []
        self._reported, self._failed = threading.Event(), threading.Event()
        self._exit = ""
        #: The ids of the function's own processes, once they are known.
        self._function: list[int] = []
        self._account, self._region = settings.arn.split(":")[4], settings.arn.split(":")[3]
        self._logs = logs_backends[self._account][self._region]
        self._logs.ensure_log_group(settings.log_group)
        self._logs.create_log_stream(settings.log_group, self.stream)
        command = [str(emulator())]
        command += ["--runtime-interface-emulator-address", f"127.0.0.1:{self.port}"]
        command += ["--runtime-api-address", f"127.0.0.1:{free_port()}"]
        # -S keeps this environment's own packages out; what the function may see is on PYTHONPATH.
        command += [sys.executable, "-S", "-m", "awslambdaric", settings.handler]
        self.process = subprocess.Popen(
            command,
            cwd=task,
            env=self._environment(task, runtime),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            stdin=subprocess.DEVNULL,
        )
        threading.Thread(target=self._ship_logs, daemon=True).start()
        self._wait_until_listening()

    def _environment(self, task: Path, runtime: Path) -> dict[str, str]:
        settings = self.settings
        libraries = [os.environ.get("LD_LIBRARY_PATH"), str(task), str(task / "lib")]
        return {
            # The server's environment holds only the variables in INHERITED from the user's shell.
            **{name: value for name, value in os.environ.items() if name.startswith("AWS_")},
            **{name: os.environ[name] for name in ("PATH", "TMPDIR", MARK) if name in os.environ},
            "LD_LIBRARY_PATH": os.pathsep.join(path for path in libraries if path),
            "LANG": "en_US.UTF-8",
            "TZ": ":UTC",
            "PYTHONPATH": f"{task}{os.pathsep}{runtime}",
            "PYTHONDONTWRITEBYTECODE": "1",
            "LAMBDA_TASK_ROOT": str(task),
            "AWS_LAMBDA_FUNCTION_NAME": settings.name,
            "AWS_LAMBDA_FUNCTION_VERSION": self.version,
            "AWS_LAMBDA_FUNCTION_TIMEOUT": str(settings.timeout),
            "AWS_LAMBDA_FUNCTION_MEMORY_SIZE": str(settings.memory),
            "AWS_LAMBDA_LOG_FORMAT": settings.log_format,
            "AWS_LAMBDA_LOG_GROUP_NAME": settings.log_group,
            "AWS_LAMBDA_LOG_STREAM_NAME": self.stream,
            "AWS_REGION": self._region,
            "AWS_DEFAULT_REGION": self._region,
            **dict(settings.environment),
        }

    def _wait_until_listening(self) -> None:
        deadline = time.monotonic() + START_SECONDS
        while time.monotonic() < deadline and self.process.poll() is None:
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", self.port)) == 0:
                    return
            time.sleep(0.01)
        raise RehearsalError(f"The emulator of {self.settings.name} did not start: {' '.join(self._lines[-3:])}")

    def _ship_logs(self) -> None:
        assert self.process.stdout is not None
        for raw in self.process.stdout:
            line = raw.decode("utf-8", "replace").rstrip()
            if failure := re.search(r"\(rapid\) Invoke failed\b", line):
                found = dict(re.findall(r"(\w+)=(.*?)(?=\s\w+=|$)", line[failure.end() :]))
                self._exit = f"RequestId: {found.get('InvokeID')} Error: {found.get('error')}"
                self._failed.set()
            if not line or " (rapid) " in line:  # the emulator's own remarks, which Lambda does not log
                continue
            if line.startswith("REPORT "):
                used = f"Max Memory Used: {self.peak_memory_mb()} MB"
                line = re.sub(r"Max Memory Used: \d+ MB", used, line)
            self._log(line)
            if line.startswith("REPORT "):
                self._reported.set()
        self._reported.set()  # there is no more output

    def _log(self, line: str) -> None:
        self._lines.append(line)
        event = {"timestamp": int(time.time() * 1000), "message": line}
        self._logs.put_log_events(self.settings.log_group, self.stream, [event])

    def _children(self) -> list[int]:
        """Return the ids of the function's own processes, which the emulator has started."""
        found = []
        for children in Path(f"/proc/{self.process.pid}/task").glob("*/children"):
            with contextlib.suppress(OSError):  # it has ended
                found += [int(pid) for pid in children.read_text().split()]
        return found

    def peak_memory_mb(self) -> int:
        """Return the peak resident memory of the function's own process, in MB; 0 when it is gone."""
        for _ in range(2):  # the second time for a process that has taken the place of another
            self._function = self._function or self._children()
            try:
                return max(map(_peak_memory_mb, self._function), default=0)
            except (OSError, IndexError):  # it has ended
                self._function = []
        return 0

    def invoke(self, payload: bytes) -> Outcome:
        """Run the function once."""
        self._lines.clear()
        self._reported.clear()
        self._failed.clear()
        self._exit = "Error: Runtime exited without providing a reason"
        out_of_memory, deadline = False, time.monotonic() + self.settings.timeout + START_SECONDS
        try:
            connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=START_SECONDS)
            connection.request("POST", "/2015-03-31/functions/function/invocations", payload)
            answered = select.poll()
            answered.register(connection.sock, select.POLLIN)
            while not answered.poll(MEMORY_POLL_SECONDS * 1000) and time.monotonic() < deadline:
                if self.peak_memory_mb() > self.settings.memory:
                    out_of_memory = True
                    self.close()
            response = connection.getresponse()
            status, body = response.status, response.read()
            connection.close()
        except (OSError, http.client.HTTPException):
            status, body = (
                502,
                json.dumps({"errorType": "Runtime.ExitError", "errorMessage": "signal: killed"}).encode(),
            )
        if out_of_memory or self.peak_memory_mb() > self.settings.memory:
            self.close()
            message = "Error: Runtime exited with error: signal: killed"
            return self._outcome({"errorType": "Runtime.OutOfMemory", "errorMessage": message})
        if status == 200 and body.startswith(b"Task timed out after "):
            return self._outcome({"errorType": "Sandbox.Timedout", "errorMessage": f"Error: {body.decode()}"})
        if status != 200 and not body:  # the function ended while it was loaded; only the emulator's log has the reason
            self._failed.wait(EXIT_SECONDS)
            self._log(f"{self._exit}\nRuntime.ExitError")
            return self._outcome({"errorType": "Runtime.ExitError", "errorMessage": self._exit}, FAILURE_REPORT_SECONDS)
        if status != 200:
            return self._outcome(json.loads(body), FAILURE_REPORT_SECONDS)
        return Outcome(body, _is_function_error(body), self._tail())

    def _outcome(self, error: dict[str, Any], seconds: float = REPORT_SECONDS) -> Outcome:
        return Outcome(json.dumps(error).encode(), True, self._tail(seconds))

    def _tail(self, seconds: float = REPORT_SECONDS) -> str:
        self._reported.wait(seconds)
        return "\n".join(self._lines)[-LOG_TAIL_BYTES:]

    @property
    def alive(self) -> bool:
        """Return whether another request can be sent."""
        return self.process.poll() is None

    def close(self) -> None:
        """End the function's processes, and then the emulator, which would start them again."""
        for pid in [*self._children(), self.process.pid]:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self.process.wait()


def _peak_memory_mb(process: int) -> int:
    status = Path(f"/proc/{process}/status").read_text()
    return int(status.partition("VmHWM:")[2].split()[0]) // 1024


def _is_function_error(body: bytes) -> bool:
    # The emulator sends no error header; only the keys show an error.
    if not body.startswith(b"{") or b'"errorType"' not in body:
        return False
    answer = json.loads(body)
    return set(answer) == FUNCTION_ERROR_KEYS


class Pool:
    """The sandboxes of one function with one set of settings."""

    def __init__(self, settings: Settings, task: Path, runtime: Path) -> None:
        self.settings = settings
        self._make = lambda: Sandbox(settings, task, runtime)
        self._idle: list[Sandbox] = []
        self._changed = threading.Condition()
        self._running = 0
        self._closed = False

    def invoke(self, payload: bytes, reserved: int | None) -> Outcome:
        """Run the function in an idle sandbox, else in a new one, else wait for one.

        Raises
        ------
        Throttled
            If as many requests as the function's reserved concurrency are running.
        """
        with self._changed:
            if reserved is not None and self._running >= reserved:
                raise Throttled()
            self._changed.wait_for(lambda: self._running < MAX_SANDBOXES)
            self._running += 1
            sandbox = self._idle.pop() if self._idle else None
        try:
            sandbox = sandbox or self._make()
            return sandbox.invoke(payload)
        finally:
            with self._changed:
                self._running -= 1
                if sandbox and sandbox.alive and not self._closed:
                    self._idle.append(sandbox)
                elif sandbox:
                    sandbox.close()
                self._changed.notify()

    def close(self) -> None:
        """End the idle sandboxes; the running ones end with their request."""
        with self._changed:
            self._closed = True
            while self._idle:
                self._idle.pop().close()


class Throttled(JsonRESTError):
    """Lambda's answer to more requests than the reserved concurrency."""

    code = 429

    def __init__(self) -> None:
        super().__init__("TooManyRequestsException", "Rate Exceeded.")
