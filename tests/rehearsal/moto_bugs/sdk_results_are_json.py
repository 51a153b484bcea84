"""An execution fails after an aws-sdk task whose result holds a date.

https://docs.aws.amazon.com/step-functions/latest/dg/supported-services-awssdk.html
"""

import json
import sys
import time
from typing import Any

import boto3
from moto import mock_aws

ROLE = "arn:aws:iam::123456789012:role/r"

with mock_aws(config={"stepfunctions": {"execute_state_machine": True}}):
    boto3.client("s3", "us-east-1").create_bucket(Bucket="some-bucket")
    task = {"Type": "Task", "Resource": "arn:aws:states:::aws-sdk:s3:listBuckets", "Parameters": {}, "Next": "B"}
    after = {"Type": "Pass", "Parameters": {"text.$": "States.JsonToString($)"}, "End": True}
    states: Any = boto3.client("stepfunctions", "us-east-1")
    definition = {"StartAt": "A", "States": {"A": task, "B": after}}
    machine = states.create_state_machine(name="m", definition=json.dumps(definition), roleArn=ROLE)
    execution = states.start_execution(stateMachineArn=machine["stateMachineArn"], name="e")["executionArn"]
    while (ended := states.describe_execution(executionArn=execution))["status"] == "RUNNING":
        time.sleep(0.1)

print(f"moto: {ended['status']} {ended.get('error')}")
print("AWS:  SUCCEEDED")
sys.exit(ended["status"] != "SUCCEEDED")
