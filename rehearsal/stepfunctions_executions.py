"""Step Functions: how executions start and end, with the error codes and messages of AWS."""

import datetime
import inspect
import json
import logging
import re
import time
import uuid
from typing import Any

from moto.core.config import default_user_config
from moto.core.exceptions import AWSError
from moto.core.responses import ActionResult, EmptyResult
from moto.events.models import events_backends
from moto.s3.models import s3_backends
from moto.stepfunctions import models as states
from moto.stepfunctions.parser import api
from moto.stepfunctions.parser.api import ExecutionStatus, InvalidExecutionInput
from moto.stepfunctions.parser.asl.component.common.error_name.error_name import ErrorName
from moto.stepfunctions.parser.asl.component.state.fail import state_fail
from moto.stepfunctions.parser.asl.eval.program_state import ProgramStopped
from moto.stepfunctions.parser.backend.execution import BaseExecutionWorkerCommunication
from moto.stepfunctions.parser.backend.execution_worker import ExecutionWorker
from moto.stepfunctions.parser.models import StepFunctionsParserBackend, stepfunctions_parser_backends
from moto.stepfunctions.responses import StepFunctionResponse
from moto.utilities.utils import get_partition

from rehearsal.patches import Difference, RehearsalError, configure, patch

log = logging.getLogger("rehearsal")


@configure(
    Difference(
        "engine_errors_have_a_code",
        "errors of the States Language engine have no code, and those without a message answer HTTP 500",
        bug=True,
    )
)
def _give_codes() -> None:
    def describing(code: str) -> Any:
        def initialize(error: AWSError, message: str = code) -> None:
            AWSError.__init__(error, message)

        return initialize

    for name, kind in inspect.getmembers(api, inspect.isclass):
        if issubclass(kind, AWSError) and kind is not AWSError:
            kind.TYPE = name
            kind.__init__ = describing(name)  # type: ignore[method-assign]


def _refuse(constant: str) -> None:
    raise ValueError(f"Non-standard token '{constant}'")


def check_input(text: str) -> None:
    """Check that an execution's input is JSON.

    Raises
    ------
    InvalidExecutionInput
        If it is not, with a reason as AWS words it where that is known.
    """
    if not text.strip():
        raise InvalidExecutionInput("Invalid State Machine Execution Input: 'Invalid execution input.'")
    try:
        json.loads(text, parse_constant=_refuse)
    except json.JSONDecodeError as error:
        reason, token = str(error), re.match(r"\w+", text[error.pos :])
        if error.msg == "Expecting value" and token:
            expected = "(JSON String, Number, Array, Object or token 'null', 'true' or 'false')"
            reason = f"Unrecognized token '{token[0]}': was expecting {expected}"
        elif error.msg.startswith("Expecting property name") and error.pos < len(text):
            sign = text[error.pos]
            reason = (
                f"Unexpected character ('{sign}' (code {ord(sign)})): was expecting double-quote to start field name"
            )
        raise InvalidExecutionInput(f"Invalid State Machine Execution Input: '{reason}'") from error
    except (ValueError, RecursionError) as error:
        raise InvalidExecutionInput(f"Invalid State Machine Execution Input: '{error}'") from error


REASONS = Difference(
    "stopped_executions_have_a_reason",
    "StopExecution drops error and cause, SendTaskFailure the cause, and a stopped execution runs until its task ends",
    bug=True,
)
NAMES = Difference(
    "names_are_checked",
    "a state machine created again with another definition keeps the old one, and execution names are not checked",
    bug=True,
)


@patch(
    StepFunctionsParserBackend,
    "start_execution",
    Difference(
        "inputs_are_checked",
        "an execution's input may hold NaN and Infinity, and the message about invalid JSON is Python's",
        bug=True,
    ),
)
def _start_with_valid_input(
    original: Any,
    self: StepFunctionsParserBackend,
    state_machine_arn: str,
    name: str | None = None,
    execution_input: str | None = None,
    *rest: Any,
    **more: Any,
) -> Any:
    if execution_input is not None:
        check_input(execution_input)
    return original(self, state_machine_arn, name, execution_input, *rest, **more)


