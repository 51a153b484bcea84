"""CreateStack accepts a parameter that violates AllowedValues.

https://docs.aws.amazon.com/AWSCloudFormation/latest/TemplateReference/parameters-section-structure.html
"""

import json
import sys
from typing import Any

import boto3
from moto import mock_aws

with mock_aws():
    template = {
        "Parameters": {"P": {"Type": "String", "AllowedValues": ["a", "b"]}},
        "Resources": {"Q": {"Type": "AWS::SQS::Queue"}},
    }
    given = {"ParameterKey": "P", "ParameterValue": "c"}
    cloudformation: Any = boto3.client("cloudformation", "us-east-1")
    try:
        cloudformation.create_stack(StackName="s", TemplateBody=json.dumps(template), Parameters=[given])
        answer = "accepted"
    except cloudformation.exceptions.ClientError as error:
        answer = str(error)

print(f"moto: {answer}")
print("AWS:  ValidationError: the value must be one of AllowedValues")
sys.exit(answer == "accepted")
