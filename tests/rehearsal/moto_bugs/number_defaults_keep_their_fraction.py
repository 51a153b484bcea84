"""A parameter's default of 0.7 becomes 0 in a change set that keeps the previous value.

https://docs.aws.amazon.com/AWSCloudFormation/latest/TemplateReference/parameters-section-structure.html
"""

import json
import sys
from typing import Any

import boto3
from moto import mock_aws

with mock_aws():
    cloudformation: Any = boto3.client("cloudformation", "us-east-1")
    sns: Any = boto3.client("sns", "us-east-1")

    def template(*names: str) -> str:
        topic = {"Type": "AWS::SNS::Topic", "Properties": {"DisplayName": {"Ref": "P"}}}
        parameters = {"P": {"Type": "Number", "Default": 0.7}}
        return json.dumps({"Parameters": parameters, "Resources": dict.fromkeys(names, topic)})

    cloudformation.create_stack(StackName="s", TemplateBody=template("A"))
    change: Any = {"ChangeSetType": "UPDATE", "TemplateBody": template("A", "B")}
    change["Parameters"] = [{"ParameterKey": "P", "UsePreviousValue": True}]
    cloudformation.create_change_set(StackName="s", ChangeSetName="c", **change)
    cloudformation.execute_change_set(StackName="s", ChangeSetName="c")
    topics = [sns.get_topic_attributes(TopicArn=topic["TopicArn"]) for topic in sns.list_topics()["Topics"]]
    values = [topic["Attributes"]["DisplayName"] for topic in topics]

print(f"moto: {values}")
print("AWS:  ['0.7', '0.7']: a Number is an integer or a float")
sys.exit(values != ["0.7", "0.7"])
