"""Command line of the rehearsal: ``python -m rehearsal up|down|status|env|exec|patches``."""

import argparse
import os
import shlex
import signal
import subprocess
import sys
from pathlib import Path

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
    parser = argparse.ArgumentParser(prog="python -m rehearsal", description="AWS on this machine.")
    parser.add_argument("--folder", type=Path, default=FOLDER, help="where its state lives (%(default)s)")
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("up", help="start it, and wait until it is ready")
    commands.add_parser("down", help="stop it and clean up")
    commands.add_parser("status", help="show whether it runs, and what is deployed in it")
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
            _print_status(running, folder)
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


def _print_status(running: Running, folder: Path) -> None:
    environment = redirected(os.environ, running.port, running.region)
    os.environ.clear()
    os.environ.update(environment)
    import boto3

    print(f"up at {running.endpoint_url}, process {running.supervisor}, log {folder / LOG_FILE}")
    for stack in boto3.client("cloudformation").describe_stacks()["Stacks"]:
        print(f"stack     {stack['StackName']}  {stack['StackStatus']}")
    for function in boto3.client("lambda").list_functions()["Functions"]:
        print(f"function  {function['FunctionName']}  {function['MemorySize']} MB, {function['Timeout']} s")
    for endpoint in boto3.client("sagemaker").list_endpoints()["Endpoints"]:
        print(f"endpoint  {endpoint['EndpointName']}  {endpoint['EndpointStatus']}")
    for alarm in boto3.client("cloudwatch").describe_alarms()["MetricAlarms"]:
        print(f"alarm     {alarm['AlarmName']}  {alarm['StateValue']}  {alarm['StateReason']}")


if __name__ == "__main__":
    sys.exit(main())
