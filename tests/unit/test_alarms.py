"""Alarms and dashboards: each says what to do, has its page, and looks at metrics that somebody emits."""

import ast
import datetime
import json
import re
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from samtranslator.yaml_helper import yaml_parse

from rehearsal.cloudwatch_alarms import Series, calculate, evaluate

ROOT = Path(__file__).parents[2]
TEMPLATE: dict[str, Any] = yaml_parse((ROOT / "template.yaml").read_text())
RESOURCES: dict[str, dict[str, Any]] = TEMPLATE["Resources"]
ALARMS = {name: body["Properties"] for name, body in RESOURCES.items() if body["Type"] == "AWS::CloudWatch::Alarm"}
DASHBOARDS = {name: body for name, body in RESOURCES.items() if body["Type"] == "AWS::CloudWatch::Dashboard"}
OWN = "ImageClassifier/${AWS::StackName}"
#: What AWS emits, by namespace: dimensions, and those names of metrics that the stack uses.
#: https://docs.aws.amazon.com/AmazonCloudWatch/latest/monitoring/aws-services-cloudwatch-metrics.html
OF_AWS: dict[str, tuple[set[str], set[str]]] = {
    "AWS/Lambda": ({"FunctionName"}, {"Duration", "Errors", "Throttles"}),
    # Calls by an alias, and those that one of its versions executed.
    "AWS/Lambda of an alias": ({"FunctionName", "Resource"}, {"Errors", "Invocations"}),
    "AWS/Lambda of a version": ({"FunctionName", "Resource", "ExecutedVersion"}, {"Errors", "Invocations"}),
    "AWS/States": (
        {"StateMachineArn"},
        {
            *("ExecutionsStarted", "ExecutionsSucceeded", "ExecutionsFailed", "ExecutionsTimedOut"),
            *("ExecutionsAborted", "ExecutionThrottled", "ExecutionTime"),
        },
    ),
    "AWS/SQS": (
        {"QueueName"},
        {"NumberOfMessagesSent", "ApproximateNumberOfMessagesVisible", "ApproximateAgeOfOldestMessage"},
    ),
    "AWS/SageMaker": (
        {"EndpointName", "VariantName"},
        {"Invocations", "Invocation4XXErrors", "Invocation5XXErrors", "ModelLatency"},
    ),
    "/aws/sagemaker/Endpoints": ({"EndpointName", "VariantName"}, {"CPUUtilization", "MemoryUtilization"}),
}
#: What the drift check emits, with its dimensions.
OF_THE_CHECK = {
    "DriftViolations": {"Endpoint"},
    "DriftPSI": {"Endpoint", "Feature"},
    "CapturesRead": {"Endpoint"},
    "CapturesUnreadable": {"Endpoint"},
}


def emitted(function: str) -> set[str]:
    """Return the names of metrics that a function's source adds, its named errors included."""
    tree = ast.parse((ROOT / "src" / function / "app.py").read_text())
    errors = {node.name for node in tree.body if isinstance(node, ast.ClassDef)} - {f"{function.title()}Error"}
    calls = [node for node in ast.walk(tree) if isinstance(node, ast.Call) and "add_metric" in ast.dump(node.func)]
    literals = {call.args[0].value for call in calls if isinstance(call.args[0], ast.Constant)}
    # The statistics' names are made of the event's fields: tests/unit/test_live_signals.py sees them emitted.
    statistics = {"Brightness", "Contrast", "Sharpness"} if function == "serialize" else set()
    return {str(name) for name in literals} | errors | statistics


def text(value: Any) -> str:
    """Return a value of the template without its intrinsic function."""
    return str(next(iter(value.values()))) if isinstance(value, dict) else str(value)


def check(namespace: str, name: str, dimensions: dict[str, str]) -> None:
    """Fail if nothing emits a metric of this name with these dimensions."""
    if namespace != OWN:
        known = {
            each
            for kind, (keys, names) in OF_AWS.items()
            if (kind.split(" ")[0], keys) == (namespace, {*dimensions})
            for each in names
        }
        assert name in known, f"{namespace} {name} {dimensions}"
    elif "service" in dimensions:
        assert set(dimensions) == {"service"}, dimensions
        assert name in emitted(dimensions["service"]), f"{dimensions['service']} emits no {name}"
    else:
        assert set(dimensions) == OF_THE_CHECK[name], dimensions


def metrics_of(alarm: dict[str, Any]) -> Iterator[tuple[str, str, dict[str, str]]]:
    listed = [query["MetricStat"]["Metric"] for query in alarm.get("Metrics", []) if "MetricStat" in query]
    for metric in listed or [alarm]:
        dimensions = {dimension["Name"]: text(dimension["Value"]) for dimension in metric["Dimensions"]}
        yield text(metric["Namespace"]), metric["MetricName"], dimensions


