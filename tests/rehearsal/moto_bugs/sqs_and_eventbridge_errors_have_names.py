"""The cause of a task that fails on an event which EventBridge refuses is not JSON.

Recorded: https://github.com/localstack/localstack/blob/main/tests/aws/services/stepfunctions/v2/services/test_events_task_service.snapshot.json
"""

import json
import sys
import time
from typing import Any

import boto3
from moto import mock_aws

ROLE = "arn:aws:iam::123456789012:role/r"

with mock_aws(config={"stepfunctions": {"execute_state_machine": True}}):
    task: Any = {"Type": "Task", "Resource": "arn:aws:states:::events:putEvents", "End": True}
    task |= {"Parameters": {"Entries": [{"DetailType": "d", "Detail": {"a": 1}}]}}
    states: Any = boto3.client("stepfunctions", "us-east-1")
    definition = {"StartAt": "A", "States": {"A": task}}
    machine = states.create_state_machine(name="m", definition=json.dumps(definition), roleArn=ROLE)
    execution = states.start_execution(stateMachineArn=machine["stateMachineArn"], name="e")["executionArn"]
    while (ended := states.describe_execution(executionArn=execution))["status"] == "RUNNING":
        time.sleep(0.1)
    cause = ended.get("cause", "")

print(f"moto: cause {cause}")
print('AWS:  cause {"Entries": [...], "FailedEntryCount": 1} as JSON')
sys.exit(not cause.startswith('{"'))
