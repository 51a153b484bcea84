"""SageMaker: the model registry."""

from typing import Any

from moto.sagemaker.exceptions import ValidationError
from moto.sagemaker.models import SageMakerModelBackend

from rehearsal.patches import Difference, patch


@patch(
    SageMakerModelBackend,
    "create_model_package_group",
    Difference("model_package_groups_are_unique", "a group that exists is replaced", bug=True),
)
def _create_model_package_group(
    original: Any, self: SageMakerModelBackend, model_package_group_name: str, **rest: Any
) -> str:
    if group := self.model_package_groups.get(model_package_group_name):
        raise ValidationError(f"Model Package Group already exists: {group.arn}")
    return str(original(self, model_package_group_name=model_package_group_name, **rest))


@patch(
    SageMakerModelBackend,
    "update_model_package",
    Difference(
        "model_packages_keep_what_is_not_updated",
        "UpdateModelPackage clears status, description and metadata unless the request has them",
        bug=True,
    ),
)
def _update_model_package(original: Any, self: SageMakerModelBackend, model_package_arn: str, **given: Any) -> str:
    package = self.describe_model_package(model_package_arn)
    for name in ("model_approval_status", "approval_description", "customer_metadata_properties"):
        if given[name] is None:
            given[name] = getattr(package, name)
    return str(original(self, model_package_arn=model_package_arn, **given))
