"""DescribeEndpoint returns the configuration of data capture instead of its summary.

https://docs.aws.amazon.com/sagemaker/latest/APIReference/API_DescribeEndpoint.html
"""

import sys
from typing import Any

import boto3
from moto import mock_aws

with mock_aws():
    sagemaker: Any = boto3.client("sagemaker", "us-east-1")
    sagemaker.create_model(ModelName="m", ExecutionRoleArn="arn:aws:iam::123456789012:role/r")
    variant = {"VariantName": "v", "ModelName": "m", "InstanceType": "ml.m5.large", "InitialInstanceCount": 1}
    capture = {
        "EnableCapture": True,
        "InitialSamplingPercentage": 100,
        "DestinationS3Uri": "s3://b/k",
        "CaptureOptions": [{"CaptureMode": "Input"}],
    }
    sagemaker.create_endpoint_config(EndpointConfigName="c", ProductionVariants=[variant], DataCaptureConfig=capture)
    sagemaker.create_endpoint(EndpointName="e", EndpointConfigName="c")
    described = sagemaker.describe_endpoint(EndpointName="e")["DataCaptureConfig"]

print(f"moto: {described}")
print("AWS:  a summary with CaptureStatus and CurrentSamplingPercentage")
sys.exit("CaptureStatus" not in described)
