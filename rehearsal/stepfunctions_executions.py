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

from rehearsal.patches import RehearsalError, gap, replace

log = logging.getLogger("rehearsal")


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


@gap("workflows are not executed unless a setting says so, and CloudFormation creates them where nothing executes them")
def workflows_are_executed() -> None:
    """Use the executing back end, also for what CloudFormation creates, with its definition's substitutions."""
    default_user_config["stepfunctions"]["execute_state_machine"] = True
    states.stepfunctions_backends = stepfunctions_parser_backends  # type: ignore[assignment]

    def define(cloudformation_json: Any, account_id: str, region_name: str) -> None:
        properties = cloudformation_json["Properties"]
        if properties.get("StateMachineType", "STANDARD") != "STANDARD":
            raise RehearsalError("The rehearsal executes Standard workflows only, not Express ones")
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
        left = re.findall(r"\$\{\w+\}", text)
        if left:
            raise RehearsalError(f"The workflow's definition has no value for {', '.join(sorted(set(left)))}")
        properties["DefinitionString"] = text

    def creating(original: Any) -> Any:
        def create(name: str, cloudformation_json: Any, account_id: str, region_name: str, **rest: Any) -> Any:
            define(cloudformation_json, account_id, region_name)
            return original(name, cloudformation_json, account_id, region_name, **rest)

        return create

    def updating(original: Any) -> Any:
        def update(**arguments: Any) -> Any:
            define(arguments["cloudformation_json"], arguments["account_id"], arguments["region_name"])
            return original(**arguments)

        return update

    replace(states.StateMachine, "create_from_cloudformation_json", creating)
    replace(states.StateMachine, "update_from_cloudformation_json", updating)


@gap("StartExecution without a name fails")
def executions_get_a_name() -> None:
    """Give such an execution a UUID, as AWS does."""

    def naming(original: Any) -> Any:
        def start_execution(
            backend: StepFunctionsParserBackend,
            state_machine_arn: str,
            name: str | None = None,
            *rest: Any,
            **more: Any,
        ) -> Any:
            return original(backend, state_machine_arn, name or str(uuid.uuid4()), *rest, **more)

        return start_execution

    replace(StepFunctionsParserBackend, "start_execution", naming)


@gap("an execution's start in the context object is no text, on which every function of the States Language fails")
def executions_know_when_they_started() -> None:
    """Make it the text that AWS gives, with milliseconds and in UTC."""

    def making(original: Any) -> Any:
        def environment(worker: ExecutionWorker) -> Any:
            made = original(worker)
            execution = made.states.context_object.context_object_data["Execution"]
            started = execution["StartTime"].astimezone(datetime.UTC)
            execution["StartTime"] = f"{started.isoformat(timespec='milliseconds').removesuffix('+00:00')}Z"
            return made

        return environment

    replace(ExecutionWorker, "_get_evaluation_environment", making)


@gap("a Fail state refuses to repeat an error of the States Language itself, such as States.Timeout")
def failures_keep_their_name() -> None:
    """Let a Fail state end with any error's name, as AWS does where it comes from ErrorPath."""
    replace(state_fail, "CustomErrorName", lambda original: ErrorName)


@gap("executions tell nobody when they end")
def executions_announce_their_end() -> None:
    """Send Step Functions' event to the rules of the default bus."""

    def ending(original: Any) -> Any:
        def terminated(communication: BaseExecutionWorkerCommunication) -> None:
            original(communication)
            execution: Any = communication.execution
            try:
                _announce(execution)
            except Exception:  # the execution has ended all the same
                log.exception("The end of %s could not be announced", execution.exec_arn)

        return terminated

    replace(BaseExecutionWorkerCommunication, "terminated", ending)


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
