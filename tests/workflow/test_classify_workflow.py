"""The workflow's definition in the real interpreter, around functions that fail as a script says."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.support.stack import REPOSITORY, ROLE, Rehearsal, create_function, wait_for

FUNCTIONS = ("serialize", "classify", "filter")
EVENT = {
    "s3_bucket": "images",
    "s3_key": "incoming/a.png",
    "image_id": "0123456789abcdef0123456789abcdef",
    "label": "bicycle",
    "confidence": 0.41,
    "neither": 0.47,
    "inferences": [0.41, 0.12],
    "endpoint": "image-classifier",
    "variant": "AllTraffic",
    "model": "0123456789ab",
    "source": {"etag": "0"},
    "statistics": {"brightness": 0.5},
}
RETRIED = [
    ("serialize", "StorageUnavailable"),
    ("serialize", "Sandbox.Timedout"),
    ("serialize", "Lambda.TooManyRequestsException"),
    ("filter", "Sandbox.Timedout"),
    ("classify", "EndpointThrottled"),
    ("classify", "EndpointUnavailable"),
    ("classify", "Sandbox.Timedout"),
    ("classify", "Lambda.Unknown"),
]
FATAL = [
    *[("serialize", name) for name in ("InvalidEvent", "ObjectNotFound", "ObjectNotReadable")],
    *[("serialize", name) for name in ("ImageTooLarge", "UnsupportedImage", "KeyError")],
    *[("classify", name) for name in ("InvalidEvent", "InvalidInference", "EndpointNotFound", "EndpointRefused")],
    *[("filter", name) for name in ("InvalidEvent", "InvalidInference", "InvalidThreshold", "ZeroDivisionError")],
]


@dataclass
class Stage:
    """The workflow with scripted functions, a result bus with a listener, a review and a failure queue."""

    rehearsal: Rehearsal
    workflow: str
    results: str
    reviews: str
    faults: str
    attempts: Path
    functions: dict[str, str]
    definition: str

    def start(self, script: dict[str, Any], **changes: Any) -> str:
        return self.rehearsal.execute(self.workflow, {**EVENT, "script": script, **changes})

    def attempts_of(self, execution: str) -> dict[str, int]:
        name = execution.rsplit(":", 1)[-1]
        files = {function: self.attempts / f"{name}-{function}" for function in FUNCTIONS}
        return {function: len(file.read_bytes()) for function, file in files.items() if file.exists()}

    def messages(self, queue: str, execution: str) -> list[dict[str, Any]]:
        """Return the messages about an execution; the others stay visible."""
        # moto hands out the same first ten again and again, so those of others are put aside until all were seen.
        sqs = self.rehearsal.client("sqs")
        received: list[dict[str, Any]] = []
        asked = {"QueueUrl": queue, "MaxNumberOfMessages": 10, "VisibilityTimeout": 3600}
        while some := sqs.receive_message(**asked).get("Messages"):
            received += some
        for message in received:
            sqs.change_message_visibility(QueueUrl=queue, ReceiptHandle=message["ReceiptHandle"], VisibilityTimeout=0)
        bodies = [json.loads(message["Body"]) for message in received]
        return [body for body in bodies if execution in json.dumps(body)]

    def variant(self, name: str, text: str) -> str:
        """Create another state machine from a changed definition; return its ARN."""
        states = self.rehearsal.client("stepfunctions")
        return str(states.create_state_machine(name=name, definition=text, roleArn=ROLE)["stateMachineArn"])


@pytest.fixture(scope="module")
def stage(rehearsal: Rehearsal, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    attempts = tmp_path_factory.mktemp("attempts")
    source = (Path(__file__).parent / "scripted" / "app.py").read_text()
    functions = {}
    for role in FUNCTIONS:
        environment = {"Variables": {"ROLE": role, "ATTEMPTS": str(attempts)}}
        settings = {"MemorySize": 256, "Environment": environment}
        functions[role] = create_function(rehearsal, f"scripted-{role}", source, **settings)
    sqs, events = rehearsal.client("sqs"), rehearsal.client("events")
    names = ("results", "reviews", "faults")
    results, reviews, faults = (sqs.create_queue(QueueName=f"scripted-{name}")["QueueUrl"] for name in names)
    arn = sqs.get_queue_attributes(QueueUrl=results, AttributeNames=["QueueArn"])["Attributes"]["QueueArn"]
    events.create_event_bus(Name="scripted")
    events.put_rule(
        Name="all", EventBusName="scripted", EventPattern=json.dumps({"source": ["image-classifier"]}), State="ENABLED"
    )
    events.put_targets(Rule="all", EventBusName="scripted", Targets=[{"Id": "queue", "Arn": arn}])
    text = (REPOSITORY / "statemachine" / "classify.asl.json").read_text()
    values = {f"{role.title()}FunctionArn": arn for role, arn in functions.items()}
    for name, value in {
        **values,
        "Partition": "aws",
        "ResultBusName": "scripted",
        "ReviewQueueUrl": reviews,
        "FailureQueueUrl": faults,
    }.items():
        text = text.replace(f"${{{name}}}", value)
    assert "${" not in text
    stage = Stage(rehearsal, "", results, reviews, faults, attempts, functions, text)
    stage.workflow = stage.variant("scripted", text)
    yield stage


def test_an_accepted_answer_is_published_and_returned(stage: Stage) -> None:
    execution = stage.start({})
    outcome = stage.rehearsal.outcome(execution)
    assert outcome["status"] == "SUCCEEDED"
    output = json.loads(outcome["output"])
    assert output == {**EVENT, "script": {}, "execution_id": execution}
    (published,) = wait_for(lambda: stage.messages(stage.results, execution))
    assert (published["source"], published["detail-type"]) == ("image-classifier", "ImageClassified")
    assert published["detail"] == output
    assert not stage.messages(stage.reviews, execution)
    assert stage.attempts_of(execution) == {"serialize": 1, "classify": 1, "filter": 1}


def test_an_unsure_answer_waits_for_review_and_fails_by_name(stage: Stage) -> None:
    execution = stage.start({"filter": ["ThresholdNotMet"]})
    outcome = stage.rehearsal.outcome(execution)
    assert (outcome["status"], outcome["error"]) == ("FAILED", "ThresholdNotMet")
    assert json.loads(outcome["cause"])["errorMessage"] == "attempt 0"
    (message,) = wait_for(lambda: stage.messages(stage.reviews, execution))
    assert message == {**EVENT, "execution_id": execution}
    assert not stage.messages(stage.results, execution)
    assert not stage.messages(stage.faults, execution), "a result is no fault"
    assert stage.attempts_of(execution)["filter"] == 1, "a result is not retried"


@pytest.mark.parametrize(
    ("message", "reviewed"),
    [
        ("neither: bicycle has probability 0.01: s3://images/a.png needs no review", False),
        ("neither: bicycle has probability 0.01: s3://images/a.png needs a review", True),
        # A key cannot prevent the review.
        ('unsure: bicycle has probability 0.41: s3://images/a needs no review" .png needs a review', True),
    ],
)
def test_only_the_end_of_the_filters_message_decides_about_a_review(stage: Stage, message: str, reviewed: bool) -> None:
    execution = stage.start({"filter": ["ThresholdNotMet"], "message": message})
    outcome = stage.rehearsal.outcome(execution)
    assert (outcome["status"], outcome["error"]) == ("FAILED", "ThresholdNotMet")
    assert json.loads(outcome["cause"])["errorMessage"] == message
    # The message is sent before the execution ends.
    assert len(stage.messages(stage.reviews, execution)) == reviewed
    assert not stage.messages(stage.faults, execution)


def test_what_can_succeed_later_is_tried_again(stage: Stage) -> None:
    started = {(function, name): stage.start({function: [name]}) for function, name in RETRIED}
    for (function, name), execution in started.items():
        outcome = stage.rehearsal.outcome(execution)
        assert outcome["status"] == "SUCCEEDED", (name, outcome.get("cause"))
        assert stage.attempts_of(execution)[function] == 2, name


def test_what_cannot_succeed_fails_at_once_under_its_own_name(stage: Stage) -> None:
    started = {(function, name): stage.start({function: [name]}) for function, name in FATAL}
    for (function, name), execution in started.items():
        outcome = stage.rehearsal.outcome(execution)
        assert (outcome["status"], outcome["error"]) == ("FAILED", name), outcome
        assert json.loads(outcome["cause"])["errorType"] == name
        assert stage.attempts_of(execution)[function] == 1, name
        later = FUNCTIONS[FUNCTIONS.index(function) + 1 :]
        assert not set(later) & set(stage.attempts_of(execution)), "nothing runs after a failure"
        assert not stage.messages(stage.results, execution) and not stage.messages(stage.reviews, execution)
        (kept,) = stage.messages(stage.faults, execution)
        assert kept == {
            "execution_id": execution,
            "s3_bucket": EVENT["s3_bucket"],
            "s3_key": EVENT["s3_key"],
            "error": name,
            "cause": outcome["cause"],
        }


def test_a_throttled_function_is_tried_again(stage: Stage) -> None:
    client = stage.rehearsal.client("lambda")
    client.put_function_concurrency(FunctionName="scripted-classify", ReservedConcurrentExecutions=0)
    execution = stage.start({})
    states = stage.rehearsal.client("stepfunctions")

    def throttled() -> bool:
        history = states.get_execution_history(executionArn=execution)["events"]
        return any(
            event.get("taskFailedEventDetails", {}).get("error", "").startswith("Lambda.TooMany") for event in history
        )

    try:
        wait_for(throttled)
    finally:
        client.delete_function_concurrency(FunctionName="scripted-classify")
    assert stage.rehearsal.outcome(execution)["status"] == "SUCCEEDED"


def test_when_every_attempt_fails_the_execution_fails_by_that_name(stage: Stage) -> None:
    definition = json.loads(stage.definition)
    throttled = definition["States"]["Classify"]["Retry"][0]
    throttled |= {"MaxAttempts": 1, "IntervalSeconds": 1}
    workflow = stage.variant("impatient", json.dumps(definition))
    script = {"classify": ["EndpointThrottled", "EndpointThrottled"]}
    execution = stage.rehearsal.execute(workflow, {**EVENT, "script": script})
    outcome = stage.rehearsal.outcome(execution)
    assert (outcome["status"], outcome["error"]) == ("FAILED", "EndpointThrottled")
    (kept,) = stage.messages(stage.faults, execution)
    assert kept["error"] == "EndpointThrottled"


def test_a_step_that_takes_too_long_is_kept_without_a_cause(stage: Stage) -> None:
    definition = json.loads(stage.definition)
    definition["States"]["Filter"]["TimeoutSeconds"] = 1
    definition["States"]["Filter"]["Retry"] = []
    execution = stage.rehearsal.execute(
        stage.variant("hasty", json.dumps(definition)), {**EVENT, "script": {"filter": ["sleep"]}}
    )
    # The interpreter's Fail state refuses names that begin with States.: the error of the execution says nothing here.
    assert stage.rehearsal.outcome(execution)["status"] == "FAILED"
    (kept,) = stage.messages(stage.faults, execution)
    assert (kept["error"], kept["cause"]) == ("States.Timeout", "")


def test_a_step_that_takes_too_long_is_tried_again(stage: Stage) -> None:
    definition = json.loads(stage.definition)
    definition["States"]["Filter"]["TimeoutSeconds"] = 1
    workflow = stage.variant("patient", json.dumps(definition))
    execution = stage.rehearsal.execute(workflow, {**EVENT, "script": {"filter": ["sleep"]}})
    assert stage.rehearsal.outcome(execution)["status"] == "SUCCEEDED"


UPLOAD = {"version": "0", "bucket": {"name": "images"}, "object": {"key": 'incoming/"a".png', "size": 1, "etag": "0"}}


@pytest.mark.parametrize(
    ("event", "address"),
    [
        (UPLOAD, {"s3_bucket": "images", "s3_key": 'incoming/"a".png'}),
        ({"s3_bucket": "images", "s3_key": "k", "image_data": "x" * 200_000}, {"s3_bucket": "images", "s3_key": "k"}),
        ({}, {}),
        ({"s3_bucket": "images"}, {}),
        ({"s3_bucket": 7, "s3_key": None}, {}),
        ({"s3_bucket": ["images"], "s3_key": {"s3_key": "k"}}, {}),
        ({"bucket": "images", "object": "k"}, {}),
        ({"bucket": {}, "object": None}, {}),
        ({"bucket": {"name": "images"}, "object": {"key": 1}}, {}),
        ({"bucket": [{"name": "images"}], "object": [{"key": "k"}]}, {}),
    ],
)
def test_a_fault_is_kept_whatever_the_input(stage: Stage, event: dict[str, Any], address: dict[str, str]) -> None:
    execution = stage.rehearsal.execute(stage.workflow, {**event, "script": {"serialize": ["InvalidEvent"]}})
    outcome = stage.rehearsal.outcome(execution)
    assert (outcome["status"], outcome["error"]) == ("FAILED", "InvalidEvent")
    (kept,) = stage.messages(stage.faults, execution)
    assert kept == {"execution_id": execution, **address, "error": "InvalidEvent", "cause": outcome["cause"]}


def test_the_longest_cause_is_kept(stage: Stage) -> None:
    # As long as Step Functions takes, of characters that JSON writes with a backslash.
    definition = json.loads(stage.definition)
    cause = '"' * 32_768
    definition["States"]["Serialize"] = {
        "Type": "Pass",
        "Result": {"Error": "X" * 256, "Cause": cause},
        "Next": "Check input type",
    }
    workflow = stage.variant("talkative", json.dumps(definition))
    execution = stage.rehearsal.execute(workflow, {**EVENT, "s3_key": "k" * 1024})
    assert stage.rehearsal.outcome(execution)["cause"] == cause
    (kept,) = stage.messages(stage.faults, execution)
    assert (len(kept["error"]), kept["cause"], kept["s3_key"]) == (256, cause, "k" * 1024)


def test_a_fault_that_cannot_be_kept_fails_under_the_name_that_the_rule_waits_for(stage: Stage) -> None:
    definition = json.loads(stage.definition)
    keep = definition["States"]["Record failure"]
    keep["Parameters"]["QueueUrl"] = "http://localhost/123456789012/no-such-queue"
    keep["Retry"][0]["MaxAttempts"] = 0
    workflow = stage.variant("forgetful", json.dumps(definition))
    outcome = stage.rehearsal.outcome(
        stage.rehearsal.execute(workflow, {**EVENT, "script": {"serialize": ["ImageTooLarge"]}})
    )
    assert (outcome["status"], outcome["error"]) == ("FAILED", "FailureNotRecorded")
    error, cause = outcome["cause"].split(": ", 1)
    assert error == "ImageTooLarge" and json.loads(cause)["errorMessage"] == "attempt 0"


@pytest.mark.parametrize(
    ("state", "script", "broken", "cause"),
    [
        ("Publish result", {}, {"EventBusName": "no-such-bus"}, "Event bus no-such-bus does not exist"),
        (
            "Queue for review",
            {"filter": ["ThresholdNotMet"]},
            {"QueueUrl": "http://localhost/123456789012/no-such-queue"},
            "The specified queue does not exist",
        ),
    ],
)
def test_a_result_that_cannot_be_handed_on_is_no_success(
    stage: Stage, state: str, script: dict[str, list[str]], broken: dict[str, str], cause: str
) -> None:
    definition = json.loads(stage.definition)
    parameters = definition["States"][state]["Parameters"]
    (parameters["Entries"][0] if "Entries" in parameters else parameters).update(broken)
    definition["States"][state]["Retry"][0]["MaxAttempts"] = 0
    workflow = stage.variant(f"broken-{state.split()[0]}", json.dumps(definition))
    execution = stage.rehearsal.execute(workflow, {**EVENT, "script": script})
    outcome = stage.rehearsal.outcome(execution)
    assert outcome["status"] == "FAILED" and outcome["error"] != "ThresholdNotMet"
    (kept,) = stage.messages(stage.faults, execution)
    assert kept["error"] != "ThresholdNotMet" and cause in kept["cause"]


def test_extra_keys_of_the_original_design_are_accepted(stage: Stage) -> None:
    outcome = stage.rehearsal.outcome(stage.start({}, image_data="", inferences=[]))
    assert outcome["status"] == "SUCCEEDED"
