"""Alarms, embedded metrics, processing jobs and schedules in the rehearsal do what they do on AWS."""

import datetime
import json
import re
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from botocore.exceptions import ClientError

from rehearsal.cloudwatch_alarms import _parse, calculate
from tests.support.stack import Rehearsal, create_function, wait_for


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


def test_a_changed_parameter_reaches_conditions_and_texts(rehearsal: Rehearsal) -> None:
    client, sns, cloudwatch = (rehearsal.client(name) for name in ("cloudformation", "sns", "cloudwatch"))
    mail = {"TopicArn": {"Ref": "Topic"}, "Protocol": "email", "Endpoint": {"Ref": "Email"}}
    text = {"Fn::Sub": '{"widgets": [], "start": "-${Hours}H"}'}
    dashboard = {"DashboardName": "of-parameters", "DashboardBody": text}
    body = {
        "Parameters": {name: {"Type": "String", "Default": ""} for name in ("Email", "Hours")},
        "Conditions": {
            "Nobody": {"Fn::Equals": [{"Ref": "Email"}, ""]},
            "Mailed": {"Fn::Not": [{"Condition": "Nobody"}]},
        },
        "Resources": {
            "Topic": {"Type": "AWS::SNS::Topic"},
            "Mail": {"Type": "AWS::SNS::Subscription", "Condition": "Mailed", "Properties": mail},
            "Dashboard": {"Type": "AWS::CloudWatch::Dashboard", "Properties": dashboard},
        },
    }
    seen = []
    for number, (email, hours) in enumerate([("", "1"), ("a@example.com", "1"), ("b@example.com", "2"), ("", "3")]):
        given = [{"ParameterKey": "Email", "ParameterValue": email}, {"ParameterKey": "Hours", "ParameterValue": hours}]
        kind, names = "UPDATE" if number else "CREATE", {"StackName": "mailing", "ChangeSetName": f"mailing-{number}"}
        client.create_change_set(**names, ChangeSetType=kind, TemplateBody=json.dumps(body), Parameters=given)
        client.execute_change_set(**names)
        shown = json.loads(cloudwatch.get_dashboard(DashboardName="of-parameters")["DashboardBody"])["start"]
        mails = [item["Endpoint"] for item in sns.list_subscriptions()["Subscriptions"] if item["Protocol"] == "email"]
        seen.append((mails, shown))
    client.delete_stack(StackName="mailing")
    assert seen == [([], "-1H"), (["a@example.com"], "-1H"), (["b@example.com"], "-2H"), ([], "-3H")]


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


@pytest.fixture(scope="module")
def topic(rehearsal: Rehearsal) -> Iterator[str]:
    """Return a topic whose messages arrive in the queue ``signals``."""
    sqs, sns = rehearsal.client("sqs"), rehearsal.client("sns")
    sqs.create_queue(QueueName="signals")
    arn = str(sns.create_topic(Name="signals")["TopicArn"])
    sns.subscribe(TopicArn=arn, Protocol="sqs", Endpoint="arn:aws:sqs:us-east-1:123456789012:signals")
    yield arn
    rehearsal.client("cloudwatch").delete_alarms(AlarmNames=["faults", "share", "depth"])


def put_metric(rehearsal: Rehearsal, name: str, value: float, seconds_ago: float = 0, **dimensions: str) -> None:
    datum = {
        "MetricName": name,
        "Value": value,
        "Timestamp": datetime.datetime.now(datetime.UTC) - datetime.timedelta(seconds=seconds_ago),
        "Dimensions": [{"Name": key, "Value": value} for key, value in dimensions.items()],
    }
    rehearsal.client("cloudwatch").put_metric_data(Namespace="Test", MetricData=[datum])


def wait_for_state(rehearsal: Rehearsal, name: str, state: str) -> dict[str, Any]:
    def look() -> Any:
        (alarm,) = rehearsal.client("cloudwatch").describe_alarms(AlarmNames=[name])["MetricAlarms"]
        return alarm["StateValue"] == state and alarm

    return dict(wait_for(look))


