"""Deploying to SageMaker: moto where it answers, a stub where it does not."""

import dataclasses
import io
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import boto3
import pytest
from botocore.exceptions import ClientError
from botocore.stub import Stubber
from moto import mock_aws

from training import deploy as module
from training.__main__ import main
from training.deploy import Deployment, deploy, pack, remove
from training.errors import CommandError

NAME = "image-classifier"
ROLE = "arn:aws:iam::123456789012:role/serving"
IMAGE = "123456789012.dkr.ecr.eu-west-1.amazonaws.com/classifier:1"


@pytest.fixture(autouse=True)
def aws(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("AWS_DEFAULT_REGION", "eu-west-1")
    monkeypatch.setattr(module, "FIRST_POLL_SECONDS", 0.0)
    with mock_aws():
        boto3.client("s3").create_bucket(Bucket="models", CreateBucketConfiguration={"LocationConstraint": "eu-west-1"})
        yield


@pytest.fixture
def wanted(tmp_path: Path) -> Deployment:
    (tmp_path / "model.onnx").write_bytes(b"a model")
    return Deployment(NAME, "models", ROLE, IMAGE, tmp_path / "model.onnx")


@pytest.fixture
def said() -> list[str]:
    return []


def names() -> tuple[list[str], list[str], list[str]]:
    """Endpoints, configurations and models that exist."""
    client = boto3.client("sagemaker")
    return (
        [item["EndpointName"] for item in client.list_endpoints()["Endpoints"]],
        [item["EndpointConfigName"] for item in client.list_endpoint_configs()["EndpointConfigs"]],
        [item["ModelName"] for item in client.list_models()["Models"]],
    )


def test_packing_is_deterministic(tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / name).write_bytes(b"same")
    first = pack(tmp_path / "a")
    assert first == pack(tmp_path / "b")
    with tarfile.open(fileobj=io.BytesIO(first)) as tar:
        assert tar.getnames() == ["model.onnx"]
        file = tar.extractfile("model.onnx")
        assert file
        assert file.read() == b"same"


def test_a_new_endpoint(wanted: Deployment, said: list[str]) -> None:
    config = deploy(wanted, said.append)
    assert names() == ([NAME], [config], [config])
    client = boto3.client("sagemaker")
    described = client.describe_endpoint_config(EndpointConfigName=config)
    variant = described["ProductionVariants"][0]
    assert (variant["VariantName"], variant["InstanceType"], variant["InitialInstanceCount"]) == (
        "AllTraffic",
        "ml.m5.xlarge",
        1,
    )
    assert described["DataCaptureConfig"] == {
        "EnableCapture": True,
        "InitialSamplingPercentage": 100,
        "DestinationS3Uri": "s3://models/capture",
        "CaptureOptions": [{"CaptureMode": "Input"}, {"CaptureMode": "Output"}],
        "CaptureContentTypeHeader": {"JsonContentTypes": ["application/json"]},
    }
    model = client.describe_model(ModelName=config)
    assert model["ExecutionRoleArn"] == ROLE
    assert model["PrimaryContainer"]["Image"] == IMAGE
    bucket, key = model["PrimaryContainer"]["ModelDataUrl"].removeprefix("s3://").split("/", 1)
    assert boto3.client("s3").get_object(Bucket=bucket, Key=key)["Body"].read() == pack(wanted.model)


def test_the_same_deployment_again_does_nothing(wanted: Deployment, said: list[str]) -> None:
    config = deploy(wanted, said.append)
    said.clear()
    assert deploy(wanted, said.append) == config
    assert names() == ([NAME], [config], [config])
    assert said[-1].endswith("nothing to do")
    assert "is there already" in said[0]


class Fake:
    """A SageMaker client whose endpoint goes through given states; everything else is moto's."""

    def __init__(self, *answers: dict[str, Any]) -> None:
        self.real = boto3.client("sagemaker")
        self.answers = list(answers)
        self.calls: list[str] = []

    def __getattr__(self, name: str) -> Any:
        def call(**arguments: Any) -> Any:
            self.calls.append(name)
            if name == "describe_endpoint":
                answer = self.answers.pop(0)
                if not answer:
                    raise ClientError(
                        {"Error": {"Code": "ValidationException", "Message": 'Could not find endpoint "x".'}}, name
                    )
                return answer
            if name in ("create_endpoint", "update_endpoint", "delete_endpoint"):
                return {}
            return getattr(self.real, name)(**arguments)

        return call


def install(monkeypatch: pytest.MonkeyPatch, sagemaker: Any) -> None:
    real = boto3.client
    monkeypatch.setattr(boto3, "client", lambda name, **more: sagemaker if name == "sagemaker" else real(name, **more))


def state(status: str, config: str = "x", **more: str) -> dict[str, Any]:
    return {"EndpointStatus": status, "EndpointConfigName": config, **more}


def test_a_failed_creation_shows_the_reason_and_cleans_up(
    wanted: Deployment, said: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    fake = Fake({}, state("Creating"), state("Failed", FailureReason="the ping was not answered"))
    install(monkeypatch, fake)
    with pytest.raises(CommandError, match="the ping was not answered"):
        deploy(wanted, said.append)
    assert fake.calls[-3:] == ["delete_endpoint", "delete_endpoint_config", "delete_model"]
    assert names() == ([], [], [])
    assert said[-1] == "removed what this deployment had created"


def test_an_update_keeps_the_endpoint_and_the_old_configuration(
    wanted: Deployment, said: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    old = deploy(wanted, said.append)
    wanted.model.write_bytes(b"a better model")
    new = expected_config(wanted)
    real = boto3.client("sagemaker")
    with Stubber(real) as stub:
        arn = {"EndpointArn": "arn:aws:sagemaker:eu-west-1:123456789012:endpoint/image-classifier"}

        def endpoint(status: str, config: str) -> dict[str, Any]:
            times = {"CreationTime": "2026-01-01", "LastModifiedTime": "2026-01-01"}
            return {"EndpointName": NAME, "EndpointConfigName": config, "EndpointStatus": status, **arn, **times}

        stub.add_response("describe_endpoint", endpoint("InService", old))
        stub.add_client_error("describe_model", "ValidationException", "Could not find model")
        stub.add_response("create_model", {"ModelArn": "arn:aws:sagemaker:eu-west-1:123456789012:model/m"})
        stub.add_client_error("describe_endpoint_config", "ValidationException", "Could not find it")
        config_arn = {"EndpointConfigArn": "arn:aws:sagemaker:eu-west-1:123456789012:endpoint-config/c"}
        stub.add_response("create_endpoint_config", config_arn)
        stub.add_response("update_endpoint", arn, {"EndpointName": NAME, "EndpointConfigName": new})
        stub.add_response("describe_endpoint", endpoint("Updating", old))
        stub.add_response("describe_endpoint", endpoint("InService", new))
        install(monkeypatch, real)
        assert deploy(wanted, said.append) == new
        stub.assert_no_pending_responses()
    assert new != old


def expected_config(wanted: Deployment) -> str:
    import hashlib
    import json

    url = f"s3://models/models/{NAME}/{hashlib.sha256(pack(wanted.model)).hexdigest()}/model.tar.gz"
    text = json.dumps(module._settings(wanted, url), sort_keys=True)
    return f"{NAME}-{hashlib.sha256(text.encode()).hexdigest()[:12]}"


def test_an_update_that_was_rolled_back_fails(
    wanted: Deployment, said: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    fake = Fake(
        state("InService", "old"),
        state("Updating", "old"),
        state("InService", "old", FailureReason="alarm errors went off"),
    )
    install(monkeypatch, fake)
    with pytest.raises(CommandError, match="alarm errors went off"):
        deploy(wanted, said.append)
    assert "update_endpoint" in fake.calls
    assert "delete_endpoint" not in fake.calls
    assert names() == ([], [], [])


def test_an_endpoint_that_failed_earlier_is_replaced(
    wanted: Deployment, said: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    fake = Fake(state("Failed"), state("Deleting"), {}, state("InService", expected_config(wanted)))
    install(monkeypatch, fake)
    deploy(wanted, said.append)
    assert fake.calls.index("delete_endpoint") < fake.calls.index("create_endpoint")


def test_a_busy_endpoint_is_left_alone(wanted: Deployment, said: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    fake = Fake(state("Updating"))
    install(monkeypatch, fake)
    with pytest.raises(CommandError, match="is Updating; wait"):
        deploy(wanted, said.append)
    assert fake.calls == ["describe_endpoint"]


def test_an_endpoint_that_never_settles_is_given_up(
    wanted: Deployment, said: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "TIMEOUT_SECONDS", -1.0)
    install(monkeypatch, Fake({}, state("Creating")))
    with pytest.raises(CommandError, match="still Creating"):
        deploy(wanted, said.append)


def test_what_an_unfinished_update_rolls_out_is_kept(
    wanted: Deployment, said: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "TIMEOUT_SECONDS", -1.0)
    install(monkeypatch, Fake(state("InService", "old"), state("Updating", "old")))
    with pytest.raises(CommandError, match="still Updating"):
        deploy(wanted, said.append)
    _, configurations, models = names()
    assert models and configurations, "AWS forbids to delete a configuration that an update is rolling out"


def test_remove_takes_everything_of_this_endpoint_and_nothing_else(wanted: Deployment, said: list[str]) -> None:
    config = deploy(wanted, said.append)
    other = deploy(dataclasses.replace(wanted, endpoint_name=f"{NAME}-2"), said.append)
    said.clear()
    remove(NAME, said.append)
    assert names() == ([f"{NAME}-2"], [other], [other])
    assert said == [
        f"deleted endpoint {NAME}",
        f"deleted endpoint configuration {config}",
        f"deleted model {config}",
    ]
    with pytest.raises(CommandError, match="there is no endpoint"):
        remove(NAME, said.append)


def test_the_commands(wanted: Deployment, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["--role-arn", ROLE, "--image-uri", IMAGE, "--model", str(wanted.model)]
    assert main(["deploy", "--endpoint-name", NAME, "--bucket", "models", *arguments]) == 0
    assert f"endpoint {NAME} is in service" in capsys.readouterr().out
    assert main(["deploy", "--endpoint-name", NAME, "--bucket", "missing", *arguments]) == 1
    error = capsys.readouterr().err
    assert error.startswith("error: bucket missing does not exist")
    assert error.count("\n") == 1
    assert main(["remove", "--endpoint-name", NAME]) == 0
    assert names() == ([], [], [])


def test_aws_errors_are_one_line(
    wanted: Deployment, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("AWS_DEFAULT_REGION")
    monkeypatch.setenv("AWS_CONFIG_FILE", "/nonexistent")
    assert main(["remove", "--endpoint-name", NAME]) == 1
    error = capsys.readouterr().err
    assert error.startswith("error: AWS: You must specify a region. (set AWS_PROFILE and AWS_REGION")
    assert error.count("\n") == 1
