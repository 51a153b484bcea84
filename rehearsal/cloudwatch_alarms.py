"""CloudWatch: alarms change their state and notify their topics.

Every alarm is evaluated once a second, over periods that end now. CloudWatch's periods end on whole minutes and are
evaluated a little later; the rehearsal need not wait longer than one period.
"""

import ast
import bisect
import datetime
import functools
import json
import logging
import operator
import re
import statistics
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterable
from typing import Any

import botocore.session
from moto.cloudwatch.exceptions import ValidationError
from moto.cloudwatch.models import (
    Alarm,
    CloudWatchBackend,
    Metric,
    MetricDataQuery,
    MetricDatumBase,
    MetricStat,
    Statistics,
    cloudwatch_backends,
)
from moto.cloudwatch.responses import CloudWatchResponse
from moto.core.responses import ActionResult
from moto.core.utils import utcnow
from moto.sns.models import sns_backends

from rehearsal.cloudwatch_metrics import measure_queues
from rehearsal.patches import Difference, add, patch

log = logging.getLogger("rehearsal")

EVALUATION_SECONDS = 1.0
STATISTICS = ("SampleCount", "Average", "Sum", "Minimum", "Maximum")
COMPARISONS: dict[str, tuple[str, Callable[[float, float], bool]]] = {
    "GreaterThanOrEqualToThreshold": ("greater than or equal to", operator.ge),
    "GreaterThanThreshold": ("greater than", operator.gt),
    "LessThanThreshold": ("less than", operator.lt),
    "LessThanOrEqualToThreshold": ("less than or equal to", operator.le),
}
OPERATORS: dict[type, Callable[[float, float], float]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
    ast.Gt: operator.gt,
    ast.GtE: operator.ge,
    ast.Lt: operator.lt,
    ast.LtE: operator.le,
    ast.Eq: operator.eq,
    ast.NotEq: operator.ne,
}
AGGREGATES: dict[str, Callable[[list[float]], float]] = {
    "MAX": max,
    "MIN": min,
    "SUM": sum,
    "AVG": statistics.fmean,
}
LANGUAGE = "+ - * / ( ) < <= > >= == != FILL(m, n) IF(c, a, b) and MAX, MIN, SUM, AVG of a [list]"


def calculate(node: ast.expr, value_of: Callable[[str], float | None]) -> float | None:
    """Return the value of a metric math expression in one period; None where a data point is missing.

    Source: https://docs.aws.amazon.com/AmazonCloudWatch/latest/monitoring/using-metric-math.html: without an operand,
    or on division by zero, there is no data point.

    Raises
    ------
    ValidationError
        If the rehearsal does not support the expression.
    """

    def value(part: ast.expr) -> float | None:
        return calculate(part, value_of)

    match node:
        case ast.Constant(value=bool() | str() | bytes() | None):
            pass
        case ast.Constant(value=int() | float() as number):
            return float(number)
        case ast.Name(id=name):
            return value_of(name)
        case ast.UnaryOp(op=ast.USub(), operand=operand):
            only = value(operand)
            return None if only is None else -only
        case ast.BinOp(left, op, right) | ast.Compare(left, [op], [right]) if type(op) in OPERATORS:
            first, second = value(left), value(right)
            if first is None or second is None or (isinstance(op, ast.Div) and second == 0):
                return None
            return float(OPERATORS[type(op)](first, second))
        case ast.Call(ast.Name("FILL"), [metric, filler], []):
            given, instead = value(metric), value(filler)
            return instead if given is None else given
        case ast.Call(ast.Name("IF"), [condition, yes, no], []):
            decided, choices = value(condition), (value(no), value(yes))
            return None if decided is None else choices[decided != 0]
        case ast.Call(ast.Name(name), [ast.List(parts)], []) if name in AGGREGATES:
            there = [point for point in map(value, parts) if point is not None]
            return AGGREGATES[name](there) if there else None
    raise ValidationError(f"The rehearsal calculates {LANGUAGE}, not {ast.unparse(node)}")


@functools.lru_cache(maxsize=256)
def _parse(expression: str) -> ast.expr:
    try:
        return ast.parse(expression, mode="eval").body
    except SyntaxError:
        raise ValidationError(f"The rehearsal calculates {LANGUAGE}, not {expression}") from None


