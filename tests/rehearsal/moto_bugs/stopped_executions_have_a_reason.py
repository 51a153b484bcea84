"""StopExecution drops error and cause.

https://docs.aws.amazon.com/step-functions/latest/apireference/API_StopExecution.html
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
    definition = {"StartAt": "A", "States": {"A": {"Type": "Wait", "Seconds": 30, "End": True}}}
    machine = states.create_state_machine(name="m", definition=json.dumps(definition), roleArn=ROLE)
    execution = states.start_execution(stateMachineArn=machine["stateMachineArn"], name="e")["executionArn"]
    while len(states.get_execution_history(executionArn=execution)["events"]) < 2:
        time.sleep(0.1)
    states.stop_execution(executionArn=execution, error="Stopped", cause="by an operator")
    while (ended := states.describe_execution(executionArn=execution))["status"] == "RUNNING":
        time.sleep(0.1)

print(f"moto: {ended['status']}, error {ended.get('error')}, cause {ended.get('cause')}")
print("AWS:  ABORTED, error Stopped, cause by an operator")
sys.exit(ended.get("error") != "Stopped")
