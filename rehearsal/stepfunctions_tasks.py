"""Step Functions: tasks, their errors and results, and the workflows that they start."""

import contextlib
import datetime
import functools
import json
import re
import sys
import threading
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import boto3
from botocore.exceptions import ClientError, UnknownServiceError
from botocore.model import OperationNotFoundError
from botocore.response import StreamingBody
from moto.core.utils import get_service_model
from moto.stepfunctions.parser.api import HistoryEventType, TaskFailedEventDetails
from moto.stepfunctions.parser.asl.component.common.error_name.error_name import ErrorName
from moto.stepfunctions.parser.asl.component.common.error_name.failure_event import (
    FailureEvent,
    FailureEventException,
)
from moto.stepfunctions.parser.asl.component.common.path import result_path
from moto.stepfunctions.parser.asl.component.state.exec.execute_state import ExecutionState
from moto.stepfunctions.parser.asl.component.state.exec.state_task.service.state_task_service_aws_sdk import (
    StateTaskServiceAwsSdk,
)
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
from moto.stepfunctions.parser.asl.utils import boto_client, json_path

from rehearsal.patches import Difference, configure, patch, replace


@dataclass(frozen=True)
class Waiting:
    """What a ``.sync`` task waits for: how to get its result, and how to stop it."""

    look: Callable[[], Any]
    stop: Callable[[], Any]

    def __call__(self) -> Any:
        """Return the result; None while there is none yet."""
        return self.look()


@patch(
    StateTaskServiceCallback,
    "_eval_sync",
    Difference(
        "stopped_tasks_stop_their_job",
        "a .sync task does not stop its job or workflow when its execution is stopped or the task times out",
    ),
)
def _eval_sync(original: Any, self: Any, *, sync_resolver: Any, **rest: Any) -> Any:
    outcome = original(self, sync_resolver=sync_resolver, **rest)
    ended = not outcome or isinstance(outcome, CallbackOutcomeTimedOut | HeartbeatTimedOut)
    if ended and isinstance(sync_resolver, Waiting):
        with contextlib.suppress(ClientError):  # it has just ended
            sync_resolver.stop()
    return outcome


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


CASE = Difference(
    "tasks_map_parameter_names",
    "tasks of services whose API has names in camelCase (states:startExecution, aws-sdk:sfn) fail: moto maps no names",
    bug=True,
)
NESTED = Difference(
    "workflows_wait_for_workflows",
    "startExecution.sync never sees the end of the workflow that it started",
    bug=True,
)


@patch(StateTaskServiceSfn, "_eval_service_task", CASE)
@patch(StateTaskServiceAwsSdk, "_eval_service_task", CASE)
def _map_names(original: Any, self: Any, env: Any, *, normalised_parameters: Any, **rest: Any) -> None:
    try:
        service = get_service_model(self._get_boto_service_name())
        operation: Any = service.operation_model(_upper(self.resource.api_action))
    except (UnknownServiceError, OperationNotFoundError):  # moto reports them
        return original(self, env, normalised_parameters=normalised_parameters, **rest)
    parameters = _request(operation.input_shape, normalised_parameters)
    original(self, env, normalised_parameters=parameters, **rest)
    env.stack.append(_answer(operation.output_shape, env.stack.pop()))


@patch(
    StateTaskServiceAwsSdk,
    "_normalise_service_error_name",
    Difference(
        "sdk_errors_are_named_after_the_service",
        "errors of aws-sdk tasks have a lower-case prefix for most services",
        bug=True,
    ),
)
def _error_prefix(original: Any, service_name: str) -> str:
    """Return a service's name in AWS's SDK for Java, such as CloudWatch, Sfn or DynamoDb."""
    try:
        service_id = str(get_service_model({"sfn": "stepfunctions"}.get(service_name, service_name)).service_id)
    except UnknownServiceError:
        return str(original(service_name))
    return "".join(word.capitalize() for word in re.findall(r"[A-Z]+(?![a-z])|[A-Z][a-z]*|\d+", service_id))


@patch(StateTaskServiceSfn, "_build_sync_resolver", NESTED)
def _wait_for_text(original: Any, self: Any, env: Any, resource_runtime_part: Any, **_: Any) -> Waiting:
    return _execution(self, env, resource_runtime_part.region, parsed=False)


