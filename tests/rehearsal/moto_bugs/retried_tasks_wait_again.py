"""A task with waitForTaskToken times out at once when it is retried.

https://docs.aws.amazon.com/step-functions/latest/dg/connect-to-resource.html
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
    sqs: Any = boto3.client("sqs", "us-east-1")
    queue = sqs.create_queue(QueueName="q")["QueueUrl"]
    task = {"Type": "Task", "Resource": "arn:aws:states:::sqs:sendMessage.waitForTaskToken", "TimeoutSeconds": 3}
    task |= {"Parameters": {"QueueUrl": queue, "MessageBody.$": "$$.Task.Token"}, "End": True}
    task |= {"Retry": [{"ErrorEquals": ["States.Timeout"], "IntervalSeconds": 1, "MaxAttempts": 1}]}
    definition = json.dumps({"StartAt": "A", "States": {"A": task}})
    machine = states.create_state_machine(name="m", definition=definition, roleArn=ROLE)
    execution = states.start_execution(stateMachineArn=machine["stateMachineArn"], name="e")["executionArn"]
    tokens: list[str] = []
    while (ended := states.describe_execution(executionArn=execution))["status"] == "RUNNING":
        tokens += [m["Body"] for m in sqs.receive_message(QueueUrl=queue, WaitTimeSeconds=0).get("Messages", [])]
        if len(tokens) == 2:
            states.send_task_success(taskToken=tokens[1], output="1")
        time.sleep(0.1)

print(f"moto: {ended['status']} {ended.get('error')}")
print("AWS:  SUCCEEDED: the second attempt waits, too")
sys.exit(ended["status"] != "SUCCEEDED")
