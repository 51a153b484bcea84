"""DescribeStackResources tries again to create a resource whose creation has failed.

https://docs.aws.amazon.com/AWSCloudFormation/latest/APIReference/API_DescribeStackResources.html
"""

import contextlib
import json
import sys
from typing import Any

import boto3
from moto import mock_aws

with mock_aws():
    template = {"Resources": {"B": {"Type": "AWS::S3::Bucket", "Properties": {"BucketName": "-"}}}}
    cloudformation: Any = boto3.client("cloudformation", "us-east-1")
    with contextlib.suppress(cloudformation.exceptions.ClientError):
        cloudformation.create_stack(StackName="s", TemplateBody=json.dumps(template))
    try:
        cloudformation.describe_stack_resources(StackName="s")
        answer = "described"
    except cloudformation.exceptions.ClientError as error:
        answer = str(error)

print(f"moto: {answer}")
print("AWS:  described, with the status of the resource")
sys.exit(answer != "described")
