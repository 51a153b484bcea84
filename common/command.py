"""Shared by the command lines: exit codes, error messages, and the types of arguments."""

import argparse
import datetime
import logging
import sys
import warnings
from collections.abc import Callable
from typing import TypeVar

from common.errors import CommandError

Value = TypeVar("Value")


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
    except OSError as error:
        return _fail(str(error))
    except Exception as error:
        # By name: many commands work where boto3 is not installed.
        if type(error).__name__ in ("NoCredentialsError", "NoRegionError"):
            return _fail(f"AWS: {error} (set AWS_PROFILE and AWS_REGION)")
        if type(error).__module__.split(".")[0] in ("botocore", "boto3"):
            return _fail(f"AWS: {error}")
        raise


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
