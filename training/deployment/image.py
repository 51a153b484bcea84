"""Find the endpoint's image in ECR."""

import re

import boto3
from botocore.exceptions import ClientError

from common.errors import CommandError

IMAGE_URI = re.compile(
    r"((?P<account>\d{12})\.dkr\.ecr\.(?P<region>[a-z0-9-]+)\.amazonaws\.com(\.cn)?/(?P<repository>[a-z0-9._/-]+))"
    r"(:(?P<tag>[\w.-]+)|@(?P<digest>sha256:[0-9a-f]{64}))"
)
# SageMaker refuses OCI manifests and image indexes as an "Unsupported manifest media type":
# https://github.com/aws/amazon-sagemaker-feedback/issues/180
_MANIFEST = "application/vnd.docker.distribution.manifest.v2+json"


def resolve_image(uri: str) -> str:
    """Return the URI of an image by its digest.

    Raises
    ------
    CommandError
        The image does not exist or cannot be described, or SageMaker cannot run it.
    """
    parts = IMAGE_URI.fullmatch(uri)
    assert parts
    ecr = boto3.client("ecr")
    region = ecr.meta.region_name
    if parts["region"] != region:
        # https://docs.aws.amazon.com/sagemaker/latest/APIReference/API_ContainerDefinition.html
        raise CommandError(
            f"the image {uri} is in {parts['region']}, and an endpoint in {region} needs it in {region}; push it there"
        )
    try:
        found = ecr.describe_images(
            registryId=parts["account"],
            repositoryName=parts["repository"],
            imageIds=[{"imageDigest": parts["digest"]} if parts["digest"] else {"imageTag": parts["tag"]}],
        )
    except ClientError as error:
        code = error.response["Error"]["Code"]
        if code in ("RepositoryNotFoundException", "ImageNotFoundException"):
            raise CommandError(f"ECR has no image {uri}; build and push it with: make image") from error
        if code == "AccessDeniedException":
            raise CommandError(
                f"these credentials cannot describe the image {uri}; they need ecr:DescribeImages, which the policy of "
                "another account's repository must also allow"
            ) from error
        raise
    image = found["imageDetails"][0]
    media_type = image.get("imageManifestMediaType", "unknown")
    if media_type != _MANIFEST:
        raise CommandError(
            f"SageMaker cannot run the image {uri}: its manifest type is {media_type}, and only {_MANIFEST} works; "
            "build and push it again with: make image"
        )
    return f"{parts[1]}@{image['imageDigest']}"
