"""Tasks of a workflow that start other workflows and wait for them, and tasks that call any service's API."""

import contextlib
import datetime
import json
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import boto3
from botocore.exceptions import ClientError, UnknownServiceError
from botocore.model import OperationNotFoundError
from moto.core.responses import ActionResult
from moto.core.utils import get_service_model
from moto.stepfunctions.parser.api import HistoryEventType, TaskFailedEventDetails
from moto.stepfunctions.parser.asl.component.common.error_name.error_name import ErrorName
from moto.stepfunctions.parser.asl.component.common.error_name.failure_event import (
    FailureEvent,
    FailureEventException,
)
from moto.stepfunctions.parser.asl.component.state.exec.state_task.service import state_task_service_aws_sdk
from moto.stepfunctions.parser.asl.component.state.exec.state_task.service.state_task_service_callback import (
    StateTaskServiceCallback,
)
from moto.stepfunctions.parser.asl.component.state.exec.state_task.service.state_task_service_sfn import (
    StateTaskServiceSfn,
)
from moto.stepfunctions.parser.asl.eval.event.event_detail import EventDetails
from moto.stepfunctions.responses import StepFunctionResponse

from rehearsal.gaps import gap, replace


@dataclass(frozen=True)
class Waiting:
    """What a ``.sync`` task waits for: how to look whether it has ended, and how to stop it."""

    look: Callable[[], Any]
    stop: Callable[[], Any]

    def __call__(self) -> Any:
        """Return the result; None while there is none yet."""
        return self.look()


@gap("a task with .sync leaves what it waits for running when its own execution is stopped, or when it times out")
def stopped_tasks_stop_what_they_wait_for() -> None:
    """Stop it, as AWS documents."""

    def waiting(original: Any) -> Any:
        def _eval_sync(task: Any, *, sync_resolver: Any, **rest: Any) -> Any:
            outcome = original(task, sync_resolver=sync_resolver, **rest)
            if not outcome and isinstance(sync_resolver, Waiting):
                with contextlib.suppress(ClientError):  # it has just ended
                    sync_resolver.stop()
            return outcome

        return _eval_sync

    replace(StateTaskServiceCallback, "_eval_sync", waiting)


def _upper(name: str) -> str:
    return name[:1].upper() + name[1:]


def _request(shape: Any, value: Any) -> Any:
    """Return a task's parameters, whose names begin with capitals, as the service's API names them."""
    if value is None or shape is None:
        return value
    if shape.type_name == "structure" and isinstance(value, dict):
        names = {_upper(member): member for member in shape.members}
        given = {names.get(key, key): item for key, item in value.items() if item is not None}
        return {key: _request(shape.members.get(key), item) for key, item in given.items()}
    if shape.type_name == "map" and isinstance(value, dict):
        return {key: _request(shape.value, item) for key, item in value.items()}
    if shape.type_name == "list" and isinstance(value, list):
        return [_request(shape.member, item) for item in value]
    if shape.type_name == "string" and not isinstance(value, str):
        return json.dumps(value, separators=(",", ":"))
    return value


def _answer(shape: Any, value: Any) -> Any:
    """Return a service's answer with names that begin with capitals, as a task's result has them."""
    if shape is not None and isinstance(value, dict):
        members = shape.members if shape.type_name == "structure" else {}
        rename, inner = (_upper, members.get) if members else (str, lambda _: getattr(shape, "value", None))
        return {rename(key): _answer(inner(key), item) for key, item in value.items()}
    if isinstance(value, list) and shape is not None and shape.type_name == "list":
        return [_answer(shape.member, item) for item in value]
    return value


def _milliseconds(result: dict[str, Any]) -> dict[str, Any]:
    return {
        key: int(value.timestamp() * 1000) if isinstance(value, datetime.datetime) else value
        for key, value in result.items()
    }


@gap("tasks for services with names in camelCase (states:startExecution, aws-sdk:sfn, ...) fail: no name is translated")
def tasks_speak_any_case() -> None:
    """Give parameters the API's own names, and results names that begin with capitals."""

    def translating(original: Any) -> Any:
        def _eval_service_task(task: Any, env: Any, *, normalised_parameters: Any, **rest: Any) -> None:
            try:
                service = get_service_model(task._get_boto_service_name())
                operation: Any = service.operation_model(_upper(task.resource.api_action))
            except (UnknownServiceError, OperationNotFoundError):  # moto says what is wrong
                return original(task, env, normalised_parameters=normalised_parameters, **rest)
            parameters = _request(operation.input_shape, normalised_parameters)
            original(task, env, normalised_parameters=parameters, **rest)
            env.stack.append(_answer(operation.output_shape, env.stack.pop()))

        return _eval_service_task

    replace(StateTaskServiceSfn, "_eval_service_task", translating)
    replace(state_task_service_aws_sdk.StateTaskServiceAwsSdk, "_eval_service_task", translating)


