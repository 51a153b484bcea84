"""CreateModelPackageGroup replaces a group of the same name.

The name stands for one group: AWS answers "Model Package Group already exists".
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
