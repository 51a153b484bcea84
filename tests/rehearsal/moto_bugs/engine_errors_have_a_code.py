"""Errors of the States Language engine without a message end in a TypeError; the others have no code.

https://docs.aws.amazon.com/step-functions/latest/apireference/API_CreateStateMachine.html
Seen in https://github.com/getmoto/moto/issues/7823, where the error had no message either.
"""

import sys
from typing import Any

import boto3
from moto import mock_aws

ROLE = "arn:aws:iam::123456789012:role/r"

with mock_aws(config={"stepfunctions": {"execute_state_machine": True}}):
    states: Any = boto3.client("stepfunctions", "us-east-1")
    try:
        states.create_state_machine(name="m", definition="{}", roleArn=ROLE)
        answer = "accepted"
    except Exception as error:
        answer = repr(error)

print(f"moto: {answer}")
print("AWS:  InvalidDefinition")
sys.exit("InvalidDefinition" not in answer)
