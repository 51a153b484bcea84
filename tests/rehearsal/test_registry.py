"""Models in the rehearsal's registry: judged, registered, approved and deployed by the commands that a user types."""

import json
import re
import sys
from pathlib import Path

import pytest
from PIL import Image

from tests.support.onnx_model import write_model
from tests.support.stack import IMAGE_URI, REPOSITORY, ROLE, Rehearsal

BUCKET, GROUP = "bucket-of-models", "registered"


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return red bicycles and blue motorcycles."""
    folder = tmp_path_factory.mktemp("images")
    for name, colour in (("bicycle", (230, 20, 20)), ("motorcycle", (20, 20, 230))):
        (folder / name).mkdir()
        for number in range(10):
            Image.new("RGB", (8, 8), tuple(level + number for level in colour)).save(folder / name / f"{number}.png")
    return folder


def training(rehearsal: Rehearsal, command: str, *more: str, code: int = 0) -> str:
    done = rehearsal.run(sys.executable, "-m", "training", command, *more, check=False)
    assert done.returncode == code, done.stdout + done.stderr
    return done.stdout + done.stderr


def test_a_rejected_model_keeps_its_figures_and_a_better_one_is_approved(
    rehearsal: Rehearsal, images: Path, tmp_path: Path
) -> None:
    rehearsal.client("s3").create_bucket(Bucket=BUCKET)
    limits = tmp_path / "limits.toml"
    limits.write_text("minimum.accuracy = 0.9\nmaximum = {}\ncomparison.significance = 0.05\n")
    place = ("--endpoint-name", GROUP, "--bucket", BUCKET, "--image-uri", IMAGE_URI, "--data", str(images))

    for name, redness, code in (("bad", -0.01, 1), ("good", 0.01, 0)):
        model = write_model(tmp_path / name / "model.onnx", redness=redness)
        training(rehearsal, "register", *place, "--gate", str(limits), "--model", str(model), code=code)
    sagemaker = rehearsal.client("sagemaker")
    found = sagemaker.list_model_packages(ModelPackageGroupName=GROUP, SortBy="CreationTime")["ModelPackageSummaryList"]
    bad, good = (sagemaker.describe_model_package(ModelPackageName=item["ModelPackageArn"]) for item in found)
    assert (bad["ModelApprovalStatus"], good["ModelApprovalStatus"]) == ("Rejected", "PendingManualApproval")
    assert bad["ApprovalDescription"] == "Does not pass limits.toml: accuracy is 0, below 0.9"
    assert [each["CustomerMetadataProperties"]["accuracy"] for each in (bad, good)] == ["0.0", "1.0"]
    training(rehearsal, "approve", f"{GROUP}/2", "--reason", "looks right")
    training(rehearsal, "reject", f"{GROUP}/2")
    again = sagemaker.describe_model_package(ModelPackageName=good["ModelPackageArn"])
    assert (again["ModelApprovalStatus"], again["ApprovalDescription"]) == ("Rejected", "looks right")
    assert again["CustomerMetadataProperties"] == good["CustomerMetadataProperties"]


def test_status_shows_what_register_deploy_and_scaling_made(rehearsal: Rehearsal, images: Path, tmp_path: Path) -> None:
    bucket, endpoint = "bucket-of-status", "shown"
    rehearsal.client("s3").create_bucket(Bucket=bucket)
    limits = tmp_path / "limits.toml"
    limits.write_text("minimum.accuracy = 0.9\nmaximum = {}\ncomparison.significance = 0.05\n")
    model = ("--model", str(write_model(tmp_path / "model.onnx", redness=0.01)))
    place = ("--endpoint-name", endpoint, "--bucket", bucket, "--image-uri", IMAGE_URI)
    training(rehearsal, "register", *place, *model, "--data", str(images), "--gate", str(limits))
    where = ("--endpoint-name", endpoint, "--bucket", bucket, "--role-arn", ROLE, "--instance-count", "2")
    refused = training(rehearsal, "deploy", *where, "--package", f"{endpoint}/1", code=1)
    assert f"{endpoint}/1 is PendingManualApproval; approve it with" in refused
    training(rehearsal, "approve", f"{endpoint}/1")
    said = training(rehearsal, "deploy", *where, "--package", f"{endpoint}/1")
    assert "already exists" in said, "the model has the address to which register uploaded it"
    rehearsal.client("application-autoscaling").register_scalable_target(
        ServiceNamespace="sagemaker",
        ResourceId=f"endpoint/{endpoint}/variant/AllTraffic",
        ScalableDimension="sagemaker:variant:DesiredInstanceCount",
        MinCapacity=2,
        MaxCapacity=6,
    )
    for name, value in (("of-this-endpoint", endpoint), ("of-another-endpoint", "another")):
        rehearsal.client("cloudwatch").put_metric_alarm(
            AlarmName=name,
            Namespace="AWS/SageMaker",
            MetricName="Invocation5XXErrors",
            Statistic="Sum",
            Dimensions=[{"Name": "EndpointName", "Value": value}],
            Period=60,
            EvaluationPeriods=1,
            Threshold=1.0,
            ComparisonOperator="GreaterThanThreshold",
        )
    # The same model again, by a gate that it does not pass: what was approved is what runs.
    limits.write_text("minimum.n = 1000\nmaximum = {}\ncomparison.significance = 0.05\n")
    training(rehearsal, "register", *place, *model, "--data", str(images), "--gate", str(limits), code=1)
    (found,) = json.loads(training(rehearsal, "status", "--json", "--endpoint-name", endpoint))
    assert found["instances"] == {"now": 2, "wanted": 2} and found["scaling"] == {"least": 2, "most": 6}
    assert (found["package"]["name"], found["package"]["approval"]) == (f"{endpoint}/1", "Approved")
    assert found["package"]["accuracy"] == 1
    assert found["capture"]["status"] == "Started"
    assert list(found["alarms"]) == ["of-this-endpoint"]
    assert (found["last_update"]["outcome"], found["dollars_per_hour"]) == ("succeeded", 0.46)
    table = training(rehearsal, "status")
    for part in (f"{endpoint} / All", "2 now (2 to 6), ml.m5.xlarge", f"{endpoint}/1, Approved", "$0.46 an hour"):
        assert part in table
    assert "no endpoint none" in training(rehearsal, "status", "--endpoint-name", "none", code=1)
    training(rehearsal, "remove", "--endpoint-name", endpoint)


def test_preflight_finds_what_is_missing_and_then_nothing(rehearsal: Rehearsal) -> None:
    bucket, stack = "bucket-of-preflight", "roles"
    wanted = ("--bucket", bucket, "--image-uri", IMAGE_URI, "--image-bucket", bucket)
    said = training(rehearsal, "preflight", *wanted, "--role-arn", ROLE, code=1)
    assert f"missing bucket {bucket}: does not exist; aws s3 mb s3://{bucket}" in said
    assert "missing role: there is no role rehearsal; deploy training/roles.yaml" in said

    rehearsal.client("s3").create_bucket(Bucket=bucket)
    template = (REPOSITORY / "training" / "roles.yaml").read_text()
    parameters = [{"ParameterKey": "Bucket", "ParameterValue": bucket}]
    cloudformation = rehearsal.client("cloudformation")
    cloudformation.create_stack(
        StackName=stack, TemplateBody=template, Parameters=parameters, Capabilities=["CAPABILITY_IAM"]
    )
    outputs = cloudformation.describe_stacks(StackName=stack)["Stacks"][0]["Outputs"]
    arns = {output["OutputKey"]: output["OutputValue"] for output in outputs}

    said = training(rehearsal, "preflight", *wanted, "--role-arn", arns["EndpointRoleArn"], code=1)
    assert re.search(r"ok +role \S+: SageMaker may assume it", said)
    assert re.search(r"ok +rights of roles-EndpointRole\S*: 11 actions allowed", said)
    assert f"missing bucket {bucket}: events to EventBridge are off" in said and "1 missing" in said
    # The training role may not read models, nor write captures.
    said = training(rehearsal, "preflight", *wanted, "--role-arn", arns["TrainingRoleArn"], code=1)
    assert f"s3:PutObject on arn:aws:s3:::{bucket}/capture/* is denied" in said
    rehearsal.client("s3").put_bucket_notification_configuration(
        Bucket=bucket, NotificationConfiguration={"EventBridgeConfiguration": {}}
    )
    said = training(rehearsal, "preflight", *wanted, "--role-arn", arns["EndpointRoleArn"])
    assert "0 missing" in said
