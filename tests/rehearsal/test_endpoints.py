"""Endpoints of the rehearsal: the images they take, and what AWS allows while they change."""

import json
import re
import sys
from typing import Any

import pytest
from botocore.exceptions import ClientError

from rehearsal.lifecycle import free_port
from tests.support.stack import IMAGE_URI, ROLE, Rehearsal, deploy_endpoint

DOCKER = "application/vnd.docker.distribution.manifest.v2+json"
OCI = "application/vnd.oci.image.manifest.v1+json"
BUCKET = "bucket-of-endpoints"


@pytest.fixture(scope="module")
def bucket(rehearsal: Rehearsal) -> str:
    rehearsal.client("s3").create_bucket(Bucket=BUCKET)
    return BUCKET


def push(rehearsal: Rehearsal, repository: str, tag: str, content: str, media_type: str = DOCKER) -> str:
    """Put an image into ECR; return its digest."""
    layer = {"digest": f"sha256:{content * 64}"}
    manifest = {"schemaVersion": 2, "mediaType": media_type, "config": layer, "layers": [layer]}
    pushed = rehearsal.client("ecr").put_image(
        repositoryName=repository, imageManifest=json.dumps(manifest), imageTag=tag
    )
    return str(pushed["image"]["imageId"]["imageDigest"])


def create_endpoint(rehearsal: Rehearsal, name: str, bucket: str, image: str, **environment: str) -> None:
    sagemaker = rehearsal.client("sagemaker")
    container: Any = {"Image": image, "Environment": environment}
    sagemaker.create_model(ModelName=name, ExecutionRoleArn=ROLE, PrimaryContainer=container)
    variant: Any = {"VariantName": "v", "ModelName": name, "InstanceType": "ml.m5.xlarge", "InitialInstanceCount": 1}
    sagemaker.create_endpoint_config(EndpointConfigName=name, ProductionVariants=[variant])
    sagemaker.create_endpoint(EndpointName=name, EndpointConfigName=name)


def test_a_tag_that_was_pushed_again_updates_the_endpoint(rehearsal: Rehearsal, bucket: str) -> None:
    image = IMAGE_URI.replace(":latest", ":again")

    name = ("--endpoint-name", "of-endpoints")

    def deployed() -> dict[str, str]:
        described = rehearsal.client("sagemaker").describe_endpoint(EndpointName="of-endpoints")
        return dict(described["ProductionVariants"][0]["DeployedImages"][0])

    first = push(rehearsal, "image-classifier", "again", "1")
    deploy_endpoint(rehearsal, bucket, *name, image_uri=image)
    assert deployed()["ResolvedImage"] == f"{image.removesuffix(':again')}@{first}" == deployed()["SpecifiedImage"]
    assert "nothing to do" in deploy_endpoint(rehearsal, bucket, *name, image_uri=image).stdout
    second = push(rehearsal, "image-classifier", "again", "2")
    assert "updating endpoint" in deploy_endpoint(rehearsal, bucket, *name, image_uri=image).stdout
    assert deployed()["ResolvedImage"].endswith(second)
    rehearsal.run(sys.executable, "-m", "training", "remove", *name)


def test_an_image_that_sagemaker_would_refuse_is_refused(rehearsal: Rehearsal, bucket: str) -> None:
    push(rehearsal, "image-classifier", "oci", "3", OCI)
    rehearsal.client("ecr").create_repository(repositoryName="something-else")
    push(rehearsal, "something-else", "1", "4")
    for number, (image, reason) in enumerate(
        [
            (IMAGE_URI.replace(":latest", ":oci"), f"Unsupported manifest media type {OCI}"),
            (IMAGE_URI.replace(":latest", ":absent"), "not found"),
            (
                IMAGE_URI.replace("image-classifier:latest", "something-else:1"),
                "(image-classifier), not something-else",
            ),
            ("public.ecr.aws/somebody/something:1", "The rehearsal takes images in ECR"),
        ]
    ):
        with pytest.raises(ClientError, match=re.escape(reason)):
            create_endpoint(rehearsal, f"refused-{number}", bucket, image)
    refused = deploy_endpoint(rehearsal, bucket, image_uri=IMAGE_URI.replace(":latest", ":oci"), check=False)
    assert refused.returncode == 1 and "make image" in refused.stderr


def test_an_endpoint_that_is_being_created_can_be_neither_deleted_nor_updated(
    rehearsal: Rehearsal, bucket: str
) -> None:
    sagemaker = rehearsal.client("sagemaker")
    # A server that listens elsewhere than its health check looks: the endpoint is created until that is given up.
    elsewhere = {"SAGEMAKER_BIND_TO_PORT": str(free_port()), "WEB_CONCURRENCY": "1"}
    create_endpoint(rehearsal, "slow", bucket, IMAGE_URI, **elsewhere)
    described = sagemaker.describe_endpoint(EndpointName="slow")
    assert described["EndpointStatus"] == "Creating"
    assert described["PendingDeploymentSummary"]["EndpointConfigName"] == "slow"
    with pytest.raises(ClientError, match="Cannot update in-progress endpoint"):
        sagemaker.delete_endpoint(EndpointName="slow")
    with pytest.raises(ClientError, match="Cannot update in-progress endpoint"):
        sagemaker.update_endpoint(EndpointName="slow", EndpointConfigName="slow")
