"""UpdateStack with another parameter leaves a resource that uses it in Fn::Sub as it was.

https://docs.aws.amazon.com/AWSCloudFormation/latest/TemplateReference/intrinsic-function-reference-sub.html
"""

import json
import sys
from typing import Any

import boto3
from moto import mock_aws

with mock_aws():
    template = {
        "Parameters": {"P": {"Type": "String"}},
        "Resources": {"Q": {"Type": "AWS::SQS::Queue", "Properties": {"DelaySeconds": {"Fn::Sub": "${P}"}}}},
    }
    cloudformation: Any = boto3.client("cloudformation", "us-east-1")
    sqs: Any = boto3.client("sqs", "us-east-1")
    for change in (cloudformation.create_stack, cloudformation.update_stack):
        value = "5" if change == cloudformation.create_stack else "6"
        given = {"ParameterKey": "P", "ParameterValue": value}
        change(StackName="s", TemplateBody=json.dumps(template), Parameters=[given])
    queue = sqs.list_queues()["QueueUrls"][0]
    delay = sqs.get_queue_attributes(QueueUrl=queue, AttributeNames=["DelaySeconds"])["Attributes"]["DelaySeconds"]

print(f"moto: DelaySeconds is {delay}")
print("AWS:  DelaySeconds is 6")
sys.exit(delay != "6")
