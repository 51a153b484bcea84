"""The endpoint's image and its role: how it is built, and what it may do."""

import ast
import json
import os
import re
import shlex
import subprocess
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import boto3
import pytest
from botocore import xform_name
from moto import mock_aws

from training.deployment.settings import Deployment, sagemaker_settings
from training.jobs import built_in

REPOSITORY = Path(__file__).parents[2]
IMAGE = "123456789012.dkr.ecr.eu-west-1.amazonaws.com/image-classifier:1"
KEY = "arn:aws:kms:us-east-1:123456789012:key/11111111-2222-3333-4444-555555555555"


def make_image(path: Path, *variables: str) -> subprocess.CompletedProcess[str]:
    """Run ``make image`` with only the programs of a folder and the shell's."""
    environment = {**os.environ, "PATH": f"{path}:/usr/bin:/bin", "RECORD": str(path / "calls")}
    command = ["make", "image", *variables]
    return subprocess.run(command, cwd=REPOSITORY, env=environment, capture_output=True, text=True, check=False)


def stand_in(path: Path, body: str) -> None:
    """Put a program into the folder that notes each call as ``docker``."""
    docker = path / "docker"
    docker.write_text(
        f'#!/bin/sh\nfor word in "$@"; do printf "%s\\n" "$word"; done >> "$RECORD"\necho >> "$RECORD"\n{body}\n'
    )
    docker.chmod(0o755)


def calls(path: Path) -> list[list[str]]:
    return [call.splitlines() for call in (path / "calls").read_text().strip().split("\n\n")]


@pytest.mark.parametrize("builder_exists", [True, False])
def test_make_image_pushes_a_manifest_that_sagemaker_takes(tmp_path: Path, builder_exists: bool) -> None:
    stand_in(tmp_path, 'test "$2" != inspect' if not builder_exists else 'test "$2" = imagetools && echo "$@" || true')
    done = make_image(tmp_path, f"IMAGE={IMAGE}")
    assert done.returncode == 0, done.stderr
    made = calls(tmp_path)
    create = ["buildx", "create", "--name", "image-classifier", "--driver", "docker-container"]
    assert (create in made) != builder_exists
    (build,) = (call for call in made if call[:2] == ["buildx", "build"])
    assert build[build.index("--builder") + 1] == "image-classifier"
    assert build[build.index("--output") + 1] == "type=registry,oci-mediatypes=false"
    assert {"--provenance=false", "--sbom=false"} < set(build)
    assert build[build.index("--platform") + 1] == "linux/amd64"
    assert build[build.index("--tag") + 1] == IMAGE
    assert (REPOSITORY / build[build.index("--file") + 1]).is_file() and build[-1] == "."
    assert made[-1][:4] == ["buildx", "imagetools", "inspect", IMAGE]


def test_make_image_says_what_is_missing(tmp_path: Path) -> None:
    for variables in ([], ["IMAGE="], ["IMAGE=image-classifier:1"], ["IMAGE=localhost:5000/image-classifier"]):
        refused = make_image(tmp_path, *variables)
        assert refused.returncode != 0 and "IMAGE must name a repository and a tag" in refused.stderr
    stand_in(tmp_path, 'test "$1" != buildx')
    refused = make_image(tmp_path, f"IMAGE={IMAGE}")
    assert refused.returncode != 0 and "buildx plugin is needed" in refused.stderr


def test_a_build_that_fails_ends_make_image(tmp_path: Path) -> None:
    stand_in(tmp_path, 'test "$2" != build')
    assert make_image(tmp_path, f"IMAGE={IMAGE}").returncode != 0
    assert calls(tmp_path)[-1][:2] == ["buildx", "build"], "nothing is said to be pushed"


def test_the_image_runs_as_root_as_sagemaker_expects() -> None:
    dockerfile = (REPOSITORY / "serving/Dockerfile").read_text()
    assert not [line for line in dockerfile.splitlines() if line.upper().startswith("USER ")]


