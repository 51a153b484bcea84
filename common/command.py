"""Shared by the command lines: exit codes, error messages, and the types of arguments."""

import argparse
import datetime
import logging
import os
import signal
import sys
import warnings
from collections.abc import Callable
from typing import TYPE_CHECKING, NoReturn, TypeVar

from common.errors import CommandError

if TYPE_CHECKING:
    from rich.console import Console
    from rich.text import Text

Value = TypeVar("Value")
#: Codes of the services, and names of the SDK's own errors: credentials that were valid once.
_EXPIRED = {
    *("ExpiredToken", "ExpiredTokenException", "RequestExpired"),
    *("UnauthorizedSSOTokenError", "SSOTokenLoadError", "TokenRetrievalError"),
    *("LoginRefreshRequired", "LoginTokenLoadError"),
}
#: Width of tables that do not go to a terminal.
_WIDTH = 120


def run(parser: argparse.ArgumentParser, arguments: list[str] | None, interrupted: str = "interrupted") -> int:
    """Parse the arguments and run the chosen command; print an expected error as one line.

    Parameters
    ----------
    parser : argparse.ArgumentParser
        Its commands have a default ``run``, which takes the options and may return an exit code.
    arguments : list of str or None
        None takes those of the process.
    interrupted : str
        Message after Ctrl-C.

    Returns
    -------
    int
        0 success, 1 failure, or what the command returned. argparse itself exits with 2 on arguments that it rejects.
    """
    return quietly(lambda: _run(parser, arguments, interrupted))


def _run(parser: argparse.ArgumentParser, arguments: list[str] | None, interrupted: str) -> int:
    _arrange_help(parser)
    options = parser.parse_args(arguments)
    # Pillow's remarks on damaged metadata do not name the image, and pixels that cannot be read are reported anyway.
    warnings.filterwarnings("ignore", module=r"PIL\.")
    logging.getLogger("PIL").setLevel(logging.CRITICAL)
    try:
        return int(options.run(options) or 0)
    except CommandError as error:
        return _fail(str(error))
    except KeyboardInterrupt:
        return _fail(interrupted)
    except BrokenPipeError:
        raise
    except OSError as error:
        return _fail(str(error))
    except Exception as error:
        # By name: many commands work where boto3 is not installed.
        if type(error).__module__.split(".")[0] in ("botocore", "boto3"):
            return _fail(f"AWS: {explain_aws(error)}")
        raise


class _Help(argparse.HelpFormatter):
    """Breaks all texts but examples, which are copied, into lines."""

    def _fill_text(self, text: str, width: int, indent: str) -> str:
        return text if text.startswith("example: ") else super()._fill_text(text, width, indent)


def add_examples(commands: "argparse._SubParsersAction[argparse.ArgumentParser]", examples: dict[str, str]) -> None:
    """Add an example to the help of commands.

    Parameters
    ----------
    commands : argparse._SubParsersAction
        The commands of a program.
    examples : dict
        The arguments of each, by the command's name.
    """
    for name, arguments in examples.items():
        command = commands.choices[name]
        command.epilog = f"example: {command.prog} {arguments}"


def _arrange_help(parser: argparse.ArgumentParser) -> None:
    """List the options that must be given before the others in the help of every command, and keep examples whole."""
    parser.formatter_class = _Help
    # argparse adds an option to a group only when it creates it.
    required = [action for action in parser._optionals._group_actions if action.required]
    if required:
        group = parser.add_argument_group("required options")
        group._group_actions += required
        parser._optionals._group_actions = [a for a in parser._optionals._group_actions if a not in required]
        parser._action_groups.insert(1, parser._action_groups.pop())
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for command in dict.fromkeys(action.choices.values()):
                _arrange_help(command)


def quietly(main: Callable[[], int | None]) -> int:
    """Run a program; exit silently if nothing reads its output any more, as in ``trace … | head``.

    Parameters
    ----------
    main : callable
        The program; returns its exit code, or None for 0.

    Returns
    -------
    int
        The exit code; that of a program which SIGPIPE ended if nothing reads the output.
    """
    try:
        try:
            return main() or 0
        finally:
            sys.stdout.flush()
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # what is left must not fail at the end
        return 128 + signal.SIGPIPE


def has_expired(error: Exception) -> bool:
    """Return whether an error of AWS or its SDK says that the credentials have expired."""
    code = getattr(error, "response", {}).get("Error", {}).get("Code", "")
    return bool({type(error).__name__, code} & _EXPIRED)