def _queries(alarm: Alarm) -> dict[str, MetricDataQuery]:
    """Return an alarm's metrics by id; the only metric of a simple alarm has the id ``""``."""
    if alarm.metric_data_queries:
        return {query.id: query for query in alarm.metric_data_queries}
    metric = Metric(alarm.metric_name, alarm.namespace, alarm.dimensions)
    statistic = alarm.statistic or str(alarm.extended_statistic)
    asked = MetricStat(metric, str(alarm.period), statistic, alarm.unit)  # type: ignore[arg-type]
    return {"": MetricDataQuery("", "", "", "True", None, asked)}


def _returned(queries: dict[str, MetricDataQuery]) -> list[str]:
    return [query.id for query in queries.values() if str(query.return_data) != "False"]


def _check(alarm: Alarm) -> None:
    """Refuse an alarm that could not be evaluated."""
    if alarm.rule or alarm.threshold_metric_id or alarm.comparison_operator not in COMPARISONS:
        raise ValidationError(
            "The rehearsal evaluates alarms on a fixed threshold, not composite ones or anomaly bands"
        )
    for arn in [*alarm.alarm_actions, *alarm.ok_actions, *alarm.insufficient_data_actions]:
        if ":sns:" not in arn:
            raise ValidationError(f"The rehearsal sends alarms to SNS topics, not to {arn}")
    queries = _queries(alarm)
    if len(_returned(queries)) != 1 or not any(query.metric_stat for query in queries.values()):
        raise ValidationError("An alarm needs a metric, and exactly one element of its list that returns data")

    def known(name: str) -> float:
        if name not in queries:
            raise ValidationError(f"No metric of alarm {alarm.name} has the id {name}")
        return 1.0

    for query in queries.values():
        if query.metric_stat is None:
            calculate(_parse(str(query.expression)), known)
        elif not re.fullmatch(r"p\d+(\.\d+)?", query.metric_stat.stat) and query.metric_stat.stat not in STATISTICS:
            known_ones = f"{', '.join(STATISTICS)} and percentiles (p99)"
            raise ValidationError(f"The rehearsal knows {known_ones}, not {query.metric_stat.stat}")


def _summary(data: list[MetricDatumBase], statistic: str, now: datetime.datetime) -> float | None:
    if not data:
        return None
    summary = Statistics([statistic], now)
    summary.metric_data = data
    if statistic in STATISTICS:
        value: Any = summary.get_statistics_for_type(statistic)
        return float(value)
    values = sorted(summary.metric_single_values_list)
    if not values:  # statistic sets have no percentiles, as in CloudWatch
        return None
    position = (len(values) - 1) * float(statistic.removeprefix("p")) / 100
    low = values[int(position)]
    return low + (values[min(int(position) + 1, len(values) - 1)] - low) * (position % 1)


def _time(datum: MetricDatumBase) -> datetime.datetime:
    return datum.timestamp.replace(tzinfo=None)


class Series:
    """A backend's metric data by namespace, name and dimensions, in the order of time.

    Each datum is sorted in once and found by its time: the longer a rehearsal runs, the more of them there are.
    """

    def __init__(self) -> None:
        self._data: dict[tuple[str, str, frozenset[tuple[str, str]]], list[MetricDatumBase]] = defaultdict(list)
        self._read = 0

    def read(self, data: list[MetricDatumBase]) -> None:
        """Sort in what was added to a backend's data since the last call."""
        new = data[self._read :]
        self._read += len(new)
        for datum in new:
            bisect.insort(self._data[self._key(datum.namespace, datum.name, datum.dimensions)], datum, key=_time)

    def between(self, metric: Metric, begin: datetime.datetime, end: datetime.datetime) -> list[MetricDatumBase]:
        """Return a metric's data after ``begin``, up to ``end``."""
        data = self._data.get(self._key(metric.namespace, metric.metric_name, metric.dimensions), [])
        return data[bisect.bisect_right(data, begin, key=_time) : bisect.bisect_right(data, end, key=_time)]

    @staticmethod
    def _key(namespace: str, name: str, dimensions: Iterable[Any]) -> tuple[str, str, frozenset[tuple[str, str]]]:
        return namespace, name, frozenset((dimension.name, dimension.value) for dimension in dimensions)


