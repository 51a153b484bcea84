"""CloudWatch's alarms: how they begin, why they change, what they send."""

import json
from typing import Any

from tests.conformance.behaviours import Json, World, behaviour, error_of, not_rehearsed
from tests.support.stack import wait_for

ALARMS = "cloudwatch/test_cloudwatch"


def _alarm(world: World, name: str, **more: Any) -> Json:
    """Make an alarm of a metric of its own; return its description."""
    basics = {"Namespace": "Conformance", "MetricName": name, "Statistic": "Sum", "Period": 60, "EvaluationPeriods": 1}
    basics |= {"Threshold": 1.0, "ComparisonOperator": "GreaterThanThreshold"}
    world.client("cloudwatch").put_metric_alarm(AlarmName=name, **{**basics, **more})
    return _described(world, name)


def _described(world: World, name: str) -> Json:
    (found,) = world.client("cloudwatch").describe_alarms(AlarmNames=[name])["MetricAlarms"]
    return dict(found)


def _in_alarm(world: World, name: str, **more: Any) -> Json:
    """Return an alarm's description once its metric has raised it."""
    _alarm(world, name, **more)
    world.client("cloudwatch").put_metric_data(
        Namespace="Conformance", MetricData=[{"MetricName": name, "Value": 21.5}]
    )
    return dict(wait_for(lambda: (d := _described(world, name))["StateValue"] == "ALARM" and d))


def _told(world: World, name: str) -> Json:
    """Return what a topic's queue gets of an alarm."""
    sns = world.client("sns")
    topic = sns.create_topic(Name=name)["TopicArn"]
    world.queue(name)
    sns.subscribe(TopicArn=topic, Protocol="sqs", Endpoint=world.queue_arn(name))
    # Otherwise the next evaluation, which finds no data, undoes the state.
    more = {"AlarmActions": [topic], "TreatMissingData": "ignore"}
    _alarm(world, name, Dimensions=[{"Name": "a", "Value": "b"}], **more)
    world.client("cloudwatch").set_alarm_state(AlarmName=name, StateValue="ALARM", StateReason="by hand")
    envelope = json.loads(world.messages(name)[0])
    return {"subject": envelope["Subject"], **json.loads(envelope["Message"])}


@behaviour("Alarms", "a new alarm has no data", ALARMS, "INSUFFICIENT_DATA")
def _(world: World) -> Any:
    return _alarm(world, "new")["StateValue"]


@behaviour("Alarms", "the reason of a new alarm", ALARMS, "Unchecked: Initial alarm creation")
def _(world: World) -> Any:
    return _alarm(world, "reason-of-new", Period=86400)["StateReason"]


@behaviour(
    "Alarms",
    "the reason of an alarm, but for the time",
    ALARMS,
    "Threshold Crossed: 1 datapoint [21.5 (TIME)] was greater than the threshold (1.0).",
    differs="counts the data points (1 out of the last 1 datapoints), and gives no times",
)
def _(world: World) -> Any:
    return _in_alarm(world, "reason")["StateReason"]


@behaviour("Alarms", "the reason names value and threshold", ALARMS, (True, True))
def _(world: World) -> Any:
    reason = _in_alarm(world, "values")["StateReason"]
    return "[21.5" in reason, "greater than the threshold (1.0)" in reason


@behaviour(
    "Alarms",
    "missing data that count as breaching raise it; the reason",
    ALARMS,
    (
        "ALARM",
        "Threshold Crossed: no datapoints were received for 2 periods and 2 missing datapoints were treated as "
        "[Breaching].",
    ),
)
def _(world: World) -> Any:
    _alarm(world, "breaching", TreatMissingData="breaching", EvaluationPeriods=2)
    described = wait_for(lambda: (d := _described(world, "breaching"))["StateValue"] == "ALARM" and d)
    return described["StateValue"], described["StateReason"]


@behaviour("Alarms", "missing data that count as not breaching: OK", ALARMS, "OK")
def _(world: World) -> Any:
    _alarm(world, "not-breaching", TreatMissingData="notBreaching")
    return wait_for(lambda: (d := _described(world, "not-breaching")["StateValue"]) != "INSUFFICIENT_DATA" and d)


