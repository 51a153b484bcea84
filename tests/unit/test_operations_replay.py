"""Replays against moto's workflows and queues; the workflow is a stand-in whose outcome its input chooses."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import boto3
import pytest
from botocore.stub import Stubber
from moto import mock_aws

from common import storage
from common.errors import CommandError
from common.stack import Stack, find_execution, find_stack
from operations import queue
from operations import replay as module
from operations.__main__ import main
from operations.attempt import try_photos
from operations.empty import empty
from operations.faults import drop_faults, show_faults
from operations.replay import replay, replay_faults
from tests.support.stack import HANG_SECONDS

BUCKET = "images"


def choice(key: str, then: str) -> dict[str, Any]:
    return {"Variable": "$.s3_key", "StringMatches": key, "Next": then}


def fail(error: str, cause: str) -> dict[str, Any]:
    return {"Type": "Fail", "Error": error, "Cause": cause}


DEFINITION = {
    "StartAt": "Choose",
    "States": {
        "Choose": {
            "Type": "Choice",
            "Choices": [choice("*unsure*", "Unsure"), choice("*fault*", "Fault")],
            "Default": "Accept",
        },
        "Accept": {"Type": "Pass", "Result": {"label": "bicycle", "confidence": 0.9}, "End": True},
        "Unsure": fail("ThresholdNotMet", json.dumps({"errorMessage": "bicycle has probability 0.5"})),
        "Fault": fail("EndpointNotFound", "no endpoint"),
    },
}


@pytest.fixture
def stack(monkeypatch: pytest.MonkeyPatch) -> Iterator[Stack]:
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    monkeypatch.setattr(queue, "WAIT_SECONDS", 0)
    monkeypatch.setattr(module, "POLL_SECONDS", 0.02)
    with mock_aws(config={"stepfunctions": {"execute_state_machine": True}}):
        storage._s3.cache_clear()
        boto3.client("s3").create_bucket(Bucket=BUCKET)
        workflow = boto3.client("stepfunctions").create_state_machine(
            name="workflow", definition=json.dumps(DEFINITION), roleArn="arn:aws:iam::123456789012:role/r"
        )["stateMachineArn"]
        faults = boto3.client("sqs").create_queue(QueueName="faults")["QueueUrl"]
        outputs = {"WorkflowArn": workflow, "ImageBucketName": BUCKET, "FailureQueueUrl": faults}
        yield Stack("classifier", outputs, {})


def execute(stack: Stack, key: str, name: str = "first") -> str:
    """Run an execution to its end; return its ARN."""
    states = boto3.client("stepfunctions")
    text = json.dumps({"s3_bucket": BUCKET, "s3_key": key, "image_data": ""})
    arn = states.start_execution(stateMachineArn=stack.output("WorkflowArn"), name=name, input=text)["executionArn"]
    module.wait_for_end(arn)
    return arn


def inputs(stack: Stack) -> dict[str, dict[str, Any]]:
    """Return the inputs of all executions by name."""
    states = boto3.client("stepfunctions")
    listed = states.list_executions(stateMachineArn=stack.output("WorkflowArn"))["executions"]
    return {e["name"]: json.loads(states.describe_execution(executionArn=e["executionArn"])["input"]) for e in listed}


def put_fault(stack: Stack, name: str, key: str = "a.png") -> None:
    workflow = stack.output("WorkflowArn").replace(":stateMachine:", ":execution:")
    body = {"execution_id": f"{workflow}:{name}", "s3_bucket": BUCKET, "s3_key": key}
    body |= {"error": "EndpointNotFound", "cause": "no endpoint"}
    boto3.client("sqs").send_message(QueueUrl=stack.output("FailureQueueUrl"), MessageBody=json.dumps(body))


def faults(stack: Stack) -> tuple[int, int]:
    """Count the failure queue's messages: visible ones, and hidden ones."""
    url = stack.output("FailureQueueUrl")
    got = boto3.client("sqs").get_queue_attributes(QueueUrl=url, AttributeNames=["All"])["Attributes"]
    return int(got["ApproximateNumberOfMessages"]), int(got["ApproximateNumberOfMessagesNotVisible"])


