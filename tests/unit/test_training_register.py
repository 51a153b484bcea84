"""Judging a model, and registering it: real models and images, moto as the registry."""

import hashlib
import json
import os
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import boto3
import numpy as np
import pytest
from botocore.exceptions import ClientError
from moto import mock_aws
from PIL import Image

from common.errors import CommandError
from common.image_sets import ImageFile
from tests.support.onnx_model import write_model
from tests.unit.test_training_deploy import IMAGE, NAME, ROLE, push
from training import provenance
from training.__main__ import main
from training.deployment.deploy import deploy
from training.deployment.settings import Deployment
from training.evaluation.predictions import Predictions
from training.registry.gate import Gate, Paired, compare, judge, read_gate
from training.registry.packages import decide, find_served, list_packages

REPOSITORY = Path(__file__).parents[2]
LIMITS = Gate({"accuracy": 0.9}, {"other_passing": 0.1}, 0.05)


#: Patterns of the service model that Python's expressions cannot write, and what they mean.
PATTERNS = {
    r"([\p{L}\p{Z}\p{N}_.:\/=+\-@]*)${1,128}": r"[\w .:/=+@-]{1,128}",
    r"([\p{L}\p{Z}\p{N}_.:\/=+\-@]*)${1,256}": r"[\w .:/=+@-]{1,256}",
    r"[\p{L}\p{M}\p{Z}\p{S}\p{N}\p{P}]*": r"[^\x00-\x1f]*",
}


def check(shape: Any, value: Any) -> None:
    """Fail if a text violates the pattern or the length that AWS's description has; boto3 checks types alone."""
    if shape.type_name == "structure":
        for name, part in value.items():
            check(shape.members[name], part)
    elif shape.type_name == "list":
        for part in value:
            check(shape.member, part)
    elif shape.type_name == "map":
        for name, part in value.items():
            check(shape.key, name)
            check(shape.value, part)
    elif shape.type_name == "string":
        pattern = shape.metadata.get("pattern", ".*")
        assert re.fullmatch(PATTERNS.get(pattern, pattern), value), f"{shape.name}: {value!r}"
        assert len(value) <= shape.metadata.get("max", 10**6), shape.name