@patch(StateTaskServiceSfn, "_build_sync2_resolver", NESTED)
def _wait_for_json(original: Any, self: Any, env: Any, resource_runtime_part: Any, **_: Any) -> Waiting:
    return _execution(self, env, resource_runtime_part.region, parsed=True)


def _execution(task: Any, env: Any, region: str, parsed: bool) -> Waiting:
    """Return the started execution, whose result is its description, with input and output as text or parsed."""
    client = boto3.client("stepfunctions", region_name=region)
    shape = client.meta.service_model.operation_model("DescribeExecution").output_shape
    execution = env.stack.pop()["ExecutionArn"]

    def look() -> dict[str, Any] | None:
        described: Any = client.describe_execution(executionArn=execution)
        if described["status"] == "RUNNING":
            return None
        # Recorded results of these tasks have nothing about redrives.
        described = {name: value for name, value in described.items() if not name.startswith(("Resp", "redrive"))}
        if parsed:
            described |= {key: json.loads(described[key]) for key in ("input", "output") if key in described}
        result = _milliseconds(_answer(shape, described))
        if result["Status"] != "SUCCEEDED":
            raise FailureEventException(failure(task, env, "States.TaskFailed", json.dumps(result)))
        return result

    return Waiting(look, lambda: client.stop_execution(executionArn=execution))


@patch(StateTaskServiceSfn, "_eval_service_task", NESTED)
def _start_workflow(original: Any, self: Any, env: Any, **rest: Any) -> None:
    original(self, env, **rest)
    env.stack.append(_milliseconds(env.stack.pop()))


def failure(task: Any, env: Any, error: str, cause: str) -> FailureEvent:
    """Return the event with which a task fails."""
    details = TaskFailedEventDetails(
        resource=task._get_sfn_resource(), resourceType=task._get_sfn_resource_type(), error=error, cause=cause
    )
    event = EventDetails(taskFailedEventDetails=details)  # type: ignore[typeddict-item]
    return FailureEvent(env, ErrorName(error), HistoryEventType.TaskFailed, event)


@patch(
    ExecutionState,
    "_from_error",
    Difference(
        "runtime_errors_end_the_execution",
        "a catcher or retrier matches States.Runtime, the error of a path that finds nothing, for example",
        bug=True,
    ),
)
def _from_runtime_error(original: Any, self: Any, env: Any, ex: Exception) -> FailureEvent:
    event: FailureEvent = original(self, env, ex)
    # moto calls a service's error States.Runtime if it knows no better name.
    if event.error_name and event.error_name.error_name == "States.Runtime" and not isinstance(ex, ClientError):
        raise FailureEventException(event)
    return event


ERRORS = Difference(
    "sqs_and_eventbridge_errors_have_names",
    "errors of SQS and EventBridge are called client errors or States.Runtime, and a failed entry's cause is not JSON",
    bug=True,
)


@patch(StateTaskServiceSqs, "_from_error", ERRORS)
def _from_queue_error(original: Any, self: Any, env: Any, ex: Exception) -> FailureEvent:
    missing = "SQS.QueueDoesNotExistException"
    names = {"NonExistentQueue": missing, "QueueDoesNotExist": missing}
    return _named(ex, self, env, "AmazonSQS", names, "SQS.AmazonSQSException") or original(self, env, ex)


@patch(StateTaskServiceEvents, "_from_error", ERRORS)
def _from_bus_error(original: Any, self: Any, env: Any, ex: Exception) -> FailureEvent:
    if isinstance(ex, SfnFailedEntryCountException):
        return failure(self, env, "EventBridge.FailedEntry", json.dumps(ex.cause))
    names = {"ResourceNotFoundException": "EventBridge.ResourceNotFoundException"}
    default = "EventBridge.AmazonEventBridgeException"
    return _named(ex, self, env, "AmazonEventBridge", names, default) or original(self, env, ex)


