"""Step Functions: how executions start and end, with the error codes and messages of AWS."""

import datetime
import inspect
import json
import re
import time
from typing import Any

from moto.core.exceptions import AWSError
from moto.core.responses import ActionResult, EmptyResult
from moto.stepfunctions.parser import api
from moto.stepfunctions.parser.api import ExecutionStatus, InvalidExecutionInput
from moto.stepfunctions.parser.asl.eval.program_state import ProgramStopped
from moto.stepfunctions.parser.backend.execution import BaseExecutionWorkerCommunication
from moto.stepfunctions.parser.models import StepFunctionsParserBackend
from moto.stepfunctions.responses import StepFunctionResponse

from rehearsal.gaps import gap, replace


@gap("errors of the States Language engine have no code, and those without a message answer HTTP 500")
def engine_errors_have_a_code() -> None:
    """Give each the code of its class, and where there is no message, the code as one."""

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


@gap("an execution's input may hold NaN and Infinity, and the message about invalid JSON is Python's")
def inputs_are_checked() -> None:
    """Refuse invalid JSON as AWS does."""

    def starting(original: Any) -> Any:
        def start_execution(
            backend: StepFunctionsParserBackend,
            state_machine_arn: str,
            name: str | None = None,
            execution_input: str | None = None,
            *rest: Any,
            **more: Any,
        ) -> Any:
            if execution_input is not None:
                check_input(execution_input)
            return original(backend, state_machine_arn, name, execution_input, *rest, **more)

        return start_execution

    replace(StepFunctionsParserBackend, "start_execution", starting)


@gap("a state machine that is created again with another definition stays as it was, and names are not checked")
def names_are_checked() -> None:
    """Refuse the one and the other."""

    def creating(original: Any) -> Any:
        def create_state_machine(
            backend: StepFunctionsParserBackend, name: str, definition: str, *a: Any, **k: Any
        ) -> Any:
            machine = original(backend, name, definition, *a, **k)
            if machine.definition != definition:
                raise api.StateMachineAlreadyExists(f"State Machine Already Exists: '{machine.arn}'")
            return machine

        return create_state_machine

    def starting(original: Any) -> Any:
        def start_execution(
            backend: StepFunctionsParserBackend, state_machine_arn: str, name: str | None = None, *a: Any, **k: Any
        ) -> Any:
            backend._validate_name(name or "none")
            return original(backend, state_machine_arn, name, *a, **k)

        return start_execution

    replace(StepFunctionsParserBackend, "create_state_machine", creating)
    replace(StepFunctionsParserBackend, "start_execution", starting)


@gap("StopExecution drops error and cause, SendTaskFailure the cause, and a stopped execution runs until its task ends")
def ends_have_a_reason() -> None:
    """Keep error and cause, end a stopped execution at once, and give the stop date of one that timed out."""

    def stop_execution(response: StepFunctionResponse) -> ActionResult:
        execution: Any = response.stepfunction_backend.describe_execution(response._get_param("executionArn"))
        moment = datetime.datetime.now(datetime.UTC)
        if execution.exec_status == ExecutionStatus.RUNNING:
            error, cause = response._get_param("error"), response._get_param("cause")
            while execution.exec_worker.env is None:  # its thread has just been started
                time.sleep(0.01)
            execution.stop(stop_date=moment, error=error, cause=cause)
            if isinstance(execution.exec_worker.env.program_state(), ProgramStopped):
                execution.exec_status, execution.stop_date = ExecutionStatus.ABORTED, moment
                execution.error, execution.cause = error, cause
        return ActionResult({"stopDate": execution.stop_date or moment})

    def reflecting(original: Any) -> Any:
        def _reflect_execution_status(communication: BaseExecutionWorkerCommunication) -> None:
            stopped = communication.execution.stop_date
            original(communication)
            communication.execution.stop_date = stopped or communication.execution.stop_date

        return _reflect_execution_status

    def describing(original: Any) -> Any:
        def describe_execution(response: StepFunctionResponse) -> ActionResult:
            answer: Any = original(response)
            execution: Any = response.stepfunction_backend.describe_execution(response._get_param("executionArn"))
            answer.result["inputDetails"] = {"included": True}
            if execution.stop_date is not None:
                answer.result["stopDate"] = execution.stop_date
            if execution.status == "SUCCEEDED":
                answer.result["output"] = json.dumps(execution.output, separators=(",", ":"))
            return answer

        return describe_execution

    def send_task_failure(response: StepFunctionResponse) -> EmptyResult:
        given = {name: response._get_param(name) for name in ("error", "cause")}
        backend: Any = response.stepfunction_backend
        backend.send_task_failure(response._get_param("taskToken"), **given)
        return EmptyResult()

    replace(StepFunctionResponse, "stop_execution", lambda original: stop_execution)
    replace(StepFunctionResponse, "describe_execution", describing)
    replace(StepFunctionResponse, "send_task_failure", lambda original: send_task_failure)
    replace(BaseExecutionWorkerCommunication, "_reflect_execution_status", reflecting)


@gap("GetExecutionHistory ignores reverseOrder")
def histories_can_be_reversed() -> None:
    """Give the last event first if asked for."""

    def reading(original: Any) -> Any:
        def get_execution_history(response: StepFunctionResponse) -> ActionResult:
            answer: Any = original(response)
            if response._get_param("reverseOrder"):
                answer.result["events"] = answer.result["events"][::-1]
            return answer

        return get_execution_history

    replace(StepFunctionResponse, "get_execution_history", reading)
