"""ExecuteChangeSet leaves the stack's outputs as they were.

https://docs.aws.amazon.com/AWSCloudFormation/latest/APIReference/API_ExecuteChangeSet.html
"""

import json
import sys
from typing import Any

import boto3
from moto import mock_aws

with mock_aws():

    def template(value: str) -> str:
        queue = {"Type": "AWS::SQS::Queue", "Properties": {"DelaySeconds": value}}
        return json.dumps({"Resources": {"Q": queue}, "Outputs": {"O": {"Value": value}}})

    cloudformation: Any = boto3.client("cloudformation", "us-east-1")
    cloudformation.create_stack(StackName="s", TemplateBody=template("5"))
    change = {"StackName": "s", "ChangeSetName": "c"}
    cloudformation.create_change_set(**change, ChangeSetType="UPDATE", TemplateBody=template("6"))
    cloudformation.execute_change_set(**change)
    value = cloudformation.describe_stacks(StackName="s")["Stacks"][0]["Outputs"][0]["OutputValue"]

print(f"moto: the output is {value}")
print("AWS:  the output is 6")
sys.exit(value != "6")