def test_an_alarm_comes_and_goes_and_tells_a_queue_each_time(rehearsal: Rehearsal, topic: str) -> None:
    cloudwatch = rehearsal.client("cloudwatch")
    cloudwatch.put_metric_alarm(
        AlarmName="faults",
        AlarmDescription="Look at the queue of faults.",
        Namespace="Test",
        MetricName="Faults",
        Dimensions=[{"Name": "Endpoint", "Value": "a"}],
        Statistic="Sum",
        Period=3600,
        EvaluationPeriods=1,
        Threshold=1,
        ComparisonOperator="GreaterThanOrEqualToThreshold",
        TreatMissingData="notBreaching",
        AlarmActions=[topic],
        OKActions=[topic],
    )
    wait_for_state(rehearsal, "faults", "OK")
    put_metric(rehearsal, "Faults", 5, Endpoint="b")
    put_metric(rehearsal, "Faults", 5, seconds_ago=3600, Endpoint="a")
    put_metric(rehearsal, "Faults", 2, Endpoint="a")
    alarmed = wait_for_state(rehearsal, "faults", "ALARM")
    assert "[2.0] was greater than or equal to the threshold (1" in alarmed["StateReason"]
    put_metric(rehearsal, "Faults", -2, Endpoint="a")
    wait_for_state(rehearsal, "faults", "OK")
    sqs = rehearsal.client("sqs")
    queue = sqs.get_queue_url(QueueName="signals")["QueueUrl"]
    received: list[dict[str, Any]] = []

    def told() -> bool:
        for message in sqs.receive_message(QueueUrl=queue, MaxNumberOfMessages=10).get("Messages", []):
            envelope = json.loads(message["Body"])
            received.append({**json.loads(envelope["Message"]), "Subject": envelope["Subject"]})
        return len(received) == 3

    wait_for(told)
    received.sort(key=lambda message: message["StateChangeTime"])
    changes = [(message["OldStateValue"], message["NewStateValue"]) for message in received]
    assert changes == [("INSUFFICIENT_DATA", "OK"), ("OK", "ALARM"), ("ALARM", "OK")]
    assert received[1]["AlarmDescription"] == "Look at the queue of faults." and "faults" in received[1]["Subject"]
    history = cloudwatch.describe_alarm_history(AlarmName="faults", HistoryItemType="StateUpdate")
    summaries = [item["HistorySummary"] for item in history["AlarmHistoryItems"]]
    assert summaries[:2] == ["Alarm updated from ALARM to OK", "Alarm updated from OK to ALARM"]
    folder = Path(f"/proc/{rehearsal.running.supervisor}/cmdline").read_text().split("\0")[3]
    shown = rehearsal.run(sys.executable, "-m", "rehearsal", "--folder", folder, "status").stdout
    assert re.search(r"\bfaults +OK\b", shown), shown


def share_alarm(topic: str, expression: str, **properties: Any) -> dict[str, Any]:
    """Return an alarm on an expression of the metrics ``Unsure`` (u) and ``Accepted`` (a)."""

    def metric(name: str) -> dict[str, Any]:
        asked = {"Metric": {"Namespace": "Test", "MetricName": name}, "Period": 3600, "Stat": "Sum"}
        return {"Id": name[0].lower(), "MetricStat": asked, "ReturnData": False}

    share = {"Id": "share", "Expression": expression, "Label": "share", "ReturnData": True}
    basics = {"EvaluationPeriods": 1, "Threshold": 0.4, "ComparisonOperator": "GreaterThanThreshold"}
    return {**basics, "AlarmActions": [topic], "Metrics": [metric("Unsure"), metric("Accepted"), share], **properties}


def test_an_alarm_on_a_share_of_two_metrics(rehearsal: Rehearsal, topic: str) -> None:
    cloudwatch = rehearsal.client("cloudwatch")
    expression = "IF(SUM([u, a]) >= 10, FILL(u, 0) / (FILL(u, 0) + FILL(a, 0)), 0)"
    cloudwatch.put_metric_alarm(AlarmName="share", **share_alarm(topic, expression))
    wait_for_state(rehearsal, "share", "INSUFFICIENT_DATA")
    put_metric(rehearsal, "Unsure", 6)
    wait_for_state(rehearsal, "share", "OK")  # too few for a share
    put_metric(rehearsal, "Accepted", 4)
    described = wait_for_state(rehearsal, "share", "ALARM")
    assert "[0.6]" in described["StateReason"]
    assert described["Metrics"][2]["Expression"] == expression
    put_metric(rehearsal, "Accepted", 30)
    wait_for_state(rehearsal, "share", "OK")
    cloudwatch.put_metric_alarm(AlarmName="share", **share_alarm(topic, expression, Threshold=0.9))
    with pytest.raises(ClientError):
        cloudwatch.put_metric_alarm(AlarmName="share", **share_alarm(topic, "RATE(u)"))
    (changed,) = cloudwatch.describe_alarms(AlarmNames=["share"])["MetricAlarms"]
    assert (changed["StateValue"], changed["Threshold"]) == ("OK", 0.9), (
        "the state outlives a change, and a refused one"
    )


@pytest.mark.parametrize(
    ("expression", "more"),
    [
        ("ANOMALY_DETECTION_BAND(u)", {}),
        ("u +", {}),
        ("u / missing", {}),
        ("u.__class__", {}),
        ("u / a", {"ComparisonOperator": "LessThanLowerThreshold"}),
        ("u / a", {"AlarmActions": ["arn:aws:lambda:us-east-1:123456789012:function:f"]}),
    ],
)
def test_an_alarm_that_cannot_be_evaluated_is_refused(
    rehearsal: Rehearsal, topic: str, expression: str, more: dict[str, Any]
) -> None:
    cloudwatch = rehearsal.client("cloudwatch")
    with pytest.raises(ClientError) as caught:
        cloudwatch.put_metric_alarm(AlarmName="impossible", **{**share_alarm(topic, expression), **more})
    assert caught.value.response["Error"]["Code"] == "ValidationError"
    assert cloudwatch.describe_alarms(AlarmNames=["impossible"])["MetricAlarms"] == []


