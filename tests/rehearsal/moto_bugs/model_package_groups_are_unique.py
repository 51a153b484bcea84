"""CreateModelPackageGroup replaces a group of the same name.

A name identifies one group. Public clients of SageMaker rely on AWS refusing a second one
with "Model Package Group already exists".
https://docs.aws.amazon.com/sagemaker/latest/APIReference/API_CreateModelPackageGroup.html
"""

import sys
from typing import Any

import boto3
from botocore.exceptions import ClientError
from moto import mock_aws

with mock_aws():
    sagemaker: Any = boto3.client("sagemaker", "us-east-1")
    sagemaker.create_model_package_group(ModelPackageGroupName="g", ModelPackageGroupDescription="first")
    try:
        sagemaker.create_model_package_group(ModelPackageGroupName="g", ModelPackageGroupDescription="second")
    except ClientError as error:
        found = error.response["Error"]["Code"]
    else:
        found = "created"

print(f"moto: {found}")
print("AWS:  ValidationException")
sys.exit(found != "ValidationException")
