"""The path $.a[0].b gives a list of the value.

https://docs.aws.amazon.com/step-functions/latest/dg/amazon-states-language-paths.html
moto wraps such values since https://github.com/getmoto/moto/issues/7825.
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
    definition = {"StartAt": "A", "States": {"A": {"Type": "Pass", "OutputPath": "$.a[0].b", "End": True}}}
    machine = states.create_state_machine(name="m", definition=json.dumps(definition), roleArn=ROLE)
    given = '{"a": [{"b": 1}]}'
    execution = states.start_execution(stateMachineArn=machine["stateMachineArn"], name="e", input=given)[
        "executionArn"
    ]
    while (ended := states.describe_execution(executionArn=execution))["status"] == "RUNNING":
        time.sleep(0.1)

print(f"moto: {ended['output']}")
print("AWS:  1: a reference path identifies a single node")
sys.exit(ended["output"] != "1")