@pytest.mark.parametrize(
    ("expression", "value"),
    [
        ("-(a + 2) * 3 / 4 - 1", -4),
        ("a / zero", None),
        ("a + gone", None),
        ("FILL(gone, 7)", 7),
        ("FILL(a, 7)", 2),
        ("IF(a > 1, 10, 20) + IF(a != 2, 1, 0)", 10),
        ("IF(gone > 1, 10, 20)", None),
        ("MAX([a, gone, 5]) + MIN([a, 5]) + SUM([a, a]) + AVG([a, 4])", 14),
        ("MAX([gone])", None),
    ],
)
def test_metric_math(expression: str, value: float | None) -> None:
    points = {"a": 2.0, "zero": 0.0, "gone": None}
    assert calculate(_parse(expression), points.__getitem__) == value


def test_a_queue_that_fills_raises_its_alarm(rehearsal: Rehearsal, topic: str) -> None:
    sqs = rehearsal.client("sqs")
    queue = sqs.create_queue(QueueName="of-faults")["QueueUrl"]
    rehearsal.client("cloudwatch").put_metric_alarm(
        AlarmName="depth",
        Namespace="AWS/SQS",
        MetricName="ApproximateNumberOfMessagesVisible",
        Dimensions=[{"Name": "QueueName", "Value": "of-faults"}],
        Statistic="Maximum",
        Period=60,
        EvaluationPeriods=1,
        Threshold=0,
        ComparisonOperator="GreaterThanThreshold",
        AlarmActions=[topic],
    )
    wait_for_state(rehearsal, "depth", "OK")
    sqs.send_message(QueueUrl=queue, MessageBody="a fault")
    wait_for_state(rehearsal, "depth", "ALARM")


def test_a_function_s_embedded_metrics_are_metrics(rehearsal: Rehearsal) -> None:
    source = textwrap.dedent(
        """
        import json, time

        def lambda_handler(event, context):
            metrics = [{"Name": "Accepted", "Unit": "Count"}, {"Name": "Confidence", "Unit": "None"}]
            directive = {"Namespace": "Test/Embedded", "Dimensions": [["service"], []], "Metrics": metrics}
            line = {"_aws": {"Timestamp": int(time.time() * 1000), "CloudWatchMetrics": [directive]}}
            print(json.dumps({**line, "service": "filter", "Accepted": 1, "Confidence": [0.25, 0.75], "id": "x"}))
            print(json.dumps({**line, "service": "filter", "Accepted": "no number"}))
        """
    )
    create_function(rehearsal, "embedded", source)
    rehearsal.client("lambda").invoke(FunctionName="embedded")
    now = datetime.datetime.now(datetime.UTC)

    def values(name: str, dimensions: list[dict[str, str]]) -> Any:
        asked = {"Namespace": "Test/Embedded", "MetricName": name, "Dimensions": dimensions}
        statistics = rehearsal.client("cloudwatch").get_metric_statistics(
            **asked,
            StartTime=now - datetime.timedelta(hours=1),
            EndTime=now + datetime.timedelta(hours=1),
            Period=7200,
            Statistics=["Sum", "SampleCount"],
        )["Datapoints"]
        return statistics and (statistics[0]["Sum"], statistics[0]["SampleCount"])

    dimensions = [{"Name": "service", "Value": "filter"}]
    assert wait_for(lambda: values("Accepted", dimensions)) == (1, 1)
    assert values("Confidence", dimensions) == (1, 2)


def test_what_queues_and_workflows_do_is_counted(rehearsal: Rehearsal) -> None:
    queue = rehearsal.client("sqs").create_queue(QueueName="counted")["QueueUrl"]
    rehearsal.client("sqs").send_message(QueueUrl=queue, MessageBody="fault")
    states = {"Fail": {"Type": "Fail", "Error": "Reason"}}
    machine = rehearsal.client("stepfunctions").create_state_machine(
        name="counted",
        definition=json.dumps({"StartAt": "Fail", "States": states}),
        roleArn="arn:aws:iam::123456789012:role/r",
    )["stateMachineArn"]
    rehearsal.outcome(rehearsal.execute(machine, {}))
    assert total(rehearsal, "AWS/SQS", "NumberOfMessagesSent", "QueueName", "counted") == 1
    wait_for(lambda: total(rehearsal, "AWS/States", "ExecutionsFailed", "StateMachineArn", machine) == 1)
    assert total(rehearsal, "AWS/States", "ExecutionsSucceeded", "StateMachineArn", machine) == 0


def total(rehearsal: Rehearsal, namespace: str, name: str, dimension: str, value: str) -> float:
    """Return the sum of a metric over the last hour."""
    now = datetime.datetime.now(datetime.UTC)
    found = rehearsal.client("cloudwatch").get_metric_statistics(
        Namespace=namespace,
        MetricName=name,
        Dimensions=[{"Name": dimension, "Value": value}],
        StartTime=now - datetime.timedelta(hours=1),
        EndTime=now + datetime.timedelta(minutes=1),
        Period=7200,
        Statistics=["Sum"],
    )["Datapoints"]
    return float(sum(point["Sum"] for point in found))
