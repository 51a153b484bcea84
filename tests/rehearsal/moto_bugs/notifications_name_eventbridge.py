"""GetBucketNotificationConfiguration leaves out EventBridgeConfiguration.

https://docs.aws.amazon.com/AmazonS3/latest/API/API_GetBucketNotificationConfiguration.html
"""

import sys
from typing import Any

import boto3
from moto import mock_aws

with mock_aws():
    s3: Any = boto3.client("s3", "us-east-1")
    s3.create_bucket(Bucket="bucket")
    s3.put_bucket_notification_configuration(
        Bucket="bucket", NotificationConfiguration={"EventBridgeConfiguration": {}}
    )
    found = s3.get_bucket_notification_configuration(Bucket="bucket")

print(f"moto: {sorted(found)}")
print("AWS:  with EventBridgeConfiguration")
sys.exit("EventBridgeConfiguration" not in found)
