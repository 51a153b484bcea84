"""Step Functions: Express workflows, executions through versions and aliases, and redrives."""

import copy
import datetime
import json
import math
import random
import threading
import time
import uuid
from typing import Any

from moto.core.responses import ActionResult
from moto.stepfunctions import models as states
from moto.stepfunctions.exceptions import InvalidArn, StateMachineDoesNotExist
from moto.stepfunctions.parser import api
from moto.stepfunctions.parser.api import ExecutionStatus, HistoryEventType
from moto.stepfunctions.parser.asl.component.common.flow.start_at import StartAt
from moto.stepfunctions.parser.asl.component.common.timeouts.timeout import TimeoutSeconds
from moto.stepfunctions.parser.asl.component.program.program import Program
from moto.stepfunctions.parser.asl.eval.event.event_manager import EventHistoryContext
from moto.stepfunctions.parser.asl.eval.program_state import ProgramRunning
from moto.stepfunctions.parser.backend.execution import Execution, SyncExecution
from moto.stepfunctions.parser.backend.execution_worker import ExecutionWorker
from moto.stepfunctions.parser.models import StepFunctionsParserBackend
from moto.stepfunctions.responses import StepFunctionResponse

from rehearsal.patches import Difference, add, patch
from rehearsal.stepfunctions_executions import check_input
from rehearsal.stepfunctions_maps import EXPRESS_SECONDS, is_distributed

EXPRESS = Difference(
    "express_workflows_are_executed",
    "Express workflows are executed and described as Standard ones, and StartSyncExecution does not exist",
)
QUALIFIED = Difference(
    "versions_and_aliases_are_executed",
    "StartExecution and ListExecutions fail for the ARN of an alias, and have no executions of a version",
)
REDRIVEN = Difference("executions_are_redriven", "RedriveExecution does not exist")
#: Billing of Express workflows is in steps of these.
BILLED_MILLISECONDS, BILLED_MEGABYTES = 100, 64


def _is_express(machine: Any) -> bool:
    return bool(machine.type == "EXPRESS")


# --- State machines ---------------------------------------------------------------------------------------------------


def _check(document: Any, path: str = "") -> None:
    """Check that a definition has only what Express workflows support.

    Raises
    ------
    InvalidDefinition
        In the words of AWS.
    """
    for name, state in document.get("States", {}).items() if isinstance(document, dict) else ():
        where, resource = f"{path}/States/{name}", str(state.get("Resource", ""))
        problem = ""
        if resource.endswith(".waitForTaskToken"):
            problem = f"'.waitForTaskToken' service integration  at {where}/Resource"
        elif resource.endswith((".sync", ".sync:2")):
            problem = f"'.sync' service integration at {where}/Resource"
        elif ":activity:" in resource:
            problem = f"Activity ARN at {where}/Resource"
        if problem:
            raise api.InvalidDefinition(
                "Invalid State Machine Definition: 'SCHEMA_VALIDATION_FAILED: "
                f"Express state machine does not support {problem}'"
            )
        for part in ("ItemProcessor", "Iterator"):
            _check(state.get(part), f"{where}/{part}")
            if isinstance(state.get(part), dict) and is_distributed(state):
                raise api.InvalidDefinition(
                    "Invalid State Machine Definition: 'SCHEMA_VALIDATION_FAILED: "
                    f"Express state machine does not support Distributed Map at {where}'"
                )
        for index, branch in enumerate(state.get("Branches", [])):
            _check(branch, f"{where}/Branches[{index}]")


@patch(StepFunctionsParserBackend, "create_state_machine", EXPRESS)
def _create(original: Any, self: Any, name: str, definition: str, *rest: Any, **more: Any) -> Any:
    if more.get("sm_type") == "EXPRESS":
        self._validate_definition(definition=definition)
        _check(json.loads(definition))
    return original(self, name, definition, *rest, **more)


@patch(StepFunctionsParserBackend, "update_state_machine", EXPRESS)
def _update(original: Any, self: Any, arn: str, definition: str | None = None, *rest: Any, **more: Any) -> Any:
    if definition and _is_express(self.describe_state_machine(arn)):
        self._validate_definition(definition=definition)
        _check(json.loads(definition))
    return original(self, arn, definition, *rest, **more)


@patch(states.StateMachine, "create_from_cloudformation_json", EXPRESS)
def _create_from_template(original: Any, name: str, body: Any, *rest: Any, **more: Any) -> Any:
    made = original(name, body, *rest, **more)
    made.type = body["Properties"].get("StateMachineType", "STANDARD")
    if _is_express(made):
        _check(json.loads(made.definition))
    return made


# --- Executions -------------------------------------------------------------------------------------------------------


class NotDescribed(InvalidArn):
    """AWS's answer to a request for an execution of an Express workflow."""

    def __init__(self) -> None:
        super().__init__("Invalid Arn: 'Resource type not valid in this context: express'")


