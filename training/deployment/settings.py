"""The settings of a deployment, and what SageMaker is sent for them."""

import hashlib
import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from common.capture import SHADOW_PREFIX
from common.errors import CommandError
from training.deployment.image import IMAGE_URI

# The name must stay the same over updates of one endpoint.
VARIANT = "AllTraffic"

#: What an hour's wait for the whole update leaves room for, with up to three waits.
MAX_BAKING_SECONDS = 900

# Names of configurations are "NAME-" and 12 hexadecimal digits, and have at most 63 characters.
_MAX_NAME = 50
# Endpoint ARNs come back in lower case, so a name in capitals would not match its own permissions.
_NAME = re.compile(r"[a-z0-9](-*[a-z0-9]){0,62}")
_BUCKET = re.compile(r"[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]")
_ROLE = re.compile(r"arn:aws[a-z-]*:iam::\d{12}:role/[\w+=,.@/-]+")


@dataclass(frozen=True)
class Deployment:
    """The settings that the user gave; checked on creation.

    Raises
    ------
    CommandError
        A value that AWS would reject, or that is likely a mistake.
    """

    endpoint_name: str
    bucket: str
    role_arn: str
    image_uri: str
    model: Path
    instance_type: str = "ml.m5.xlarge"
    instance_count: int | None = None
    capture_percentage: int = 100
    min_instances: int | None = None
    max_instances: int | None = None
    target_invocations: int | None = None
    known_images: Path | None = None
    baking_seconds: int = 300
    max_latency_ms: int = 1000
    network_isolation: bool = False
    kms_key: str | None = None
    shadow: bool = False

    def __post_init__(self) -> None:
        check_name(self.endpoint_name)
        if not _BUCKET.fullmatch(self.bucket):
            raise CommandError(f"--bucket {self.bucket!r} is not a bucket name; omit s3:// and the path")
        check_role(self.role_arn)
        check_image_uri(self.image_uri)
        if not self.model.is_file():
            raise CommandError(f"--model {self.model} does not exist; create it with: python -m training train")
        if not self.instance_type.startswith("ml."):
            raise CommandError(f"--instance-type {self.instance_type!r}: SageMaker instance types begin with ml.")
        if self.is_built_in and self.known_images:
            raise CommandError(
                "--known-images cannot be used with --training-job: the answers of the built-in algorithm do not name "
                "their model"
            )
        if self.is_built_in and self.max_instances and not self.target_invocations:
            raise CommandError(
                "--max needs --target with --training-job: the default is for this repository's network, which answers "
                "many times as fast"
            )
        if self.instance_count is not None and self.instance_count < 1:
            raise CommandError(f"--instance-count {self.instance_count}: at least one instance is needed")
        if self.max_instances is None and (self.min_instances or self.target_invocations):
            raise CommandError("--min and --target can only be used with --max")
        if self.max_instances is not None and self.max_instances < (self.min_instances or 1):
            raise CommandError(f"--max {self.max_instances} is below --min {self.min_instances or 1}")
        if not 0 <= self.baking_seconds <= MAX_BAKING_SECONDS:
            raise CommandError(f"--baking-seconds {self.baking_seconds} is not between 0 and {MAX_BAKING_SECONDS}")
        if not 0 <= self.capture_percentage <= 100:
            raise CommandError(f"--capture-percentage {self.capture_percentage} is not between 0 and 100")
        if self.shadow:
            self._check_shadow()

    def _check_shadow(self) -> None:
        if self.is_built_in:
            raise CommandError("--training-job cannot be used with --shadow: its answers cannot be compared")
        if not self.capture_percentage:
            raise CommandError("--capture-percentage 0: a shadow's answers are in captured data only")
        given = {"--known-images": self.known_images, "--min, --max and --target": self.max_instances}
        for options in (name for name, value in given.items() if value):
            raise CommandError(f"{options} cannot be used with --shadow, whose answers reach no caller")

    @property
    def is_built_in(self) -> bool:
        """Whether the model is the archive of a training job of SageMaker's built-in algorithm, and the image AWS's."""
        return self.model.name.endswith(".tar.gz")


def check_role(role_arn: str) -> None:
    """Raise a CommandError for what is not the ARN of a role."""
    if not _ROLE.fullmatch(role_arn):
        raise CommandError(f"--role-arn {role_arn!r} is not a role ARN; expected arn:aws:iam::123456789012:role/NAME")


def check_image_uri(image_uri: str) -> None:
    """Raise a CommandError for what is not the address of an image in ECR."""
    if not IMAGE_URI.fullmatch(image_uri):
        raise CommandError(
            f"--image-uri {image_uri!r} is not an image in ECR with a tag or digest; expected "
            "123456789012.dkr.ecr.REGION.amazonaws.com/NAME:TAG"
        )


def check_name(name: str) -> None:
    """Reject an invalid endpoint name.

    Raises
    ------
    CommandError
        It has other characters than lower-case letters, digits and inner hyphens, or more than 50.
    """
    if not _NAME.fullmatch(name) or len(name) > _MAX_NAME:
        raise CommandError(
            f"--endpoint-name {name!r}: use at most {_MAX_NAME} lower-case letters, digits and hyphens inside"
        )


def sagemaker_settings(deployment: Deployment, image: str, url: str) -> dict[str, Any]:
    """Build the settings of the model and the endpoint configuration, without their names."""
    return {
        "model": {
            "ExecutionRoleArn": deployment.role_arn,
            "PrimaryContainer": {"Image": image, "ModelDataUrl": url},
            **({"EnableNetworkIsolation": True} if deployment.network_isolation else {}),
        },
        "variant": {
            "VariantName": VARIANT,
            "InstanceType": deployment.instance_type,
            "InitialInstanceCount": deployment.instance_count or deployment.min_instances or 1,
            "InitialVariantWeight": 1.0,
        },
        "capture": {
            "EnableCapture": deployment.capture_percentage > 0,
            "InitialSamplingPercentage": deployment.capture_percentage,
            # The stack's drift check may read here.
            "DestinationS3Uri": f"s3://{deployment.bucket}/capture",
            "CaptureOptions": [{"CaptureMode": "Input"}, {"CaptureMode": "Output"}],
            # All other content types, the images, are captured as base64.
            "CaptureContentTypeHeader": {"JsonContentTypes": ["application/json"]},
        },
        # Encrypts the instances' volumes.
        **({"volume": {"KmsKeyId": deployment.kms_key}} if deployment.kms_key else {}),
    }


def as_shadow(settings: dict[str, Any], present: dict[str, Any], instances: int) -> dict[str, Any]:
    """Turn the settings of a model into those of a configuration in which it is the shadow of the present one.

    Parameters
    ----------
    settings : dict
        As `sagemaker_settings` returns them.
    present : dict
        The described endpoint configuration whose model stays in service.
    instances : int
        The shadow's number of instances. AWS documents autoscaling for production variants only.
    """
    variant = {**settings["variant"], "InitialInstanceCount": instances}
    # A name for each model and fleet, so that their captures lie apart.
    own = json.dumps([settings["model"], variant], sort_keys=True)
    variant["VariantName"] = SHADOW_PREFIX + hashlib.sha256(own.encode()).hexdigest()[:8]
    volume = {"KmsKeyId": present["KmsKeyId"]} if "KmsKeyId" in present else {}
    return {"volume": volume, **settings, "variant": variant, "present": present["ProductionVariants"]}
