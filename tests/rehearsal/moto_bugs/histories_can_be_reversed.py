"""GetExecutionHistory ignores reverseOrder.

https://docs.aws.amazon.com/step-functions/latest/apireference/API_GetExecutionHistory.html
LocalStack, from which moto has the engine, has closed it: https://github.com/localstack/localstack/issues/10106.
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
    definition = {"StartAt": "A", "States": {"A": {"Type": "Pass", "End": True}}}
    machine = states.create_state_machine(name="m", definition=json.dumps(definition), roleArn=ROLE)
    execution = states.start_execution(stateMachineArn=machine["stateMachineArn"], name="e")["executionArn"]
    while (ended := states.describe_execution(executionArn=execution))["status"] == "RUNNING":
        time.sleep(0.1)
    history = states.get_execution_history(executionArn=execution, reverseOrder=True)["events"]

print(f"moto: the first event is {history[0]['type']}")
print("AWS:  the latest event first")
sys.exit(history[0]["type"] != "ExecutionSucceeded")
