"""Command line of the rehearsal: ``python -m rehearsal up|down|status|env|exec|patches``."""

import argparse
import json
import os
import shlex
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any, NoReturn

from rehearsal.environment import (
    FOLDER,
    WELL_KNOWN,
    credentials,
    own_command,
    redirected,
    with_own_programs,
    without_proxy,
)
from rehearsal.lifecycle import LOG_FILE, Running, down, find, up
from rehearsal.patches import PATCHES, RehearsalError, load

#: Colours of the states of stacks, endpoints and alarms, by a part of their name; the first one counts.
_STYLES = (
    (("FAILED", "ROLLBACK", "Failed", "ALARM"), "red"),
    (("PROGRESS", "ing", "INSUFFICIENT_DATA"), "yellow"),
    (("COMPLETE", "InService", "OK"), "green"),
)


def main() -> int:
    """Run one command; return its exit code."""
    try:
        try:
            return _main()
        finally:
            print(end="", flush=True)
    except BrokenPipeError:  # for example: status | head -1
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # what is left must not fail at the end
        return 128 + signal.SIGPIPE
    except KeyboardInterrupt:
        return 128 + signal.SIGINT


def _main() -> int:
    parser = argparse.ArgumentParser(
        prog="python -m rehearsal",
        description="AWS on this machine.",
        epilog="example: python -m rehearsal up, then: python -m rehearsal exec -- sam deploy --config-env rehearsal",
    )
    parser.add_argument("--folder", type=Path, default=FOLDER, help="where its state lives (%(default)s)")
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("up", help="start it, and wait until it is ready")
    commands.add_parser("down", help="stop it and clean up")
    status = commands.add_parser("status", help="show whether it runs, and what is deployed in it")
    status.add_argument("--json", action="store_true", help="print one JSON object instead")
    commands.add_parser("env", help="print the shell commands that send SAM CLI and the AWS SDKs to it")
    execute = commands.add_parser("exec", help="run a command with that environment")
    execute.add_argument("argv", nargs=argparse.REMAINDER, metavar="COMMAND …")
    commands.add_parser("patches", help="list the differences between moto and AWS that it removes")
    arguments = parser.parse_args()
    try:
        return _run(arguments)
    except RehearsalError as error:
        print(f"rehearsal: {error}", file=sys.stderr)
        return 1


def _run(arguments: argparse.Namespace) -> int:
    folder: Path = arguments.folder
    if arguments.command == "patches":
        load()
        for difference in dict.fromkeys(difference for difference, _ in PATCHES):
            bug = f" (bug of moto: tests/rehearsal/moto_bugs/{difference.name}.py)" if difference.bug else ""
            print(f"{difference.name}{bug}\n    {difference.reason}")
    elif arguments.command == "up":
        running = up(folder)
        print(f"The rehearsal is up at {running.endpoint_url}. To use it from this shell:\n")
        print(f'    eval "$({own_command(folder)} env)"')
    elif arguments.command == "down":
        print("The rehearsal is down." if down(folder) else "Nothing to stop.")
    else:
        running = _running(folder)
        if arguments.command == "env":
            print(_shell_commands(running))
        elif arguments.command == "status":
            described = _describe(running, folder)
            print(json.dumps(described, indent=1)) if arguments.json else _print_status(described)
        else:
            argv = arguments.argv[1:] if arguments.argv[:1] == ["--"] else arguments.argv
            if not argv:
                example = f"{own_command(folder)} exec -- sam list stack-outputs --stack-name STACK"
                raise RehearsalError(f"exec needs a command, as in: {example}")
            environment = with_own_programs(redirected(os.environ, running.port, running.region))
            # Also for finding the program itself.
            os.environ["PATH"] = environment["PATH"]
            try:
                return subprocess.run(argv, env=environment, check=False).returncode
            except OSError as error:
                raise RehearsalError(f"cannot run {argv[0]}: {error.strerror}") from error
    return 0


def _running(folder: Path) -> Running:
    running = find(folder)
    if running is None:
        raise RehearsalError(f"Not running; start it with: {own_command(folder)} up")
    return running


def _shell_commands(running: Running) -> str:
    """Return commands of bash and zsh that make a shell's environment what ``exec`` gives a command."""
    settings = {**credentials(running.port, running.region), **without_proxy(os.environ)}
    present = [name for name in os.environ if name.startswith("AWS_") and name.isidentifier() and name.isascii()]
    unwanted = sorted({*WELL_KNOWN, *present} - set(settings))
    return "\n".join(
        [f"unset {' '.join(unwanted)}", *(f"export {name}={shlex.quote(value)}" for name, value in settings.items())]
    )


def _describe(running: Running, folder: Path) -> dict[str, Any]:
    environment = redirected(os.environ, running.port, running.region)
    os.environ.clear()
    os.environ.update(environment)
    import boto3

    def listed(service: str, operation: str, key: str, **fields: str) -> list[dict[str, Any]]:
        pages = boto3.client(service).get_paginator(operation).paginate()  # type: ignore[call-overload]
        return [{name: item.get(field) for name, field in fields.items()} for page in pages for item in page[key]]

    return {
        "rehearsal": {
            "endpoint_url": running.endpoint_url,
            "process": running.supervisor,
            "log": str(folder / LOG_FILE),
        },
        "stacks": listed("cloudformation", "describe_stacks", "Stacks", name="StackName", status="StackStatus"),
        "functions": listed(
            "lambda", "list_functions", "Functions", name="FunctionName", memory="MemorySize", timeout="Timeout"
        ),
        "endpoints": listed("sagemaker", "list_endpoints", "Endpoints", name="EndpointName", status="EndpointStatus"),
        "alarms": listed(
            *("cloudwatch", "describe_alarms", "MetricAlarms"),
            name="AlarmName",
            status="StateValue",
            reason="StateReason",
        ),
    }


def _print_status(described: dict[str, Any]) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    class Piped(Console):
        def on_broken_pipe(self) -> NoReturn:
            raise BrokenPipeError

    width = None if sys.stdout.isatty() or os.environ.get("COLUMNS") else 120
    console = Piped(highlight=False, width=width)
    own = described["rehearsal"]
    console.print(f"up at {own['endpoint_url']}, process {own['process']}, log {own['log']}", soft_wrap=True)
    table = Table(box=None, pad_edge=False, show_header=False)
    table.add_column(no_wrap=True)
    table.add_column(max_width=48)  # gets narrower first
    table.add_column(no_wrap=True)
    table.add_column(ratio=1)
    for kind in ("stacks", "functions", "endpoints", "alarms"):
        for item in described[kind]:
            status = item.get("status") or f"{item['memory']} MB, {item['timeout']} s"
            style = next((style for words, style in _STYLES if any(word in status for word in words)), "")
            name = Text(item["name"], no_wrap=True, overflow="ellipsis")
            reason = Text(item.get("reason") or "", no_wrap=True, overflow="ellipsis")
            table.add_row(kind.removesuffix("s"), name, Text(status, style), reason)
    console.print(table)


if __name__ == "__main__":
    sys.exit(main())