def _points(alarm: Alarm, series: Series, now: datetime.datetime) -> list[float | None]:
    """Return an alarm's data points, the newest first."""
    queries = _queries(alarm)
    period = max(int(query.metric_stat.period) for query in queries.values() if query.metric_stat)

    @functools.cache
    def point(name: str, age: int) -> float | None:
        asked = queries[name].metric_stat
        if asked is None:
            return calculate(_parse(str(queries[name].expression)), lambda other: point(other, age))
        end = now - datetime.timedelta(seconds=period * age)
        found = series.between(asked.metric, end - datetime.timedelta(seconds=period), end)
        if asked.unit:
            found = [datum for datum in found if datum.unit == asked.unit]
        return _summary(found, asked.stat, now)

    return [point(_returned(queries)[0], age) for age in range(int(alarm.evaluation_periods))]


def evaluate(alarm: Alarm, points: list[float | None]) -> tuple[str, str]:
    """Return an alarm's state and the reason for it, by its data points, newest first; None is a missing one.

    Source: https://docs.aws.amazon.com/AmazonCloudWatch/latest/monitoring/alarms-and-missing-data.html
    """
    words, compare = COMPARISONS[alarm.comparison_operator]
    treat = alarm.treat_missing_data or "missing"
    wanted = int(alarm.datapoints_to_alarm or alarm.evaluation_periods)
    there = [point for point in points if point is not None]
    missing = len(points) - len(there)
    breaching = len([point for point in there if compare(point, float(alarm.threshold))])
    reason = f"Threshold Crossed: {breaching} out of the last {len(points)} datapoints [{', '.join(map(str, there))}] "
    reason += f"{'was' if breaching == 1 else 'were'} {words} the threshold ({alarm.threshold})"
    if not there and treat in ("breaching", "notBreaching"):
        reason = f"Threshold Crossed: no datapoints were received for {missing} periods and {missing} missing "
        reason += f"datapoints were treated as [{treat[0].upper()}{treat[1:]}]."
    if not there and treat == "missing":
        return "INSUFFICIENT_DATA", f"Insufficient Data: {missing} datapoints were unknown."
    if breaching + (missing if treat == "breaching" else 0) >= wanted:
        return "ALARM", reason
    undecided = breaching + missing >= wanted and treat in ("missing", "ignore")
    if undecided and treat == "ignore":
        return alarm.state_value, alarm.state_reason
    # All known points breach, and older ones are missing: the alarm does not wait for them.
    return "ALARM" if undecided and there and breaching == len(there) else "OK", reason


def _region_name(region: str) -> str:
    """Return a Region's name in CloudWatch's messages, such as US East (N. Virginia)."""
    partitions = botocore.session.get_session().get_data("endpoints")["partitions"]
    return str(next((p["regions"][region]["description"] for p in partitions if region in p["regions"]), region))


def _message(alarm: Alarm, account: str, old: str) -> dict[str, Any]:
    """Return what CloudWatch sends to a topic; the ``Trigger`` has no metrics of a list."""
    return {
        "AlarmName": alarm.name,
        "AlarmDescription": alarm.description,
        "AWSAccountId": account,
        "NewStateValue": alarm.state_value,
        "NewStateReason": alarm.state_reason,
        "StateChangeTime": f"{alarm.state_updated_timestamp.isoformat('T', 'milliseconds')}+0000",
        "Region": _region_name(alarm.alarm_arn.split(":")[3]),
        "AlarmArn": alarm.alarm_arn,
        "OldStateValue": old,
        "OKActions": alarm.ok_actions,
        "AlarmActions": alarm.alarm_actions,
        "InsufficientDataActions": alarm.insufficient_data_actions,
        "Trigger": {
            "MetricName": alarm.metric_name,
            "Namespace": alarm.namespace,
            "EvaluationPeriods": alarm.evaluation_periods,
            "ComparisonOperator": alarm.comparison_operator,
            "Threshold": alarm.threshold,
            "TreatMissingData": alarm.treat_missing_data or "missing",
        },
    }


