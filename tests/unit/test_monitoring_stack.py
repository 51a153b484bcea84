"""The commands of monitoring on a deployed stack: every address and setting follows from its name."""

import datetime
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import boto3
import pytest
from moto import mock_aws

from common import storage
from monitoring.__main__ import main
from monitoring.baseline import load_baseline
from tests.support.captures import BEGIN, write_captures
from tests.support.scenes import captured, scene

BUCKET, ENDPOINT = "models", "vehicles"
ROLE = "arn:aws:iam::123456789012:role/r"
STACK = ["--stack-name", "classifier"]


@pytest.fixture
def stack(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    """Create a stack with a bucket, as this version's template names them, and work in an empty folder."""
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    monkeypatch.chdir(tmp_path)
    template: dict[str, Any] = {
        "Parameters": {
            "Labels": {"Type": "String", "Default": "cat,dog"},
            "Threshold": {"Type": "Number", "Default": "0.8"},
        },
        "Resources": {"Bucket": {"Type": "AWS::S3::Bucket", "Properties": {"BucketName": BUCKET}}},
        "Outputs": {"ModelBucketName": {"Value": BUCKET}, "EndpointName": {"Value": ENDPOINT}},
    }
    storage._s3.cache_clear()
    with mock_aws():
        boto3.client("cloudformation").create_stack(StackName="classifier", TemplateBody=json.dumps(template))
        yield
    storage._s3.cache_clear()


def create_endpoint(captures: bool = True) -> None:
    client = boto3.client("sagemaker")
    variant = {"VariantName": "AllTraffic", "ModelName": "m", "InitialInstanceCount": 1, "InstanceType": "ml.m5.xlarge"}
    client.create_model(ModelName="m", ExecutionRoleArn=ROLE, PrimaryContainer={"Image": "i"})
    capture: dict[str, Any] = {
        "EnableCapture": captures,
        "InitialSamplingPercentage": 100,
        "DestinationS3Uri": f"s3://{BUCKET}/capture",
        "CaptureOptions": [{"CaptureMode": "Input"}, {"CaptureMode": "Output"}],
    }
    client.create_endpoint_config(
        EndpointConfigName="c",
        ProductionVariants=[variant],
        DataCaptureConfig=capture,
    )
    client.create_endpoint(EndpointName=ENDPOINT, EndpointConfigName="c")


def capture(folder: Path, count: int, endpoint: str = ENDPOINT, hours: int = 0) -> None:
    """Write captures into a folder, and copy them to the stack's bucket."""
    images = (captured(scene(number), []).image for number in range(count))
    answers = ((image, [0.75 + 0.2 * (n % 2), 0.05]) for n, image in enumerate(images))
    write_captures(folder, answers, endpoint, BEGIN + datetime.timedelta(hours=hours))
    for path in (folder / endpoint).rglob("*.jsonl"):
        boto3.client("s3").upload_file(str(path), BUCKET, f"capture/{path.relative_to(folder).as_posix()}")


def test_the_stack_alone_is_enough_for_baseline_check_and_report(
    stack: None, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    create_endpoint()
    capture(tmp_path / "captures", 40)
    capture(tmp_path / "captures", 5, "another")
    assert main(["baseline", *STACK]) == 0
    baseline = load_baseline(f"s3://{BUCKET}/monitoring/baseline/{ENDPOINT}")
    assert (baseline.model.labels, baseline.model.threshold) == (["cat", "dog"], 0.8)
    assert (baseline.features.categorical["answer"], len(baseline.features)) == (["cat"] * 40, 40)
    assert sorted(set(baseline.features.categorical["outcome"])) == ["passes", "unsure"]
    assert main(["check", *STACK]) == 4, "only the baseline itself was captured"
    assert "need at least 30, got 0" in capsys.readouterr().out
    capture(tmp_path / "captures", 41, hours=1)
    assert main(["check", *STACK, "--namespace", "N"]) == 0
    said = capsys.readouterr()
    assert "no violations in 41 captures" in said.out
    assert said.err.startswith("left out 40 captures that the baseline was created from\n")
    metrics = boto3.client("cloudwatch").list_metrics(Namespace="N")["Metrics"]
    assert {metric["Dimensions"][0]["Value"] for metric in metrics} == {ENDPOINT}
    assert Path("build/check/report.html").read_text().startswith("<!doctype html>")


def test_options_override_the_stack(stack: None, tmp_path: Path) -> None:
    # Nothing is asked of an endpoint whose captures are given: there is none.
    capture(tmp_path / "captures", 40, "another")
    given = ["--captures", str(tmp_path / "captures"), "--endpoint-name", "another", "--labels", "a,b"]
    assert main(["baseline", *STACK, *given, "--threshold", "0", "--output", "own"]) == 0
    baseline = load_baseline("own")
    assert (baseline.model.labels, baseline.model.threshold) == (["a", "b"], 0)
    assert main(["baseline", *STACK, *given[:4]]) == 0
    assert load_baseline(f"s3://{BUCKET}/monitoring/baseline/another").model.labels == ["cat", "dog"]
    capture(tmp_path / "captures", 40, "another", hours=1)
    assert main(["check", *STACK, *given[:4], "--baseline", "own"]) == 0


def test_model_monitor_takes_endpoint_baseline_and_bucket_from_the_stack(
    stack: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[Any] = []
    monkeypatch.setattr("monitoring.model_monitor.create_schedule", lambda *arguments: asked.append(arguments))
    assert main(["model-monitor", *STACK, "--role-arn", ROLE]) == 0
    places = (f"s3://{BUCKET}/monitoring/baseline/{ENDPOINT}", f"s3://{BUCKET}/model-monitor")
    assert asked == [(ENDPOINT, ROLE, *places, None)]


@pytest.mark.parametrize("command", ["baseline", "check"])
def test_what_a_stack_lacks_is_one_line(
    command: str, stack: None, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def error(*arguments: str) -> str:
        assert main([command, *arguments]) == 1
        (line,) = capsys.readouterr().err.splitlines()
        return str(line)

    assert "no stack 'other'" in error("--stack-name", "other")
    assert f"endpoint {ENDPOINT} does not exist; create it with: python -m training deploy" in error(*STACK)
    create_endpoint(captures=False)
    assert f"endpoint {ENDPOINT} captures no data" in error(*STACK)
    if command != "baseline":
        capture(tmp_path / "captures", 40)
        missing = f"s3://{BUCKET}/monitoring/baseline/{ENDPOINT}/statistics.json does not exist"
        assert f"{missing}; create the drift baseline with: " in error(*STACK, "--captures", str(tmp_path / "captures"))


@pytest.mark.parametrize(
    ("arguments", "missing"),
    [
        (["baseline"], "--captures"),
        (["check"], "--captures"),
        (["model-monitor", "--role-arn", ROLE], "--endpoint-name, --output"),
    ],
)
def test_without_a_stack_its_settings_are_required(
    arguments: list[str], missing: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as exit_:
        main(arguments)
    assert exit_.value.code == 2
    assert f"the following arguments are required without --stack-name: {missing}\n" in capsys.readouterr().err
