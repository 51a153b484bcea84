"""A tag that is added again to a SageMaker resource is listed twice.

https://docs.aws.amazon.com/sagemaker/latest/APIReference/API_AddTags.html: the new value replaces the old one.
"""

import sys
from typing import Any

import boto3
from moto import mock_aws

with mock_aws():
    sagemaker: Any = boto3.client("sagemaker", "us-east-1")
    arn = sagemaker.create_model(ModelName="m", ExecutionRoleArn="arn:aws:iam::123456789012:role/r")["ModelArn"]
    for value in ("old", "new"):
        sagemaker.add_tags(ResourceArn=arn, Tags=[{"Key": "k", "Value": value}])
    tags = sagemaker.list_tags(ResourceArn=arn)["Tags"]

print(f"moto: {tags}")
print("AWS:  one tag, with the new value")
sys.exit(len(tags) != 1)