@pytest.fixture
def aws(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    monkeypatch.setenv("AWS_DEFAULT_REGION", "eu-west-1")
    monkeypatch.setattr("common.storage._s3", lambda: boto3.client("s3"))
    with mock_aws():
        session = boto3.Session()
        session.events.register(
            "before-parameter-build.sagemaker", lambda params, model, **_: check(model.input_shape, params)
        )
        monkeypatch.setattr(boto3, "DEFAULT_SESSION", session)
        boto3.client("s3").create_bucket(Bucket="models", CreateBucketConfiguration={"LocationConstraint": "eu-west-1"})
        boto3.client("ecr").create_repository(repositoryName="classifier")
        push("a")
        yield boto3.client("sagemaker")


@pytest.fixture
def images(tmp_path: Path) -> Path:
    """Return a folder of red bicycles, blue motorcycles and grey background."""
    for name, colour in (("bicycle", (230, 20, 20)), ("motorcycle", (20, 20, 230)), ("neither", (90, 90, 90))):
        (tmp_path / "images" / name).mkdir(parents=True)
        for number in range(20):
            shade = tuple(level + number for level in colour)
            Image.new("RGB", (8, 8), shade).save(tmp_path / "images" / name / f"{number}.png")
    return tmp_path / "images"


@pytest.fixture
def limits(tmp_path: Path) -> Path:
    path = tmp_path / "limits.toml"
    path.write_text("minimum.accuracy = 0.9\nmaximum.other_passing = 0.1\ncomparison.significance = 0.05\n")
    return path


def register(images: Path, limits: Path, model: Path) -> int:
    place = ("--endpoint-name", NAME, "--bucket", "models", "--image-uri", IMAGE)
    return main(["register", *place, "--model", str(model), "--data", str(images), "--gate", str(limits)])


def packages(sagemaker: Any) -> list[dict[str, Any]]:
    found = list_packages(sagemaker, NAME)
    return [sagemaker.describe_model_package(ModelPackageName=item["ModelPackageArn"]) for item in found]


def test_a_good_model_waits_for_approval(aws: Any, images: Path, limits: Path, capsys: Any) -> None:
    model = write_model(images.parent / "good" / "model.onnx", redness=0.01)
    facts = {"model_sha256": sha256(model), "data_sha256": "d" * 64, "commit": "c" * 40}
    (model.parent / "metrics.json").write_text(json.dumps(facts))
    assert register(images, limits, model) == 0
    said = capsys.readouterr().out
    assert "nothing to compare with" in said and f"approve {NAME}/1" in said

    (package,) = packages(aws)
    assert package["ModelApprovalStatus"] == "PendingManualApproval"
    assert package["MetadataProperties"] == {"CommitId": "c" * 40}
    properties = package["CustomerMetadataProperties"]
    assert properties["data_sha256"] == "d" * 64 and properties["model_sha256"] == facts["model_sha256"]
    assert (properties["accuracy"], properties["n"], properties["other_n"]) == ("1.0", "40", "20")
    (container,) = package["InferenceSpecification"]["Containers"]
    assert container["Image"].endswith("@sha256:" + "a" * 64)
    address = package["ModelMetrics"]["ModelQuality"]["Statistics"]["S3Uri"]
    evaluation = json.loads(stored(address))
    assert evaluation["sets"]["images"]["accuracy"] == 1 and evaluation["rejected_because"] == []

    wanted = Deployment(NAME, "models", ROLE, IMAGE, model)
    deploy(wanted, lambda _: None)
    served = find_served(aws, NAME)
    assert served and served.data_url == container["ModelDataUrl"], "deploy uploads to the same address"


def sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def stored(address: str) -> bytes:
    bucket, key = address.removeprefix("s3://").split("/", 1)
    return boto3.client("s3").get_object(Bucket=bucket, Key=key)["Body"].read()


def test_a_model_below_the_limits_is_rejected_with_the_reason(
    aws: Any, images: Path, limits: Path, capsys: Any
) -> None:
    model = write_model(images.parent / "bad" / "model.onnx", redness=-0.01)
    assert register(images, limits, model) == 1
    assert "rejected: accuracy is 0, below 0.9" in capsys.readouterr().err
    (package,) = packages(aws)
    assert package["ModelApprovalStatus"] == "Rejected"
    assert "accuracy is 0, below 0.9" in package["ApprovalDescription"]


@pytest.mark.parametrize("status", ["approved", "in service"])
def test_a_model_that_is_worse_than_the_one_in_service_is_rejected(
    aws: Any, images: Path, limits: Path, status: str, capsys: Any
) -> None:
    """It reaches every limit; only the comparison on the same images shows the damage."""
    limits.write_text("[minimum]\n[maximum]\n[comparison]\nsignificance = 0.05\n")
    good = write_model(images.parent / "good" / "model.onnx", redness=0.01)
    weak = write_model(images.parent / "weak" / "model.onnx", redness=0.0001)  # right, and never sure enough
    assert register(images, limits, good) == 0
    if status == "approved":
        assert main(["approve", f"{NAME}/1"]) == 0
    else:
        deploy(Deployment(NAME, "models", ROLE, IMAGE, good), lambda _: None)
    assert register(images, limits, weak) == 1
    said = capsys.readouterr()
    assert "does not pass the correct label more often than the model in service: 40 images became worse" in said.err
    assert ("approved last" in said.out) == (status == "approved")
    assert packages(aws)[0]["ModelApprovalStatus"] == "Rejected"
    assert register(images, limits, good) == 0, "the same model again is not worse"


def test_nothing_is_registered_for_other_labels(aws: Any, images: Path, limits: Path, tmp_path: Path) -> None:
    good = write_model(tmp_path / "good" / "model.onnx", redness=0.01)
    assert register(images, limits, good) == 0 and main(["approve", f"{NAME}/1"]) == 0
    other = tmp_path / "other.onnx"
    other.write_bytes(good.read_bytes().replace(b'"motorcycle"', b'"motorboat "'))
    os.rename(images / "motorcycle", images / "motorboat")
    assert register(images, limits, other) == 1
    assert len(packages(aws)) == 1


def test_approval_is_by_name_and_a_rejected_model_needs_a_reason(
    aws: Any, images: Path, limits: Path, capsys: Any
) -> None:
    register(images, limits, write_model(images.parent / "bad" / "model.onnx", redness=-0.01))
    assert main(["approve", f"{NAME}/1"]) == 1
    assert "was rejected: Does not pass limits.toml: accuracy is 0" in capsys.readouterr().err
    arn = packages(aws)[0]["ModelPackageArn"]
    assert main(["approve", arn, "--reason", "the test\nimages are wrong"]) == 0
    assert packages(aws)[0]["ModelApprovalStatus"] == "Approved"
    assert packages(aws)[0]["ApprovalDescription"] == "the test images are wrong"
    assert main(["reject", f"{NAME}/1", "--reason", "after all"]) == 0
    assert packages(aws)[0]["ModelApprovalStatus"] == "Rejected"
    refused = {f"{NAME}/2": "versions of image-classifier: 1", "x/1": "versions of x: none", "x": "GROUP/VERSION"}
    for wrong, reason in refused.items():
        with pytest.raises(CommandError, match=reason):
            decide(wrong, True, None)


def predictions(labels: str, confidences: list[float], targets: list[int]) -> Predictions:
    """Return predictions of two labels: the digit's label gets the confidence."""
    chosen = np.array([int(digit) for digit in labels])
    probabilities = np.zeros((len(chosen), 2))
    probabilities[np.arange(len(chosen)), chosen] = confidences
    files = [ImageFile(Path(f"{i}.png"), "x") for i in range(len(chosen))]
    return Predictions(files, np.array(targets), probabilities, np.array([], int), np.zeros((0, 0, 2)), [], [])


def test_the_comparison_counts_pairs_and_not_totals() -> None:
    # Label 0 six times, label 1 twice, and two of background (2).
    targets = [0] * 6 + [1] * 2 + [2] * 2
    served = predictions("0000001111"[:10], [0.9] * 10, targets)
    new = predictions("1111110011", [0.9] * 8 + [0.5, 0.9], targets)
    wrong, passed, lost = compare(new, served, 2, 0.7)
    assert (wrong.images, wrong.worse, wrong.better) == (8, 8, 0)
    assert wrong.p == pytest.approx(0.5**8), "the exact probability of eight heads in a row"
    assert (passed.images, passed.worse, passed.better) == (10, 8, 1), "background that no longer passes is better"
    assert (lost.worse, lost.better) == (8, 0)
    swapped = compare(served, new, 2, 0.7)
    assert [(each.worse, each.better) for each in swapped] == [(0, 8), (1, 8), (0, 8)]
    assert judge({"accuracy": 1.0, "other_passing": 0.0}, swapped, LIMITS) == []


def test_changes_that_chance_explains_do_not_reject() -> None:
    metrics = {"accuracy": 0.9, "other_passing": 0.1}
    noise = [Paired("passes", 100, 9, 4, 0.13), Paired("is lost", 100, 1, 1, 0.75)]
    assert judge(metrics, [Paired("is wrong", 100, 9, 3, 0.073), *noise], LIMITS) == []
    # .03 alone is significant; as the best of three tests it is not.
    assert judge(metrics, [Paired("is wrong", 100, 8, 2, 0.03), *noise], LIMITS) == []
    assert len(judge(metrics, [Paired("is wrong", 100, 8, 1, 0.0195 / 2), *noise], LIMITS)) == 1


def test_a_metric_that_cannot_be_measured_rejects() -> None:
    assert judge({"accuracy": 0.95, "other_passing": None}, [], LIMITS) == [
        "other_passing is unknown (there is no such image), above 0.1"
    ]


def test_the_committed_gate_passes_the_committed_model() -> None:
    gate = read_gate(REPOSITORY / "training" / "gate.toml")
    metrics = json.loads((REPOSITORY / "training" / "model" / "metrics.json").read_text())
    assert judge(metrics["test"], [], gate) == []


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("minimum.acuracy = 1\nmaximum = {}\ncomparison.significance = .05", "expected the tables"),
        ("minimum.acuracy = 1\nmaximum = {}\ncomparison.significance = 0.05", "unknown metrics acuracy"),
        ("minimum.accuracy = '1'\nmaximum = {}\ncomparison.significance = 0.05", "must be numbers"),
        ("minimum = {}\nmaximum = {}\ncomparison.significance = 5", "between 0 and 1"),
        ("minimum = {}\nmaximum = {}", "expected the tables"),
    ],
)
def test_a_malformed_gate_is_refused(tmp_path: Path, text: str, reason: str) -> None:
    (tmp_path / "gate.toml").write_text(text)
    with pytest.raises(CommandError, match=reason):
        read_gate(tmp_path / "gate.toml")