def explain_aws(error: Exception) -> str:
    """Return the message of an error of AWS or its SDK, with what to do where that is known.

    Parameters
    ----------
    error : Exception
        Of botocore or boto3.
    """
    name, text = type(error).__name__, str(error)
    if name in ("NoCredentialsError", "NoRegionError"):
        return f"{text} (set AWS_PROFILE and AWS_DEFAULT_REGION)"  # boto3 ignores AWS_REGION
    if has_expired(error):
        return f"your credentials have expired; log in again (aws sso login, or renew the keys of your profile): {text}"
    own = os.environ.get("AWS_ENDPOINT_URL", "")
    if name in ("EndpointConnectionError", "ConnectTimeoutError", "ConnectionClosedError") and own and own in text:
        return (
            f"nothing answers at {own}, where AWS_ENDPOINT_URL sends all requests. If that was a rehearsal, it is "
            "down: start it and set its environment again, or open a new shell to reach AWS"
        )
    return text


def console() -> "Console":
    """Return a console that is as wide as the terminal, or as ``COLUMNS`` says, or else 120 characters."""
    from rich.console import Console

    class Piped(Console):
        def on_broken_pipe(self) -> NoReturn:
            raise BrokenPipeError

    width = None if sys.stdout.isatty() or os.environ.get("COLUMNS") else _WIDTH
    return Piped(highlight=False, width=width)


def name_cell(text: str, style: str = "", max_length: int | None = None) -> "Text":
    """Return the cell of a table for a name, safe to print: it is shortened before any other column gets narrower."""
    from rich.text import Text

    return Text(printable(text, max_length), style, no_wrap=True, overflow="ellipsis")


def _fail(reason: str) -> int:
    print(f"error: {reason}", file=sys.stderr)
    return 1


def only_with(options: argparse.Namespace, needed: str, *dependents: str) -> None:
    """Reject options that have no effect without another argument.

    Parameters
    ----------
    options : argparse.Namespace
        The parsed arguments.
    needed, dependents : str
        Arguments as the help shows them, such as ``--faults`` or ``EXECUTION``.

    Raises
    ------
    CommandError
        One of `dependents` is given, and `needed` is not.
    """

    def given(argument: str) -> bool:
        return getattr(options, argument.lstrip("-").replace("-", "_").lower()) not in (None, False)

    for dependent in dependents:
        if given(dependent) and not given(needed):
            raise CommandError(f"{dependent} can only be used with {needed}")


def printable(text: str, max_length: int | None = None) -> str:
    """Return a text on one line that is safe to print: names, keys and log lines may hold anything.

    Control characters, invisible ones and bytes that are not UTF-8 become escapes such as ``\\n``.

    Parameters
    ----------
    text : str
        Any text, such as a file name from the file system.
    max_length : int or None
        A longer text loses its middle.
    """
    escaped = "".join(
        char if char.isprintable() else char.encode("unicode_escape", "surrogatepass").decode() for char in text
    )
    if max_length and len(escaped) > max_length:
        half = (max_length - 1) // 2
        return f"{escaped[:half]}…{escaped[-half:]}"
    return escaped


def checked(convert: Callable[[str], Value], accepts: Callable[[Value], bool], expected: str) -> Callable[[str], Value]:
    """Make a type of argument.

    Parameters
    ----------
    convert : callable
        Converts the text; raises ValueError if it cannot.
    accepts : callable
        Returns whether a converted value is valid. A comparison with not-a-number is false.
    expected : str
        Valid values, for the error message.
    """

    def parse(text: str) -> Value:
        try:
            value = convert(text)
        except ValueError:
            pass
        else:
            if accepts(value):
                return value
        raise argparse.ArgumentTypeError(f"{text!r} is not {expected}")

    return parse


def _time(text: str) -> datetime.datetime:
    time = datetime.datetime.fromisoformat(text)
    return time if time.tzinfo else time.astimezone()


non_negative_int = checked(int, lambda value: value >= 0, "a whole number of at least 0")
positive_int = checked(int, lambda value: value >= 1, "a whole number of at least 1")
fraction = checked(float, lambda value: 0 <= value <= 1, "a number from 0 to 1")
positive_float = checked(float, lambda value: 0 < value < 1e6, "a positive number")
port = checked(int, lambda value: 0 <= value <= 65535, "a port number")
#: SQS keeps messages for at most 14 days.
retention_days = checked(float, lambda value: 0 <= value < 14, "a number of days from 0 to under 14")
#: In this machine's time zone if the text names none.
time = checked(_time, lambda _: True, "a time like 2026-11-23T12:00:00+00:00")
