"""The stack, deployed by the commands that a user types, and a copy of the repository."""

import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.stack import ENVIRONMENT, REPOSITORY, STACK, Rehearsal, Stack, deploy_endpoint, empty


@pytest.fixture(scope="session")
def stack(rehearsal: Rehearsal) -> Iterator[Stack]:
    """Deploy the stack and its endpoint once; the last test of test_stack.py takes them away."""
    rehearsal.run("sam", "build")
    said = rehearsal.run("sam", "deploy", *ENVIRONMENT).stdout
    (described,) = rehearsal.client("cloudformation").describe_stacks(StackName=STACK)["Stacks"]
    outputs = {output["OutputKey"]: output["OutputValue"] for output in described["Outputs"]}
    deploy_endpoint(rehearsal, outputs["ImageBucketName"])
    rehearsal.run(sys.executable, "-m", "events.prepare", "--stack-name", STACK)
    yield Stack(rehearsal, outputs, said)
    if STACK in str(rehearsal.client("cloudformation").describe_stacks()["Stacks"]):
        rehearsal.run(sys.executable, "-m", "training", "remove", "--endpoint-name", "image-classifier", check=False)
        empty(rehearsal, outputs["ImageBucketName"])
        rehearsal.client("cloudformation").delete_stack(StackName=STACK)


@pytest.fixture(scope="module")
def clone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a copy of the repository without what was made in it, with this environment as its .venv."""
    folder = tmp_path_factory.mktemp("clone") / "repository"
    ignored = [line.rstrip("/") for line in (REPOSITORY / ".gitignore").read_text().splitlines()]
    shutil.copytree(REPOSITORY, folder, ignore=shutil.ignore_patterns(".git", *ignored))
    (folder / ".venv").symlink_to(Path(sys.prefix))
    return folder
