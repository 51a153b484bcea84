"""A Distributed Map succeeds although all of its children failed.

https://docs.aws.amazon.com/step-functions/latest/dg/state-map-distributed.html
"""

import json
import sys
import time
from typing import Any

import boto3
from moto import mock_aws

FAIL = {"StartAt": "Fail", "States": {"Fail": {"Type": "Fail", "Error": "Refused"}}}
PROCESSOR = {"ProcessorConfig": {"Mode": "DISTRIBUTED", "ExecutionType": "STANDARD"}, **FAIL}
EACH = {"StartAt": "Each", "States": {"Each": {"Type": "Map", "ItemProcessor": PROCESSOR, "End": True}}}

with mock_aws(config={"stepfunctions": {"execute_state_machine": True}}):
    states: Any = boto3.client("stepfunctions", "us-east-1")
    role = "arn:aws:iam::123456789012:role/any"
    machine = states.create_state_machine(name="each", definition=json.dumps(EACH), roleArn=role)["stateMachineArn"]
    execution = states.start_execution(stateMachineArn=machine, name="one", input="[1]")["executionArn"]
    while (answer := states.describe_execution(executionArn=execution)["status"]) == "RUNNING":
        time.sleep(0.1)

print(f"moto: {answer}")
print("AWS:  FAILED")
sys.exit(answer == "SUCCEEDED")
