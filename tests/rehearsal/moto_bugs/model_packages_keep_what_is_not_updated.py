"""UpdateModelPackage clears the fields that a request does not have.

All but the ARN are optional: https://docs.aws.amazon.com/sagemaker/latest/APIReference/API_UpdateModelPackage.html
"""

import sys
from typing import Any

import boto3
from moto import mock_aws

with mock_aws():
    sagemaker: Any = boto3.client("sagemaker", "us-east-1")
    sagemaker.create_model_package_group(ModelPackageGroupName="g")
    arn = sagemaker.create_model_package(
        ModelPackageGroupName="g", ModelApprovalStatus="Rejected", CustomerMetadataProperties={"accuracy": "0.9"}
    )["ModelPackageArn"]
    sagemaker.update_model_package(ModelPackageArn=arn, ApprovalDescription="too low")
    described = sagemaker.describe_model_package(ModelPackageName=arn)

kept = {name: described.get(name) for name in ("ModelApprovalStatus", "CustomerMetadataProperties")}
print(f"moto: {kept}")
print("AWS:  both as they were")
sys.exit(kept != {"ModelApprovalStatus": "Rejected", "CustomerMetadataProperties": {"accuracy": "0.9"}})
