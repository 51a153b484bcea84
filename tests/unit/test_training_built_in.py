"""Training SageMaker's built-in algorithm: its input is what AWS documents, and its model's classes are the stack's."""

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import boto3
import pytest
from moto import mock_aws

from common.errors import CommandError
from rehearsal import image_classification as algorithm
from tests.support.stack import ALGORITHM_URI
from tests.support.staged import COLOURS, coloured, stage_coloured
from training.__main__ import main
from training.deployment.settings import Deployment
from training.jobs.built_in import fetch, is_built_in, start
from training.jobs.start import Job

BUCKET, ROLE = "models", "arn:aws:iam::123456789012:role/training"


@pytest.fixture(autouse=True)
def s3() -> Iterator[Any]:
    with mock_aws():
        client = boto3.client("s3")
        client.create_bucket(Bucket=BUCKET)
        yield client


@pytest.fixture
def staged(tmp_path: Path) -> Path:
    return stage_coloured(tmp_path)


def job(staged: Path, **changes: Any) -> Job:
    known: dict[str, Any] = {"instance_type": "ml.g4dn.xlarge", "image_uri": ALGORITHM_URI}
    return Job("classifier", BUCKET, ROLE, staged, {}, **{**known, **changes})


def describe(name: str) -> dict[str, Any]:
    return dict(boto3.client("sagemaker").describe_training_job(TrainingJobName=name))


def as_container(s3: Any, described: dict[str, Any], root: Path) -> Path:
    """Write what the container of a job finds below ``/opt/ml``."""
    config = root / "input" / "config"
    for folder in (config, root / "model", root / "output"):
        folder.mkdir(parents=True)
    channels = {}
    for channel in described["InputDataConfig"]:
        source = urlsplit(channel["DataSource"]["S3DataSource"]["S3Uri"])
        prefix = source.path.lstrip("/")
        channels[channel["ChannelName"]] = {"ContentType": channel["ContentType"]}
        for item in s3.list_objects_v2(Bucket=source.netloc, Prefix=prefix)["Contents"]:
            path = root / "input" / "data" / channel["ChannelName"] / item["Key"].removeprefix(prefix)
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(s3.get_object(Bucket=source.netloc, Key=item["Key"])["Body"].read())
    host = {"current_instance_type": described["ResourceConfig"]["InstanceType"]}
    inputs = {"hyperparameters": described["HyperParameters"], "inputdataconfig": channels, "resourceconfig": host}
    for name, content in inputs.items():
        (config / f"{name}.json").write_text(json.dumps(content))
    return root


def test_the_job_is_what_aws_documents_and_learns_the_classes_in_their_order(
    s3: Any, staged: Path, tmp_path: Path
) -> None:
    described = describe(start(job(staged, spot=True), epochs=3))
    assert described["EnableManagedSpotTraining"] is True and is_built_in(described)
    assert described["StoppingCondition"] == {"MaxRuntimeInSeconds": 21600, "MaxWaitTimeInSeconds": 43200}
    assert described["CheckpointConfig"]["S3Uri"].startswith(f"s3://{BUCKET}/training/checkpoints/classifier-built-in-")
    parameters = described["HyperParameters"]
    assert (parameters["num_classes"], parameters["num_training_samples"], parameters["epochs"]) == ("3", "9", "3")

    root = as_container(s3, described, tmp_path / "ml")
    listed = (root / "input/data/train_lst/train.lst").read_text().splitlines()
    assert sorted(line.split("\t")[1:] for line in listed)[::3] == [
        ["0", "bicycle/0.png"],
        ["1", "motorcycle/0.png"],
        ["2", "neither/tree_0.png"],
    ]
    algorithm.train(root)
    means = json.loads((root / "model" / algorithm.MODEL).read_text())
    for number, name in enumerate(COLOURS):
        file = tmp_path / "image.png"
        coloured(name, 9).save(file)
        answer = algorithm.probabilities(means, algorithm.thumbnail(file.read_bytes()))
        assert max(answer) == answer[number] > 0.7 and sum(answer) == pytest.approx(1)