@pytest.mark.parametrize(
    ("key", "code", "said"),
    [
        ("a.png", 0, "accepted: bicycle, confidence 0.900"),
        ("unsure.png", 3, "ThresholdNotMet: bicycle has probability 0.5\n"),
        ("fault.png", 1, "EndpointNotFound: no endpoint"),
    ],
)
def test_an_execution_is_repeated_with_its_input(
    stack: Stack, capsys: pytest.CaptureFixture[str], key: str, code: int, said: str
) -> None:
    arn = execute(stack, key)
    assert replay(stack, arn, None) == code
    out = capsys.readouterr().out
    assert said in out
    (again,) = [name for name in inputs(stack) if name != "first"]
    assert inputs(stack)[again] == inputs(stack)["first"]
    assert f"started {arn.removesuffix('first')}{again}\n" in out


def test_a_corrected_image_takes_the_place_of_the_original(stack: Stack, tmp_path: Path) -> None:
    boto3.client("s3").put_object(Bucket=BUCKET, Key="incoming/unsure.png", Body=b"original")
    execute(stack, "incoming/unsure.png")
    (tmp_path / "better.png").write_bytes(b"corrected")
    assert replay(stack, "first", tmp_path / "better.png") == 0
    (again,) = [event for name, event in inputs(stack).items() if name != "first"]
    assert again == {"s3_bucket": BUCKET, "s3_key": "corrected/first/better.png", "image_data": ""}
    s3 = boto3.client("s3")
    assert s3.get_object(Bucket=BUCKET, Key=again["s3_key"])["Body"].read() == b"corrected"
    assert s3.get_object(Bucket=BUCKET, Key="incoming/unsure.png")["Body"].read() == b"original"


def test_what_cannot_be_replayed_is_one_clear_line(stack: Stack, tmp_path: Path) -> None:
    with pytest.raises(CommandError, match="has no execution 'nobody'"):
        replay(stack, "nobody", None)
    with pytest.raises(CommandError, match="has no execution 'arn:aws:states"):
        replay(stack, "arn:aws:states:us-east-1:123456789012:execution:workflow:nobody", None)
    execute(stack, "a.png")
    with pytest.raises(CommandError, match="file not found"):
        replay(stack, "first", tmp_path / "nothing.png")
    assert boto3.client("s3").list_objects_v2(Bucket=BUCKET)["KeyCount"] == 0 and len(inputs(stack)) == 1


def test_a_cause_cannot_command_the_terminal(stack: Stack, capsys: pytest.CaptureFixture[str]) -> None:
    states, arn = boto3.client("stepfunctions"), stack.output("WorkflowArn")
    unsure = {"StartAt": "Unsure", "States": {"Unsure": fail("ThresholdNotMet", "a\x1b[2J\x07\nb\x9b1m\u202ec\x7f")}}
    states.update_state_machine(stateMachineArn=arn, definition=json.dumps(unsure))
    execute(stack, "a.png")
    assert replay(stack, "first", None) == 3
    assert "ThresholdNotMet: " + r"a\x1b[2J\x07\nb\x9b1m\u202ec\x7f" + "\n" in capsys.readouterr().out


def test_an_execution_of_another_workflow_is_refused(stack: Stack) -> None:
    arn = execute(stack, "a.png")
    other = Stack("other", {**stack.outputs, "WorkflowArn": stack.output("WorkflowArn") + "-other"}, {})
    with pytest.raises(CommandError, match=r"is an execution of .*:workflow, not of stack other"):
        find_execution(other, arn)


def test_faults_are_started_again_and_leave_the_queue(stack: Stack, capsys: pytest.CaptureFixture[str]) -> None:
    for number in range(12):
        put_fault(stack, f"execution-{number}", f"{number}.png")
    assert replay_faults(stack, None) == 0
    assert faults(stack) == (0, 0)
    assert {event["s3_key"] for event in inputs(stack).values()} == {f"{number}.png" for number in range(12)}
    assert all(name.startswith("execution-") and "-replay-" in name for name in inputs(stack))
    out = capsys.readouterr().out
    assert "12 started again; the failure queue holds about 0 messages" in out
    assert out.count(" (had failed: EndpointNotFound)\n") == 12


