"""EventBridge Scheduler: schedules start executions of state machines."""

import datetime
import logging
import re
import threading
import time
import uuid
from typing import Any
from zoneinfo import ZoneInfo

from moto.events.models import EventsBackend
from moto.scheduler.exceptions import ValidationException
from moto.scheduler.models import EventBridgeSchedulerBackend, Schedule, scheduler_backends
from moto.stepfunctions.parser.models import stepfunctions_parser_backends

from rehearsal.patches import Difference, patch

log = logging.getLogger("rehearsal")

SCHEDULE_SECONDS = 1.0


FIRE = Difference("schedules_start_executions", "schedules never start anything")


@patch(EventBridgeSchedulerBackend, "create_schedule", FIRE)
@patch(EventBridgeSchedulerBackend, "update_schedule", FIRE)
def _set_schedule(original: Any, self: EventBridgeSchedulerBackend, **properties: Any) -> Schedule:
    due = _first_run(properties)
    if ":stateMachine:" not in properties["target"]["Arn"]:
        raise ValidationException("The rehearsal's schedules start state machines only")
    schedule: Schedule = original(self, **properties)
    schedule.due = due  # type: ignore[attr-defined]
    return schedule


@patch(EventsBackend, "put_rule", FIRE)
def _put_rule(original: Any, self: EventsBackend, *names: Any, **properties: Any) -> Any:
    if properties.get("scheduled_expression"):
        raise ValidationException("The rehearsal's rules match events; use an EventBridge Scheduler schedule")
    return original(self, *names, **properties)


def _interval(expression: str) -> datetime.timedelta | None:
    found = re.fullmatch(r"rate\(([1-9]\d*) (minute|hour|day)s?\)", expression)
    return datetime.timedelta(**{f"{found[2]}s": int(found[1])}) if found else None


def _first_run(properties: dict[str, Any]) -> datetime.datetime:
    # https://docs.aws.amazon.com/scheduler/latest/UserGuide/schedule-types.html: without a start date, a rate begins
    # at once.
    now = datetime.datetime.now(datetime.UTC)
    expression = properties["schedule_expression"]
    if _interval(expression):
        given = properties.get("start_date")
        return max(now, datetime.datetime.fromtimestamp(float(given), datetime.UTC)) if given else now
    found = re.fullmatch(r"at\((\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d)\)", expression)
    if not found:
        raise ValidationException(f"The rehearsal's schedules are rate(...) and at(...), not {expression}")
    zone = ZoneInfo(properties.get("schedule_expression_timezone") or "UTC")
    return datetime.datetime.fromisoformat(found[1]).replace(tzinfo=zone)


def start() -> None:
    """Fire the schedules of this process from now on, about once a second."""
    threading.Thread(target=_fire_for_ever, daemon=True).start()


def _fire_for_ever() -> None:
    while True:
        time.sleep(SCHEDULE_SECONDS)
        now = datetime.datetime.now(datetime.UTC)
        for backend in [backend for regions in [*scheduler_backends.values()] for backend in [*regions.values()]]:
            for group in [*backend.schedule_groups.values()]:
                for schedule in [*group.schedules.values()]:
                    due, end = schedule.due, schedule.end_date  # type: ignore[attr-defined]
                    if due is None or due > now or (end and float(end) < now.timestamp()):
                        continue
                    interval = _interval(schedule.schedule_expression)
                    schedule.due = due + ((now - due) // interval + 1) * interval if interval else None  # type: ignore[attr-defined]
                    if schedule.state == "ENABLED":
                        _fire(backend, schedule, due)
                    if not interval and schedule.action_after_completion == "DELETE":
                        group.schedules.pop(schedule.name, None)


def _fire(backend: EventBridgeSchedulerBackend, schedule: Schedule, due: datetime.datetime) -> None:
    execution, target = str(uuid.uuid4()), schedule.target["Arn"]
    text = schedule.target.get("Input", "{}")
    # https://docs.aws.amazon.com/scheduler/latest/UserGuide/managing-schedule-context-attributes.html
    for name, value in {
        "schedule-arn": schedule.arn,
        "scheduled-time": f"{due.astimezone(datetime.UTC):%Y-%m-%dT%H:%M:%SZ}",
        "execution-id": execution,
        "attempt-number": "1",
    }.items():
        text = text.replace(f"<aws.scheduler.{name}>", value)
    try:
        states = stepfunctions_parser_backends[backend.account_id][backend.region_name]
        states.start_execution(target, execution, text)
    except Exception:
        log.exception("Schedule %s could not start %s with %s", schedule.name, target, text)
