"""Deploying to SageMaker: moto where it answers, a stub where it does not."""

import dataclasses
import io
import json
import os
import signal
import tarfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import boto3
import botocore.session
import pytest
from botocore.exceptions import ClientError, EndpointConnectionError, ReadTimeoutError, TokenRetrievalError
from botocore.stub import Stubber
from botocore.validate import ParamValidator
from moto import mock_aws
from moto.cloudwatch.models import Alarm
from moto.cloudwatch.responses import CloudWatchResponse
from moto.sagemaker.responses import SageMakerResponse

from common.errors import CommandError
from rehearsal.cloudwatch_alarms import _describe_alarm_history, _update_state
from rehearsal.sagemaker_endpoints import _create_endpoint_config
from tests.support.onnx_model import write_model
from training.__main__ import main
from training.deployment import endpoint as module
from training.deployment.autoscaling import DEFAULT_TARGET, Scaling, find_scaling
from training.deployment.deploy import deploy, pack, remove
from training.deployment.guard import alarms_of, create_alarms
from training.deployment.rollout import EXIT_ROLLED_BACK, RolledBackError, rollback, update_request
from training.deployment.settings import Deployment, sagemaker_settings

NAME = "image-classifier"
ROLE = "arn:aws:iam::123456789012:role/serving"
REPOSITORY = "123456789012.dkr.ecr.eu-west-1.amazonaws.com/classifier"
IMAGE = f"{REPOSITORY}:1"
DOCKER = "application/vnd.docker.distribution.manifest.v2+json"
GO_ON = "run it again to continue waiting"


def push(content: str, media_type: str = DOCKER, tag: str = "1") -> str:
    """Put an image into ECR; return its digest."""
    digest = f"sha256:{content * 64}"
    layer = {"mediaType": "application/vnd.docker.image.rootfs.diff.tar.gzip", "size": 1, "digest": digest}
    manifest = {"schemaVersion": 2, "mediaType": media_type, "config": layer, "layers": [layer]}
    pushed = boto3.client("ecr").put_image(
        repositoryName="classifier", imageManifest=json.dumps(manifest), imageTag=tag, imageDigest=digest
    )
    return pushed["image"]["imageId"]["imageDigest"]