def statements(role: str = "EndpointRole", **parameters: str) -> list[dict[str, Any]]:
    """Deploy ``training/roles.yaml``; return the statements of a role's policy."""
    given = [{"ParameterKey": name, "ParameterValue": value} for name, value in parameters.items()]
    cloudformation, iam = boto3.client("cloudformation"), boto3.client("iam")
    template = (REPOSITORY / "training/roles.yaml").read_text()
    cloudformation.create_stack(StackName="r", TemplateBody=template, Parameters=given, Capabilities=["CAPABILITY_IAM"])  # type: ignore[arg-type]
    (stack,) = cloudformation.describe_stacks(StackName="r")["Stacks"]
    outputs = {output["OutputKey"]: output["OutputValue"] for output in stack["Outputs"]}
    made = iam.get_role(RoleName=outputs[f"{role}Arn"].rsplit("/", 1)[-1])["Role"]
    trust: Any = made["AssumeRolePolicyDocument"]
    if role != "ReleaseRole":
        assert trust["Statement"][0]["Condition"] == {"StringEquals": {"aws:SourceAccount": "123456789012"}}
    (policy,) = iam.list_role_policies(RoleName=made["RoleName"])["PolicyNames"]
    document: Any = iam.get_role_policy(RoleName=made["RoleName"], PolicyName=policy)["PolicyDocument"]
    # moto keeps it as Python prints it, with None for what CloudFormation leaves out.
    return [statement for statement in ast.literal_eval(document)["Statement"] if statement]


def listed(value: Any) -> list[str]:
    return value if isinstance(value, list) else [value]


def allows(found: list[dict[str, Any]], action: str, resource: str) -> bool:
    return any(
        action in listed(s["Action"]) and any(fnmatchcase(resource, each) for each in listed(s["Resource"]))
        for s in found
    )


@mock_aws
def test_the_role_allows_what_the_endpoint_does_and_no_more(tmp_path: Path) -> None:
    (tmp_path / "model.onnx").write_bytes(b"a model")
    role = "arn:aws:iam::123456789012:role/r"
    wanted = Deployment("image-classifier", "models", role, IMAGE, tmp_path / "model.onnx")
    settings = sagemaker_settings(wanted, IMAGE, "s3://models/models/image-classifier/0/model.tar.gz")
    found = statements(Bucket="models")

    model = settings["model"]["PrimaryContainer"]["ModelDataUrl"].replace("s3://", "arn:aws:s3:::")
    captured = settings["capture"]["DestinationS3Uri"].replace("s3://", "arn:aws:s3:::") + "/image-classifier/a.jsonl"
    repository = "arn:aws:ecr:us-east-1:123456789012:repository/image-classifier"
    logs = "arn:aws:logs:us-east-1:123456789012:log-group:/aws/sagemaker/Endpoints/image-classifier:log-stream:a"
    assert allows(found, "s3:GetObject", model) and not allows(found, "s3:PutObject", model)
    assert allows(found, "s3:PutObject", captured) and not allows(found, "s3:GetObject", captured)
    assert allows(found, "ecr:BatchGetImage", repository) and not allows(found, "ecr:BatchGetImage", f"{repository}-2")
    algorithm = f"arn:aws:ecr:us-east-1:811284229777:repository/{built_in.ALGORITHM}"
    assert allows(found, "ecr:BatchGetImage", algorithm) and not allows(found, "ecr:BatchGetImage", f"{algorithm}-2")
    assert allows(found, "ecr:GetAuthorizationToken", "*") and allows(found, "cloudwatch:PutMetricData", "*")
    assert allows(found, "logs:PutLogEvents", logs)
    assert "*" not in json.dumps([s["Action"] for s in found]) and "kms" not in json.dumps(found)


@mock_aws
def test_the_role_may_use_the_key_of_an_encrypted_bucket() -> None:
    found = statements(Bucket="models", KmsKeyArn=KEY)
    (kms,) = (s for s in found if s["Resource"] == KEY)
    assert kms["Action"] == ["kms:Decrypt", "kms:GenerateDataKey"]
    assert kms["Condition"] == {"StringEquals": {"kms:ViaService": "s3.us-east-1.amazonaws.com"}}


