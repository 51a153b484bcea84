"""A change set without changes counts as a change if it keeps the previous value of a number.

https://docs.aws.amazon.com/AWSCloudFormation/latest/APIReference/API_DescribeChangeSet.html
"""

import json
import sys
from typing import Any

import boto3
from moto import mock_aws

with mock_aws():
    queue = {"Type": "AWS::SQS::Queue", "Properties": {"DelaySeconds": {"Ref": "P"}}}
    template = {"Parameters": {"P": {"Type": "Number"}}, "Resources": {"Q": queue}}
    given = {"ParameterKey": "P", "ParameterValue": "5"}
    previous = {"ParameterKey": "P", "UsePreviousValue": True}
    cloudformation: Any = boto3.client("cloudformation", "us-east-1")
    cloudformation.create_stack(StackName="s", TemplateBody=json.dumps(template), Parameters=[given])
    change = {"StackName": "s", "ChangeSetName": "c"}
    same = json.dumps(template, indent=2)
    cloudformation.create_change_set(**change, ChangeSetType="UPDATE", TemplateBody=same, Parameters=[previous])
    described = cloudformation.describe_change_set(**change)

print(f"moto: {described['Status']} {described.get('StatusReason', '')}")
print("AWS:  FAILED The submitted information didn't contain changes.")
sys.exit(described["Status"] != "FAILED")
