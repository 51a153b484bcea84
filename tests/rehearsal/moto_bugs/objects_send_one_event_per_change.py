"""An upload to a bucket sends a tag event to EventBridge, too.

https://docs.aws.amazon.com/AmazonS3/latest/userguide/EventBridge.html
The tag event came with https://github.com/getmoto/moto/pull/7673.
"""

import json
import sys
from typing import Any

import boto3
from moto import mock_aws

with mock_aws():
    events: Any = boto3.client("events", "us-east-1")
    s3: Any = boto3.client("s3", "us-east-1")
    sqs: Any = boto3.client("sqs", "us-east-1")
    queue = sqs.create_queue(QueueName="q")["QueueUrl"]
    events.put_rule(Name="r", EventPattern=json.dumps({"source": ["aws.s3"]}))
    events.put_targets(Rule="r", Targets=[{"Id": "t", "Arn": "arn:aws:sqs:us-east-1:123456789012:q"}])
    s3.create_bucket(Bucket="some-bucket")
    notifications: Any = {"EventBridgeConfiguration": {}}
    s3.put_bucket_notification_configuration(Bucket="some-bucket", NotificationConfiguration=notifications)
    s3.put_object(Bucket="some-bucket", Key="k", Body=b"x")
    messages = sqs.receive_message(QueueUrl=queue, MaxNumberOfMessages=10)["Messages"]
    kinds = [json.loads(message["Body"])["detail-type"] for message in messages]

print(f"moto: {kinds}")
print("AWS:  ['Object Created']")
sys.exit(kinds != ["Object Created"])