def test_the_commit_says_whether_there_were_changes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def git(*arguments: str) -> str:
        identity = ("-c", "user.name=x", "-c", "user.email=x@example.com")
        done = subprocess.run(["git", *identity, *arguments], cwd=tmp_path, check=True, capture_output=True, text=True)
        return done.stdout.strip()

    monkeypatch.setattr(provenance, "__file__", str(tmp_path / "provenance.py"))
    assert provenance.commit() is None
    git("init", "-q")
    (tmp_path / "a").write_text("1")
    git("add", ".")
    git("commit", "-qm", "x")
    git("tag", "v1")
    assert provenance.commit() == git("rev-parse", "HEAD")
    (tmp_path / "a").write_text("2")
    assert provenance.commit() == git("rev-parse", "HEAD") + "-dirty"
    monkeypatch.setenv("TRAINING_COMMIT", "given")
    assert provenance.commit() == "given"


def test_a_group_that_exists_is_used(aws: Any, images: Path, limits: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """AWS refuses to create it again, where moto overwrites it."""
    model = write_model(images.parent / "good" / "model.onnx", redness=0.01)
    assert register(images, limits, model) == 0
    taken = {"Error": {"Code": "ValidationException", "Message": "Model Package Group already exists: arn"}}

    class Taken:
        def __getattr__(self, name: str) -> Any:
            return getattr(aws, name)

        def create_model_package_group(self, **_: Any) -> None:
            raise ClientError(taken, "CreateModelPackageGroup")  # type: ignore[arg-type]

    real = boto3.client
    monkeypatch.setattr(boto3, "client", lambda name: Taken() if name == "sagemaker" else real(name))
    assert register(images, limits, model) == 0
    assert [package["ModelPackageVersion"] for package in packages(aws)] == [2, 1]
    properties = packages(aws)[0]["CustomerMetadataProperties"]
    assert properties["data_sha256"] == "unknown", "training left no metrics beside this model"
