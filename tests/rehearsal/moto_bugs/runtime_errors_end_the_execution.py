"""A catcher of States.ALL catches States.Runtime.

https://docs.aws.amazon.com/step-functions/latest/dg/concepts-error-handling.html
"""

import json
import sys
import time
from typing import Any

import boto3
from moto import mock_aws

ROLE = "arn:aws:iam::123456789012:role/r"

with mock_aws(config={"stepfunctions": {"execute_state_machine": True}}):
    task: Any = {"Type": "Task", "Resource": "arn:aws:states:::sqs:sendMessage", "Next": "B"}
    task |= {"Parameters": {"QueueUrl.$": "$.missing"}, "Catch": [{"ErrorEquals": ["States.ALL"], "Next": "B"}]}
    states: Any = boto3.client("stepfunctions", "us-east-1")
    definition = {"StartAt": "A", "States": {"A": task, "B": {"Type": "Pass", "End": True}}}
    machine = states.create_state_machine(name="m", definition=json.dumps(definition), roleArn=ROLE)
    execution = states.start_execution(stateMachineArn=machine["stateMachineArn"], name="e")["executionArn"]
    while (ended := states.describe_execution(executionArn=execution))["status"] == "RUNNING":
        time.sleep(0.1)

print(f"moto: {ended['status']} {ended.get('output')}")
print("AWS:  FAILED: a catcher of States.ALL does not catch States.Runtime")
sys.exit(ended["status"] != "FAILED")
