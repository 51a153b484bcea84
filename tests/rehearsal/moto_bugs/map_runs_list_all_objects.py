"""The reader of a Distributed Map fails for a prefix without objects.

https://docs.aws.amazon.com/step-functions/latest/dg/input-output-itemreader.html
"""

import json
import sys
import time
from typing import Any

import boto3
from moto import mock_aws

PASS = {"StartAt": "Pass", "States": {"Pass": {"Type": "Pass", "End": True}}}
PROCESSOR = {"ProcessorConfig": {"Mode": "DISTRIBUTED", "ExecutionType": "STANDARD"}, **PASS}
READER = {"Resource": "arn:aws:states:::s3:listObjectsV2", "Parameters": {"Bucket": "images", "Prefix": "none/"}}
MAP = {"Type": "Map", "ItemReader": READER, "ItemProcessor": PROCESSOR, "End": True}

with mock_aws(config={"stepfunctions": {"execute_state_machine": True}}):
    boto3.client("s3", "us-east-1").create_bucket(Bucket="images")
    states: Any = boto3.client("stepfunctions", "us-east-1")
    role = "arn:aws:iam::123456789012:role/any"
    definition = json.dumps({"StartAt": "Each", "States": {"Each": MAP}})
    machine = states.create_state_machine(name="each", definition=definition, roleArn=role)["stateMachineArn"]
    execution = states.start_execution(stateMachineArn=machine, name="one")["executionArn"]
    while (answer := states.describe_execution(executionArn=execution)["status"]) == "RUNNING":
        time.sleep(0.1)

print(f"moto: {answer}")
print("AWS:  SUCCEEDED, as there is nothing to do")
sys.exit(answer == "FAILED")
