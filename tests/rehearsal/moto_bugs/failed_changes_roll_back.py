"""A resource that fails makes CreateStack fail, without a rollback.

https://docs.aws.amazon.com/AWSCloudFormation/latest/UserGuide/stack-failure-options.html
"""

import json
import sys
from typing import Any

import boto3
from moto import mock_aws

with mock_aws():
    template = {
        "Resources": {
            "Q": {"Type": "AWS::SQS::Queue"},
            "B": {"Type": "AWS::S3::Bucket", "DependsOn": "Q", "Properties": {"BucketName": "-"}},
        }
    }
    cloudformation: Any = boto3.client("cloudformation", "us-east-1")
    sqs: Any = boto3.client("sqs", "us-east-1")
    try:
        cloudformation.create_stack(StackName="s", TemplateBody=json.dumps(template))
        answer = cloudformation.describe_stacks(StackName="s")["Stacks"][0]["StackStatus"]
    except Exception as error:
        answer = repr(error)
    queues = sqs.list_queues().get("QueueUrls", [])

print(f"moto: {answer}, queues {queues}")
print("AWS:  ROLLBACK_COMPLETE, queues []")
sys.exit(answer != "ROLLBACK_COMPLETE" or bool(queues))