def test_each_outcome_of_the_faults_is_waited_for_and_printed(stack: Stack, capsys: pytest.CaptureFixture[str]) -> None:
    for number, key in enumerate(("a.png", "b.png", "unsure.png")):
        put_fault(stack, f"execution-{number}", key)
    assert replay_faults(stack, None) == 0
    out = capsys.readouterr().out
    assert "a.png: accepted: bicycle, confidence 0.900\n" in out and "unsure.png: ThresholdNotMet: bicycle has" in out
    assert out.endswith("2 accepted, 1 ThresholdNotMet\n")
    put_fault(stack, "again", "fault.png")
    assert replay_faults(stack, None) == 1, "it failed again"
    assert capsys.readouterr().out.endswith("fault.png: EndpointNotFound: no endpoint\n1 EndpointNotFound\n")


def test_an_interrupted_wait_says_that_the_executions_go_on(stack: Stack, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(arn: str) -> Any:
        raise KeyboardInterrupt

    monkeypatch.setattr(module, "_wait", interrupt)
    put_fault(stack, "first")
    with pytest.raises(CommandError, match="1 started again, 0 of them have ended; the others go on"):
        replay_faults(stack, None)
    assert faults(stack) == (0, 0)


def test_faults_are_listed_and_dropped_by_their_error(stack: Stack, capsys: pytest.CaptureFixture[str]) -> None:
    sqs, url = boto3.client("sqs"), stack.output("FailureQueueUrl")
    put_fault(stack, "first", "a\x1b[2J.png")
    put_fault(stack, "second", "b.png")
    timed_out = {
        "execution_id": "arn:aws:states:us-east-1:123456789012:execution:workflow:third",
        "status": "TIMED_OUT",
    }
    for body in (json.dumps(timed_out), "hello"):
        sqs.send_message(QueueUrl=url, MessageBody=body)
    show_faults(stack)
    out = capsys.readouterr().out
    rows = [line.split()[2:] for line in out.splitlines()[1:]]  # without the time
    assert rows[0] == ["EndpointNotFound", r"a\x1b[2J.png", "first"]
    assert rows[2:4] == [["TIMED_OUT", "third"], ["unknown"]]
    assert out.endswith("2 EndpointNotFound, 1 TIMED_OUT, 1 unknown\n")
    assert faults(stack) == (4, 0), "nothing was removed, and nothing is hidden"

    assert drop_faults(stack, "EndpointNotFound") == 0
    assert capsys.readouterr().out == "2 removed\nleft: 1 TIMED_OUT, 1 unknown\n"
    assert drop_faults(stack, "EndpointNotFound") == 1
    assert faults(stack) == (2, 0)


def test_photos_are_tried(stack: Stack, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    photos = [tmp_path / name for name in ("a b.png", "unsure.png", "fault.png")]
    with pytest.raises(CommandError, match=r"file not found: .*a b\.png"):
        try_photos(stack, photos)
    for photo in photos:
        photo.write_bytes(photo.name.encode())
    with pytest.raises(CommandError, match="is a folder"):
        try_photos(stack, [*photos, tmp_path])
    assert not inputs(stack) and boto3.client("s3").list_objects_v2(Bucket=BUCKET)["KeyCount"] == 0

    assert [try_photos(stack, chosen) for chosen in (photos[:1], photos[:2], photos)] == [0, 3, 1]
    lines = capsys.readouterr().out.splitlines()[-6:]
    assert [line.split(": ")[1] for line in lines[::2]] == ["accepted", "ThresholdNotMet", "EndpointNotFound"]
    assert lines[0] == "a b.png: accepted: bicycle, confidence 0.900"
    name = lines[1].split()[4]
    assert lines[1] == f"    python -m operations trace {name} --stack-name classifier"
    event = inputs(stack)[name]
    assert boto3.client("s3").get_object(Bucket=BUCKET, Key=event["s3_key"])["Body"].read() == b"a b.png"


def test_a_bucket_is_emptied_of_every_version(
    stack: Stack, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    s3 = boto3.client("s3")
    s3.put_object(Bucket=BUCKET, Key="labels/a.png", Body=b"1")
    s3.put_bucket_versioning(Bucket=BUCKET, VersioningConfiguration={"Status": "Enabled"})
    monkeypatch.setattr("operations.empty.BATCH", 3)
    for number in range(5):
        s3.put_object(Bucket=BUCKET, Key=f"incoming/{number}", Body=b"1")
    s3.put_object(Bucket=BUCKET, Key="incoming/0", Body=b"2")
    s3.delete_object(Bucket=BUCKET, Key="labels/a.png")
    monkeypatch.setattr("builtins.input", lambda _: "yes")
    with pytest.raises(CommandError, match="nothing was deleted"):
        empty(stack, ask=True)
    assert "holds 8 objects: 6 in incoming/, 2 in labels/" in capsys.readouterr().out
    assert s3.list_objects_v2(Bucket=BUCKET)["KeyCount"] == 5
    monkeypatch.setattr("builtins.input", lambda _: BUCKET)
    empty(stack, ask=True)
    s3.delete_bucket(Bucket=BUCKET)  # only an empty bucket can be deleted


def test_an_arn_stays_whole_beside_a_bar() -> None:
    code = (
        "from operations.replay import print_line\nfrom common.progress import progress\n"
        "with progress('start again', 2) as advance: print_line('arn:' + 'x' * 300); advance(1)"
    )
    leader, follower = os.openpty()
    subprocess.run(
        [sys.executable, "-c", code],
        cwd=Path(__file__).parents[2],
        env={**os.environ, "TERM": "xterm", "COLUMNS": "80"},
        stdout=follower,
        stderr=follower,
        timeout=HANG_SECONDS,
        check=True,
    )
    shown = os.read(leader, 100_000).decode()
    os.close(leader)
    os.close(follower)
    assert "1/2" in shown
    assert f"\x1b[2Karn:{'x' * 300}\r\n" in shown


@pytest.fixture
def answers(monkeypatch: pytest.MonkeyPatch) -> list[bool]:
    """Return a list: of the next answers of a queue, those that are False are empty, whatever lies there."""
    found: list[bool] = []
    real, sqs = boto3.client, boto3.client("sqs")
    receive: Any = sqs.receive_message
    monkeypatch.setattr(sqs, "receive_message", lambda **asked: receive(**asked) if not found or found.pop(0) else {})
    monkeypatch.setattr(boto3, "client", lambda name: sqs if name == "sqs" else real(name))
    return found


def test_an_empty_answer_is_not_yet_the_end(
    stack: Stack, answers: list[bool], capsys: pytest.CaptureFixture[str]
) -> None:
    for number in range(12):
        put_fault(stack, str(number))
    answers += [False, True, False, True]
    assert replay_faults(stack, None) == 0
    assert faults(stack) == (0, 0) and len(inputs(stack)) == 12


def test_messages_that_do_not_arrive_are_counted_and_are_no_success(
    stack: Stack, answers: list[bool], capsys: pytest.CaptureFixture[str]
) -> None:
    for number in range(12):
        put_fault(stack, str(number))
    answers += [True, False, False]
    assert replay_faults(stack, None) == 1
    assert "10 started again; the failure queue holds about 2 messages" in capsys.readouterr().out


def test_a_limit_leaves_the_rest(stack: Stack) -> None:
    for number in range(5):
        put_fault(stack, str(number))
    assert replay_faults(stack, 2) == 0
    assert faults(stack) == (3, 0) and len(inputs(stack)) == 2


def test_a_fault_that_was_started_before_is_not_started_twice(stack: Stack, capsys: pytest.CaptureFixture[str]) -> None:
    put_fault(stack, "first")
    replay_faults(stack, None)
    # As after a crash between the start and the deletion, or a message that SQS delivers twice.
    put_fault(stack, "first")
    assert replay_faults(stack, None) == 0
    assert faults(stack) == (0, 0) and len(inputs(stack)) == 1
    assert "had started" in capsys.readouterr().out


@pytest.mark.parametrize("running", [False, True], ids=["ended", "running"])
def test_two_messages_of_one_execution_start_it_once(
    stack: Stack, running: bool, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """As after a States.DataLimitExceeded that was caught: the workflow records it, and the rule sends it, too."""
    arn = execute(stack, "a.png", "too-large")
    states, workflow = boto3.client("stepfunctions"), stack.output("WorkflowArn")
    if running:
        monkeypatch.setattr(module, "_print_outcomes", lambda replays: False)  # which would wait for an hour
        # AWS documents that StartExecution with the name and the input of a running execution returns that one.
        wait = {"StartAt": "Wait", "States": {"Wait": {"Type": "Wait", "Seconds": 3600, "End": True}}}
        states.update_state_machine(stateMachineArn=workflow, definition=json.dumps(wait))
    put_fault(stack, "too-large", "a.png")
    of_rule = json.dumps({"execution_id": arn, "status": "FAILED"})
    for number in (1, 2):
        boto3.client("sqs").send_message(QueueUrl=stack.output("FailureQueueUrl"), MessageBody=of_rule)
        assert replay_faults(stack, None) == 0
        assert faults(stack) == (0, 0)
        assert len(inputs(stack)) == 2, f"call {number}: the failed execution and its replay"
    out = capsys.readouterr().out
    assert out.count("1 started again; ") == 2 and "had started arn:" in out
    for execution in states.list_executions(stateMachineArn=workflow, statusFilter="RUNNING")["executions"]:
        states.stop_execution(executionArn=execution["executionArn"])


def test_a_message_stays_when_its_execution_does_not_start(stack: Stack, monkeypatch: pytest.MonkeyPatch) -> None:
    put_fault(stack, "first")
    states = boto3.client("stepfunctions")
    real = boto3.client
    monkeypatch.setattr(boto3, "client", lambda name: states if name == "stepfunctions" else real(name))
    with Stubber(states) as stub:
        stub.add_client_error("describe_execution", "ExecutionDoesNotExist")
        stub.add_client_error("start_execution", "ThrottlingException", http_status_code=400)
        with pytest.raises(states.exceptions.ClientError):
            replay_faults(stack, None)
    assert sum(faults(stack)) == 1


def test_an_interrupted_run_says_what_it_started_and_gives_the_rest_back(
    stack: Stack, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(5):
        put_fault(stack, str(number))
    real = module._start

    def start(workflow: str, of: str, text: str) -> tuple[str, str]:
        if len(inputs(stack)) == 2:
            raise KeyboardInterrupt
        return real(workflow, of, text)

    monkeypatch.setattr(module, "_start", start)
    with pytest.raises(CommandError, match="interrupted; 2 started again, the rest stays in the queue"):
        replay_faults(stack, None)
    assert faults(stack) == (3, 0)


def test_a_replay_that_fails_again_waits_for_the_next_call(stack: Stack) -> None:
    put_fault(stack, "first")
    replay_faults(stack, None)
    (again,) = inputs(stack)
    put_fault(stack, again)
    replay_faults(stack, None)
    (third,) = set(inputs(stack)) - {again}
    assert third.startswith("first-replay-") and len(third) == len(again)


def test_what_fails_while_others_are_started_does_not_go_round(stack: Stack, monkeypatch: pytest.MonkeyPatch) -> None:
    put_fault(stack, "first")
    real = module._start

    def start(workflow: str, of: str, text: str) -> tuple[str, str]:
        arn, said = real(workflow, of, text)
        assert len(inputs(stack)) < 5, "it goes round"
        put_fault(stack, arn.rsplit(":", 1)[-1])  # it has failed at once
        return arn, said

    monkeypatch.setattr(module, "_start", start)
    assert replay_faults(stack, None) == 1
    assert len(inputs(stack)) == 1 and faults(stack) == (1, 0)


def test_strange_messages_stay_and_are_named(stack: Stack, capsys: pytest.CaptureFixture[str]) -> None:
    boto3.client("sqs").send_message(QueueUrl=stack.output("FailureQueueUrl"), MessageBody="hello")
    put_fault(stack, "first")
    assert replay_faults(stack, None) == 1
    assert "it has no execution_id" in capsys.readouterr().err
    assert faults(stack) == (1, 0) and len(inputs(stack)) == 1


def test_an_image_whose_execution_never_started_is_started_by_its_address(stack: Stack) -> None:
    sqs, queue_url = boto3.client("sqs"), stack.output("FailureQueueUrl")
    address = {"s3_bucket": BUCKET, "s3_key": "a.png"}
    # Of a batch, and of the starter of an upload, whose own execution has no input that could be read again.
    starter = "arn:aws:states:us-east-1:123456789012:express:starter:name:0a1b"
    for body in ({"outcome": "failed"}, {"execution_id": starter, "cause": "Rate exceeded"}):
        sqs.send_message(QueueUrl=queue_url, MessageBody=json.dumps({**body, **address, "error": "States.Timeout"}))
    replay_faults(stack, None)
    assert list(inputs(stack).values()) == [address, address] and faults(stack) == (0, 0)


def test_a_kept_message_that_comes_back_is_named_once_and_does_not_hide_others(
    stack: Stack, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(queue, "VISIBILITY_SECONDS", 0)  # what is received is back at once
    boto3.client("sqs").send_message(QueueUrl=stack.output("FailureQueueUrl"), MessageBody="hello")
    real = module._start

    def start(workflow: str, of: str, text: str) -> tuple[str, str]:
        # One more arrives while the others are started, behind the one that was kept.
        if len(inputs(stack)) < 2:
            put_fault(stack, "later")
        return real(workflow, of, text)

    monkeypatch.setattr(module, "_start", start)
    put_fault(stack, "first")
    assert replay_faults(stack, None) == 1
    assert len(inputs(stack)) == 2 and faults(stack) == (1, 0)
    assert capsys.readouterr().err.count("it has no execution_id") == 1


def test_what_is_started_again_is_the_input_as_it_was(stack: Stack) -> None:
    # An upload's event, which has more than an address; and a failure that has no address in its message.
    states, sqs = boto3.client("stepfunctions"), boto3.client("sqs")
    event = {"bucket": {"name": BUCKET}, "object": {"key": "a+b.png", "etag": "0"}, "s3_key": "a"}
    started = states.start_execution(
        stateMachineArn=stack.output("WorkflowArn"), name="upload", input=json.dumps(event)
    )["executionArn"]
    module.wait_for_end(started)
    execute(stack, "b.png", "aborted")
    put_fault(stack, "upload", "a+b.png")
    body = json.dumps({"execution_id": started.replace(":upload", ":aborted"), "status": "ABORTED"})
    sqs.send_message(QueueUrl=stack.output("FailureQueueUrl"), MessageBody=body)
    assert replay_faults(stack, None) == 0
    again = {name.split("-replay-")[0]: text for name, text in inputs(stack).items() if "-replay-" in name}
    assert again == {"upload": event, "aborted": inputs(stack)["aborted"]}


def test_a_message_without_address_whose_execution_is_gone_stays(
    stack: Stack, capsys: pytest.CaptureFixture[str]
) -> None:
    gone = stack.output("WorkflowArn").replace(":stateMachine:", ":execution:") + ":gone"
    body = json.dumps({"execution_id": gone, "status": "TIMED_OUT"})
    boto3.client("sqs").send_message(QueueUrl=stack.output("FailureQueueUrl"), MessageBody=body)
    assert replay_faults(stack, None) == 1
    assert "its execution does not exist any more" in capsys.readouterr().err
    assert faults(stack) == (1, 0) and not inputs(stack)


def test_names_fit_both_limits(stack: Stack) -> None:
    put_fault(stack, "x" * 80)
    replay_faults(stack, None)
    (name,) = inputs(stack)
    assert len(name) == 63  # 80 of an execution, 64 of an inference id, which finds its captured data


def test_a_stack_is_found_with_its_outputs_and_parameters(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    template = {
        "Parameters": {"Labels": {"Type": "String", "Default": "cat,dog"}},
        "Resources": {"Queue": {"Type": "AWS::SQS::Queue"}},
        "Outputs": {"ModelBucketName": {"Value": "models"}},
    }
    with mock_aws():
        boto3.client("cloudformation").create_stack(
            StackName="classifier",
            TemplateBody=json.dumps(template),
            Parameters=[{"ParameterKey": "Labels", "ParameterValue": "cat,dog,bird"}],
        )
        stack = find_stack("classifier")
        assert (stack.labels, stack.labels_uri) == (["cat", "dog", "bird"], "s3://models/labels")
        with pytest.raises(CommandError, match="no output FailureQueueUrl"):
            stack.output("FailureQueueUrl")
        with pytest.raises(CommandError, match="there is no stack 'other'"):
            find_stack("other")


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (["--faults", "--image", "a.png"], "--image can only be used with EXECUTION"),
        (["first", "--limit", "2"], "--limit can only be used with --faults"),
    ],
)
def test_options_that_do_not_go_together(arguments: list[str], reason: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["replay", "--stack-name", "x", *arguments]) == 1
    assert reason in capsys.readouterr().err