EVALUATED = Difference(
    "alarms_change_and_notify_their_topics",
    "alarms are never evaluated: they stay OK, and setting their state notifies no topic",
)


# Of requests and of the thread that evaluates: an alarm's new state, its message and its history belong together.
_CHANGE = threading.RLock()


@patch(CloudWatchBackend, "put_metric_alarm", EVALUATED)
def _put_metric_alarm(original: Any, self: CloudWatchBackend, name: str, **rest: Any) -> Alarm:
    with _CHANGE:
        before = self.alarms.get(name)
        alarm: Alarm = original(self, name=name, **rest)
        try:
            _check(alarm)
        except Exception:
            self.alarms.pop(name)
            if before:
                self.alarms[name] = before
            raise
        alarm.state_value = "INSUFFICIENT_DATA"
        if before:
            alarm.state_value, alarm.state_reason = before.state_value, before.state_reason
            alarm.history = before.history
        return alarm


@patch(Alarm, "update_state", EVALUATED)
def _update_state(original: Any, self: Alarm, reason: str, reason_data: str, state_value: str) -> None:
    with _CHANGE:
        old = self.state_value
        self.state_value, self.state_reason, self.state_reason_data = state_value, reason, reason_data or "{}"
        self.state_updated_timestamp = utcnow()
        if old == state_value:
            return
        _remember(self, "StateUpdate", f"Alarm updated from {old} to {state_value}")
        actions = {"ALARM": self.alarm_actions, "OK": self.ok_actions}.get(state_value, self.insufficient_data_actions)
        for arn in actions if self.actions_enabled else ():
            _, _, _, region, account, _ = arn.split(":")
            subject = f'{state_value}: "{self.name}" in {_region_name(region)}'[:100]
            try:
                sns_backends[account][region].publish(json.dumps(_message(self, account, old)), arn, subject=subject)
                _remember(self, "Action", f"Successfully executed action {arn}")
            except Exception as error:
                log.exception("Alarm %s could not notify %s", self.name, arn)
                _remember(self, "Action", f"Failed to execute action {arn}. Received error: {error!r}")


def _remember(alarm: Alarm, kind: str, summary: str) -> None:
    alarm.history.insert(
        0,
        {
            "AlarmName": alarm.name,
            "AlarmType": "MetricAlarm",
            "Timestamp": utcnow(),
            "HistoryItemType": kind,
            "HistorySummary": summary,
            "HistoryData": json.dumps({"stateReason": alarm.state_reason}),
        },
    )


@add(
    CloudWatchResponse,
    "describe_alarm_history",
    Difference("alarms_have_a_history", "DescribeAlarmHistory is not implemented"),
)
def _describe_alarm_history(self: CloudWatchResponse) -> ActionResult:
    name, kind = self._get_param("AlarmName"), self._get_param("HistoryItemType")
    alarms = self.cloudwatch_backend.describe_alarms()
    items = [item for alarm in alarms if name in (None, alarm.name) for item in alarm.history]
    return ActionResult({"AlarmHistoryItems": [item for item in items if kind in (None, item["HistoryItemType"])]})


def start() -> None:
    """Evaluate every alarm of this process from now on, about once a second."""
    threading.Thread(target=_watch, daemon=True).start()


def _watch() -> None:
    depths: dict[str, tuple[int, float]] = {}
    series: dict[CloudWatchBackend, Series] = defaultdict(Series)
    while True:
        time.sleep(EVALUATION_SECONDS)
        for backend in [backend for regions in [*cloudwatch_backends.values()] for backend in [*regions.values()]]:
            measure_queues(backend, depths)
            now = utcnow()
            series[backend].read(backend.metric_data)
            for alarm in [*backend.alarms.values()]:
                try:
                    points = _points(alarm, series[backend], now)
                    facts = {"version": "1.0", "recentDatapoints": points[::-1], "threshold": alarm.threshold}
                    with _CHANGE:
                        state, reason = evaluate(alarm, points)
                        if state != alarm.state_value:
                            alarm.update_state(reason, json.dumps(facts), state)
                except Exception:  # evaluate the other alarms
                    log.exception("Alarm %s could not be evaluated", alarm.name)