@patch(StepFunctionsParserBackend, "create_state_machine", NAMES)
def _create_once(
    original: Any, self: StepFunctionsParserBackend, name: str, definition: str, *rest: Any, **more: Any
) -> Any:
    machine = original(self, name, definition, *rest, **more)
    if machine.definition != definition:
        raise api.StateMachineAlreadyExists(f"State Machine Already Exists: '{machine.arn}'")
    return machine


@patch(StepFunctionsParserBackend, "start_execution", NAMES)
def _start_with_valid_name(
    original: Any,
    self: StepFunctionsParserBackend,
    state_machine_arn: str,
    name: str | None = None,
    *rest: Any,
    **more: Any,
) -> Any:
    self._validate_name(name or "none")
    return original(self, state_machine_arn, name, *rest, **more)


@patch(StepFunctionResponse, "stop_execution", REASONS)
def _stop_execution(original: Any, self: StepFunctionResponse) -> ActionResult:
    execution: Any = self.stepfunction_backend.describe_execution(self._get_param("executionArn"))
    moment = datetime.datetime.now(datetime.UTC)
    if execution.exec_status == ExecutionStatus.RUNNING:
        error, cause = self._get_param("error"), self._get_param("cause")
        while execution.exec_worker.env is None:  # its thread has just been started
            time.sleep(0.01)
        execution.stop(stop_date=moment, error=error, cause=cause)
        if isinstance(execution.exec_worker.env.program_state(), ProgramStopped):
            execution.exec_status, execution.stop_date = ExecutionStatus.ABORTED, moment
            execution.error, execution.cause = error, cause
    return ActionResult({"stopDate": execution.stop_date or moment})


@patch(StepFunctionResponse, "describe_execution", REASONS)
def _describe_execution(original: Any, self: StepFunctionResponse) -> ActionResult:
    answer: Any = original(self)
    execution: Any = self.stepfunction_backend.describe_execution(self._get_param("executionArn"))
    answer.result["inputDetails"] = {"included": True}
    if execution.stop_date is not None:
        answer.result["stopDate"] = execution.stop_date
    if execution.status == "SUCCEEDED":
        answer.result["output"] = json.dumps(execution.output, separators=(",", ":"))
    return answer


@patch(StepFunctionResponse, "send_task_failure", REASONS)
def _send_task_failure(original: Any, self: StepFunctionResponse) -> EmptyResult:
    given = {name: self._get_param(name) for name in ("error", "cause")}
    backend: Any = self.stepfunction_backend
    backend.send_task_failure(self._get_param("taskToken"), **given)
    return EmptyResult()


@patch(BaseExecutionWorkerCommunication, "_reflect_execution_status", REASONS)
def _keep_stop_date(original: Any, self: BaseExecutionWorkerCommunication) -> None:
    stopped = self.execution.stop_date
    original(self)
    self.execution.stop_date = stopped or self.execution.stop_date


@patch(
    StepFunctionResponse,
    "get_execution_history",
    Difference("histories_can_be_reversed", "GetExecutionHistory ignores reverseOrder", bug=True),
)
def _get_execution_history(original: Any, self: StepFunctionResponse) -> ActionResult:
    answer: Any = original(self)
    if self._get_param("reverseOrder"):
        answer.result["events"] = answer.result["events"][::-1]
    return answer


EXECUTED = Difference(
    "workflows_are_executed",
    "workflows are executed only with a setting of moto, and those that CloudFormation creates never are",
)


@configure(EXECUTED)
def _execute_workflows() -> None:
    default_user_config["stepfunctions"]["execute_state_machine"] = True
    states.stepfunctions_backends = stepfunctions_parser_backends  # type: ignore[assignment]


@patch(states.StateMachine, "create_from_cloudformation_json", EXECUTED)
def _create(original: Any, name: str, body: Any, account_id: str, region_name: str, **rest: Any) -> Any:
    _define(body["Properties"], account_id, region_name)
    return original(name, body, account_id, region_name, **rest)