def described(alarm: dict[str, Any]) -> str:
    """Return an alarm's description; names of the template stay as they are."""
    description = alarm["AlarmDescription"]
    return str(description["Fn::Sub"][0] if isinstance(description, dict) else description)


@pytest.mark.parametrize("name", ALARMS)
def test_an_alarm_says_what_to_do_and_has_a_section_of_its_name(name: str) -> None:
    description = described(ALARMS[name])
    longest = re.sub(r"\${\w+}", "x" * 63, description)
    assert len(description) > 100 and len(longest) <= 1024, "CloudWatch takes 1,024 characters"
    assert description.endswith("See docs/operations.md.")
    assert f"\n### {name}\n" in (ROOT / "docs" / "operations.md").read_text()


def test_no_section_tells_of_an_alarm_that_is_not_there() -> None:
    assert set(re.findall(r"^### (\w+Alarm)$", (ROOT / "docs" / "operations.md").read_text(), re.M)) == set(ALARMS)


@pytest.mark.parametrize("name", ALARMS)
def test_an_alarm_tells_when_it_begins_and_when_it_ends(name: str) -> None:
    assert ALARMS[name]["AlarmActions"] == ALARMS[name]["OKActions"] == [{"Ref": "AlarmTopic"}]
    assert ALARMS[name]["TreatMissingData"] in ("notBreaching", "ignore"), "no traffic is no reason to wake anybody"


@pytest.mark.parametrize("name", ALARMS)
def test_an_alarm_looks_at_metrics_that_somebody_emits(name: str) -> None:
    seen = list(metrics_of(ALARMS[name]))
    assert seen
    for namespace, metric, dimensions in seen:
        check(namespace, metric, dimensions)


@pytest.mark.parametrize("name", [name for name in ALARMS if "Metrics" in ALARMS[name]])
def test_an_alarms_formula_uses_exactly_its_metrics(name: str) -> None:
    queries = ALARMS[name]["Metrics"]
    (formula,) = [query["Expression"] for query in queries if "Expression" in query]
    used = {node.id for node in ast.walk(ast.parse(formula)) if isinstance(node, ast.Name)} - {"IF", "SUM", "MAX"}
    assert used == {query["Id"] for query in queries if "MetricStat" in query}
    assert len({query["MetricStat"]["Period"] for query in queries if "MetricStat" in query}) == 1


# The other two weigh metrics against each other, of which both are there or neither.
@pytest.mark.parametrize(
    "name", ["FailureAlarm", "BatchAlarm", "ThrottleAlarm", "DeadLetterAlarm", "ExpiryAlarm", "MonitorFailedAlarm"]
)
def test_an_alarm_on_one_of_several_metrics_does_not_wait_for_the_others(name: str) -> None:
    queries = ALARMS[name]["Metrics"]
    (formula,) = [query["Expression"] for query in queries if "Expression" in query]
    # AWS reports nothing of a queue that idles or of a failure that never happened.
    for query in queries:
        if "MetricStat" in query and query["Id"] != "succeeded":
            value = calculate(ast.parse(formula, mode="eval").body, {query["Id"]: 1e6}.get)
            assert value is not None and value > ALARMS[name]["Threshold"], query["Id"]


