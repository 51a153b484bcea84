"""startExecution.sync fails, and never sees the end of the workflow that it started.

https://docs.aws.amazon.com/step-functions/latest/dg/connect-stepfunctions.html
"""

import json
import sys
import time
from typing import Any

import boto3
from moto import mock_aws

ROLE = "arn:aws:iam::123456789012:role/r"

with mock_aws(config={"stepfunctions": {"execute_state_machine": True}}):
    states: Any = boto3.client("stepfunctions", "us-east-1")
    inner = json.dumps({"StartAt": "A", "States": {"A": {"Type": "Pass", "End": True}}})
    callee = states.create_state_machine(name="c", definition=inner, roleArn=ROLE)
    task = {"Type": "Task", "Resource": "arn:aws:states:::states:startExecution.sync", "TimeoutSeconds": 5}
    task |= {"Parameters": {"StateMachineArn": callee["stateMachineArn"], "Name": "inner"}, "End": True}
    definition = {"StartAt": "A", "States": {"A": task}}
    machine = states.create_state_machine(name="m", definition=json.dumps(definition), roleArn=ROLE)
    execution = states.start_execution(stateMachineArn=machine["stateMachineArn"], name="e")["executionArn"]
    while (ended := states.describe_execution(executionArn=execution))["status"] == "RUNNING":
        time.sleep(0.1)

print(f"moto: {ended['status']} {ended.get('error')}")
print("AWS:  SUCCEEDED")
sys.exit(ended["status"] != "SUCCEEDED")
