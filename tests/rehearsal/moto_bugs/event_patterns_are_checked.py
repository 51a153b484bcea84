"""PutRule accepts a pattern with an unknown operator.

https://docs.aws.amazon.com/eventbridge/latest/APIReference/API_PutRule.html
"""

import json
import sys
from typing import Any

import boto3
from moto import mock_aws

with mock_aws():
    events: Any = boto3.client("events", "us-east-1")
    try:
        events.put_rule(Name="r", EventPattern=json.dumps({"source": [{"begins": "a"}]}))
        answer = "accepted"
    except events.exceptions.InvalidEventPatternException as error:
        answer = str(error)

print(f"moto: {answer}")
print("AWS:  InvalidEventPatternException")
sys.exit(answer == "accepted")
