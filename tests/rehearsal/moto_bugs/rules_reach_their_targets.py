"""A rule ignores the Input of its target.

https://docs.aws.amazon.com/eventbridge/latest/APIReference/API_Target.html
"""

import json
import sys
from typing import Any

import boto3
from moto import mock_aws

with mock_aws():
    events: Any = boto3.client("events", "us-east-1")
    sqs: Any = boto3.client("sqs", "us-east-1")
    queue = sqs.create_queue(QueueName="q")["QueueUrl"]
    events.put_rule(Name="r", EventPattern=json.dumps({"source": ["a"]}))
    target = {"Id": "t", "Arn": "arn:aws:sqs:us-east-1:123456789012:q", "Input": "{}"}
    events.put_targets(Rule="r", Targets=[target])
    events.put_events(Entries=[{"Source": "a", "DetailType": "d", "Detail": "{}"}])
    body = sqs.receive_message(QueueUrl=queue)["Messages"][0]["Body"]

print(f"moto: {body}")
print("AWS:  {}: nothing of the event is passed to the target")
sys.exit(body != "{}")
