"""StartExecution accepts NaN, which is not JSON.

https://docs.aws.amazon.com/step-functions/latest/apireference/API_StartExecution.html
"""

import json
import sys
from typing import Any

import boto3
from moto import mock_aws

ROLE = "arn:aws:iam::123456789012:role/r"

with mock_aws(config={"stepfunctions": {"execute_state_machine": True}}):
    states: Any = boto3.client("stepfunctions", "us-east-1")
    definition = {"StartAt": "A", "States": {"A": {"Type": "Pass", "End": True}}}
    machine = states.create_state_machine(name="m", definition=json.dumps(definition), roleArn=ROLE)
    try:
        states.start_execution(stateMachineArn=machine["stateMachineArn"], name="e", input='{"x": NaN}')
        answer = "accepted"
    except states.exceptions.InvalidExecutionInput as error:
        answer = str(error)

print(f"moto: {answer}")
print("AWS:  input is JSON data; anything else is InvalidExecutionInput")
sys.exit(answer == "accepted")