def states_of(name: str, points: dict[str, dict[int, float]], minutes: int) -> list[str]:
    """Return the states that an alarm goes through: metrics have points at minutes, and each minute it is evaluated."""
    properties = ALARMS[name]
    queries = properties.get("Metrics") or [{"Id": properties["MetricName"], "MetricStat": properties}]
    (formula,) = [query["Expression"] for query in queries if "Expression" in query] or [properties["MetricName"]]
    (period,) = {int(query["MetricStat"]["Period"]) // 60 for query in queries if "MetricStat" in query}
    assert properties["EvaluationPeriods"] == 1
    assert set(points) <= {query["Id"] for query in queries}
    alarm: Any = SimpleNamespace(
        comparison_operator=properties["ComparisonOperator"],
        threshold=properties["Threshold"],
        treat_missing_data=properties["TreatMissingData"],
        evaluation_periods=1,
        datapoints_to_alarm=None,
        state_value="INSUFFICIENT_DATA",
        state_reason="",
    )
    states: list[str] = []
    for now in range(minutes):
        recent = {
            metric: sum(there)
            for metric, values in points.items()
            if (there := [value for at, value in values.items() if now - period < at <= now])
        }
        value = calculate(ast.parse(formula, mode="eval").body, recent.get)
        alarm.state_value, alarm.state_reason = evaluate(alarm, [value])
        if [alarm.state_value] != states[-1:]:
            states.append(alarm.state_value)
    return states


# Checks begin an hour apart and end sooner or later: 61 and 84 minutes lie between some.
ENDS = [5, 66, 125, 209, 250]


@pytest.mark.parametrize(
    ("name", "bad", "good"),
    [
        ("DriftAlarm", {"DriftViolations": dict.fromkeys(ENDS, 2.0)}, {"DriftViolations": 0.0}),
        ("MonitorFailedAlarm", {"failed": dict.fromkeys(ENDS, 1.0), "succeeded": {}}, {"succeeded": 1.0}),
        (
            "CaptureAlarm",
            {"captured": dict.fromkeys(ENDS, 0.0), "requests": dict.fromkeys(range(400), 1.0)},
            {"captured": 900.0},
        ),
    ],
)
def test_what_lasts_from_check_to_check_begins_once_and_ends_once(
    name: str, bad: dict[str, dict[int, float]], good: dict[str, float]
) -> None:
    """Each change of state is a message."""
    points = {metric: {**values, **({320: good[metric]} if metric in good else {})} for metric, values in bad.items()}
    states = states_of(name, points, 400)
    assert [state for state in states if state != "INSUFFICIENT_DATA"] in (["ALARM", "OK"], ["OK", "ALARM", "OK"])


def test_who_hears_of_drift_can_find_the_report() -> None:
    definition = json.loads((ROOT / "statemachine" / "monitor.asl.json").read_text())
    arguments = definition["States"]["Run drift check"]["Parameters"]["AppSpecification"]["ContainerArguments.$"]
    (address,) = re.findall(r"(s3://\S+)/report\.html", described(ALARMS["DriftAlarm"]))
    assert f"'--output', '{address}'" in arguments
    bucket = ALARMS["DriftAlarm"]["AlarmDescription"]["Fn::Sub"][1]["Bucket"]
    assert bucket == RESOURCES["MonitorWorkflow"]["Properties"]["DefinitionSubstitutions"]["Bucket"]


def test_messages_are_called_old_days_before_sqs_deletes_them() -> None:
    metrics = [query["MetricStat"]["Metric"] for query in ALARMS["ExpiryAlarm"]["Metrics"] if "MetricStat" in query]
    queues = [metric["Dimensions"][0]["Value"]["Fn::GetAtt"][0] for metric in metrics]
    assert queues == ["ReviewQueue", "FailureQueue"]
    for name in queues:
        kept = RESOURCES[name]["Properties"]["MessageRetentionPeriod"]
        assert ALARMS["ExpiryAlarm"]["Threshold"] + 3 * 86400 < kept


def test_an_unsure_prediction_is_no_failure() -> None:
    seen = list(metrics_of(ALARMS["FailureAlarm"]))
    assert not {name for _, name, _ in seen} & {"Unsure", "Neither", "Errors"}
    # An execution of the chain fails for an unsure image, one of the starter never does.
    failed = [dimensions for _, name, dimensions in seen if name == "ExecutionsFailed"]
    assert failed == [{"StateMachineArn": "UploadStarter"}]


def test_an_express_execution_that_times_out_raises_the_alarm() -> None:
    """EventBridge gets no events of Express executions, so nothing else would report it."""
    seen = [dimensions for _, name, dimensions in metrics_of(ALARMS["FailureAlarm"]) if name == "ExecutionsTimedOut"]
    machines = {name for name, body in RESOURCES.items() if body.get("Properties", {}).get("Type") == "EXPRESS"}
    assert machines < {dimensions["StateMachineArn"] for dimensions in seen}


def widgets(name: str) -> list[dict[str, Any]]:
    """Return a dashboard's widgets; names of the template stay as they are."""
    body = DASHBOARDS[name]["Properties"]["DashboardBody"]["Fn::Sub"]
    return list(json.loads(body)["widgets"])


def rows(widget: dict[str, Any]) -> Iterator[list[Any]]:
    """Return a widget's metrics with the parts that a dot repeats from the row before."""
    before: list[Any] = []
    for row in widget["properties"]["metrics"]:
        parts = [part for part in row if isinstance(part, str)]
        parts = [before[place] if part == "." else part for place, part in enumerate(parts)]
        yield [*parts, *[part for part in row if isinstance(part, dict)]]
        before = parts or before


@pytest.mark.parametrize("name", DASHBOARDS)
def test_a_dashboard_shows_metrics_that_somebody_emits(name: str) -> None:
    charts = [widget for widget in widgets(name) if widget["type"] == "metric"]
    for row in [row for widget in charts for row in rows(widget)]:
        if isinstance(row[0], str):
            namespace, metric, *pairs = [part for part in row if isinstance(part, str)]
            check(namespace, metric, dict(zip(pairs[::2], pairs[1::2], strict=True)))
        elif found := re.search(r"SEARCH\('{\"([^\"]+)\",([\w,]+)} MetricName=\"(\w+)\"", row[0]["expression"]):
            namespace, dimensions, metric = found.groups()
            assert namespace == OWN
            by_label = metric in emitted("filter") and set(dimensions.split(",")) == {"service", "label"}
            assert by_label or set(dimensions.split(",")) == OF_THE_CHECK[metric], row
        else:
            assert row[0]["expression"] == "(unsure + neither) / (accepted + unsure + neither)"


@pytest.mark.parametrize("name", DASHBOARDS)
def test_a_dashboards_widgets_fill_rows_of_24_columns(name: str) -> None:
    widths = [widget["width"] for widget in widgets(name)]
    assert widths == [24, *[8] * (len(widths) - 1)] and len(widths) % 3 == 1


def test_every_alarm_is_on_a_dashboard() -> None:
    shown = {
        alarm for name in DASHBOARDS for widget in widgets(name) for alarm in widget["properties"].get("alarms", ())
    }
    # Dashboards cannot refer to one that only some environments have.
    assert shown == {f"${{{name}.Arn}}" for name in ALARMS if "Condition" not in RESOURCES[name]}


def test_dashboards_name_what_the_template_has() -> None:
    known = set(RESOURCES) | set(TEMPLATE["Parameters"]) | {"AWS::StackName", "AWS::Region"}
    for dashboard in DASHBOARDS.values():
        body = dashboard["Properties"]["DashboardBody"]["Fn::Sub"]
        assert {name.split(".")[0] for name in re.findall(r"\${([^}]+)}", body)} <= known


def test_two_stacks_of_an_account_do_not_mix_their_metrics() -> None:
    variables = TEMPLATE["Globals"]["Function"]["Environment"]["Variables"]
    assert variables["POWERTOOLS_METRICS_NAMESPACE"] == {"Fn::Sub": OWN}


@pytest.mark.parametrize(
    ("points", "bad"),
    [
        ({"serialize": (3, 10)}, True),
        ({"serialize": (2, 2)}, False),
        ({"serialize": (3, 20), "classify": (0, 10), "classify_all": (0, 100)}, False),
        ({"filter": (8, 10), "filter_all": (38, 100)}, True),
        # Unsure images fail in both versions.
        ({"serialize": (0, 10), "filter": (4, 10), "filter_all": (36, 100)}, False),
        # A throttled endpoint fails in both versions.
        ({"classify": (10, 10), "classify_all": (95, 100)}, False),
        # All traffic has moved: there is nothing to compare with.
        ({"filter": (60, 100), "filter_all": (60, 100)}, False),
    ],
)
def test_a_new_version_is_blamed_for_its_own_errors_only(points: dict[str, tuple[int, int]], bad: bool) -> None:
    alarm = ALARMS["NewVersionAlarm"]
    (formula,) = [query["Expression"] for query in alarm["Metrics"] if "Expression" in query]
    values = {
        f"{of}_{kind}": float(value)
        for of, pair in points.items()
        for kind, value in zip(("errors", "calls"), pair, strict=True)
    }
    assert set(values) <= {query["Id"] for query in alarm["Metrics"]}
    value = calculate(ast.parse(formula, mode="eval").body, values.get)
    assert value is not None and (value > alarm["Threshold"]) == bad


def test_the_rehearsal_reads_each_datum_once_and_finds_it_by_its_time() -> None:
    second = datetime.datetime(2026, 1, 1).replace

    def datum(name: str, at: int, *dimensions: str) -> Any:
        pairs = [SimpleNamespace(name=each, value="v") for each in dimensions]
        return SimpleNamespace(namespace="N", name=name, dimensions=pairs, timestamp=second(second=at))

    data, series = [datum("a", 3, "x", "y"), datum("a", 1, "y", "x"), datum("a", 2, "x"), datum("b", 2)], Series()
    metric: Any = SimpleNamespace(namespace="N", metric_name="a", dimensions=data[0].dimensions)
    series.read(data)
    data[:] = [None] * len(data)
    data.append(datum("a", 2, "x", "y"))
    series.read(data)
    found = series.between(metric, second(second=1), second(second=3))
    assert [each.timestamp.second for each in found] == [2, 3], "after the begin, up to the end, in order"
