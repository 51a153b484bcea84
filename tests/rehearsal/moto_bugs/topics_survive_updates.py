"""An update of a topic in a stack deletes its subscriptions.

https://docs.aws.amazon.com/AWSCloudFormation/latest/TemplateReference/aws-resource-sns-topic.html
"""

import json
import sys
from typing import Any

import boto3
from moto import mock_aws

with mock_aws():

    def template(name: str) -> str:
        return json.dumps({"Resources": {"T": {"Type": "AWS::SNS::Topic", "Properties": {"DisplayName": name}}}})

    cloudformation: Any = boto3.client("cloudformation", "us-east-1")
    sns: Any = boto3.client("sns", "us-east-1")
    cloudformation.create_stack(StackName="s", TemplateBody=template("before"))
    topic = sns.list_topics()["Topics"][0]["TopicArn"]
    sns.subscribe(TopicArn=topic, Protocol="sqs", Endpoint="arn:aws:sqs:us-east-1:123456789012:q")
    cloudformation.update_stack(StackName="s", TemplateBody=template("after"))
    kept = [item["TopicArn"] for item in sns.list_topics()["Topics"]] == [topic]

print(f"moto: the topic is {'kept' if kept else 'another one'}")
print("AWS:  the topic is kept: an update of DisplayName requires no interruption")
sys.exit(not kept)
