"""Deployments under load: updates, automatic rollbacks and scaling, as AWS documents them, lose no call."""

import contextlib
import datetime
import json
import os
import shutil
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from botocore.exceptions import ClientError

from demo.drawing import bicycle, encoded
from demo.traffic import Traffic
from rehearsal.lifecycle import processes
from tests.support.onnx_model import write_model
from tests.support.stack import REPOSITORY, Rehearsal, deploy_endpoint, wait_for
from training.deployment.guard import create_alarms
from training.deployment.smoke import KnownImage

BUCKET = "bucket-of-deployments"
ENDPOINT = "of-deployments"
NAME = ("--endpoint-name", ENDPOINT)
PICTURE = encoded(bicycle(64, 48))
#: Long enough that a test request and an alarm's evaluation fall into each step.
BAKING_SECONDS = 8


@pytest.fixture(scope="module")
def files(rehearsal: Rehearsal, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Return a folder of models, by what they are, and of known images; at the end, remove the endpoint."""
    rehearsal.client("s3").create_bucket(Bucket=BUCKET)
    folder = tmp_path_factory.mktemp("deployments")
    for name, bias in {"first": (3.0, 0.0), "better": (4.0, 0.0), "wrong": (0.0, 4.0), "failing": (5.0, 0.0)}.items():
        write_model(folder / f"{name}.onnx", bias=bias, fails=name == "failing")
    # Compared with the others: a network of millions of weights.
    shutil.copyfile(REPOSITORY / "training" / "model" / "model.onnx", folder / "slow.onnx")
    (folder / "known" / "bicycle").mkdir(parents=True)
    (folder / "known" / "bicycle" / "drawn.png").write_bytes(PICTURE)
    yield folder
    rehearsal.run(sys.executable, "-m", "training", "remove", *NAME, check=False)


def deploy(rehearsal: Rehearsal, files: Path, model: str, *more: str, check: bool = True) -> Any:
    guard = ("--known-images", str(files / "known"), "--baking-seconds", str(BAKING_SECONDS))
    slow = ("--max-latency-ms", "60000")  # this machine may be busy
    return deploy_endpoint(
        rehearsal, BUCKET, *NAME, "--model", str(files / f"{model}.onnx"), *guard, *slow, *more, check=check
    )


def describe(rehearsal: Rehearsal) -> dict[str, Any]:
    return dict(rehearsal.client("sagemaker").describe_endpoint(EndpointName=ENDPOINT))


def alarms(rehearsal: Rehearsal) -> list[str]:
    found = rehearsal.client("cloudwatch").describe_alarms(AlarmNamePrefix=f"{ENDPOINT}-")
    return [alarm["AlarmName"] for alarm in found["MetricAlarms"]]


def load(rehearsal: Rehearsal) -> Traffic:
    return Traffic(rehearsal.client("sagemaker-runtime"), ENDPOINT, [KnownImage("drawn.png", "bicycle", PICTURE)])


def test_the_demonstration_takes_a_bad_model_back_and_loses_no_call(clone: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "demo", "release"], cwd=clone, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    record = json.loads((clone / "build" / "demo" / "release.json").read_text())
    requests, marks = record["requests"], {mark["text"].partition(":")[0]: mark["at"] for mark in record["marks"]}
    answers = Counter(record["models"].get(request["model"], "none") for request in requests)
    assert set(answers) == {"vehicles/1", "labels swapped", "vehicles/2"} and not any(r["error"] for r in requests)
    wrong = [request for request in requests if request["wrong"]]
    assert {record["models"][request["model"]] for request in wrong} == {"labels swapped"}
    assert max(request["at"] for request in wrong) < marks["the update is rolled back"], "and not since"
    assert [*marks].index("an alarm goes off") < [*marks].index("the update is rolled back")
    assert {"the canary gets requests", "the new fleet gets all requests", "the update has ended"} < marks.keys()
    assert marks["the endpoint has 4 instances"] > marks["the update has ended"]
    # What its commands have printed.
    assert "the model has the labels motorcycle,bicycle" in done.stdout and "-wrong-answers went off" in done.stdout
    for part in ("4 now (2 to 4), ml.m5.xlarge", "vehicles/2, Approved", "succeeded"):
        assert part in done.stdout
    page = (clone / "build" / "demo" / "release.html").read_text()
    assert f"{len(requests):,} requests, 0 failed" in page and page.count("<li>") == len(record["marks"])
    assert not processes(clone / "build" / "demo" / "rehearsal")


def test_a_bad_model_that_no_alarm_has_seen_and_a_rollback_by_hand_lose_no_call(
    rehearsal: Rehearsal, files: Path
) -> None:
    at_once = ("--instance-count", "2", "--baking-seconds", "0")
    deploy(rehearsal, files, "first", *at_once)
    first = describe(rehearsal)["EndpointConfigName"]
    with load(rehearsal) as traffic:
        deploy(rehearsal, files, "better", *at_once)
        second = describe(rehearsal)["EndpointConfigName"]
        # Too short for an alarm: the command itself rolls back.
        refused = deploy(rehearsal, files, "wrong", *at_once, check=False)
        assert refused.returncode == 3 and "drawn.png is motorcycle" in refused.stderr
        assert (describe(rehearsal)["EndpointStatus"], describe(rehearsal)["EndpointConfigName"]) == (
            "InService",
            second,
        )
        configs = rehearsal.client("sagemaker").list_endpoint_configs(NameContains=ENDPOINT)["EndpointConfigs"]
        assert {config["EndpointConfigName"] for config in configs} == {first, second}
        rehearsal.run(sys.executable, "-m", "training", "rollback", *NAME)
    assert traffic.errors == [] and alarms(rehearsal) == []
    assert describe(rehearsal)["EndpointConfigName"] == first
    again = rehearsal.run(sys.executable, "-m", "training", "rollback", *NAME, check=False)
    assert again.returncode == 1 and "no earlier configuration is recorded" in again.stderr


@pytest.mark.parametrize(
    ("model", "alarm", "more"), [("failing", "errors", ()), ("slow", "latency", ("--max-latency-ms", "1"))]
)
def test_requests_that_fail_or_are_slow_take_an_update_back(
    rehearsal: Rehearsal, files: Path, model: str, alarm: str, more: tuple[str, ...]
) -> None:
    deploy(rehearsal, files, "first", "--instance-count", "1", "--baking-seconds", "0")
    before = describe(rehearsal)["EndpointConfigName"]
    with load(rehearsal) as traffic:
        refused = deploy(rehearsal, files, model, *more, check=False)
        here = traffic.answers
        wait_for(lambda: traffic.answers.total() > here.total() + 10)
    after = describe(rehearsal)
    assert refused.returncode == 3 and f"-{alarm} went off" in refused.stderr, refused.stderr
    assert (after["EndpointStatus"], after["EndpointConfigName"]) == ("InService", before)
    assert f"-{alarm}" in after["FailureReason"] and alarms(rehearsal) == []
    # Of a slow model all calls succeed; of a failing one none.
    assert (bool(traffic.errors), len(traffic.answers)) == ((True, 1) if model == "failing" else (False, 2))
    assert all("ModelError" in error for error in traffic.errors)
    assert not any(request.error for request in traffic.requests[-5:]), "the old fleet answers again"


def test_scaling_out_loses_no_call_and_outlasts_an_update(rehearsal: Rehearsal, files: Path) -> None:
    one = ("--instance-count", "1", "--baking-seconds", "0")
    deploy(rehearsal, files, "first", *one)

    def count() -> int:
        return int(describe(rehearsal)["ProductionVariants"][0]["CurrentInstanceCount"])

    scaling = rehearsal.client("application-autoscaling")
    with load(rehearsal) as traffic:
        deploy(rehearsal, files, "first", *one, "--max", "2", "--target", "20")
        wait_for(lambda: count() == 2)
        wait_for(lambda: describe(rehearsal)["EndpointStatus"] == "InService")
        deploy(rehearsal, files, "better", "--baking-seconds", "0")
    assert traffic.errors == []
    assert count() == 2
    (target,) = scaling.describe_scalable_targets(ServiceNamespace="sagemaker")["ScalableTargets"]
    assert (target["MinCapacity"], target["MaxCapacity"]) == (1, 2)

    with pytest.raises(ClientError, match="deregister it"):
        rehearsal.client("sagemaker").update_endpoint(
            EndpointName=ENDPOINT, EndpointConfigName=other_type(rehearsal, describe(rehearsal)["EndpointConfigName"])
        )
    changed = deploy(rehearsal, files, "better", "--instance-type", "ml.c5.xlarge")
    assert "suspended autoscaling" in changed.stdout and "1 to 2 instances, for 20 invocations" in changed.stdout
    assert scaling.describe_scaling_policies(ServiceNamespace="sagemaker")["ScalingPolicies"]

    rehearsal.client("cloudwatch").put_metric_alarm(
        AlarmName=f"{ENDPOINT}-of-another", MetricName="m", Namespace="n", Statistic="Sum", Period=60,
        EvaluationPeriods=1, Threshold=1, ComparisonOperator="GreaterThanThreshold",
    )  # fmt: skip
    rehearsal.run(sys.executable, "-m", "training", "remove", *NAME)
    assert scaling.describe_scalable_targets(ServiceNamespace="sagemaker")["ScalableTargets"] == []
    assert scaling.describe_scaling_policies(ServiceNamespace="sagemaker")["ScalingPolicies"] == []
    assert alarms(rehearsal) == [f"{ENDPOINT}-of-another"]


def other_type(rehearsal: Rehearsal, config: str) -> str:
    """Create a configuration as another one, of another instance type; return its name."""
    sagemaker = rehearsal.client("sagemaker")
    variant = sagemaker.describe_endpoint_config(EndpointConfigName=config)["ProductionVariants"][0]
    name = f"{ENDPOINT}-another-type"
    sagemaker.create_endpoint_config(
        EndpointConfigName=name, ProductionVariants=[{**variant, "InstanceType": "ml.c5.large"}]
    )
    return name


def test_a_new_fleet_without_traffic_trips_an_alarm(rehearsal: Rehearsal, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", rehearsal.running.endpoint_url)
    cloudwatch, now = rehearsal.client("cloudwatch"), datetime.datetime.now(datetime.UTC)
    for config, receives in (("silent-0123456789ab", False), ("reached-0123456789ab", True)):
        create_alarms("quiet", config, 1000)
        dimensions = [{"Name": "EndpointName", "Value": "quiet"}, {"Name": "EndpointConfigName", "Value": config}]
        for time in (now - datetime.timedelta(seconds=65), now):  # two minutes
            sent = {"MetricName": "TestRequests", "Dimensions": dimensions, "Value": 9, "Timestamp": time}
            cloudwatch.put_metric_data(Namespace="ImageClassifier/Deployments", MetricData=[sent])
            if receives:
                variant = [*dimensions, {"Name": "VariantName", "Value": "AllTraffic"}]
                got = {"MetricName": "Invocations", "Dimensions": variant, "Value": 1, "Timestamp": time}
                cloudwatch.put_metric_data(Namespace="AWS/SageMaker", MetricData=[got])

    def states() -> dict[str, str]:
        asked = [f"{name}-0123456789ab-no-traffic" for name in ("silent", "reached")]
        found = cloudwatch.describe_alarms(AlarmNames=asked)
        return {alarm["AlarmName"].partition("-")[0]: alarm["StateValue"] for alarm in found["MetricAlarms"]}

    wait_for(lambda: states() == {"silent": "ALARM", "reached": "OK"})


@pytest.mark.parametrize(
    ("policy", "reason"),
    [
        ({"Type": "CANARY", "CanarySize": {"Type": "INSTANCE_COUNT", "Value": 1}}, "CanarySize must be between"),
        ({"Type": "CANARY"}, "CanarySize is required"),
        ({"Type": "LINEAR", "LinearStepSize": {"Type": "CAPACITY_PERCENT", "Value": 60}}, "LinearStepSize must be"),
        ({"Type": "ALL_AT_ONCE", "WaitIntervalInSeconds": 700}, "greater than the sum of all waits"),
    ],
)
def test_updates_that_aws_refuses_are_refused(
    rehearsal: Rehearsal, files: Path, policy: dict[str, Any], reason: str
) -> None:
    deploy(rehearsal, files, "first", "--instance-count", "1", "--baking-seconds", "0")
    update = {"TrafficRoutingConfiguration": {"WaitIntervalInSeconds": 0, **policy}}
    update["MaximumExecutionTimeoutInSeconds"] = 600  # type: ignore[assignment]
    sagemaker = rehearsal.client("sagemaker")
    config = describe(rehearsal)["EndpointConfigName"]
    with pytest.raises(ClientError, match=reason):
        sagemaker.update_endpoint(
            EndpointName=ENDPOINT, EndpointConfigName=config, DeploymentConfig={"BlueGreenUpdatePolicy": update}
        )
    assert describe(rehearsal)["EndpointStatus"] == "InService"


def test_an_update_with_a_missing_alarm_is_refused(rehearsal: Rehearsal, files: Path) -> None:
    deploy(rehearsal, files, "first", "--instance-count", "1", "--baking-seconds", "0")
    with pytest.raises(ClientError, match="does not exist"):
        rehearsal.client("sagemaker").update_endpoint(
            EndpointName=ENDPOINT,
            EndpointConfigName=describe(rehearsal)["EndpointConfigName"],
            DeploymentConfig={"AutoRollbackConfiguration": {"Alarms": [{"AlarmName": "no-such-alarm"}]}},
        )
    assert describe(rehearsal)["EndpointStatus"] == "InService"


def servers_of(model: Path) -> list[int]:
    """Return the processes of the servers that have a model."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):  # it ended, belongs to another user, or has no model
            if (folder / "cwd" / "model.onnx").read_bytes() == model.read_bytes():
                found.append(int(folder.name))
    return found


def test_a_shadow_is_compared_harms_no_caller_and_is_promoted(
    rehearsal: Rehearsal, files: Path, tmp_path: Path
) -> None:
    deploy(rehearsal, files, "first", "--instance-count", "1", "--baking-seconds", "0")
    first = describe(rehearsal)["EndpointConfigName"]
    new = ("--model", str(files / "wrong.onnx"))

    with load(rehearsal) as traffic:
        deploy_endpoint(rehearsal, BUCKET, *NAME, *new, "--shadow")
    assert traffic.errors == [] and len(traffic.answers) == 1
    (shadow,) = describe(rehearsal)["ShadowProductionVariants"]
    shown = json.loads(rehearsal.run(sys.executable, "-m", "training", "status", "--json", *NAME).stdout)
    assert [(each["variant"], each["shadow"], each["instances"]["now"]) for each in shown] == [
        ("AllTraffic", False, 1),
        (shadow["VariantName"], True, 1),
    ]
    assert all(each["dollars_per_hour"] == 0.23 for each in shown)
    again = deploy_endpoint(rehearsal, BUCKET, *NAME, *new, "--shadow")
    assert "nothing to do" in again.stdout

    runtime = rehearsal.client("sagemaker-runtime", read_timeout=50)  # less than what hangs takes

    def ask(count: int) -> None:
        for _ in range(count):
            answer = runtime.invoke_endpoint(EndpointName=ENDPOINT, ContentType="image/png", Body=PICTURE)
            assert answer["InvokedProductionVariant"] == "AllTraffic"
            assert json.loads(answer["Body"].read())[0] > 0.9

    def captured() -> bool:
        prefix = f"capture/{ENDPOINT}/{shadow['VariantName']}/"
        return bool(rehearsal.client("s3").list_objects_v2(Bucket=BUCKET, Prefix=prefix).get("Contents"))

    ask(1)
    wait_for(captured)
    out = ("--out", str(tmp_path))
    said = rehearsal.run(sys.executable, "-m", "training", "compare", "--json", *NAME, *out).stdout
    compared = json.loads(said)
    assert compared["same_label"] == 0
    assert compared["changes"] == [{"from": "bicycle", "to": "motorcycle", "images": 1}]

    # One that hangs, and one that has died: no request waits for it or fails with it.
    servers = servers_of(files / "wrong.onnx")
    assert servers
    for number in (signal.SIGSTOP, signal.SIGKILL):
        for process in servers:
            os.kill(process, number)
        ask(10)

    deploy_endpoint(rehearsal, BUCKET, *NAME, *new)
    promoted = describe(rehearsal)
    assert "ShadowProductionVariants" not in promoted and promoted["EndpointStatus"] == "InService"
    answer = runtime.invoke_endpoint(EndpointName=ENDPOINT, ContentType="image/png", Body=PICTURE)
    assert json.loads(answer["Body"].read())[1] > 0.9
    rehearsal.run(sys.executable, "-m", "training", "rollback", *NAME)
    assert describe(rehearsal)["EndpointConfigName"] == first