def _resolve(backend: Any, arn: str) -> Any:
    """Return the state machine, with the version's definition, and the version's and alias's ARN if there are any."""
    machine = next((machine for machine in backend.state_machines if machine.arn == arn), None)
    if machine:
        return machine, machine, None, None
    base, _, qualifier = arn.rpartition(":")
    machine = next((machine for machine in backend.state_machines if machine.arn == base), None)
    alias = machine.aliases.get(qualifier) if machine else None
    wanted = arn
    if alias:
        routes = alias.routing_configuration
        chosen = random.choices(routes, [route["weight"] for route in routes])[0]
        wanted = chosen["stateMachineVersionArn"]
    version = (
        machine.versions.get(int(number)) if machine and (number := wanted.rpartition(":")[2]).isdecimal() else None
    )
    if not version:
        raise StateMachineDoesNotExist(f"State Machine Does Not Exist: '{arn}'")
    return machine, version, version.arn, alias.arn if alias else None


class _Limited(ExecutionWorker):
    """An Express execution, which may take five minutes."""

    def _get_evaluation_entrypoint(self) -> Any:
        program: Any = super()._get_evaluation_entrypoint()
        own = program.timeout_seconds.timeout_seconds if program.timeout_seconds else EXPRESS_SECONDS
        limit = TimeoutSeconds(min(own, EXPRESS_SECONDS))
        return Program(program.query_language, program.start_at, program.states, limit, program.comment)


def _make(kind: Any, backend: Any, machine: Any, source: Any, name: str, arn: str, text: str) -> Any:
    snapshot = copy.copy(machine)
    snapshot.definition, snapshot.executions = source.definition, []
    return kind(
        name=name,
        sm_type=machine.type,
        role_arn=source.roleArn,
        exec_arn=arn,
        account_id=backend.account_id,
        region_name=backend.region_name,
        state_machine=snapshot,
        start_date=datetime.datetime.now(datetime.UTC),
        cloud_watch_logging_session=None,
        input_data=text,
        activity_store={},
    )


def _express(kind: Any, backend: Any, arn: str, name: str | None, text: str) -> Any:
    machine, source, *_ = _resolve(backend, arn)
    check_input(text)
    backend._validate_name(name or "none")
    name = name or str(uuid.uuid4())
    execution_arn = f"{machine.arn.replace(':stateMachine:', ':express:')}:{name}:{uuid.uuid4()}"
    execution = _make(kind, backend, machine, source, name, execution_arn, text)
    worker = execution._get_start_execution_worker()
    worker.__class__ = _Limited
    execution.exec_worker, execution.exec_status = worker, ExecutionStatus.RUNNING
    return execution


@patch(StepFunctionsParserBackend, "start_execution", QUALIFIED)
def _start(
    original: Any,
    self: Any,
    state_machine_arn: str,
    name: str | None = None,
    execution_input: str | None = None,
    *rest: Any,
    **more: Any,
) -> Any:
    machine, source, version, alias = _resolve(self, state_machine_arn)
    text = "{}" if execution_input is None else execution_input
    if _is_express(machine):
        execution = _express(Execution, self, state_machine_arn, name, text)
        execution.exec_worker.start()
        return execution
    if not version:
        return original(self, state_machine_arn, name, execution_input, *rest, **more)
    check_input(text)
    self._validate_name(name or "none")
    name = name or str(uuid.uuid4())
    existing = machine._handle_name_input_idempotency(name, text)
    if existing is not None:
        return existing
    arn = f"{machine.arn.replace(':stateMachine:', ':execution:')}:{name}"
    execution = _make(Execution, self, machine, source, name, arn, text)
    execution.state_machine_version_arn, execution.state_machine_alias_arn = version, alias
    machine.executions.append(execution)
    execution.start()
    return execution


@patch(StepFunctionResponse, "describe_execution", QUALIFIED)
def _describe_qualified(original: Any, self: StepFunctionResponse) -> ActionResult:
    answer: Any = original(self)
    execution = self.stepfunction_backend.describe_execution(self._get_param("executionArn"))
    for name, key in {"version": "stateMachineVersionArn", "alias": "stateMachineAliasArn"}.items():
        if arn := getattr(execution, f"state_machine_{name}_arn", None):
            answer.result[key] = arn
    return ActionResult(answer.result)


@add(StepFunctionResponse, "start_sync_execution", EXPRESS)
def _start_sync_execution(self: StepFunctionResponse) -> ActionResult:
    backend: Any = self.stepfunction_backend
    arn = self._get_param("stateMachineArn")
    machine, *_ = _resolve(backend, arn)
    if not _is_express(machine):
        raise api.StateMachineTypeNotSupported("This operation is not supported by this type of state machine")
    execution = _express(SyncExecution, backend, arn, self._get_param("name"), self._get_param("input", if_none="{}"))
    began = time.monotonic()
    execution.exec_worker._execution_logic()
    elapsed = (time.monotonic() - began) * 1000
    answer = {name: value for name, value in execution.to_start_sync_execution_output().items() if value is not None}
    answer["billingDetails"] = {
        "billedDurationInMilliseconds": math.ceil(elapsed / BILLED_MILLISECONDS) * BILLED_MILLISECONDS,
        "billedMemoryUsedInMB": BILLED_MEGABYTES,
    }
    return ActionResult(answer)


