"""The command line itself: help, exit codes, and what it may not need."""

import dataclasses
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from common.errors import CommandError
from tests.support.stack import HANG_SECONDS
from training.__main__ import main
from training.deployment.settings import Deployment

REPOSITORY = Path(__file__).parents[2]
ROLE = "arn:aws:iam::123456789012:role/serving"
IMAGE = "123456789012.dkr.ecr.eu-west-1.amazonaws.com/classifier:1"


COMMANDS = [
    "stage",
    "train",
    "evaluate",
    "register",
    "approve",
    "reject",
    "deploy",
    "rollback",
    "status",
    "preflight",
    "improve",
    "remove",
]


@pytest.mark.parametrize("command", [[], *([name] for name in COMMANDS)])
def test_help(command: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as exit_:
        main([*command, "--help"])
    assert exit_.value.code == 0
    assert "usage: python -m training" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        ([], "required: COMMAND"),
        (["fly"], "invalid choice: 'fly'"),
        (["stage", "--neither-limit", "-1"], "'-1' is not a whole number"),
        (["train", "--epochs", "0"], "'0' is not a whole number of at least 1"),
        (["deploy"], "--endpoint-name"),
    ],
)
def test_wrong_arguments_exit_with_two(arguments: list[str], reason: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as exit_:
        main(arguments)
    assert exit_.value.code == 2
    assert reason in capsys.readouterr().err


@pytest.mark.parametrize(
    ("command", "absent"),
    [
        (["train", "--data", "/nonexistent"], "torch"),
        (["stage", "--source", "/nonexistent"], "boto3"),
        (["stage", "--source", "/nonexistent"], "torch"),
        (["remove", "--endpoint-name", "X"], "torch"),
    ],
)
def test_each_command_needs_only_its_own_libraries(tmp_path: Path, command: list[str], absent: str) -> None:
    """A missing library is reported in one line, by the commands that use it only."""
    (tmp_path / f"{absent}.py").write_text(f"raise ModuleNotFoundError(name={absent!r})")
    done = subprocess.run(
        [sys.executable, "-m", "training", *command],
        cwd=REPOSITORY,
        env={**os.environ, "PYTHONPATH": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=HANG_SECONDS,
        check=False,
    )
    assert done.returncode == 1
    assert done.stderr.startswith("error: ")
    assert done.stderr.count("\n") == 1
    assert ("pip install -r training/requirements.txt" in done.stderr) == (command[0] == "train")


def test_progress_is_plain_lines_without_a_terminal(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from common import progress as module

    monkeypatch.setattr(module, "LINE_SECONDS", 0.0)
    with module.progress("read", 4, "images") as advance:
        advance(1)
    assert capsys.readouterr().err == "read: 1 of 4 (25%) images, 0 s\n"


@pytest.mark.parametrize("redirected", [True, False], ids=["stdout in a file", "stdout on the terminal"])
def test_what_is_printed_beside_a_bar_arrives_on_stdout(tmp_path: Path, redirected: bool) -> None:
    code = "from common.progress import progress\nwith progress('read', 2) as advance: print('a line'); advance(1)"
    leader, follower = os.openpty()
    with (tmp_path / "stdout").open("w") as file:
        subprocess.run(
            [sys.executable, "-c", code],
            cwd=REPOSITORY,
            env={**os.environ, "TERM": "xterm"},
            stdout=file if redirected else follower,
            stderr=follower,
            timeout=HANG_SECONDS,
            check=True,
        )
    shown = os.read(leader, 100_000).decode()
    os.close(leader)
    os.close(follower)
    assert "read" in shown and "1/2" in shown
    if redirected:
        assert (tmp_path / "stdout").read_text() == "a line\n" and "a line" not in shown
    else:
        # The bar is wiped (ESC [ 2 K) from the line that is printed on.
        assert "\x1b[2Ka line\r\n" in shown


@pytest.mark.parametrize(
    ("field", "value", "reason"),
    [
        ("endpoint_name", "Image-Classifier", "lower-case"),
        ("endpoint_name", "-x", "lower-case"),
        ("endpoint_name", "x" * 51, "at most 50"),
        ("bucket", "s3://models", "omit s3:// and the path"),
        ("role_arn", "serving", "arn:aws:iam::123456789012:role/NAME"),
        ("role_arn", "arn:aws:iam::123456789012:user/me", "not a role ARN"),
        ("image_uri", "classifier:latest", "dkr.ecr.REGION"),
        ("image_uri", IMAGE.removesuffix(":1"), "tag or digest"),
        ("model", Path("/nonexistent.onnx"), "does not exist"),
        ("instance_type", "m5.xlarge", "begin with ml."),
        ("instance_count", 0, "at least one"),
        ("capture_percentage", 101, "between 0 and 100"),
    ],
)
def test_wrong_settings_are_refused_before_anything_happens(
    tmp_path: Path, field: str, value: Any, reason: str
) -> None:
    (tmp_path / "model.onnx").write_bytes(b"a model")
    wanted = Deployment("image-classifier", "models", ROLE, IMAGE, tmp_path / "model.onnx")
    with pytest.raises(CommandError, match=reason):
        dataclasses.replace(wanted, **{field: value})
