"""DeleteStack deletes a stack whose bucket is not empty.

https://docs.aws.amazon.com/AWSCloudFormation/latest/UserGuide/cfn-console-delete-stack.html
"""

import json
import sys
from typing import Any

import boto3
from moto import mock_aws

with mock_aws():
    template = {"Resources": {"B": {"Type": "AWS::S3::Bucket", "Properties": {"BucketName": "full-bucket"}}}}
    cloudformation: Any = boto3.client("cloudformation", "us-east-1")
    s3: Any = boto3.client("s3", "us-east-1")
    cloudformation.create_stack(StackName="s", TemplateBody=json.dumps(template))
    s3.put_object(Bucket="full-bucket", Key="k")
    try:
        cloudformation.delete_stack(StackName="s")
        answer = cloudformation.describe_stacks(StackName="s")["Stacks"][0]["StackStatus"]
    except Exception as error:
        answer = repr(error)

print(f"moto: {answer}")
print("AWS:  DELETE_FAILED: the bucket is not empty")
sys.exit(answer != "DELETE_FAILED")
