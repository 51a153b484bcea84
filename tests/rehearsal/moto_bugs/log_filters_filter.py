"""A filter pattern with optional terms matches every line.

https://docs.aws.amazon.com/AmazonCloudWatch/latest/logs/FilterAndPatternSyntax.html
Reported: https://github.com/getmoto/moto/issues/2419, closed when words and one phrase were supported.
"""

import sys
import time
from typing import Any

import boto3
from moto import mock_aws

with mock_aws():
    logs: Any = boto3.client("logs", "us-east-1")
    logs.create_log_group(logGroupName="g")
    logs.create_log_stream(logGroupName="g", logStreamName="s")
    event = {"timestamp": int(time.time() * 1000), "message": "all is well"}
    logs.put_log_events(logGroupName="g", logStreamName="s", logEvents=[event])
    found = logs.filter_log_events(logGroupName="g", filterPattern="?ERROR ?WARN")["events"]

print(f"moto: {len(found)} lines")
print("AWS:  0 lines: one of the terms must occur")
sys.exit(bool(found))
