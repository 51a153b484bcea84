"""The sample events through the real ``sam local invoke``, with functions in containers and AWS in rehearsal.

Run with ``make test-docker``; skipped where no Docker engine answers.
"""

import json
import platform
import re
from collections.abc import Callable, Iterator
from typing import Any

import docker
import pytest
from docker.errors import DockerException
from samcli.yamlhelper import yaml_parse

from rehearsal.lifecycle import down, up
from tests.support.stack import REPOSITORY, STACK, Rehearsal, deploy_endpoint

EVENTS = REPOSITORY / "events"
#: This machine's name in containers, as Docker Desktop has it, too.
HOST = "host.docker.internal"
ARCHITECTURE = "arm64" if platform.machine() in ("aarch64", "arm64") else "x86_64"
RUNTIME_IMAGE = f"public.ecr.aws/lambda/python:3.13-{ARCHITECTURE}"


def sample(name: str) -> Any:
    return json.loads((EVENTS / f"{name}.json").read_text())


def unplaced(event: Any) -> Any:
    """Return an event without what names its bucket, which has another name in each stack."""
    return {name: value for name, value in event.items() if name not in ("s3_bucket", "image_id")}


#: What each event gives: keys and values of a result, or the name of an error.
PROMISES = {
    "serialize": unplaced(sample("classify")),
    "serialize-invalid-event": {"errorType": "InvalidEvent"},
    "serialize-missing-object": {"errorType": "ObjectNotFound"},
    "serialize-not-an-image": {"errorType": "UnsupportedImage"},
    "classify": {"label": "bicycle"},
    "classify-not-an-image": {"errorType": "InvalidInference"},
    "filter-accepted": unplaced(sample("filter-accepted")),
    "filter-invalid-inference": {"errorType": "InvalidInference"},
    "filter-unsure": {"errorType": "ThresholdNotMet"},
}
EVENT_NAMES = [path.stem for path in sorted(EVENTS.glob("*.json")) if re.match("serialize|classify|filter", path.stem)]
Invoke = Callable[[str], Any]


@pytest.fixture(scope="module")
def host_address() -> str:
    """Return this machine's address as containers see it; skip where none can run."""
    try:
        client = docker.from_env()
        client.ping()
    except DockerException as error:
        pytest.skip(f"needs a Docker engine: start one, or set DOCKER_HOST to where one listens ({error})")
    try:
        if not client.images.list(RUNTIME_IMAGE):
            client.images.pull(RUNTIME_IMAGE)
        ask = ["python3.13", "-c", f"import socket; print(socket.gethostbyname('{HOST}'))"]
        return (
            client.containers.run(RUNTIME_IMAGE, entrypoint=ask, extra_hosts={HOST: "host-gateway"}, remove=True)
            .decode()
            .strip()
        )
    except DockerException as error:
        make = f"docker pull {RUNTIME_IMAGE}, or make a stand-in with: python -m tests.docker.make_image"
        pytest.skip(f"needs Lambda's image, which cannot be pulled from here: {make} ({error})")
    finally:
        client.close()


@pytest.fixture(scope="module")
def reachable(host_address: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Rehearsal]:
    """Return a rehearsal that containers reach, too."""
    folder = tmp_path_factory.mktemp("rehearsal") / "state"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("REHEARSAL_HOST", host_address)
        yield Rehearsal(up(folder, tied=True))
    down(folder)


@pytest.fixture(scope="module")
def invoke(reachable: Rehearsal, tmp_path_factory: pytest.TempPathFactory) -> Invoke:
    """Return a caller of functions by event, with the stack, the endpoint and the samples in place."""
    folder = tmp_path_factory.mktemp("stack")
    template, variables = folder / "build" / "template.yaml", folder / "variables.json"
    sam = ["--config-file", str(REPOSITORY / "samconfig.toml"), "--config-env", "rehearsal"]
    sam += ["--parameter-overrides", f"Architecture={ARCHITECTURE}"]
    reachable.run("sam", "build", *sam, "--build-dir", str(template.parent), "--cache-dir", str(folder / "cache"))
    reachable.run("sam", "deploy", *sam, "--template-file", str(template))
    (described,) = reachable.client("cloudformation").describe_stacks(StackName=STACK)["Stacks"]
    outputs = {output["OutputKey"]: output["OutputValue"] for output in described["Outputs"]}
    deploy_endpoint(reachable, outputs["ImageBucketName"])
    reachable.run("python", "-m", "events.prepare", "--stack-name", STACK, "--out", str(folder / "events"))

    # SAM CLI passes on only variables that the template names, and prefers its own AWS_ENDPOINT_URL to the
    # template's: in a container that one would lead nowhere.
    named = yaml_parse(template.read_text())
    named["Globals"]["Function"]["Environment"]["Variables"]["AWS_ENDPOINT_URL"] = ""
    template.write_text(json.dumps(named))
    url = f"http://{HOST}:{reachable.running.port}"
    variables.write_text(json.dumps({"Parameters": {"AWS_ENDPOINT_URL": url}}))

    def call(name: str) -> Any:
        function = name.split("-")[0].title()
        command = ["sam", "local", "invoke", function, "-e", str(folder / "events" / f"{name}.json"), *sam]
        command += ["--template", str(template), "--env-vars", str(variables)]
        # A pull of a stand-in's name fails, and offline that of the real image does, too.
        command += ["--skip-pull-image", "--add-host", f"{HOST}:host-gateway"]
        done = reachable.run(*command)
        assert done.stdout.strip(), done.stderr
        return json.loads(done.stdout)

    return call


@pytest.mark.parametrize("name", EVENT_NAMES)
def test_a_sample_event_gives_what_its_name_promises(name: str, invoke: Invoke) -> None:
    outcome = invoke(name)
    assert outcome == {**outcome, **PROMISES[name]}
    assert ("errorType" in outcome) == ("errorType" in PROMISES[name])