@mock_aws
def test_the_release_role_allows_every_call_of_the_commands() -> None:
    found = statements("ReleaseRole", Bucket="models")
    actions = {action for statement in found for action in listed(statement["Action"])}
    folders = [REPOSITORY / "training" / part for part in ("deployment", "registry")]
    sources = [path.read_text() for folder in folders for path in folder.glob("*.py")]
    named = {name for text in sources for name in re.findall(r"\bsagemaker\.(?:get_paginator\(.)?([a-z_]+)", text)}
    operations = {xform_name(name): name for name in boto3.client("sagemaker").meta.service_model.operation_names}
    calls = {operations[name] for name in named & operations.keys()}
    assert {"UpdateEndpoint", "CreateModelPackage", "ListModelPackages"} <= calls
    for key in ("capture/image-classifier/AllTraffic/2026/11/25/10/a.jsonl", "labels/0.json"):
        assert allows(found, "s3:GetObject", f"arn:aws:s3:::models/{key}"), "compare reads it"
    assert not calls - {action.partition(":")[2] for action in actions}
    assert "*" not in json.dumps(sorted(actions))


@mock_aws
def test_the_release_role_is_for_one_endpoint() -> None:
    found = statements("ReleaseRole", Bucket="models", EndpointName="mine")
    sagemaker = "arn:aws:sagemaker:us-east-1:123456789012:"
    resources = {
        "UpdateEndpoint": "endpoint/{}",
        "DeleteModel": "model/{}-0",
        "UpdateModelPackage": "model-package/{}/1",
    }
    for action, kind in resources.items():
        assert allows(found, f"sagemaker:{action}", sagemaker + kind.format("mine"))
        assert not allows(found, f"sagemaker:{action}", sagemaker + kind.format("other"))
    assert not allows(found, "s3:PutObject", "arn:aws:s3:::models/capture/a")
    assert allows(found, "s3:GetBucketNotification", "arn:aws:s3:::uploads")
    assert not allows(found, "s3:ListBucket", "arn:aws:s3:::uploads")
    reviewed = "arn:aws:s3:::models/labels/a.json"
    assert allows(found, "s3:GetObject", reviewed) and not allows(found, "s3:PutObject", reviewed)
    assert allows(found, "sqs:GetQueueAttributes", "arn:aws:sqs:us-east-1:123456789012:stack-ReviewQueue-1")
    assert allows(found, "cloudformation:DescribeStacks", "arn:aws:cloudformation:us-east-1:123456789012:stack/s/1")
    assert not allows(found, "iam:PassRole", "arn:aws:iam::123456789012:role/other")
    assert allows(found, "cloudwatch:PutMetricData", "*")
    unnamed = {
        action
        for statement in found
        if statement["Resource"] == "*" and "Condition" not in statement
        for action in listed(statement["Action"])
    }
    assert all(action.partition(":")[2].startswith(("List", "Describe", "GetMetricData")) for action in unnamed)


@mock_aws
def test_the_training_role_reads_and_writes_below_training_only() -> None:
    found = statements("TrainingRole", Bucket="models")
    for action in ("s3:GetObject", "s3:PutObject"):
        assert allows(found, action, "arn:aws:s3:::models/training/job/output/model.tar.gz")
        assert not allows(found, action, "arn:aws:s3:::models/models/image-classifier/0/model.tar.gz")
    image = "arn:aws:ecr:us-east-1:763104351884:repository/pytorch-training"
    algorithm = f"arn:aws:ecr:us-east-1:811284229777:repository/{built_in.ALGORITHM}"
    for name in (image, algorithm):
        assert allows(found, "ecr:BatchGetImage", name) and not allows(found, "ecr:BatchGetImage", f"{name}-2")


def test_the_readme_deploys_the_role_with_parameters_that_it_has() -> None:
    readme = (REPOSITORY / "README.md").read_text()
    (command,) = (
        line
        for block in readme.split("```")[1::2]
        for line in block.replace("\\\n", " ").splitlines()
        if "aws cloudformation deploy" in line
    )
    words = shlex.split(command)
    template = (REPOSITORY / "training/roles.yaml").read_text()
    assert words[words.index("--template-file") + 1] == "training/roles.yaml" and "CAPABILITY_IAM" in words
    for override in words[words.index("--parameter-overrides") + 1 :]:
        assert f"\n  {override.split('=')[0]}:\n" in template.split("Conditions:")[0]