@pytest.mark.parametrize(
    ("file", "before", "after", "reason"),
    [
        ("input/config/hyperparameters.json", '"num_layers": "50"', '"num_layers": "51"', "num_layers"),
        ("input/config/hyperparameters.json", '"num_layers"', '"layers"', "layers"),
        ("input/config/hyperparameters.json", '"num_classes"', '"top_k"', "required: num_classes"),
        ("input/config/hyperparameters.json", '"resize": "256"', '"resize": "200"', "smaller than image_shape"),
        (
            "input/config/hyperparameters.json",
            '"num_training_samples": "9"',
            '"num_training_samples": "8"',
            "there are 9",
        ),
        ("input/config/inputdataconfig.json", "application/x-image", "image/png", "content type"),
        ("input/config/resourceconfig.json", "g4dn", "m5", "GPUs only"),
        ("input/data/train_lst/train.lst", "\t0\t", " 0 ", "tabs"),
        ("input/data/train_lst/train.lst", "bicycle/0", "bicycle/7", "no such file"),
        ("input/data/train_lst/train.lst", "\t2\t", "\t3\t", "not below num_classes"),
        ("input/data/train_lst/train.lst", "\t0\t", "\t1\t", "successively"),
    ],
)
def test_the_stand_in_refuses_other_input(
    s3: Any, staged: Path, tmp_path: Path, file: str, before: str, after: str, reason: str
) -> None:
    root = as_container(s3, describe(start(job(staged), None)), tmp_path / "ml")
    text = (root / file).read_text()
    assert before in text
    (root / file).write_text(text.replace(before, after))
    with pytest.raises(algorithm.Rejected, match=reason):
        algorithm.train(root)


def test_what_the_algorithm_cannot_train_is_refused_before_anything_is_sent(s3: Any, staged: Path) -> None:
    with pytest.raises(CommandError, match="GPUs only"):
        start(job(staged, instance_type="ml.m5.xlarge"), None)
    shutil.rmtree(staged / "test" / "neither")
    manifest = json.loads((staged / "manifest.json").read_text())
    manifest["images"] = [each for each in manifest["images"] if not each["path"].startswith("test/neither/")]
    (staged / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(CommandError, match="no test images of neither"):
        start(job(staged), None)
    assert "Contents" not in s3.list_objects_v2(Bucket=BUCKET)


def test_a_model_is_fetched_with_its_image_and_classes(s3: Any, staged: Path, tmp_path: Path) -> None:
    name = start(job(staged), None)
    address = urlsplit(describe(name)["ModelArtifacts"]["S3ModelArtifacts"])
    s3.put_object(Bucket=address.netloc, Key=address.path.lstrip("/"), Body=b"archive")
    said: list[str] = []
    path, image = fetch(name, tmp_path, said.append)
    assert (path.read_bytes(), image) == (b"archive", ALGORITHM_URI)
    assert said == [
        f"{name} has the classes bicycle,motorcycle,neither; the stack needs the parameter Labels="
        "bicycle,motorcycle,neither"
    ]
    assert Deployment("e", BUCKET, ROLE, image, path).is_built_in
    with pytest.raises(CommandError, match="do not name their model"):
        Deployment("e", BUCKET, ROLE, image, path, known_images=tmp_path)
    with pytest.raises(CommandError, match="training job absent"):
        fetch("absent", tmp_path)


def test_the_image_needs_the_sdk_and_the_algorithm_a_job(staged: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = ["train", "--algorithm", "built-in", "--data", str(staged)]
    assert main(command) == 1
    assert "can only be used with --on sagemaker" in capsys.readouterr().err
    assert main([*command, "--on", "sagemaker", "--bucket", BUCKET, "--role-arn", ROLE]) == 1
    assert "--training-image" in capsys.readouterr().err