def _named(
    ex: Exception, task: Any, env: Any, service: str, names: dict[str, str], default: str
) -> FailureEvent | None:
    """Return a service's error as the older SDK for Java, which these tasks use, names it."""
    if not isinstance(ex, ClientError):
        return None
    error, answer = ex.response["Error"], ex.response["ResponseMetadata"]
    code = error["Code"].removeprefix("AWS.SimpleQueueService.")
    details = f"Service: {service}; Status Code: {answer['HTTPStatusCode']}; Error Code: {code}"
    cause = f"{error['Message']} ({details}; Request ID: {answer.get('RequestId')}; Proxy: null)"
    return failure(task, env, names.get(code, default), cause)


def plain(value: Any, write: Callable[[datetime.datetime], Any]) -> Any:
    """Return an API's answer as JSON has it."""
    if isinstance(value, dict):
        return {name: plain(item, write) for name, item in value.items()}
    if isinstance(value, list):
        return [plain(item, write) for item in value]
    if isinstance(value, StreamingBody):
        return value.read().decode()
    return write(value) if isinstance(value, datetime.datetime) else value


@patch(
    StateTaskServiceCallback,
    "_eval_integration_pattern",
    Difference(
        "retried_tasks_wait_again",
        "a .sync task times out at once when it is retried: the state's only callback endpoint was interrupted",
        bug=True,
    ),
)
def _wait_again(original: Any, self: Any, env: Any, *rest: Any, **more: Any) -> None:
    token = env.states.context_object.context_object_data["Task"]["Token"]
    endpoint = env.callback_pool_manager.get(token)
    if endpoint.get_outcome() is None:
        endpoint._notify_event.clear()
    original(self, env, *rest, **more)


@patch(
    StateTaskServiceAwsSdk,
    "_eval_service_task",
    Difference(
        "sdk_results_are_json",
        "an execution fails after an aws-sdk task whose result holds a date or a body",
        bug=True,
    ),
)
def _write_json(original: Any, self: Any, env: Any, *rest: Any, **more: Any) -> None:
    original(self, env, *rest, **more)
    env.stack.append(plain(env.stack.pop(), lambda moment: f"{moment.astimezone(datetime.UTC):%Y-%m-%dT%H:%M:%SZ}"))


@configure(
    Difference(
        "definite_paths_give_one_value",
        "a path such as $.a[0].b gives a list of the value instead of the value",
        bug=True,
    )
)
def _replace_extract_json() -> None:
    original = json_path.extract_json
    for module in [*sys.modules.values()]:  # each has imported it by name
        if getattr(module, "extract_json", None) is original:
            replace(module, "extract_json", _extract_json)


@configure(
    Difference(
        "threads_of_tasks_end",
        "the thread of each task is kept for ever, and with it its stack; after some 30,000 no thread starts any more",
    )
)
def _forget_threads() -> None:
    for module in [*sys.modules.values()]:  # each has imported it by name
        if isinstance(getattr(module, "TMP_THREADS", None), list):
            module.TMP_THREADS = deque(maxlen=0)  # type: ignore[attr-defined]


@configure(
    Difference(
        "paths_are_parsed_once",
        "each use of a path builds the parser of JSONPath again, which takes a third of the time of a batch",
    )
)
def _parse_once() -> None:
    for module in (json_path, result_path):
        module.parse = functools.lru_cache(maxsize=4096)(module.parse)  # type: ignore[attr-defined]


@configure(
    Difference(
        "tasks_share_clients",
        "each task makes its own client, which takes longer than its call and can fail when two are made at once",
    )
)
def _share_clients() -> None:
    original, lock = boto_client.boto_client_for, threading.Lock()
    clients: dict[tuple[str, str], Any] = {}

    def shared(region: str, service: str, state_credentials: Any = None) -> Any:
        with lock:
            if (region, service) not in clients:
                clients[region, service] = original(region, service, state_credentials)
            return clients[region, service]

    for module in [*sys.modules.values()]:  # each has imported it by name
        if getattr(module, "boto_client_for", None) is original:
            module.boto_client_for = shared  # type: ignore[attr-defined]


def _extract_json(original: Any, path: str, data: Any) -> Any:
    found = original(path, data)
    # A definite path, which has no wildcards, slices, unions, filters and descents, finds one value at most.
    definite = not re.search(r"\.\.|\.\*|\[[^'\"\]]*[*?:,]", path)
    module: Any = json_path
    return module.parse(path).find(data)[0].value if definite and re.search(r"\[\d+\]", path) else found
