"""CreateStateMachine with a used name and another definition keeps the old one.

https://docs.aws.amazon.com/step-functions/latest/apireference/API_CreateStateMachine.html
"""

import json
import sys
from typing import Any

import boto3
from moto import mock_aws

ROLE = "arn:aws:iam::123456789012:role/r"

with mock_aws(config={"stepfunctions": {"execute_state_machine": True}}):
    states: Any = boto3.client("stepfunctions", "us-east-1")
    try:
        for comment in ("first", "second"):
            definition = {"Comment": comment, "StartAt": "A", "States": {"A": {"Type": "Pass", "End": True}}}
            states.create_state_machine(name="m", definition=json.dumps(definition), roleArn=ROLE)
        answer = "accepted twice"
    except states.exceptions.StateMachineAlreadyExists as error:
        answer = str(error)

print(f"moto: {answer}")
print("AWS:  StateMachineAlreadyExists: a state machine with the same name but different definition exists")
sys.exit(answer == "accepted twice")
