"""A task's parameters have PascalCase names; moto does not map them to camelCase names of an API.

https://docs.aws.amazon.com/step-functions/latest/dg/supported-services-awssdk.html
"""

import json
import sys
import time
from typing import Any

import boto3
from moto import mock_aws

ROLE = "arn:aws:iam::123456789012:role/r"

with mock_aws(config={"stepfunctions": {"execute_state_machine": True}}):
    task = {"Type": "Task", "Resource": "arn:aws:states:::aws-sdk:sfn:listStateMachines", "End": True}
    task |= {"Parameters": {"MaxResults": 1}}
    states: Any = boto3.client("stepfunctions", "us-east-1")
    definition = {"StartAt": "A", "States": {"A": task}}
    machine = states.create_state_machine(name="m", definition=json.dumps(definition), roleArn=ROLE)
    execution = states.start_execution(stateMachineArn=machine["stateMachineArn"], name="e")["executionArn"]
    while (ended := states.describe_execution(executionArn=execution))["status"] == "RUNNING":
        time.sleep(0.1)

print(f"moto: {ended['status']} {ended.get('error')}")
print("AWS:  SUCCEEDED")
sys.exit(ended["status"] != "SUCCEEDED")