@gap("errors of aws-sdk tasks have a lower-case prefix for most services")
def errors_of_the_sdk_are_named_after_the_service() -> None:
    """Name them after the service's id as AWS's own SDK for Java does: CloudWatch, Sfn, DynamoDb."""

    def naming(original: Any) -> Any:
        def _normalise_service_error_name(service_name: str) -> str:
            if service_name.lower() in state_task_service_aws_sdk._SERVICE_ERROR_NAMES:
                return str(original(service_name))
            try:
                service_id = str(get_service_model({"sfn": "stepfunctions"}.get(service_name, service_name)).service_id)
            except UnknownServiceError:
                return str(original(service_name))
            return "".join(word.capitalize() for word in re.findall(r"[A-Z]+(?![a-z])|[A-Z][a-z]*|\d+", service_id))

        return staticmethod(_normalise_service_error_name)

    replace(state_task_service_aws_sdk.StateTaskServiceAwsSdk, "_normalise_service_error_name", naming)


@gap("a started workflow's end is not seen by the state that waits for it")
def workflows_wait_for_workflows() -> None:
    """Return the description of the execution, with input and output as texts (.sync) or as JSON (.sync:2)."""

    def building(parsed: bool) -> Any:
        def build(task: Any, env: Any, resource_runtime_part: Any, **_: Any) -> Waiting:
            client = boto3.client("stepfunctions", region_name=resource_runtime_part.region)
            shape = client.meta.service_model.operation_model("DescribeExecution").output_shape
            execution = env.stack.pop()["ExecutionArn"]

            def look() -> dict[str, Any] | None:
                described: Any = client.describe_execution(executionArn=execution)
                if described["status"] == "RUNNING":
                    return None
                described.pop("ResponseMetadata")
                if parsed:
                    described |= {key: json.loads(described[key]) for key in ("input", "output") if key in described}
                result = _milliseconds(_answer(shape, described))
                if result["Status"] != "SUCCEEDED":
                    raise FailureEventException(_failure(task, env, json.dumps(result)))
                return result

            return Waiting(look, lambda: client.stop_execution(executionArn=execution))

        return build

    def starting(original: Any) -> Any:
        def _eval_service_task(task: Any, env: Any, **rest: Any) -> None:
            original(task, env, **rest)
            env.stack.append(_milliseconds(env.stack.pop()))

        return _eval_service_task

    replace(StateTaskServiceSfn, "_build_sync_resolver", lambda original: building(False))
    replace(StateTaskServiceSfn, "_build_sync2_resolver", lambda original: building(True))
    replace(StateTaskServiceSfn, "_eval_service_task", starting)


def _failure(task: Any, env: Any, cause: str) -> FailureEvent:
    details = TaskFailedEventDetails(
        resource=task._get_sfn_resource(),
        resourceType=task._get_sfn_resource_type(),
        error="States.TaskFailed",
        cause=cause,
    )
    event = EventDetails(taskFailedEventDetails=details)  # type: ignore[typeddict-item]
    return FailureEvent(env, ErrorName("States.TaskFailed"), HistoryEventType.TaskFailed, event)


@gap("DescribeExecution leaves out a timed-out execution's end and that its input is included, and spaces its output")
def executions_are_described_whole() -> None:
    """Add both, and write the output without spaces."""

    def describing(original: Any) -> Any:
        def describe_execution(response: StepFunctionResponse) -> ActionResult:
            answer: Any = original(response)
            execution: Any = response.stepfunction_backend.describe_execution(response._get_param("executionArn"))
            answer.result["inputDetails"] = {"included": True}
            if execution.stop_date is not None:
                answer.result["stopDate"] = execution.stop_date
            if "output" in answer.result:
                answer.result["output"] = json.dumps(execution.output, separators=(",", ":"))
            return answer

        return describe_execution

    replace(StepFunctionResponse, "describe_execution", describing)