@patch(states.StateMachine, "update_from_cloudformation_json", EXECUTED)
def _update(original: Any, **arguments: Any) -> Any:
    _define(arguments["cloudformation_json"]["Properties"], arguments["account_id"], arguments["region_name"])
    return original(**arguments)


def _define(properties: dict[str, Any], account_id: str, region_name: str) -> None:
    """Write a state machine's definition, with its substitutions, into its properties."""
    if "DefinitionS3Location" in properties:
        location = properties["DefinitionS3Location"]
        backend = s3_backends[account_id][get_partition(region_name)]
        stored = backend.get_object(location["Bucket"], location["Key"])
        if stored is None:
            raise RehearsalError(f"No workflow definition at s3://{location['Bucket']}/{location['Key']}")
        properties["DefinitionString"] = stored.value.decode()
    text = properties["DefinitionString"]
    for name, value in properties.get("DefinitionSubstitutions", {}).items():
        text = text.replace(f"${{{name}}}", str(value))
    if left := re.findall(r"\$\{\w+\}", text):
        raise RehearsalError(f"The workflow's definition has no value for {', '.join(sorted(set(left)))}")
    properties["DefinitionString"] = text


@patch(
    StepFunctionsParserBackend,
    "start_execution",
    Difference(
        "executions_get_a_default_name",
        "StartExecution without a name calls the execution None, so that a second one fails",
        bug=True,
    ),
)
def _start_with_name(
    original: Any,
    self: StepFunctionsParserBackend,
    state_machine_arn: str,
    name: str | None = None,
    *rest: Any,
    **more: Any,
) -> Any:
    return original(self, state_machine_arn, name or str(uuid.uuid4()), *rest, **more)


@patch(
    ExecutionWorker,
    "_get_evaluation_environment",
    Difference(
        "start_time_is_a_string",
        "Execution.StartTime in the context object is not a string, so that intrinsic functions fail on it",
        bug=True,
    ),
)
def _get_evaluation_environment(original: Any, self: ExecutionWorker) -> Any:
    made = original(self)
    execution = made.states.context_object.context_object_data["Execution"]
    started = execution["StartTime"].astimezone(datetime.UTC)
    execution["StartTime"] = f"{started.isoformat(timespec='milliseconds').removesuffix('+00:00')}Z"
    return made


@patch(
    state_fail,
    "CustomErrorName",
    Difference(
        "fail_states_accept_any_error",
        "a Fail state cannot end with an error of the States Language, such as States.Timeout from ErrorPath",
    ),
)
def _any_error_name(original: Any, error_name: str) -> ErrorName:
    return ErrorName(error_name)


@patch(
    BaseExecutionWorkerCommunication,
    "terminated",
    Difference("executions_send_status_events", "executions send no event to EventBridge when they end"),
)
def _terminated(original: Any, self: BaseExecutionWorkerCommunication) -> None:
    original(self)
    execution: Any = self.execution
    if execution.sm_type == "EXPRESS":  # these send none
        return
    try:
        _announce(execution)
    except Exception:  # the execution has ended all the same
        log.exception("Cannot announce the end of %s", execution.exec_arn)


def _announce(execution: Any) -> None:
    # As DescribeExecution has it: https://docs.aws.amazon.com/step-functions/latest/dg/eventbridge-integration.html
    described = json.loads(json.dumps(execution.to_describe_output(), default=lambda at: int(at.timestamp() * 1000)))
    event: Any = {
        "version": "0",
        "id": str(uuid.uuid4()),
        "detail-type": "Step Functions Execution Status Change",
        "source": "aws.states",
        "account": execution.account_id,
        "region": execution.region_name,
        "time": time.time(),
        "ingestion-time": time.time(),
        "resources": [execution.exec_arn],
        "detail": {"output": None, "error": None, "cause": None, **described},
    }
    for rule in [*events_backends[execution.account_id][execution.region_name].event_buses["default"].rules.values()]:
        rule.send_to_targets(event)
