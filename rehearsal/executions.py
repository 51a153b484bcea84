"""Step Functions' API around state machines and executions: codes of errors, names, and what is described."""

import json
from typing import Any

from moto.core.exceptions import AWSError
from moto.core.responses import ActionResult
from moto.stepfunctions.parser import api
from moto.stepfunctions.parser.models import StepFunctionsParserBackend
from moto.stepfunctions.responses import StepFunctionResponse

from rehearsal.gaps import gap, replace


@gap("errors of the back end that executes workflows have no code")
def errors_of_workflows_have_a_code() -> None:
    """Give each the code that AWS's model gives it."""
    for error in vars(api).values():
        if isinstance(error, type) and issubclass(error, AWSError) and error is not AWSError:
            error.TYPE = str(error.code)


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


@gap("DescribeExecution leaves out when a timed-out execution ended, an output of null, and that the input is included")
def executions_are_described_whole() -> None:
    """Add these, and write the output without spaces."""

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

    replace(StepFunctionResponse, "describe_execution", describing)


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