@pytest.fixture(autouse=True)
def aws(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("AWS_DEFAULT_REGION", "eu-west-1")
    monkeypatch.setattr(module, "FIRST_POLL_SECONDS", 0.0)
    # moto lacks the history of alarms; the rehearsal adds it.
    monkeypatch.setattr(Alarm, "update_state", lambda self, *rest: _update_state(None, self, *rest))
    monkeypatch.setattr(CloudWatchResponse, "describe_alarm_history", _describe_alarm_history, raising=False)
    with mock_aws():
        boto3.client("s3").create_bucket(Bucket="models", CreateBucketConfiguration={"LocationConstraint": "eu-west-1"})
        boto3.client("ecr").create_repository(repositoryName="classifier")
        push("a")
        yield


@pytest.fixture
def wanted(tmp_path: Path) -> Deployment:
    return Deployment(NAME, "models", ROLE, IMAGE, write_model(tmp_path / "model.onnx"))


@pytest.fixture
def said() -> list[str]:
    return []


@pytest.fixture(autouse=True)
def _former_sigterm() -> Iterator[None]:
    former = signal.getsignal(signal.SIGTERM)
    yield
    signal.signal(signal.SIGTERM, former)


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
    assert model["PrimaryContainer"]["Image"] == f"{REPOSITORY}@sha256:{'a' * 64}"
    bucket, key = model["PrimaryContainer"]["ModelDataUrl"].removeprefix("s3://").split("/", 1)
    assert boto3.client("s3").get_object(Bucket=bucket, Key=key)["Body"].read() == pack(wanted.model)


def test_the_same_deployment_again_does_nothing(wanted: Deployment, said: list[str]) -> None:
    config = deploy(wanted, said.append)
    said.clear()
    assert deploy(wanted, said.append) == config
    assert names() == ([NAME], [config], [config])
    assert said[-1].endswith("nothing to do")
    assert "already exists" in said[1]


def test_a_tag_that_was_pushed_again_is_an_update(wanted: Deployment, said: list[str]) -> None:
    first = deploy(wanted, said.append)
    digest = push("b")
    boto3.client("sagemaker").delete_endpoint(EndpointName=NAME)  # moto cannot update it
    second = deploy(wanted, said.append)
    assert first != second
    image = boto3.client("sagemaker").describe_model(ModelName=second)["PrimaryContainer"]["Image"]
    assert image == f"{REPOSITORY}@{digest}"
    by_digest = dataclasses.replace(wanted, image_uri=image)
    assert deploy(by_digest, said.append) == second, "the digest is what was deployed, however it was named"


@pytest.mark.parametrize(
    "media_type",
    [
        "application/vnd.oci.image.manifest.v1+json",
        "application/vnd.oci.image.index.v1+json",
        "application/vnd.docker.distribution.manifest.list.v2+json",
        "application/vnd.docker.distribution.manifest.v1+prettyjws",
    ],
)
def test_an_image_that_sagemaker_cannot_run_is_refused_before_anything_is_made(
    wanted: Deployment, said: list[str], media_type: str
) -> None:
    push("c", media_type)
    with pytest.raises(CommandError, match="make image") as refused:
        deploy(wanted, said.append)
    assert media_type in str(refused.value) and DOCKER in str(refused.value)
    assert names() == ([], [], []) and "Contents" not in boto3.client("s3").list_objects_v2(Bucket="models")


@pytest.mark.parametrize(
    ("image", "reason"),
    [
        (f"{REPOSITORY}:2", "ECR has no image .*classifier:2; build and push it with: make image"),
        (f"{REPOSITORY}@sha256:{'f' * 64}", "ECR has no image"),
        (IMAGE.replace("classifier", "absent"), "ECR has no image"),
        (IMAGE.replace("eu-west-1", "us-east-1"), "is in us-east-1, and an endpoint in eu-west-1 needs it"),
        (IMAGE.replace("123456789012", "210987654321"), "ECR has no image"),
    ],
)
def test_an_image_that_is_not_there_is_named(wanted: Deployment, said: list[str], image: str, reason: str) -> None:
    with pytest.raises(CommandError, match=reason):
        deploy(dataclasses.replace(wanted, image_uri=image), said.append)
    assert names() == ([], [], [])


def test_without_permission_to_ask_ecr_nothing_is_deployed(
    wanted: Deployment, said: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    ecr = boto3.client("ecr")
    with Stubber(ecr) as stub:
        asked = {"registryId": "123456789012", "repositoryName": "classifier", "imageIds": [{"imageTag": "1"}]}
        stub.add_client_error("describe_images", "AccessDeniedException", http_status_code=400, expected_params=asked)
        install(monkeypatch, ecr, "ecr")
        with pytest.raises(CommandError, match="ecr:DescribeImages"):
            deploy(wanted, said.append)
    assert names() == ([], [], [])


class Fake:
    """A SageMaker client whose endpoint goes through given states; everything else is moto's.

    A state is a description, ``{}`` for no endpoint, or an error (or any other action) in its place. ``refusals`` are
    errors of other calls.
    """

    def __init__(
        self, *answers: dict[str, Any] | BaseException | Callable[[], None], **refusals: BaseException
    ) -> None:
        self.real = boto3.client("sagemaker")
        self.answers = list(answers)
        self.refusals = refusals
        self.calls: list[str] = []
        self.requests: list[dict[str, Any]] = []

    def get_paginator(self, name: str) -> Any:
        """Return moto's pages, but no tags of the endpoint, which moto does not have."""
        real = self.real.get_paginator(name)

        class Pages:
            def paginate(self, **arguments: Any) -> Any:
                return [{"Tags": []}] if ":endpoint/" in str(arguments) else real.paginate(**arguments)

        return Pages()

    def __getattr__(self, name: str) -> Any:
        def call(*positional: Any, **arguments: Any) -> Any:
            self.calls.append(name)
            if name == "describe_endpoint":
                answer = self.answers.pop(0)
                if isinstance(answer, BaseException):
                    raise answer
                if callable(answer):
                    answer()
                    return call(**arguments)
                if not answer:
                    raise ClientError(
                        {"Error": {"Code": "ValidationException", "Message": 'Could not find endpoint "x".'}}, name
                    )
                return answer
            if name in self.refusals:
                raise self.refusals[name]
            if name in ("create_endpoint", "update_endpoint", "delete_endpoint"):
                check_request("sagemaker", name, arguments)
                self.requests.append(arguments)
                return {}
            return getattr(self.real, name)(*positional, **arguments)

        return call


def install(monkeypatch: pytest.MonkeyPatch, client: Any, service: str = "sagemaker") -> None:
    real = boto3.client
    monkeypatch.setattr(boto3, "client", lambda name, **more: client if name == service else real(name, **more))


def check_request(service: str, operation: str, arguments: Any) -> None:
    """Check a request against the service's model, its enumerations and limits included."""
    model = botocore.session.get_session().get_service_model(service)
    shape = model.operation_model("".join(map(str.title, operation.split("_")))).input_shape
    assert shape
    assert not (report := ParamValidator().validate(arguments, shape)).has_errors(), report.generate_report()

    def check(value: Any, shape: Any) -> None:
        if shape.type_name == "structure":
            for name, part in value.items():
                check(part, shape.members[name])
        elif shape.type_name == "list":
            for part in value:
                check(part, shape.member)
        if getattr(shape, "enum", None):
            assert value in shape.enum
        if "max" in shape.metadata:
            assert (len(value) if isinstance(value, str | list) else value) <= shape.metadata["max"]

    check(arguments, shape)


def state(status: str, config: str = "x", pending: str = "", **more: str) -> dict[str, Any]:
    changing = {"PendingDeploymentSummary": {"EndpointConfigName": pending}} if pending else {}
    arn = f"arn:aws:sagemaker:eu-west-1:123456789012:endpoint/{NAME}"
    known = {"EndpointName": NAME, "EndpointArn": arn}
    return {**known, "EndpointStatus": status, "EndpointConfigName": config, **changing, **more}


def aws_error(code: str, status: int = 400, message: str = "no") -> ClientError:
    response: Any = {"Error": {"Code": code, "Message": message}, "ResponseMetadata": {"HTTPStatusCode": status}}
    return ClientError(response, "Call")


TRANSIENT = [
    aws_error("ThrottlingException"),
    aws_error("TooManyRequestsException", 429),
    aws_error("InternalFailure", 500),
    aws_error("ServiceUnavailable", 503),
    EndpointConnectionError(endpoint_url="https://api.sagemaker.eu-west-1.amazonaws.com"),
    ReadTimeoutError(endpoint_url="https://api.sagemaker.eu-west-1.amazonaws.com"),
]
LASTING = [
    aws_error("ExpiredTokenException"),
    aws_error("ExpiredToken", 403),
    aws_error("AccessDeniedException"),
    TokenRetrievalError(provider="sso", error_msg="Token has expired and refresh failed"),
]


def test_a_failed_creation_shows_the_reason_and_cleans_up(
    wanted: Deployment, said: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    failed = state("Failed", FailureReason="the ping was not answered")
    fake = Fake({}, state("Creating"), failed, state("Deleting"), {})
    install(monkeypatch, fake)
    with pytest.raises(CommandError, match="the ping was not answered"):
        deploy(wanted, said.append)
    deleting = ["delete_endpoint", "describe_endpoint", "describe_endpoint", "delete_endpoint_config", "delete_model"]
    assert fake.calls[-5:] == deleting, "a configuration goes only after its endpoint has gone"
    assert names() == ([], [], [])
    assert said[-1] == "removed the resources that this deployment had created"


def test_a_failed_clean_up_is_reported_after_the_reason(
    wanted: Deployment, said: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    failed = state("Failed", FailureReason="the ping was not answered")
    denied = aws_error("AccessDeniedException", message="no sagemaker:DeleteModel")
    install(monkeypatch, Fake({}, state("Creating"), failed, {}, delete_model=denied))
    with pytest.raises(CommandError, match="the ping was not answered"):
        deploy(wanted, said.append)
    assert said[-1].startswith("could not clean up: ") and "no sagemaker:DeleteModel" in said[-1]


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
        described = {"EndpointConfigName": new, "ProductionVariants": [{"VariantName": "AllTraffic"}], **config_arn}
        stub.add_response("describe_endpoint_config", {**described, "CreationTime": "2026-01-01"})
        replaced = {"Tags": [{"Key": "replaces", "Value": old}], "ResourceArn": config_arn["EndpointConfigArn"]}
        stub.add_response("add_tags", {}, replaced)
        alarms = [f"{new}-{kind}" for kind in ("errors", "latency", "no-traffic", "wrong-answers")]
        stub.add_response("update_endpoint", arn, update_request(NAME, new, 1, 300, alarms))
        stub.add_response("describe_endpoint", endpoint("Updating", old))
        stub.add_response("describe_endpoint", endpoint("InService", new))
        stub.add_response("list_tags", {"Tags": []})
        install(monkeypatch, real)
        assert deploy(wanted, said.append) == new
        stub.assert_no_pending_responses()
    assert new != old


def expected_config(wanted: Deployment) -> str:
    import hashlib

    image = f"{REPOSITORY}@sha256:{'a' * 64}"
    url = f"s3://models/models/{NAME}/{hashlib.sha256(pack(wanted.model)).hexdigest()}/model.tar.gz"
    text = json.dumps(sagemaker_settings(wanted, image, url), sort_keys=True)
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


@pytest.mark.parametrize("busy", [state("Updating", "x", "y"), state("Creating", "y"), state("SystemUpdating")])
def test_a_busy_endpoint_is_left_alone(
    wanted: Deployment, said: list[str], monkeypatch: pytest.MonkeyPatch, busy: dict[str, Any]
) -> None:
    fake = Fake(busy)
    install(monkeypatch, fake)
    with pytest.raises(CommandError, match=f"is {busy['EndpointStatus']}; wait"):
        deploy(wanted, said.append)
    assert fake.calls == ["describe_endpoint"]


def test_right_after_an_update_the_old_description_is_not_believed(
    wanted: Deployment, said: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    new = expected_config(wanted)
    before = state("InService", "old", LastModifiedTime="1")
    fake = Fake(before, before, before, state("Updating", "old", new, LastModifiedTime="2"), state("InService", new))
    install(monkeypatch, fake)
    assert deploy(wanted, said.append) == new
    assert names()[1:] == ([new], [new])


def test_an_update_that_was_rolled_back_between_two_looks_fails(
    wanted: Deployment, said: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    rolled_back = state("InService", "old", LastModifiedTime="2")
    install(monkeypatch, Fake(state("InService", "old", LastModifiedTime="1"), rolled_back))
    with pytest.raises(CommandError, match="was rolled back to old: AWS gave no reason"):
        deploy(wanted, said.append)
    assert names() == ([], [], [])


@pytest.mark.parametrize("after", ["Failed", "UpdateRollbackFailed", "OutOfService"])
def test_an_update_that_leaves_the_endpoint_broken_removes_nothing_under_it(
    wanted: Deployment, said: list[str], monkeypatch: pytest.MonkeyPatch, after: str
) -> None:
    fake = Fake(state("InService", "old"), state("Updating", "old"), state(after, "old"))
    install(monkeypatch, fake)
    with pytest.raises(CommandError, match=f"is {after}"):
        deploy(wanted, said.append)
    assert not [call for call in fake.calls if call.startswith("delete")]


BEGINNINGS: dict[str, tuple[list[dict[str, Any]], str, str]] = {
    "creation": ([{}], "Creating", ""),
    "update": ([state("InService", "old")], "Updating", "old"),
}


@pytest.mark.parametrize("beginning", BEGINNINGS)
def test_polling_outlasts_transient_errors(
    wanted: Deployment, said: list[str], monkeypatch: pytest.MonkeyPatch, beginning: str
) -> None:
    new = expected_config(wanted)
    before, status, old = BEGINNINGS[beginning]
    changing = state(status, old or new, new)
    install(monkeypatch, Fake(*before, *TRANSIENT, changing, *TRANSIENT, state("InService", new)))
    assert deploy(wanted, said.append) == new


@pytest.mark.parametrize("beginning", BEGINNINGS)
@pytest.mark.parametrize(
    "end",
    [*LASTING, "time-out", signal.SIGINT, signal.SIGTERM],
    ids=lambda end: end.name if isinstance(end, signal.Signals) else str(end),
)
def test_waiting_that_ends_early_removes_nothing_and_the_same_command_goes_on(
    wanted: Deployment,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    beginning: str,
    end: Any,
) -> None:
    new = expected_config(wanted)
    before, status, old = BEGINNINGS[beginning]
    changing = state(status, old or new, new)
    if isinstance(end, signal.Signals):
        end = lambda number=end: os.kill(os.getpid(), number)  # noqa: E731
    with monkeypatch.context() as short:
        short.setattr(module, "TIMEOUT_SECONDS", -1.0 if end == "time-out" else 60.0)
        fake = Fake(*before, *([changing] if end == "time-out" else [end]))
        install(short, fake)
        arguments = ["deploy", "--endpoint-name", NAME, "--bucket", "models", "--role-arn", ROLE]
        arguments += ["--image-uri", IMAGE, "--model", str(wanted.model)]
        assert main(arguments) == 1
        assert not [call for call in fake.calls if call.startswith("delete")]
    assert GO_ON in capsys.readouterr().err
    assert names()[1:] == ([new], [new]), "the endpoint is being made of these"

    again = Fake(changing, changing, state("InService", new))
    install(monkeypatch, again)
    assert main(arguments) == 0
    assert not [call for call in again.calls if call.startswith(("create", "update", "delete"))]


def test_expired_credentials_are_named(wanted: Deployment, said: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    install(monkeypatch, Fake({}, state("Creating"), aws_error("ExpiredTokenException")))
    with pytest.raises(CommandError, match=f"is Creating, but AWS: your credentials have expired; .*{GO_ON}"):
        deploy(wanted, said.append)


@pytest.mark.parametrize("request_", ["create_endpoint", "update_endpoint"])
@pytest.mark.parametrize("error", [*TRANSIENT[::2], LASTING[0], KeyboardInterrupt()], ids=str)
def test_a_request_whose_answer_got_lost_removes_nothing(
    wanted: Deployment, said: list[str], monkeypatch: pytest.MonkeyPatch, request_: str, error: BaseException
) -> None:
    before = {} if request_ == "create_endpoint" else state("InService", "old")
    install(monkeypatch, Fake(before, **{request_: error}))
    with pytest.raises(CommandError, match="nothing was removed, run the same command again"):
        deploy(wanted, said.append)
    assert names()[1:] == ([expected_config(wanted)],) * 2


@pytest.mark.parametrize("request_", ["create_endpoint", "update_endpoint"])
def test_a_request_that_was_accepted_before_it_was_repeated_is_waited_for(
    wanted: Deployment, said: list[str], monkeypatch: pytest.MonkeyPatch, request_: str
) -> None:
    new = expected_config(wanted)
    before = {} if request_ == "create_endpoint" else state("InService", "old")
    changing = state("Updating", "old", new)
    repeated = aws_error("ValidationException", message="Cannot update in-progress endpoint")
    install(monkeypatch, Fake(before, changing, changing, state("InService", new), **{request_: repeated}))
    assert deploy(wanted, said.append) == new


@pytest.mark.parametrize("request_", ["create_endpoint", "update_endpoint"])
def test_a_refused_request_leaves_nothing_behind(
    wanted: Deployment, said: list[str], monkeypatch: pytest.MonkeyPatch, request_: str
) -> None:
    before = {} if request_ == "create_endpoint" else state("InService", "old")
    quota = aws_error("ResourceLimitExceeded", message="ml.m5.xlarge for endpoint usage is 0 Instances")
    install(monkeypatch, Fake(before, before, **{request_: quota}))
    with pytest.raises(ClientError, match="for endpoint usage"):
        deploy(wanted, said.append)
    assert names() == ([], [], [])


def test_an_endpoint_that_is_not_described_yet_is_not_gone(
    wanted: Deployment, said: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    new = expected_config(wanted)
    install(monkeypatch, Fake({}, {}, {}, state("Creating", new), state("InService", new)))
    assert deploy(wanted, said.append) == new


def test_an_endpoint_that_somebody_deletes_meanwhile_leaves_nothing_behind(
    wanted: Deployment, said: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    install(monkeypatch, Fake({}, state("Creating", expected_config(wanted)), {}))
    with pytest.raises(CommandError, match="is gone, not serving"):
        deploy(wanted, said.append)
    assert names() == ([], [], [])


def test_an_endpoint_that_is_being_deleted_is_made_again(
    wanted: Deployment, said: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    new = expected_config(wanted)
    fake = Fake(state("Deleting"), state("Deleting"), {}, state("InService", new))
    install(monkeypatch, fake)
    assert deploy(wanted, said.append) == new
    assert "create_endpoint" in fake.calls and "delete_endpoint" not in fake.calls


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


def test_remove_waits_for_what_aws_does_to_the_endpoint_first(
    wanted: Deployment, said: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    deploy(wanted, said.append)
    throttled = aws_error("ThrottlingException")
    fake = Fake(state("Updating"), state("Updating"), throttled, state("InService"), state("Deleting"), throttled, {})
    install(monkeypatch, fake)
    remove(NAME, said.append)
    look, delete = "describe_endpoint", "delete_endpoint"
    order = [call for call in fake.calls if call in (look, delete, "delete_endpoint_config")]
    assert order == [look, look, look, look, delete, look, look, look, "delete_endpoint_config"]


@pytest.mark.parametrize("end", [*LASTING, "time-out", KeyboardInterrupt()], ids=str)
def test_remove_that_ends_early_keeps_what_the_endpoint_has_and_goes_on_later(
    wanted: Deployment, said: list[str], monkeypatch: pytest.MonkeyPatch, end: Any
) -> None:
    config = deploy(wanted, said.append)
    with monkeypatch.context() as short:
        short.setattr(module, "TIMEOUT_SECONDS", -1.0 if end == "time-out" else 60.0)
        install(short, Fake(state("InService", config), state("Deleting", config) if end == "time-out" else end))
        with pytest.raises(CommandError, match=GO_ON):
            remove(NAME, said.append)
    assert names()[1:] == ([config], [config])
    again = Fake(state("Deleting", config), state("Deleting", config), {})
    install(monkeypatch, again)
    remove(NAME, said.append)
    assert "delete_endpoint" not in again.calls and names()[1:] == ([], [])


def test_remove_keeps_a_configuration_that_deploy_did_not_make(wanted: Deployment, said: list[str]) -> None:
    deploy(wanted, said.append)
    client = boto3.client("sagemaker")
    client.create_model(ModelName="shared", ExecutionRoleArn=ROLE, PrimaryContainer={"Image": IMAGE})
    variant: Any = {"VariantName": "v", "ModelName": "shared", "InstanceType": "ml.m5.xlarge"}
    client.create_endpoint_config(EndpointConfigName="shared", ProductionVariants=[variant])
    client.delete_endpoint(EndpointName=NAME)
    client.create_endpoint(EndpointName=NAME, EndpointConfigName="shared")
    remove(NAME, said.append)
    assert names() == ([], ["shared"], ["shared"]), "another endpoint may have it"


@pytest.mark.parametrize(
    ("replaced", "by", "reason"),
    [
        (None, b"# A page", "is not a usable ONNX model"),
        (b"labels", b"lavels", "has no 'labels' in its metadata"),
        (b'["bicycle", "motorcycle"]', b'["bicycle", "a", "train"]', "one probability for each of"),
        (b"probabilities", b"probabilitiez", "does not classify images of 4 pixels"),
        (b"input_size\x12\x014", b"input_size\x12\x015", "does not classify images of 5 pixels"),
    ],
    ids=lambda value: str(value)[:20],
)
def test_a_file_that_cannot_be_served_is_refused_before_anything_is_made(
    wanted: Deployment, capsys: pytest.CaptureFixture[str], replaced: bytes | None, by: bytes, reason: str
) -> None:
    content = wanted.model.read_bytes()
    wanted.model.write_bytes(content.replace(replaced, by) if replaced else by)
    assert wanted.model.read_bytes() != content
    arguments = ["--role-arn", ROLE, "--image-uri", IMAGE, "--model", str(wanted.model)]
    assert main(["deploy", "--endpoint-name", NAME, "--bucket", "models", *arguments]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert reason in line
    assert names() == ([], [], []) and "Contents" not in boto3.client("s3").list_objects_v2(Bucket="models")


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
    assert error.startswith("error: AWS: You must specify a region. (set AWS_PROFILE and AWS_DEFAULT_REGION")
    assert error.count("\n") == 1


@pytest.mark.parametrize(("instances", "canary"), [(1, None), (2, 1), (30, 3)])
def test_an_update_has_a_canary_where_there_are_two_instances(instances: int, canary: int | None) -> None:
    request = update_request(NAME, f"{NAME}-0123456789ab", instances, 900, ["a", "b"], retains_count=False)
    check_request("sagemaker", "update_endpoint", request)
    policy = request["DeploymentConfig"]["BlueGreenUpdatePolicy"]
    routing = policy["TrafficRoutingConfiguration"]
    assert routing["Type"] == ("CANARY" if canary else "ALL_AT_ONCE")
    assert routing.get("CanarySize") == ({"Type": "INSTANCE_COUNT", "Value": canary} if canary else None)
    assert 2 * 900 + policy["TerminationWaitInSeconds"] < policy["MaximumExecutionTimeoutInSeconds"]


def test_a_rollback_names_its_alarm_and_has_an_exit_code(
    wanted: Deployment, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    new = expected_config(wanted)
    alarm = f"{new}-latency"

    def trip_and_recover() -> None:  # by the time the rollback has ended, the alarm is over
        cloudwatch = boto3.client("cloudwatch")
        for value in ("ALARM", "OK"):
            cloudwatch.set_alarm_state(AlarmName=alarm, StateValue=value, StateReason="slow")

    before = state("InService", "old")
    install(monkeypatch, Fake(before, trip_and_recover, state("Updating", "old", new), before))
    arguments = ["--role-arn", ROLE, "--image-uri", IMAGE, "--model", str(wanted.model), "--bucket", "models"]
    assert main(["deploy", "--endpoint-name", NAME, *arguments]) == EXIT_ROLLED_BACK
    error = capsys.readouterr().err.strip()
    assert f"alarm {alarm} went off" in error and error.count("error:") == 1
    assert names() == ([], [], []) and alarms_of(NAME) == []


def test_an_earlier_rollback_is_reported_by_the_next_run(
    wanted: Deployment, said: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    new = expected_config(wanted)
    create_alarms(NAME, new, 1000)
    alarm = f"{new}-errors"
    boto3.client("cloudwatch").set_alarm_state(AlarmName=alarm, StateValue="ALARM", StateReason="failed")
    fake = Fake(state("InService", "old"))
    install(monkeypatch, fake)
    with pytest.raises(RolledBackError, match=f"alarm {alarm} went off: .* more than 1% .*; to try again"):
        deploy(wanted, said.append)
    assert "update_endpoint" not in fake.calls and alarms_of(NAME) == []


def test_a_refused_update_leaves_no_alarms_behind(
    wanted: Deployment, said: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    quota = aws_error("ResourceLimitExceeded", message="ml.m5.xlarge for endpoint usage is 1 Instances")
    before = state("InService", "old")
    install(monkeypatch, Fake(before, before, update_endpoint=quota))
    with pytest.raises(ClientError, match="for endpoint usage"):
        deploy(wanted, said.append)
    assert alarms_of(NAME) == []


def test_the_number_of_instances_stays_unless_it_is_given(
    wanted: Deployment, said: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for count, excluded in ((None, ["DataCaptureConfig"]), (2, ["DataCaptureConfig", "DesiredInstanceCount"])):
        chosen = dataclasses.replace(wanted, instance_count=count)
        new = expected_config(chosen)
        before: Any = {**state("InService", "old"), "ProductionVariants": [{"DesiredInstanceCount": 5}]}
        fake = Fake(before, state("Updating", "old", new), state("InService", new))
        with monkeypatch.context() as once:
            install(once, fake)
            deploy(chosen, said.append)
        (request,) = fake.requests
        assert request["RetainAllVariantProperties"]
        assert [each["VariantPropertyType"] for each in request["ExcludeRetainedVariantProperties"]] == excluded


def test_isolation_and_encryption(wanted: Deployment, said: list[str]) -> None:
    key = "arn:aws:kms:eu-west-1:123456789012:key/1"
    chosen = dataclasses.replace(wanted, network_isolation=True, kms_key=key)
    assert sagemaker_settings(chosen, IMAGE, "s3://b/k")["model"]["EnableNetworkIsolation"] is True
    config = deploy(chosen, said.append)
    assert boto3.client("sagemaker").describe_endpoint_config(EndpointConfigName=config)["KmsKeyId"] == key


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"min_instances": 2}, "can only be used with --max"),
        ({"target_invocations": 9}, "can only be used with --max"),
        ({"min_instances": 3, "max_instances": 2}, "--max 2 is below --min 3"),
        ({"baking_seconds": 901}, "not between 0 and 900"),
    ],
)
def test_settings_of_the_guard_are_checked(wanted: Deployment, fields: dict[str, int], reason: str) -> None:
    with pytest.raises(CommandError, match=reason):
        dataclasses.replace(wanted, **fields)  # type: ignore[arg-type]


def test_scaling_is_applied_changed_kept_and_removed(wanted: Deployment, said: list[str]) -> None:
    deploy(dataclasses.replace(wanted, max_instances=3), said.append)
    assert find_scaling(NAME) == Scaling(1, 3, DEFAULT_TARGET)
    deploy(dataclasses.replace(wanted, max_instances=4, target_invocations=50), said.append)
    assert find_scaling(NAME) == Scaling(1, 4, 50)
    deploy(wanted, said.append)
    assert find_scaling(NAME) == Scaling(1, 4, 50)
    remove(NAME, said.append)
    assert find_scaling(NAME) is None and f"deregistered the autoscaling of {NAME}" in said


def test_an_interrupted_change_of_the_instance_type_gets_its_scaling_back(wanted: Deployment, said: list[str]) -> None:
    deploy(wanted, said.append)
    sagemaker = boto3.client("sagemaker")
    arn = sagemaker.describe_endpoint(EndpointName=NAME)["EndpointArn"]
    # As an interrupted deployment leaves it: deregistered, and noted down.
    sagemaker.add_tags(ResourceArn=arn, Tags=[{"Key": "suspended-autoscaling", "Value": "2:6:700"}])
    deploy(wanted, said.append)
    assert find_scaling(NAME) == Scaling(2, 6, 700)
    assert sagemaker.list_tags(ResourceArn=arn)["Tags"] == []


def test_rollback_returns_one_step_and_continues_after_an_interruption(
    wanted: Deployment, said: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    real = boto3.client("sagemaker")
    old = deploy(wanted, said.append)
    wanted.model.write_bytes(b"a newer model")
    new = expected_config(wanted)
    fake = Fake(state("InService", old), state("Updating", old, new), state("InService", new))
    install(monkeypatch, fake)
    deploy(wanted, said.append)

    fake = Fake(state("InService", new), KeyboardInterrupt())
    install(monkeypatch, fake)
    with pytest.raises(CommandError, match="run it again"):
        rollback(NAME, said.append)
    (request,) = fake.requests
    assert request["EndpointConfigName"] == old and "DeploymentConfig" not in request
    changing = state("Updating", new, old)
    again = Fake(changing, changing, state("InService", old))
    install(monkeypatch, again)
    assert rollback(NAME, said.append) == old
    assert not again.requests
    install(monkeypatch, Fake(state("InService", old)))
    with pytest.raises(CommandError, match="no earlier configuration is recorded"):
        rollback(NAME, said.append)
    assert len(real.list_endpoint_configs()["EndpointConfigs"]) == 2


def test_a_shadow_is_added_promoted_and_ended(
    wanted: Deployment, said: list[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    original = SageMakerResponse.create_endpoint_config
    monkeypatch.setattr(
        SageMakerResponse, "create_endpoint_config", lambda self: _create_endpoint_config(original, self)
    )
    real = boto3.client("sagemaker")
    first = deploy(dataclasses.replace(wanted, kms_key="a-key"), said.append)
    before = real.describe_endpoint_config(EndpointConfigName=first)
    real.add_tags(ResourceArn=before["EndpointConfigArn"], Tags=[{"Key": "replaces", "Value": "older"}])

    alone = {"ProductionVariants": [{"VariantName": "AllTraffic", "DesiredInstanceCount": 3}]}
    shadowed = {
        "ProductionVariants": [{"VariantName": "AllTraffic", "DesiredInstanceCount": 5}],
        "ShadowProductionVariants": [{"VariantName": "Shadow-0", "DesiredInstanceCount": 3}],
    }

    def change(shadow: str, make: Callable[[], str]) -> tuple[str, dict[str, Any]]:
        """Change the endpoint, which may have a configuration with a shadow; return the new one, and the request."""
        fake = Fake({**state("InService", shadow or first), **(shadowed if shadow else alone)})
        fake.answers.append(lambda: fake.answers.append(state("InService", fake.requests[-1]["EndpointConfigName"])))
        with monkeypatch.context() as patched:
            install(patched, fake)
            make()
        (request,) = fake.requests
        return request["EndpointConfigName"], request

    def replaced(config: str) -> str | None:
        arn = real.describe_endpoint_config(EndpointConfigName=config)["EndpointConfigArn"]
        return {tag["Key"]: tag["Value"] for tag in real.list_tags(ResourceArn=arn)["Tags"]}.get("replaces")

    new = dataclasses.replace(wanted, model=write_model(tmp_path / "new.onnx", bias=(1.0, 0.0)))
    added, request = change("", lambda: deploy(dataclasses.replace(new, shadow=True), said.append))
    described: Any = real.describe_endpoint_config(EndpointConfigName=added)
    assert described["ProductionVariants"] == before["ProductionVariants"]
    (shadow,) = described["ShadowProductionVariants"]
    assert (shadow["ModelName"], shadow["InitialInstanceCount"]) == (added, 3)
    assert shadow["VariantName"].startswith("Shadow-") and described["KmsKeyId"] == "a-key"
    assert "DeploymentConfig" not in request and request["RetainAllVariantProperties"] is True
    assert alarms_of(NAME) == [] and replaced(added) == first
    assert said[-1] == f"end the shadow with: python -m training rollback --endpoint-name {NAME}"

    again = Fake({**state("InService", added), **shadowed})
    with monkeypatch.context() as patched:
        install(patched, again)
        assert deploy(dataclasses.replace(new, shadow=True), said.append) == added
    assert again.requests == [] and "nothing to do" in said[-1], "though the endpoint has scaled since"

    other = dataclasses.replace(wanted, model=write_model(tmp_path / "other.onnx", bias=(2.0, 0.0)), shadow=True)
    another, _ = change(added, lambda: deploy(other, said.append))
    described = real.describe_endpoint_config(EndpointConfigName=another)
    assert described["ProductionVariants"] == before["ProductionVariants"]
    promoted, request = change(added, lambda: deploy(new, said.append))
    assert "Shadow-0, which gets a copy of the requests, ends with that" in said
    assert "ShadowProductionVariants" not in real.describe_endpoint_config(EndpointConfigName=promoted)
    assert request["DeploymentConfig"]["AutoRollbackConfiguration"]["Alarms"]
    assert replaced(another) == replaced(promoted) == first, "a rollback does not bring the shadow back"

    ended, _ = change(added, lambda: rollback(NAME, said.append))
    assert ended == first and replaced(first) == "older", "another rollback is still possible"
    ended, _ = change(added, lambda: deploy(dataclasses.replace(wanted, kms_key="a-key"), said.append))
    assert ended == first and replaced(first) == "older", "the model in service, deployed again, ends the shadow too"


def test_a_shadow_needs_a_model_in_service_and_captures(wanted: Deployment, said: list[str], tmp_path: Path) -> None:
    with pytest.raises(CommandError, match="is not there; --shadow needs a model in service"):
        deploy(dataclasses.replace(wanted, shadow=True), said.append)
    assert names() == ([], [], [])
    archive = tmp_path / "model.tar.gz"
    archive.touch()
    for changed, reason in (
        ({"capture_percentage": 0}, "in captured data only"),
        ({"known_images": tmp_path}, "--known-images cannot be used with --shadow"),
        ({"max_instances": 2}, "--max and --target cannot be used"),
        ({"model": archive}, "--training-job cannot be used with --shadow"),
    ):
        with pytest.raises(CommandError, match=reason):
            dataclasses.replace(wanted, shadow=True, **changed)
    with pytest.raises(CommandError, match="--max needs --target with --training-job"):
        dataclasses.replace(wanted, model=archive, max_instances=2)


def test_a_change_of_the_number_of_instances_is_waited_for(
    wanted: Deployment, said: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    new = expected_config(wanted)
    scaling, settled = state("Updating", "old"), state("InService", "old")
    fake = Fake(scaling, scaling, settled, state("Updating", "old", new), state("InService", new))
    install(monkeypatch, fake)
    assert deploy(wanted, said.append) == new
    assert "update_endpoint" in fake.calls
