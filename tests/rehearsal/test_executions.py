"""An execution's start and end in the words of AWS, and an endpoint that does not answer yet."""

import io
import json
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from botocore.exceptions import ClientError

from tests.support.stack import IMAGE_URI, ROLE, Rehearsal, create_function, wait_for


@pytest.fixture(scope="module")
def machine(rehearsal: Rehearsal) -> Callable[[str, dict[str, Any]], str]:
    """Return a maker of state machines of one state; it returns the ARN."""

    def make(name: str, state: dict[str, Any]) -> str:
        definition = json.dumps({"StartAt": "Only", "States": {"Only": {"End": True, **state}}})
        made = rehearsal.client("stepfunctions").create_state_machine(name=name, definition=definition, roleArn=ROLE)
        return str(made["stateMachineArn"])

    return make


def refused(call: Callable[..., Any], **given: Any) -> tuple[str, str]:
    with pytest.raises(ClientError) as caught:
        call(**given)
    error = caught.value.response["Error"]
    return error["Code"], error["Message"]


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (
            "neither",
            "Unrecognized token 'neither': was expecting (JSON String, Number, Array, Object or token 'null', 'true' "
            "or 'false')",
        ),
        ("{'a': 1}", "Unexpected character (''' (code 39)): was expecting double-quote to start field name"),
        ("  ", "Invalid execution input."),
        ('{"a": NaN}', "Non-standard token 'NaN'"),
        ('{"a": 1', None),
        ("{}{}", None),
        ("[" * 100_000, None),
    ],
)
def test_input_that_is_no_json(rehearsal: Rehearsal, machine: Any, text: str, reason: str | None) -> None:
    states, arn = rehearsal.client("stepfunctions"), machine("taster", {"Type": "Pass"})
    code, message = refused(states.start_execution, stateMachineArn=arn, input=text)
    assert code == "InvalidExecutionInput" and message.startswith("Invalid State Machine Execution Input: '")
    assert reason is None or message == f"Invalid State Machine Execution Input: '{reason}'"
    assert states.list_executions(stateMachineArn=arn)["executions"] == []


def test_other_errors_of_the_engine_have_a_code(rehearsal: Rehearsal, machine: Any) -> None:
    states = rehearsal.client("stepfunctions")
    bad = {"name": "bad", "roleArn": ROLE, "definition": "{}"}
    assert refused(states.create_state_machine, **bad)[0] == "InvalidDefinition"
    arn = machine("unchanged", {"Type": "Pass"})
    assert refused(states.update_state_machine, stateMachineArn=arn)[0] == "MissingRequiredParameter"


@pytest.mark.parametrize("given", [{"error": "TooLate", "cause": "the picture was withdrawn"}, {}])
def test_a_stopped_execution_keeps_the_reason(rehearsal: Rehearsal, machine: Any, given: dict[str, str]) -> None:
    states = rehearsal.client("stepfunctions")
    arn = machine(f"waiting-{len(given)}", {"Type": "Wait", "Seconds": 900})
    execution = states.start_execution(stateMachineArn=arn)["executionArn"]
    stopped = states.stop_execution(executionArn=execution, **given)["stopDate"]
    described = states.describe_execution(executionArn=execution)
    assert (described["status"], described["stopDate"]) == ("ABORTED", stopped)
    assert {name: described[name] for name in ("error", "cause") if name in described} == given
    history = wait_for(
        lambda: (
            (events := states.get_execution_history(executionArn=execution)["events"])[-1]["type"] == "ExecutionAborted"
            and events
        )
    )
    assert history[-1]["executionAbortedEventDetails"] == given
    again = states.stop_execution(executionArn=execution, error="Another")
    described = states.describe_execution(executionArn=execution)
    assert again["stopDate"] == stopped == described["stopDate"] and described.get("error") == given.get("error")


def test_an_execution_stops_although_its_task_goes_on(rehearsal: Rehearsal, machine: Any) -> None:
    source = "import time\ndef lambda_handler(event, context):\n    time.sleep(600)\n"
    function = create_function(rehearsal, "goes-on", source, Timeout=900)
    states = rehearsal.client("stepfunctions")
    arn = machine("goes-on", {"Type": "Task", "Resource": function})
    execution = states.start_execution(stateMachineArn=arn)["executionArn"]

    def scheduled() -> bool:
        events = states.get_execution_history(executionArn=execution)["events"]
        return any(event["type"] == "LambdaFunctionScheduled" for event in events)

    wait_for(scheduled)
    states.stop_execution(executionArn=execution, error="Stopped", cause="by hand")
    described = states.describe_execution(executionArn=execution)
    assert [described[name] for name in ("status", "error", "cause")] == ["ABORTED", "Stopped", "by hand"]
    rehearsal.client("lambda").delete_function(FunctionName="goes-on")


