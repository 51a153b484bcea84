"""From reviewed images to a better model in service, by the command that a user repeats."""

import hashlib
import json
import sys
from pathlib import Path

import pytest
from PIL import Image

from common.manifest import read_manifest
from demo.drawing import encoded
from tests.support.onnx_model import write_model
from tests.support.reviews import write_folder, write_review
from tests.support.stack import IMAGE_URI, ROLE, Rehearsal
from training.dataset.sources import Source
from training.dataset.staging import stage
from training.provenance import data_checksum

BUCKET, ENDPOINT, STACK = "bucket-of-improvements", "improved", "improved-stack"
COLOURS = {"bicycle": (230, 20, 20), "motorcycle": (20, 20, 230), "other": (90, 90, 90)}
TEMPLATE = {
    "Parameters": {
        name: {"Type": "String", "Default": value}
        for name, value in {"Labels": "bicycle,motorcycle", "Threshold": "0.7"}.items()
    },
    "Resources": {"Queue": {"Type": "AWS::SQS::Queue"}},
    "Outputs": {
        "ReviewQueueUrl": {"Value": {"Ref": "Queue"}},
        "ModelBucketName": {"Value": BUCKET},
        "EndpointName": {"Value": ENDPOINT},
    },
}
REVIEW = f"next: python -m operations review --stack-name {STACK}"


def picture(name: str, number: int) -> bytes:
    return encoded(Image.new("RGB", (8, 8), tuple(level + number for level in COLOURS[name])))


@pytest.fixture
def staged(tmp_path: Path) -> Path:
    """Stage ten images of each class for training, and ten to judge by."""
    for name in COLOURS:
        for number in range(20):
            path = tmp_path / "images" / ("train" if number < 10 else "test") / name / f"{number}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(picture(name, number))
    stage([Source(tmp_path / "images")], ["bicycle", "motorcycle"], tmp_path / "staged")
    return tmp_path / "staged"


def test_each_run_takes_the_open_steps_and_stops_where_a_person_decides(
    rehearsal: Rehearsal, staged: Path, tmp_path: Path
) -> None:
    rehearsal.client("s3").create_bucket(Bucket=BUCKET)
    cloudformation = rehearsal.client("cloudformation")
    cloudformation.create_stack(StackName=STACK, TemplateBody=json.dumps(TEMPLATE))
    cloudformation.get_waiter("stack_create_complete").wait(StackName=STACK)
    limits, out = tmp_path / "limits.toml", tmp_path / "out"
    limits.write_text("minimum.accuracy = 0.9\nmaximum.other_passing = 0.1\ncomparison.significance = 0.05\n")

    def improve(*more: str, code: int = 0) -> str:
        command = ("improve", "--stack-name", STACK, "--data", str(staged), "--out", str(out), "--gate", str(limits))
        return training(rehearsal, *command, "--baking-seconds", "0", *more, code=code)

    def review(label: str, content: bytes) -> None:
        name = write_review(tmp_path / "labels", label, content)
        for file in (f"{name}.png", f"{name}.json"):
            body = (tmp_path / "labels" / file).read_bytes()
            rehearsal.client("s3").put_object(Bucket=BUCKET, Key=f"labels/{file}", Body=body)

    def finish_training(redness: float) -> None:
        """Leave behind what training leaves: this environment has no torch."""
        model = write_model(out / "model" / "model.onnx", redness=redness)
        facts = {"model_sha256": hashlib.sha256(model.read_bytes()).hexdigest()}
        facts["data_sha256"] = data_checksum(out / "staged")
        (model.parent / "metrics.json").write_text(json.dumps(facts))

    assert f"there is no endpoint {ENDPOINT} to improve" in improve(code=1)
    unsure = write_model(tmp_path / "unsure" / "model.onnx", redness=0.0001)
    place = ("--endpoint-name", ENDPOINT, "--bucket", BUCKET, "--role-arn", ROLE, "--image-uri", IMAGE_URI)
    kept = ("--instance-type", "ml.m5.large", "--capture-percentage", "50")
    training(rehearsal, "deploy", *place, *kept, "--model", str(unsure))

    # Nothing is reviewed, then only an image that judges.
    assert (said := improve()).endswith(f"{REVIEW}\n") and "no new labels" in said
    review("bicycle", picture("bicycle", 15))
    assert "no new labels" in improve()

    review("bicycle", picture("bicycle", 5))  # is there already
    review("motorcycle", picture("other", 25))
    review("neither", picture("other", 26))
    said = improve(code=1)
    assert "staged 0 bicycle, 1 motorcycle, 1 neither from" in said and "train needs torch" in said
    old, new = read_manifest(staged).images, read_manifest(out / "staged").images
    assert len(set(old) & set(new)) == len(old) - 1, "the others have the same path, label, split, hash and origin"
    added = {entry.path.rpartition("/")[0] for entry in set(new) - set(old)}
    assert len(new) == len(old) + 2 and added == {"train/bicycle", "train/motorcycle", "train/neither"}

    # A label that comes meanwhile belongs to the next round.
    review("bicycle", picture("bicycle", 25))
    assert " beside " not in improve(code=1)
    finish_training(redness=0.01)
    for _ in range(2):
        said = improve()
        assert "20 test images with a label, 10 without" in said
        assert "  coverage            0.000  1.000\n" in said and "  other_passing       0.000  0.000\n" in said
        assert said.endswith(f"next: python -m training approve {ENDPOINT}/1\n")
    training(rehearsal, "approve", f"{ENDPOINT}/1")
    wrong = write_folder(tmp_path / "known", {"motorcycle/red.png": picture("bicycle", 30)})
    assert f"next: python -m training reject {ENDPOINT}/1\n" in improve("--known-images", str(wrong), code=3)
    assert (said := improve()).endswith(f"{REVIEW}\n") and f"{ENDPOINT}/1 is in service" in said
    sagemaker = rehearsal.client("sagemaker")
    served = sagemaker.describe_endpoint(EndpointName=ENDPOINT)["EndpointConfigName"]
    config = sagemaker.describe_endpoint_config(EndpointConfigName=served)
    assert config["ProductionVariants"][0]["InstanceType"] == "ml.m5.large"
    assert config["DataCaptureConfig"]["InitialSamplingPercentage"] == 50

    # The next round: the gate rejects its model, and nothing more happens until there are other labels.
    assert "staged 1 bicycle, 1 motorcycle, 1 neither from" in improve(code=1)
    finish_training(redness=-0.01)
    assert f"{ENDPOINT}/2 is rejected: Does not pass limits.toml: accuracy is 0, below 0.9" in improve(code=1)
    assert "no new labels" in improve()
    packages = sagemaker.list_model_packages(ModelPackageGroupName=ENDPOINT)["ModelPackageSummaryList"]
    assert len(packages) == 2
    assert sagemaker.describe_endpoint(EndpointName=ENDPOINT)["EndpointConfigName"] == served
    training(rehearsal, "remove", "--endpoint-name", ENDPOINT)


def training(rehearsal: Rehearsal, command: str, *more: str, code: int = 0) -> str:
    done = rehearsal.run(sys.executable, "-m", "training", command, *more, check=False)
    assert done.returncode == code, done.stdout + done.stderr
    return done.stderr + done.stdout
