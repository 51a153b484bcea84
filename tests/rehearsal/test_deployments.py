"""Deployments under load: updates, automatic rollbacks and scaling, as AWS documents them, lose no call."""

import contextlib
import datetime
import json
import os
import signal
import sys
import threading
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from botocore.exceptions import ClientError

from demo.drawing import bicycle, encoded
from tests.support.onnx_model import write_model
from tests.support.stack import Rehearsal, deploy_endpoint, wait_for
from training.deployment.guard import create_alarms

BUCKET = "bucket-of-deployments"
ENDPOINT = "of-deployments"
NAME = ("--endpoint-name", ENDPOINT)
PICTURE = encoded(bicycle(64, 48))
#: Long enough that a test request and an alarm's evaluation fall into each step.
BAKING_SECONDS = 8


class Load:
    """Requests of a few clients, one after the other, from the first to the last line of a ``with``."""

    def __init__(self, rehearsal: Rehearsal, endpoint: str, clients: int = 2) -> None:
        self._rehearsal, self._endpoint, self._over = rehearsal, endpoint, threading.Event()
        self._threads = [threading.Thread(target=self._send) for _ in range(clients)]
        #: Answers by model, and errors.
        self.answers: Counter[str] = Counter()
        self.errors: list[str] = []

    def _send(self) -> None:
        runtime = self._rehearsal.client("sagemaker-runtime")
        while not self._over.wait(0.02):
            try:
                answer = runtime.invoke_endpoint(EndpointName=self._endpoint, ContentType="image/png", Body=PICTURE)
                answer["Body"].read()
                self.answers[answer["CustomAttributes"].rpartition("model=")[2]] += 1
            except Exception as error:
                self.errors.append(repr(error))

    def __enter__(self) -> "Load":
        for thread in self._threads:
            thread.start()
        wait_for(lambda: self.answers.total() or self.errors)
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        for thread in self._threads:
            thread.join()


@pytest.fixture(scope="module")
def files(rehearsal: Rehearsal, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Return a folder of models, by what they are, and of known images; at the end, remove the endpoint."""
    rehearsal.client("s3").create_bucket(Bucket=BUCKET)
    folder = tmp_path_factory.mktemp("deployments")
    for name, bias in {"first": (3.0, 0.0), "better": (4.0, 0.0), "wrong": (0.0, 4.0)}.items():
        write_model(folder / f"{name}.onnx", bias=bias)
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


def test_an_update_a_bad_model_and_a_rollback_lose_no_call(rehearsal: Rehearsal, files: Path) -> None:
    deploy(rehearsal, files, "first", "--instance-count", "2")
    first = describe(rehearsal)["EndpointConfigName"]

    with Load(rehearsal, ENDPOINT) as load:
        deploy(rehearsal, files, "better")
    second = describe(rehearsal)
    assert load.errors == []
    assert len(load.answers) == 2, "both models have answered"
    assert second["EndpointConfigName"] != first and second["EndpointStatus"] == "InService"
    assert second["ProductionVariants"][0]["CurrentInstanceCount"] == 2
    routing = second["LastDeploymentConfig"]["BlueGreenUpdatePolicy"]["TrafficRoutingConfiguration"]
    assert routing["Type"] == "CANARY" and routing["CanarySize"] == {"Type": "INSTANCE_COUNT", "Value": 1}

    with Load(rehearsal, ENDPOINT) as load:
        refused = deploy(rehearsal, files, "wrong", check=False)
        here = len(load.answers)
    after = describe(rehearsal)
    assert load.errors == []
    assert refused.returncode == 3, refused.stderr
    assert "-wrong-answers went off" in refused.stderr and "drawn.png is motorcycle" in refused.stderr
    assert here == 2, "the bad model has answered until then"
    assert (after["EndpointStatus"], after["EndpointConfigName"]) == ("InService", second["EndpointConfigName"])
    assert "wrong-answers" in after["FailureReason"]
    # Too short for an alarm: the command itself rolls back.
    assert deploy(rehearsal, files, "wrong", "--baking-seconds", "0", check=False).returncode == 3
    with Load(rehearsal, ENDPOINT) as load:
        wait_for(lambda: load.answers.total() > 10 or load.errors)
    assert load.errors == [] and len(load.answers) == 1, "and not since"
    configs = rehearsal.client("sagemaker").list_endpoint_configs(NameContains=ENDPOINT)["EndpointConfigs"]
    assert {config["EndpointConfigName"] for config in configs} == {first, second["EndpointConfigName"]}
    assert alarms(rehearsal) == []

    with Load(rehearsal, ENDPOINT) as load:
        rehearsal.run(sys.executable, "-m", "training", "rollback", *NAME)
    assert load.errors == []
    assert describe(rehearsal)["EndpointConfigName"] == first
    again = rehearsal.run(sys.executable, "-m", "training", "rollback", *NAME, check=False)
    assert again.returncode == 1 and "no earlier configuration is recorded" in again.stderr


def test_scaling_out_loses_no_call_and_outlasts_an_update(rehearsal: Rehearsal, files: Path) -> None:
    one = ("--instance-count", "1", "--baking-seconds", "0")
    deploy(rehearsal, files, "first", *one)

    def count() -> int:
        return int(describe(rehearsal)["ProductionVariants"][0]["CurrentInstanceCount"])

    scaling = rehearsal.client("application-autoscaling")
    with Load(rehearsal, ENDPOINT) as load:
        deploy(rehearsal, files, "first", *one, "--max", "2", "--target", "20")
        wait_for(lambda: count() == 2)
        wait_for(lambda: describe(rehearsal)["EndpointStatus"] == "InService")
        deploy(rehearsal, files, "better", "--baking-seconds", "0")
    assert load.errors == []
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


def processes(model: Path) -> list[int]:
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

    with Load(rehearsal, ENDPOINT) as load:
        deploy_endpoint(rehearsal, BUCKET, *NAME, *new, "--shadow")
    assert load.errors == [] and len(load.answers) == 1
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
    servers = processes(files / "wrong.onnx")
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
