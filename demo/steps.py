"""What the demonstrations share: their rehearsal and its stack, their steps with the time of each, and commands."""

import contextlib
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import boto3

from common.command import console as make_console
from common.errors import CommandError
from common.stack import Stack, find_stack
from rehearsal.environment import redirected, undisturbed
from rehearsal.lifecycle import find, up

OUT = Path("build/demo")
#: Not the default folder: a rehearsal that is already running there stays as it is.
FOLDER = OUT / "rehearsal"
STACK = "image-classifier-rehearsal"
ENDPOINT = "image-classifier"
ACCOUNT = "123456789012"
ROLE_ARN = f"arn:aws:iam::{ACCOUNT}:role/rehearsal"
IMAGE_URI = f"{ACCOUNT}.dkr.ecr.us-east-1.amazonaws.com/image-classifier:latest"
console = make_console()


class _Live:
    """A text that is made again whenever it is drawn."""

    def __init__(self, text: Callable[[], str]) -> None:
        self._text = text

    def __rich__(self) -> str:
        return self._text()


@contextlib.contextmanager
def step(description: str, detail: Callable[[], str] = str) -> Iterator[None]:
    """Print a step, how long it took, and a detail, which on a terminal is also shown while it runs."""
    started = time.monotonic()
    if sys.stdout.isatty():
        with console.status(_Live(lambda: description + detail())):
            yield
    else:
        console.print(f"  … {description}", soft_wrap=True)
        yield
    console.print(f"  ✓ {description} ({time.monotonic() - started:.1f} s){detail()}", soft_wrap=True)


def run(*command: str, code: int = 0) -> str:
    """Run a command as a user would type it; return its output.

    Raises
    ------
    CommandError
        If it ends with another exit code than expected, with the end of its output.
    """
    done = subprocess.run(
        command,
        env={**os.environ, "PYTHONUNBUFFERED": "1"},  # the lines of both streams in their order
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        encoding="utf-8",
        errors="replace",
        check=False,
    )
    with (OUT / "commands.log").open("a", encoding="utf-8") as log:
        log.write(f"$ {' '.join(command)}\n{done.stdout}\n")
    if done.returncode != code:
        raise CommandError(f"$ {' '.join(command)}\n{done.stdout[-2000:]}")
    return done.stdout


def start_rehearsal(keep: bool) -> None:
    """Start the rehearsal, unless it is running, and send all requests of this process to it."""
    OUT.mkdir(parents=True, exist_ok=True)
    running = find(FOLDER)
    if not running:
        (OUT / "commands.log").unlink(missing_ok=True)
        with step("start the rehearsal (python -m rehearsal up)"):
            running = up(FOLDER, tied=not keep)
    environment = redirected(undisturbed(os.environ), running.port, running.region)
    os.environ.clear()
    os.environ.update(environment)


def deploy(keep: bool, *more: str) -> Stack:
    """Build and deploy to a rehearsal, unless that is done; return the stack.

    ``more`` goes to ``python -m training deploy``.
    """
    start_rehearsal(keep)
    endpoints = boto3.client("sagemaker").list_endpoints(NameContains=ENDPOINT, StatusEquals="InService")["Endpoints"]
    if endpoints:  # the last step
        return find_stack(STACK)
    with step("sam build"):
        run("sam", "build", "--config-env", "rehearsal")
    with step("sam deploy --config-env rehearsal"):
        run("sam", "deploy", "--config-env", "rehearsal")
    stack = find_stack(STACK)
    with step("python -m training deploy"):
        run(
            *(sys.executable, "-m", "training", "deploy", "--endpoint-name", ENDPOINT),
            *("--bucket", stack.output("ImageBucketName")),
            *("--role-arn", ROLE_ARN, "--image-uri", IMAGE_URI, *more),
        )
    return stack
