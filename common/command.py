"""What the command lines of training and monitoring share: how they fail, and numbers that they take."""

import argparse
import datetime
import logging
import sys
import warnings

from common.errors import CommandError


def run(parser: argparse.ArgumentParser, arguments: list[str] | None, interrupted: str = "interrupted") -> int:
    """Run the command that was asked for; what goes wrong becomes one line.

    Parameters
    ----------
    parser : argparse.ArgumentParser
        Its commands have a default ``run``, which takes the options and may return an exit code.
    arguments : list of str or None
        None takes those of the process.
    interrupted : str
        What to say on Ctrl-C.

    Returns
    -------
    int
        0 done, 1 failed, or what the command returned. argparse itself ends with 2 what it does not understand.
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
        # By name: much works where boto3 is not installed.
        if type(error).__name__ in ("NoCredentialsError", "NoRegionError"):
            return _fail(f"AWS: {error} (set AWS_PROFILE and AWS_REGION)")
        if type(error).__module__.split(".")[0] in ("botocore", "boto3"):
            return _fail(f"AWS: {error}")
        raise


def _fail(reason: str) -> int:
    print(f"error: {reason}", file=sys.stderr)
    return 1


def printable(name: str, longest: int | None = None) -> str:
    """Return a file's name in a form that can be printed anywhere, as one line.

    Control characters, invisible ones and bytes that are no UTF-8 become escapes such as ``\\n``.

    Parameters
    ----------
    name : str
        As the file system has it.
    longest : int or None
        A name of more characters loses its middle.
    """
    escaped = "".join(
        char if char.isprintable() else char.encode("unicode_escape", "surrogatepass").decode() for char in name
    )
    if longest and len(escaped) > longest:
        half = (longest - 1) // 2
        return f"{escaped[:half]}…{escaped[-half:]}"
    return escaped


def count(text: str) -> int:
    """Take a whole number of at least 0."""
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number of at least 0")
    return int(text)


def positive_int(text: str) -> int:
    """Take a whole number of at least 1."""
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number of at least 1")
    return int(text)


def share(text: str) -> float:
    """Take a number from 0 to 1."""
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 <= value <= 1:  # not-a-number is refused too
        raise argparse.ArgumentTypeError(f"{text!r} is not a number from 0 to 1")
    return value


def positive(text: str) -> float:
    """Take a positive number."""
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0 < value < 1e6:
        raise argparse.ArgumentTypeError(f"{text!r} is not a positive number")
    return value


def retention_days(text: str) -> float:
    """Take a number of days that SQS keeps messages for at least."""
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 <= value < 14:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of days from 0 to under 14")
    return value


def port(text: str) -> int:
    """Take a port's number."""
    if not text.isdecimal() or int(text) > 65535:
        raise argparse.ArgumentTypeError(f"{text!r} is not a port's number")
    return int(text)


def moment(text: str) -> datetime.datetime:
    """Take a point in time, in this machine's time zone if it names none."""
    try:
        time = datetime.datetime.fromisoformat(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"{text!r} is not a time like 2026-11-23T12:00:00+00:00") from error
    return time if time.tzinfo else time.astimezone()
