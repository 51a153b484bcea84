"""CreateBucket accepts names with capital letters.

https://docs.aws.amazon.com/AmazonS3/latest/userguide/bucketnamingrules.html
"""

import sys
from typing import Any

import boto3
from moto import mock_aws

with mock_aws():
    s3: Any = boto3.client("s3", "us-east-1")
    try:
        s3.create_bucket(Bucket="Photos")
        answer = "accepted"
    except s3.exceptions.ClientError as error:
        answer = str(error)

print(f"moto: {answer}")
print("AWS:  InvalidBucketName: names consist of lowercase letters, digits, periods and hyphens")
sys.exit(answer == "accepted")
