"""Ref of an event bus is a Python object's address.

https://docs.aws.amazon.com/AWSCloudFormation/latest/TemplateReference/aws-resource-events-eventbus.html
"""

import json
import sys
from typing import Any

import boto3
from moto import mock_aws

with mock_aws():
    template = {
        "Resources": {"B": {"Type": "AWS::Events::EventBus", "Properties": {"Name": "bus"}}},
        "Outputs": {"O": {"Value": {"Ref": "B"}}},
    }
    cloudformation: Any = boto3.client("cloudformation", "us-east-1")
    cloudformation.create_stack(StackName="s", TemplateBody=json.dumps(template))
    value = cloudformation.describe_stacks(StackName="s")["Stacks"][0]["Outputs"][0]["OutputValue"]

print(f"moto: {value}")
print("AWS:  bus: Ref returns the name")
sys.exit(value != "bus")
