"""Training jobs run in the rehearsal, and ``train --on sagemaker`` follows them."""

import json
import os
import signal
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

import pytest
from botocore.exceptions import ClientError

from tests.support.onnx_model import write_model
from tests.support.stack import ALGORITHM_URI, REPOSITORY, ROLE, Rehearsal, wait_for
from tests.support.staged import stage_coloured

BUCKET = "bucket-of-training"
IMAGE = "763104351884.dkr.ecr.us-east-1.amazonaws.com/pytorch-training:2.10-cpu-py313"
#: The SageMaker Python SDK's environment (training/README.md), where there is one.
SDK = REPOSITORY / ".venv-sagemaker" / "bin" / "python"


@pytest.fixture(scope="module")
def bucket(rehearsal: Rehearsal) -> str:
    rehearsal.client("s3").create_bucket(Bucket=BUCKET)
    return BUCKET


def create_job(rehearsal: Rehearsal, bucket: str, name: str, script: str, image: str = IMAGE, **more: Any) -> None:
    """Start a job that runs a script on a channel named ``code``; its argument is the folder /opt/ml."""
    s3 = rehearsal.client("s3")
    s3.put_object(Bucket=bucket, Key=f"training/{name}/code/job.py", Body=textwrap.dedent(script).encode())
    source = {"S3DataType": "S3Prefix", "S3Uri": f"s3://{bucket}/training/{name}/code"}
    rehearsal.client("sagemaker").create_training_job(
        TrainingJobName=name,
        RoleArn=ROLE,
        AlgorithmSpecification={
            "TrainingImage": image,
            "TrainingInputMode": "File",
            "ContainerEntrypoint": ["/bin/sh"],
            "ContainerArguments": ["-c", "python3 /opt/ml/input/data/code/job.py /opt/ml"],
            "MetricDefinitions": [{"Name": "loss", "Regex": "loss ([0-9.]+)"}],
        },
        InputDataConfig=[{"ChannelName": "code", "DataSource": {"S3DataSource": source}}],
        OutputDataConfig={"S3OutputPath": f"s3://{bucket}/training/output"},
        CheckpointConfig={"S3Uri": f"s3://{bucket}/training/checkpoints/shared"},
        ResourceConfig={"InstanceType": "ml.m5.xlarge", "InstanceCount": 1, "VolumeSizeInGB": 30},
        **{"StoppingCondition": {"MaxRuntimeInSeconds": 3600}, **more},
    )


def follow(rehearsal: Rehearsal, name: str, out: Path) -> tuple[str, ...]:
    return (sys.executable, "-m", "training", "train", "--on", "sagemaker", "--job", name, "--out", str(out))


def status(rehearsal: Rehearsal, name: str) -> str:
    return str(rehearsal.client("sagemaker").describe_training_job(TrainingJobName=name)["TrainingJobStatus"])