@behaviour("Alarms", "SetAlarmState keeps the reason", ALARMS, ("ALARM", "by hand"))
def _(world: World) -> Any:
    _alarm(world, "set", TreatMissingData="ignore")
    world.client("cloudwatch").set_alarm_state(AlarmName="set", StateValue="ALARM", StateReason="by hand")
    described = _described(world, "set")
    return described["StateValue"], described["StateReason"]


@behaviour("Alarms", "SetAlarmState of an alarm that does not exist: the code", ALARMS, "ResourceNotFound")
def _(world: World) -> Any:
    state = {"AlarmName": "none", "StateValue": "OK", "StateReason": "a"}
    return error_of(lambda: world.client("cloudwatch").set_alarm_state(**state))[0]


@behaviour(
    "Alarms",
    "SetAlarmState to a state that is none",
    ALARMS,
    (
        "ValidationError",
        "1 validation error detected: Value 'LOUD' at 'stateValue' failed to satisfy constraint: "
        "Member must satisfy enum value set: [INSUFFICIENT_DATA, ALARM, OK]",
    ),
)
def _(world: World) -> Any:
    _alarm(world, "loud")
    state = {"AlarmName": "loud", "StateValue": "LOUD", "StateReason": "a"}
    return error_of(lambda: world.client("cloudwatch").set_alarm_state(**state))


@behaviour(
    "Alarms", "what a topic gets: old and new state, reason", ALARMS, ("INSUFFICIENT_DATA", "ALARM", "by hand", "told")
)
def _(world: World) -> Any:
    told = _told(world, "told")
    return told["OldStateValue"], told["NewStateValue"], told["NewStateReason"], told["AlarmName"]


@behaviour(
    "Alarms",
    "what a topic gets: the fields",
    ALARMS,
    [
        *("AWSAccountId", "AlarmActions", "AlarmArn", "AlarmConfigurationUpdatedTimestamp", "AlarmDescription"),
        *("AlarmName", "InsufficientDataActions", "NewStateReason", "NewStateValue", "OKActions", "OldStateValue"),
        *("Region", "StateChangeTime", "Trigger"),
    ],
    differs="no AlarmConfigurationUpdatedTimestamp",
)
def _(world: World) -> Any:
    return sorted(set(_told(world, "told-fields")) - {"subject"})


@behaviour(
    "Alarms",
    "what a topic gets: the trigger's dimensions and statistic",
    ALARMS,
    ([{"name": "a", "value": "b"}], "SUM"),
    differs="the trigger has neither dimensions nor statistic nor period",
)
def _(world: World) -> Any:
    trigger = _told(world, "told-trigger")["Trigger"]
    return trigger.get("Dimensions"), trigger.get("Statistic")


@behaviour(
    "Alarms",
    "the history: kind and summary of a change",
    ALARMS,
    ("StateUpdate", "Alarm updated from INSUFFICIENT_DATA to ALARM"),
)
def _(world: World) -> Any:
    _in_alarm(world, "remembered", Period=3600)
    items = world.client("cloudwatch").describe_alarm_history(AlarmName="remembered", HistoryItemType="StateUpdate")
    item = items["AlarmHistoryItems"][0]
    return item["HistoryItemType"], item["HistorySummary"]


@behaviour(
    "Alarms",
    "the history: the fields of a change's data",
    ALARMS,
    ["newState", "oldState", "version"],
    differs="the reason alone",
)
def _(world: World) -> Any:
    _in_alarm(world, "remembered-data", Period=3600)
    items = world.client("cloudwatch").describe_alarm_history(AlarmName="remembered-data")["AlarmHistoryItems"]
    return sorted(json.loads(items[0]["HistoryData"]))


not_rehearsed(
    "Alarms",
    "composite alarms",
    ALARMS,
    lambda world: world.client("cloudwatch").put_composite_alarm(AlarmName="a", AlarmRule='ALARM("b")'),
)
