"""A change set of type CREATE creates a stack that exists a second time.

https://docs.aws.amazon.com/AWSCloudFormation/latest/APIReference/API_CreateChangeSet.html
"""

import json
import sys
from typing import Any

import boto3
from moto import mock_aws

with mock_aws():
    template = json.dumps({"Resources": {"Q": {"Type": "AWS::SQS::Queue"}}})
    cloudformation: Any = boto3.client("cloudformation", "us-east-1")
    cloudformation.create_stack(StackName="s", TemplateBody=template)
    try:
        cloudformation.create_change_set(StackName="s", ChangeSetName="c", TemplateBody=template)
        answer = f"accepted, {len(cloudformation.describe_stacks()['Stacks'])} stacks"
    except cloudformation.exceptions.ClientError as error:
        answer = str(error)

print(f"moto: {answer}")
print("AWS:  rejected: with CREATE, the stack must not exist")
sys.exit(answer.startswith("accepted"))