def test_a_failed_callback_and_a_time_out_say_when_and_why(rehearsal: Rehearsal, machine: Any) -> None:
    states, sqs = rehearsal.client("stepfunctions"), rehearsal.client("sqs")
    url = sqs.create_queue(QueueName="tokens")["QueueUrl"]
    task = {
        "Type": "Task",
        "Resource": "arn:aws:states:::sqs:sendMessage.waitForTaskToken",
        "Parameters": {"QueueUrl": url, "MessageBody.$": "$$.Task.Token"},
    }
    execution = states.start_execution(stateMachineArn=machine("callback", task))["executionArn"]
    token = wait_for(lambda: sqs.receive_message(QueueUrl=url).get("Messages"))[0]["Body"]
    states.send_task_failure(taskToken=token, error="Refused", cause="by a person")
    described = rehearsal.outcome(execution)
    assert [described[name] for name in ("status", "error", "cause")] == ["FAILED", "Refused", "by a person"]
    slow = {"StartAt": "W", "TimeoutSeconds": 1, "States": {"W": {"Type": "Wait", "Seconds": 900, "End": True}}}
    made = states.create_state_machine(name="slow", definition=json.dumps(slow), roleArn=ROLE)
    execution = states.start_execution(stateMachineArn=made["stateMachineArn"])["executionArn"]
    described = rehearsal.outcome(execution)
    assert described["status"] == "TIMED_OUT" and described["stopDate"] > described["startDate"]


def test_ended_executions_leave_no_stacks_of_threads(rehearsal: Rehearsal, machine: Any) -> None:
    steps = {"StartAt": "Step", "States": {"Step": {"Type": "Pass", "End": True}}}
    arn = machine("threads", {"Type": "Map", "ItemProcessor": steps})

    def maps() -> int:
        supervisor = Path(f"/proc/{rehearsal.running.supervisor}")
        (server,) = (supervisor / "task" / supervisor.name / "children").read_text().split()
        return len(Path(f"/proc/{server}/maps").read_text().splitlines())

    before = maps()
    for _ in range(10):
        rehearsal.outcome(rehearsal.execute(arn, [{}] * 40))
    assert maps() < before + 200, "each of 400 threads has a stack and a guard page"


def test_an_endpoint_that_is_not_in_service_is_not_found(rehearsal: Rehearsal) -> None:
    sagemaker, runtime = rehearsal.client("sagemaker"), rehearsal.client("sagemaker-runtime")
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w:gz") as archive:
        archive.addfile(tarfile.TarInfo("model.onnx"), io.BytesIO())
    rehearsal.client("s3").create_bucket(Bucket="unready")
    rehearsal.client("s3").put_object(Bucket="unready", Key="model.tar.gz", Body=packed.getvalue())
    container = {"Image": IMAGE_URI, "ModelDataUrl": "s3://unready/model.tar.gz"}
    sagemaker.create_model(ModelName="unready", ExecutionRoleArn=ROLE, PrimaryContainer=container)
    variant = {"VariantName": "v", "ModelName": "unready", "InstanceType": "ml.m5.large", "InitialInstanceCount": 1}
    sagemaker.create_endpoint_config(EndpointConfigName="unready", ProductionVariants=[variant])
    sagemaker.create_endpoint(EndpointName="unready", EndpointConfigName="unready")

    def answer() -> tuple[str, str]:
        return refused(runtime.invoke_endpoint, EndpointName="unready", Body=b"")

    expected = ("ValidationError", "Endpoint unready of account 123456789012 not found.")
    assert answer() == expected, "while it is created"
    wait_for(lambda: sagemaker.describe_endpoint(EndpointName="unready")["EndpointStatus"] == "Failed")
    assert answer() == expected, "after that has failed"
    sagemaker.delete_endpoint(EndpointName="unready")
    assert answer() == expected, "when it is gone"
