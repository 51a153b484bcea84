"""Alarms, embedded metrics, processing jobs and schedules in the rehearsal do what they do on AWS."""

import json
from typing import Any

import pytest

from tests.stack import Rehearsal


def deploy(rehearsal: Rehearsal, name: str, resources: dict[str, Any], kind: str = "CREATE", **rest: Any) -> str:
    """Create or update a stack by a change set, as ``sam deploy`` does; return its status."""
    client = rehearsal.client("cloudformation")
    body = json.dumps({"Resources": resources, **rest})
    client.create_change_set(StackName=name, ChangeSetName=f"{name}-{kind}", ChangeSetType=kind, TemplateBody=body)
    client.execute_change_set(StackName=name, ChangeSetName=f"{name}-{kind}")
    (stack,) = client.describe_stacks(StackName=name)["Stacks"]
    return str(stack["StackStatus"])


def outputs(rehearsal: Rehearsal, name: str) -> dict[str, str]:
    (stack,) = rehearsal.client("cloudformation").describe_stacks(StackName=name)["Stacks"]
    return {output["OutputKey"]: output["OutputValue"] for output in stack.get("Outputs", [])}


def alarm(topic: Any, **properties: Any) -> dict[str, Any]:
    """Return a template's alarm; numbers are texts, as parameters of a template make them."""
    basics = {"AlarmActions": [topic], "OKActions": [topic], "EvaluationPeriods": "1", "Threshold": "0.5"}
    return {"Type": "AWS::CloudWatch::Alarm", "Properties": {**basics, **properties}}


def resources_of_monitoring() -> dict[str, Any]:
    topic = {"Ref": "Topic"}
    metric = {"Namespace": "Test/Stack", "MetricName": "Faults"}
    schedule = {
        "ScheduleExpression": "rate(1 hour)",
        "FlexibleTimeWindow": {"Mode": "OFF"},
        "State": "DISABLED",
        "Target": {
            "Arn": "arn:aws:states:us-east-1:123456789012:stateMachine:none",
            "RoleArn": "arn:aws:iam::123456789012:role/r",
        },
    }
    queue = {"Fn::GetAtt": ["Queue", "Arn"]}
    return {
        "Queue": {"Type": "AWS::SQS::Queue", "Properties": {"QueueName": "of-monitored"}},
        "QueuePolicy": {"Type": "AWS::SQS::QueuePolicy", "Properties": {"Queues": [], "PolicyDocument": {}}},
        "Topic": {"Type": "AWS::SNS::Topic", "Properties": {"DisplayName": "first"}},
        "TopicPolicy": {"Type": "AWS::SNS::TopicPolicy", "Properties": {"Topics": [topic], "PolicyDocument": {}}},
        "Subscription": {
            "Type": "AWS::SNS::Subscription",
            "Properties": {"TopicArn": topic, "Protocol": "sqs", "Endpoint": queue},
        },
        "Alarm": alarm(topic, **metric, Statistic="Sum", Period="60", ComparisonOperator="GreaterThanThreshold"),
        "Dashboard": {
            "Type": "AWS::CloudWatch::Dashboard",
            "Properties": {"DashboardName": "monitored", "DashboardBody": '{"widgets": []}'},
        },
        "Schedule": {"Type": "AWS::Scheduler::Schedule", "Properties": schedule},
    }


def test_a_stack_makes_changes_and_removes_what_monitors(rehearsal: Rehearsal) -> None:
    resources = resources_of_monitoring()
    shown: dict[str, Any] = {
        name: {"Value": {"Ref": name}} for name in ("Topic", "Subscription", "Alarm", "Dashboard", "Schedule")
    }
    shown |= {f"{name}Arn": {"Value": {"Fn::GetAtt": [name, "Arn"]}} for name in ("Alarm", "Schedule")}
    shown |= {"TopicArn": {"Value": {"Fn::GetAtt": ["Topic", "TopicArn"]}}}
    assert deploy(rehearsal, "monitored", resources, Outputs=shown) == "CREATE_COMPLETE"
    created = outputs(rehearsal, "monitored")
    cloudwatch, sns, scheduler = (rehearsal.client(name) for name in ("cloudwatch", "sns", "scheduler"))
    (described,) = cloudwatch.describe_alarms(AlarmNames=[created["Alarm"]])["MetricAlarms"]
    assert described["AlarmArn"] == created["AlarmArn"] and described["Threshold"] == 0.5
    assert described["AlarmActions"] == [created["Topic"]] == [created["TopicArn"]]
    (subscription,) = sns.list_subscriptions_by_topic(TopicArn=created["Topic"])["Subscriptions"]
    assert subscription["SubscriptionArn"] == created["Subscription"]
    assert scheduler.get_schedule(Name=created["Schedule"])["Arn"] == created["ScheduleArn"]
    assert json.loads(cloudwatch.get_dashboard(DashboardName=created["Dashboard"])["DashboardBody"]) == {"widgets": []}

    resources["Alarm"]["Properties"]["Threshold"] = 2
    resources["Topic"]["Properties"]["DisplayName"] = "second"
    resources["Schedule"]["Properties"]["ScheduleExpression"] = "rate(2 hours)"
    resources["Dashboard"]["Properties"]["DashboardBody"] = '{"widgets": [], "start": "-PT3H"}'
    assert deploy(rehearsal, "monitored", resources, "UPDATE", Outputs=shown) == "UPDATE_COMPLETE"
    assert outputs(rehearsal, "monitored") == created, "everything was changed where it was"
    assert cloudwatch.describe_alarms(AlarmNames=[created["Alarm"]])["MetricAlarms"][0]["Threshold"] == 2
    assert scheduler.get_schedule(Name=created["Schedule"])["ScheduleExpression"] == "rate(2 hours)"
    assert sns.get_topic_attributes(TopicArn=created["Topic"])["Attributes"]["DisplayName"] == "second"
    assert len(sns.list_subscriptions_by_topic(TopicArn=created["Topic"])["Subscriptions"]) == 1

    rehearsal.client("cloudformation").delete_stack(StackName="monitored")
    left = [
        cloudwatch.describe_alarms()["MetricAlarms"],
        cloudwatch.list_dashboards()["DashboardEntries"],
        sns.list_topics()["Topics"],
        sns.list_subscriptions()["Subscriptions"],
        scheduler.list_schedules()["Schedules"],
    ]
    assert "onitored" not in json.dumps(left, default=str)


@pytest.mark.parametrize(
    ("name", "properties"),
    [
        ("Alarm", {"Treshold": 1}),
        ("Dashboard", {"DashboardBody": "{"}),
        ("Subscription", {"FilterPolicy": {"a": ["b"]}}),
    ],
)
def test_what_its_api_refuses_fails_the_stack(rehearsal: Rehearsal, name: str, properties: dict[str, Any]) -> None:
    resources = resources_of_monitoring()
    resources[name]["Properties"] |= properties
    assert deploy(rehearsal, f"refused-{name}".lower(), resources) == "ROLLBACK_COMPLETE"
