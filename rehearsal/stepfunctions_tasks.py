"""Tasks of a workflow: the names of their errors, other workflows that they start, and any service's API."""

import contextlib
import datetime
import json
import re
import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import boto3
from botocore.exceptions import ClientError, UnknownServiceError
from botocore.model import OperationNotFoundError
from botocore.response import StreamingBody
from jsonpath_ng.ext.parser import parse
from moto.core.utils import get_service_model
from moto.stepfunctions.parser.api import HistoryEventType, TaskFailedEventDetails
from moto.stepfunctions.parser.asl.component.common.error_name.error_name import ErrorName
from moto.stepfunctions.parser.asl.component.common.error_name.failure_event import (
    FailureEvent,
    FailureEventException,
)
from moto.stepfunctions.parser.asl.component.state.exec.execute_state import ExecutionState
from moto.stepfunctions.parser.asl.component.state.exec.state_task.service import state_task_service_aws_sdk
from moto.stepfunctions.parser.asl.component.state.exec.state_task.service.state_task_service_callback import (
    StateTaskServiceCallback,
)
from moto.stepfunctions.parser.asl.component.state.exec.state_task.service.state_task_service_events import (
    SfnFailedEntryCountException,
    StateTaskServiceEvents,
)
from moto.stepfunctions.parser.asl.component.state.exec.state_task.service.state_task_service_sfn import (
    StateTaskServiceSfn,
)
from moto.stepfunctions.parser.asl.component.state.exec.state_task.service.state_task_service_sqs import (
    StateTaskServiceSqs,
)
from moto.stepfunctions.parser.asl.eval.callback.callback import CallbackOutcomeTimedOut, HeartbeatTimedOut
from moto.stepfunctions.parser.asl.eval.event.event_detail import EventDetails
from moto.stepfunctions.parser.asl.utils import json_path

from rehearsal.patches import gap, replace


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
            ended = not outcome or isinstance(outcome, CallbackOutcomeTimedOut | HeartbeatTimedOut)
            if ended and isinstance(sync_resolver, Waiting):
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
                    raise FailureEventException(failure(task, env, "States.TaskFailed", json.dumps(result)))
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


def failure(task: Any, env: Any, error: str, cause: str) -> FailureEvent:
    """Return the event with which a task fails."""
    details = TaskFailedEventDetails(
        resource=task._get_sfn_resource(), resourceType=task._get_sfn_resource_type(), error=error, cause=cause
    )
    event = EventDetails(taskFailedEventDetails=details)  # type: ignore[typeddict-item]
    return FailureEvent(env, ErrorName(error), HistoryEventType.TaskFailed, event)


@gap("an error of the States Language itself, such as a path that finds nothing, can be caught and retried")
def runtime_errors_end_the_execution() -> None:
    """End the execution: AWS matches States.Runtime with no catcher and no retrier, and names no failed task."""

    def failing(original: Any) -> Any:
        def _from_error(state: Any, env: Any, ex: Exception) -> FailureEvent:
            event: FailureEvent = original(state, env, ex)
            # moto knows no better name for what a service refuses.
            if event.error_name and event.error_name.error_name == "States.Runtime" and not isinstance(ex, ClientError):
                raise FailureEventException(event)
            return event

        return _from_error

    replace(ExecutionState, "_from_error", failing)


@gap("whatever SQS or EventBridge refuse is called a client's fault or States.Runtime, and a failed entry is no JSON")
def errors_of_queues_and_buses_have_names() -> None:
    """Name them after the service and the error, as AWS's older SDK for Java does, which these tasks use."""

    def naming(service: str, names: dict[str, str], default: str) -> Any:
        def wrap(original: Any) -> Any:
            def _from_error(task: Any, env: Any, ex: Exception) -> FailureEvent:
                if isinstance(ex, SfnFailedEntryCountException):
                    return failure(task, env, "EventBridge.FailedEntry", json.dumps(ex.cause))
                if not isinstance(ex, ClientError):
                    event: FailureEvent = original(task, env, ex)
                    return event
                error, answer = ex.response["Error"], ex.response["ResponseMetadata"]
                code = error["Code"].removeprefix("AWS.SimpleQueueService.")
                details = f"Service: {service}; Status Code: {answer['HTTPStatusCode']}; Error Code: {code}"
                cause = f"{error['Message']} ({details}; Request ID: {answer.get('RequestId')}; Proxy: null)"
                return failure(task, env, names.get(code, default), cause)

            return _from_error

        return wrap

    missing = "SQS.QueueDoesNotExistException"
    queues = {"NonExistentQueue": missing, "QueueDoesNotExist": missing}
    buses = {"ResourceNotFoundException": "EventBridge.ResourceNotFoundException"}
    replace(StateTaskServiceSqs, "_from_error", naming("AmazonSQS", queues, "SQS.AmazonSQSException"))
    other = "EventBridge.AmazonEventBridgeException"
    replace(StateTaskServiceEvents, "_from_error", naming("AmazonEventBridge", buses, other))


def plain(value: Any, write: Callable[[datetime.datetime], Any]) -> Any:
    """Return an API's answer as JSON has it."""
    if isinstance(value, dict):
        return {name: plain(item, write) for name, item in value.items()}
    if isinstance(value, list):
        return [plain(item, write) for item in value]
    if isinstance(value, StreamingBody):
        return value.read().decode()
    return write(value) if isinstance(value, datetime.datetime) else value


@gap("a task that waits for its job times out at once when it is retried")
def retried_tasks_wait_again() -> None:
    """Let the next attempt wait: the end of the one before has interrupted the state's only callback endpoint."""

    def waiting(original: Any) -> Any:
        def _eval_integration_pattern(task: Any, env: Any, *rest: Any, **more: Any) -> None:
            token = env.states.context_object.context_object_data["Task"]["Token"]
            endpoint = env.callback_pool_manager.get(token)
            if endpoint.get_outcome() is None:
                endpoint._notify_event.clear()
            original(task, env, *rest, **more)

        return _eval_integration_pattern

    replace(StateTaskServiceCallback, "_eval_integration_pattern", waiting)


@gap("a workflow's aws-sdk tasks fail later on where a result holds a date, and their errors have lower-case names")
def results_of_the_sdk_are_json() -> None:
    """Write dates in ISO 8601 and bodies as text."""
    task = state_task_service_aws_sdk.StateTaskServiceAwsSdk
    state_task_service_aws_sdk._SERVICE_ERROR_NAMES.update(s3="S3", sagemaker="SageMaker")

    def writing(original: Any) -> Any:
        def _eval_service_task(self: Any, env: Any, *rest: Any, **more: Any) -> None:
            original(self, env, *rest, **more)
            env.stack.append(plain(env.stack.pop(), lambda m: f"{m.astimezone(datetime.UTC):%Y-%m-%dT%H:%M:%SZ}"))

        return _eval_service_task

    replace(task, "_eval_service_task", writing)


@gap("a workflow's path such as $.a[0].b gives a list of the one value, where AWS gives the value")
def definite_paths_give_one_value() -> None:
    """Unpack what a path can find only once: one without wildcards, slices, unions, filters and descents."""
    original = json_path.extract_json

    def extract_json(path: str, data: Any) -> Any:
        found = original(path, data)
        definite = not re.search(r"\.\.|\.\*|\[[^'\"\]]*[*?:,]", path)
        return parse(path).find(data)[0].value if definite and re.search(r"\[\d+\]", path) else found

    for module in [*sys.modules.values()]:  # each has imported it by name
        if getattr(module, "extract_json", None) is original:
            replace(module, "extract_json", lambda _: extract_json)