def test_a_job_trains_and_an_interrupted_command_can_follow_it_again(
    rehearsal: Rehearsal, bucket: str, tmp_path: Path
) -> None:
    model = write_model(tmp_path / "trained.onnx", redness=0.01)
    rehearsal.client("s3").put_object(Bucket=bucket, Key="training/trained.onnx", Body=model.read_bytes())
    script = f"""
        import json, pathlib, sys, time
        import boto3
        root = pathlib.Path(sys.argv[1])
        print("hyper-parameters", json.loads((root / "input/config/hyperparameters.json").read_text()))
        print("loss 0.5", flush=True)
        s3 = boto3.client("s3")
        while not s3.list_objects_v2(Bucket="{bucket}", Prefix="go").get("Contents"):
            time.sleep(0.1)
        print("loss 0.25")
        s3.download_file("{bucket}", "training/trained.onnx", str(root / "model" / "model.onnx"))
        (root / "model" / "metrics.json").write_text("{{}}")
        (root / "checkpoints" / "first").write_text("1")
    """
    create_job(rehearsal, bucket, "followed", script, HyperParameters={"epochs": "3"})
    out = tmp_path / "out" / "model.onnx"
    command = follow(rehearsal, "followed", out)
    with subprocess.Popen(
        command, cwd=REPOSITORY, env=rehearsal.environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as following:
        assert following.stdout and following.stderr
        for line in following.stdout:
            if "loss 0.5" in line:
                break
        os.kill(following.pid, signal.SIGINT)
        assert "training job followed continues, follow it again with" in following.stderr.read()
    assert following.returncode == 1 and status(rehearsal, "followed") == "InProgress"

    rehearsal.client("s3").put_object(Bucket=bucket, Key="go", Body=b"")
    said = rehearsal.run(*command).stdout
    assert "hyper-parameters {'epochs': '3'}" in said and "loss 0.25" in said and "followed: Completed" in said
    assert out.read_bytes() == model.read_bytes() and json.loads((out.parent / "metrics.json").read_text()) == {}
    described = rehearsal.client("sagemaker").describe_training_job(TrainingJobName="followed")
    (metric,) = described["FinalMetricDataList"]
    assert (metric["MetricName"], metric["Value"]) == ("loss", 0.25)
    changes = [each["Status"] for each in described["SecondaryStatusTransitions"]]
    assert changes == ["Starting", "Downloading", "Training", "Uploading", "Completed"]

    create_job(rehearsal, bucket, "continued", "import os, sys; print(os.listdir(sys.argv[1] + '/checkpoints'))")
    done = rehearsal.run(*follow(rehearsal, "continued", out), check=False)
    assert "['first']" in done.stdout, "checkpoints of an earlier job are there"
    assert done.returncode == 1 and "training job continued left no model" in done.stderr


def test_a_job_that_fails_says_why(rehearsal: Rehearsal, bucket: str, tmp_path: Path) -> None:
    script = "import sys; open(sys.argv[1] + '/output/failure', 'w').write('the loss is not finite'); sys.exit(3)"
    create_job(rehearsal, bucket, "failing", script)
    done = rehearsal.run(*follow(rehearsal, "failing", tmp_path / "model.onnx"), check=False)
    assert done.returncode == 1
    assert "error: training job failing is Failed: AlgorithmError: the loss is not finite" in done.stderr
    done = rehearsal.run(*follow(rehearsal, "absent", tmp_path / "model.onnx"), check=False)
    assert done.returncode == 1 and "training job absent: AWS" in done.stderr


def test_a_job_can_be_stopped_and_has_a_limit(rehearsal: Rehearsal, bucket: str) -> None:
    create_job(rehearsal, bucket, "stopped", "import time; time.sleep(600)")
    create_job(
        rehearsal, bucket, "limited", "import time; time.sleep(600)", StoppingCondition={"MaxRuntimeInSeconds": 1}
    )
    client = rehearsal.client("sagemaker")
    client.stop_training_job(TrainingJobName="stopped")
    for name, secondary in (("stopped", "Stopped"), ("limited", "MaxRuntimeExceeded")):
        wait_for(lambda name=name: status(rehearsal, name) == "Stopped")  # type: ignore[misc]
        assert client.describe_training_job(TrainingJobName=name)["SecondaryStatus"] == secondary
    with pytest.raises(ClientError, match="status Stopped"):
        client.stop_training_job(TrainingJobName="stopped")


def test_requests_that_aws_refuses_are_refused(rehearsal: Rehearsal, bucket: str) -> None:
    with pytest.raises(ClientError, match="MaxWaitTimeInSeconds must be provided"):
        create_job(rehearsal, bucket, "spot", "", EnableManagedSpotTraining=True)
    with pytest.raises(ClientError, match="equal to or greater"):
        condition = {"MaxRuntimeInSeconds": 60, "MaxWaitTimeInSeconds": 30}
        create_job(rehearsal, bucket, "spot", "", EnableManagedSpotTraining=True, StoppingCondition=condition)
    with pytest.raises(ClientError, match="override the metric definitions"):
        create_job(rehearsal, bucket, "metrics", "", image=ALGORITHM_URI)
    create_job(rehearsal, bucket, "twice", "")
    with pytest.raises(ClientError, match="must be unique"):
        create_job(rehearsal, bucket, "twice", "")


@pytest.mark.skipif(not SDK.exists(), reason="needs the SageMaker Python SDK in .venv-sagemaker")
def test_the_sdk_starts_a_job_with_the_same_entry_point(rehearsal: Rehearsal, bucket: str, tmp_path: Path) -> None:
    staged = stage_coloured(tmp_path)
    done = rehearsal.run(
        str(SDK),
        *("-m", "training", "train", "--on", "sagemaker", "--bucket", bucket, "--role-arn", ROLE, "--spot"),
        *("--data", str(staged), "--out", str(tmp_path / "model.onnx"), "--epochs", "1", "--folds", "2"),
        check=False,
    )
    client = rehearsal.client("sagemaker")
    names = [job["TrainingJobName"] for job in client.list_training_jobs()["TrainingJobSummaries"]]
    (name,) = [name for name in names if name.startswith("image-classifier")]
    described = client.describe_training_job(TrainingJobName=name)
    assert described["AlgorithmSpecification"]["TrainingImage"] == IMAGE
    parameters = described["HyperParameters"]
    assert (parameters["epochs"], parameters["folds"], parameters["network"]) == ("1", "2", "efficientnet-lite0")
    assert described["EnableManagedSpotTraining"] is True
    assert described["StoppingCondition"] == {"MaxRuntimeInSeconds": 21600, "MaxWaitTimeInSeconds": 43200}
    assert described["CheckpointConfig"]["S3Uri"].startswith(f"s3://{bucket}/training/checkpoints/")
    channels = {channel["ChannelName"] for channel in described["InputDataConfig"]}
    assert channels == {"staged", "code", "sm_drivers"}
    assert "loss" in [each["Name"] for each in described["AlgorithmSpecification"]["MetricDefinitions"]]
    assert "Starting training script" in done.stdout
    # Without torch the same command says what it lacks; with .venv-training it trains.
    trained = (tmp_path / "model.onnx").exists()
    assert ("train needs torch" in done.stdout) != trained, done.stdout + done.stderr
