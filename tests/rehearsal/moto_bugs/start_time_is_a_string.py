"""$$.Execution.StartTime is not a string, so that intrinsic functions fail on it.

https://docs.aws.amazon.com/step-functions/latest/dg/input-output-contextobject.html
LocalStack, from which moto has the engine, has closed it: https://github.com/localstack/localstack/issues/9695.
"""

import json
import sys
import time
from typing import Any

import boto3
from moto import mock_aws

ROLE = "arn:aws:iam::123456789012:role/r"

with mock_aws(config={"stepfunctions": {"execute_state_machine": True}}):
    state = {"Type": "Pass", "Parameters": {"at.$": "States.Format('{}', $$.Execution.StartTime)"}, "End": True}
    states: Any = boto3.client("stepfunctions", "us-east-1")
    definition = {"StartAt": "A", "States": {"A": state}}
    machine = states.create_state_machine(name="m", definition=json.dumps(definition), roleArn=ROLE)
    execution = states.start_execution(stateMachineArn=machine["stateMachineArn"], name="e")["executionArn"]
    while (ended := states.describe_execution(executionArn=execution))["status"] == "RUNNING":
        time.sleep(0.1)

print(f"moto: {ended['status']} {ended.get('cause')}")
print("AWS:  SUCCEEDED; StartTime is a string in ISO 8601 format")
sys.exit(ended["status"] != "SUCCEEDED")