def _refuse_express(original: Any, self: Any, execution_arn: str, *rest: Any, **more: Any) -> Any:
    if ":express:" in execution_arn:
        raise NotDescribed
    return original(self, execution_arn, *rest, **more)


patch(StepFunctionsParserBackend, "describe_execution", EXPRESS)(_refuse_express)
patch(StepFunctionsParserBackend, "get_execution_history", EXPRESS)(_refuse_express)


@patch(StepFunctionResponse, "list_executions", EXPRESS)
def _list_executions(original: Any, self: StepFunctionResponse) -> Any:
    arn = self._get_param("stateMachineArn")
    if arn and _is_express(self.stepfunction_backend.describe_state_machine(arn)):
        raise api.StateMachineTypeNotSupported("This operation is not supported by this type of state machine")
    return original(self)


def _unqualified(arn: str) -> str:
    return ":".join(arn.split(":")[:7])


@patch(StepFunctionsParserBackend, "describe_state_machine", QUALIFIED)
def _describe_machine(original: Any, self: Any, arn: str) -> Any:
    """Describe what an alias or version executes, with the executions that it was asked for."""
    if arn == _unqualified(arn):
        return original(self, arn)
    machine, source, *_ = _resolve(self, arn)
    described = copy.copy(source)
    started = ("state_machine_version_arn", "state_machine_alias_arn")
    described.executions = [each for each in machine.executions if arn in [getattr(each, by, None) for by in started]]
    return described


@patch(StepFunctionResponse, "list_executions", QUALIFIED)
def _list_qualified(original: Any, self: StepFunctionResponse) -> Any:
    answer = original(self)
    for listed in answer.result["executions"]:
        listed["stateMachineArn"] = _unqualified(listed["stateMachineArn"])
    return answer


# --- Redrives ---------------------------------------------------------------------------------------------------------


@add(StepFunctionResponse, "redrive_execution", REDRIVEN)
def _redrive_execution(self: StepFunctionResponse) -> ActionResult:
    backend: Any = self.stepfunction_backend
    execution: Any = backend.describe_execution(self._get_param("executionArn"))
    if execution.status not in ("FAILED", "ABORTED", "TIMED_OUT"):
        raise api.ExecutionNotRedrivable(f"Execution is {execution.status} and cannot be redriven")
    _redrive(execution)
    return ActionResult({"redriveDate": execution.redrive_date})


def _redrive(execution: Any) -> None:
    """Continue an execution with the state that it did not leave."""
    old = execution.exec_worker.env
    worker = execution._get_start_execution_worker()
    program: Any = worker._get_evaluation_entrypoint()
    entered = [
        event["stateEnteredEventDetails"]
        for event in old.event_manager.get_event_history()
        if event.get("stateEnteredEventDetails", {}).get("name") in program.states.states
    ]
    last = entered[-1] if entered else {"name": program.start_at.start_at_name, "input": execution.execution_input}
    program = Program(
        program.query_language, StartAt(last["name"]), program.states, program.timeout_seconds, program.comment
    )
    execution.redrive_count = getattr(execution, "redrive_count", 0) + 1
    execution.redrive_date = datetime.datetime.now(datetime.UTC)
    env = worker._get_evaluation_environment()
    env.states.context_object.context_object_data["Execution"]["RedriveCount"] = execution.redrive_count
    env.states.reset(json.loads(last["input"]))
    env.event_manager = old.event_manager
    env.event_history_context = EventHistoryContext(old.event_history_context.last_published_event_id)
    pool: Any = old.map_run_record_pool_manager
    env.map_run_record_pool_manager = pool
    env._program_state = ProgramRunning()
    worker.env = env
    execution.exec_worker, execution.exec_status = worker, ExecutionStatus.RUNNING
    execution.stop_date = execution.error = execution.cause = execution.output = None
    details: Any = {"executionRedrivenEventDetails": {"redriveCount": execution.redrive_count}}
    env.event_manager.add_event(env.event_history_context, HistoryEventType.ExecutionRedriven, details)

    def go() -> None:
        while any(run.status == "RUNNING" for run in pool.get_all()):  # children of a stopped execution still end
            time.sleep(0.05)
        pool.redriven = {run.state_name: run for run in pool.get_all() if run.status != "SUCCEEDED" and run.children}
        program.eval(env)
        worker._execution_communication.terminated()

    threading.Thread(target=go, daemon=True).start()


@patch(StepFunctionResponse, "describe_execution", REDRIVEN)
def _describe_redrives(original: Any, self: StepFunctionResponse) -> ActionResult:
    answer: Any = original(self)
    execution: Any = self.stepfunction_backend.describe_execution(self._get_param("executionArn"))
    redrivable = execution.status in ("FAILED", "ABORTED", "TIMED_OUT")
    answer.result["redriveCount"] = getattr(execution, "redrive_count", 0)
    answer.result["redriveStatus"] = "REDRIVABLE" if redrivable else "NOT_REDRIVABLE"
    if not redrivable:
        answer.result["redriveStatusReason"] = f"Execution is {execution.status} and cannot be redriven"
    if moment := getattr(execution, "redrive_date", None):
        answer.result["redriveDate"] = moment
    return ActionResult(answer.result)
