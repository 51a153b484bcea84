"""Types of arguments, and the errors that all command lines share."""

import argparse
import datetime
from collections.abc import Callable
from typing import Any

import pytest

from common import command
from common.errors import CommandError


@pytest.mark.parametrize(
    ("parse", "valid", "invalid"),
    [
        (command.non_negative_int, {"0": 0, "12": 12}, ["-1", "1.5", "x", ""]),
        (command.positive_int, {"1": 1}, ["0", "-1", "1e3"]),
        (command.fraction, {"0": 0.0, "0.7": 0.7, "1": 1.0}, ["-0.1", "1.01", "nan", "x"]),
        (command.positive_float, {"0.5": 0.5}, ["0", "-1", "inf", "nan"]),
        (command.port, {"0": 0, "65535": 65535}, ["65536", "-1", "http"]),
        (command.retention_days, {"0": 0.0, "13.9": 13.9}, ["14", "-1", "nan"]),
        (
            command.time,
            {"2026-11-23T12:00:00+01:00": datetime.datetime(2026, 11, 23, 11, tzinfo=datetime.UTC)},
            ["yesterday", "12:00"],
        ),
    ],
)
def test_an_argument_is_converted_or_rejected_with_what_was_expected(
    parse: Callable[[str], Any], valid: dict[str, Any], invalid: list[str]
) -> None:
    assert {text: parse(text) for text in valid} == valid
    for text in invalid:
        with pytest.raises(argparse.ArgumentTypeError, match=f"^'{text}' is not a"):
            parse(text)


def test_a_time_without_a_zone_is_local() -> None:
    assert command.time("2026-11-23T12:00:00") == datetime.datetime(2026, 11, 23, 12).astimezone()


def test_an_option_without_the_one_that_it_needs_is_rejected() -> None:
    options = argparse.Namespace(images=None, model="m", exit_zero=False, execution="e")
    command.only_with(options, "--images", "--exit-zero")
    command.only_with(options, "EXECUTION", "--model")
    with pytest.raises(CommandError, match=r"^--model can only be used with --images$"):
        command.only_with(options, "--images", "--exit-zero", "--model")
