"""The stack, deployed by the commands that a user types."""

import sys
from collections.abc import Iterator

import pytest

from tests.support.stack import ENVIRONMENT, STACK, Rehearsal, Stack, deploy_endpoint, empty


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
