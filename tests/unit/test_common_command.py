"""Types of arguments, and the errors that all command lines share."""

import argparse
import datetime
import importlib
import io
import os
import re
import shlex
import signal
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import boto3
import pytest
from botocore.exceptions import ClientError, EndpointConnectionError, NoRegionError, TokenRetrievalError
from moto import mock_aws

from common import command, storage
from common.errors import CommandError
from tests.support.stack import HANG_SECONDS, REPOSITORY


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


def run(raised: Exception) -> str:
    """Return what a command prints that raises an error, as one line."""

    def fail(_: argparse.Namespace) -> None:
        raise raised

    parser = argparse.ArgumentParser()
    parser.set_defaults(run=fail)
    with pytest.MonkeyPatch.context() as patch:
        said = io.StringIO()
        patch.setattr(sys, "stderr", said)
        assert command.run(parser, []) == 1
    (line,) = said.getvalue().splitlines()
    return line


@pytest.mark.parametrize(
    "error",
    [
        ClientError({"Error": {"Code": "ExpiredToken", "Message": "is expired"}}, "DescribeStacks"),
        ClientError({"Error": {"Code": "ExpiredTokenException", "Message": "is expired"}}, "StartExecution"),
        TokenRetrievalError(provider="sso", error_msg="Token has expired and refresh failed"),
    ],
)
def test_expired_credentials_are_named_as_that(error: Exception) -> None:
    assert "your credentials have expired; log in again" in run(error)


def test_the_variable_that_is_named_for_the_region_sets_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("AWS_DEFAULT_REGION", raising=False)
    with pytest.raises(NoRegionError) as missing:
        boto3.session.Session().client("stepfunctions")
    said = run(missing.value)
    (variable,) = re.findall(r"AWS_\w*REGION", said)
    monkeypatch.setenv(variable, "eu-west-1")
    assert boto3.session.Session().client("stepfunctions").meta.region_name == "eu-west-1"


def test_a_local_endpoint_that_is_down_is_named_as_that(monkeypatch: pytest.MonkeyPatch) -> None:
    url = "http://localhost:9"
    error = EndpointConnectionError(endpoint_url=f"{url}/")
    assert "rehearsal" not in run(error), "it is AWS that does not answer"
    monkeypatch.setenv("AWS_ENDPOINT_URL", url)
    assert f"nothing answers at {url}" in run(error) and "If that was a rehearsal, it is down" in run(error)


def test_errors_of_s3_name_the_address(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    calls: list[Callable[[], Any]] = [
        lambda: list(storage.files("s3://no-such-bucket/a")),
        lambda: storage.folders("s3://no-such-bucket/a"),
        lambda: list(storage.lines("s3://no-such-bucket/a")),
        lambda: storage.read("s3://no-such-bucket/a"),
        lambda: storage.write("s3://no-such-bucket/a", b"", "text/plain"),
    ]
    with mock_aws():
        storage._s3.cache_clear()
        for call in calls:
            with pytest.raises((ClientError, CommandError), match="s3://no-such-bucket/a"):
                call()
    storage._s3.cache_clear()


@pytest.mark.parametrize(
    "arguments",
    [
        *(["-m", module, "--help"] for module in ("training", "monitoring", "operations", "events.prepare", "demo")),
        ["-m", "rehearsal", "patches"],
        ["-m", "benchmarks.cost"],
        ["-m", "benchmarks.drift", "--help"],
        ["-c", "import sys; from common.command import *; sys.exit(quietly(lambda: console().print('x')))"],
    ],
    ids=" ".join,
)
def test_output_that_nothing_reads_ends_a_command_silently(arguments: list[str]) -> None:
    read, write = os.pipe()
    os.close(read)
    done = subprocess.run(
        [sys.executable, *arguments],
        cwd=REPOSITORY,
        stdout=write,
        stderr=subprocess.PIPE,
        text=True,
        timeout=HANG_SECONDS,
        check=False,
    )
    os.close(write)
    assert done.stderr == ""
    assert done.returncode == 128 + signal.SIGPIPE


@pytest.mark.parametrize("package", ["training", "monitoring", "operations"])
def test_each_help_has_the_required_options_apart_and_an_example_that_is_accepted(package: str) -> None:
    parser = importlib.import_module(f"{package}.__main__")._parser()
    command._arrange_help(parser)
    (commands,) = [action for action in parser._actions if isinstance(action, argparse._SubParsersAction)]
    for name, each in commands.choices.items():
        text = each.format_help()
        assert each.epilog and text.endswith(f"\n\n{each.epilog}\n"), name
        arguments = shlex.split(each.epilog.removeprefix(f"example: {parser.prog} "))
        assert parser.parse_args(arguments).run
        required = {option for action in each._actions if action.required for option in action.option_strings}
        apart = text.partition("required options:")[2].partition("\n\n")[0]
        assert {word for word in apart.split() if word.startswith("--")} >= required, name


def test_tables_are_as_wide_as_columns_says(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("COLUMNS", raising=False)
    assert command.console().width == 120
    monkeypatch.setenv("COLUMNS", "70")
    assert command.console().width == 70
