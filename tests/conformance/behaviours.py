"""Behaviours of AWS that this system leans on: what AWS was recorded or documented to do, and how to see it here.

Each is one entry. The test of an entry fails when the rehearsal stops doing what AWS does, and also when an entry that
says how the rehearsal differs is no longer true. ``python -m tests.conformance.table`` writes the entries to
docs/conformance.md.

Sources without an address are files of recorded answers of AWS, made by the LocalStack contributors for their own tests
(https://github.com/localstack/localstack, tests/aws/services, Apache-2.0); the values here are facts taken from them.
"""

import json
import uuid
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from botocore.exceptions import ClientError

from tests.support.stack import ROLE, Rehearsal, create_function, wait_for

Json = dict[str, Any]
NOT_REHEARSED = "refused in one sentence that begins with: The rehearsal"
DOCS = "https://docs.aws.amazon.com/"
STATES_DOCS = f"{DOCS}step-functions/latest/dg/"


@dataclass
class Execution:
    """How an execution ended, and its history."""

    described: Json
    events: list[Json]

    @property
    def status(self) -> str:
        return str(self.described["status"])

    @property
    def output(self) -> Any:
        return json.loads(self.described["output"])

    @property
    def failure(self) -> tuple[Any, Any]:
        """The error and the cause with which it failed; None where there is none."""
        return self.described.get("error"), self.described.get("cause")

    @property
    def types(self) -> list[str]:
        return [event["type"] for event in self.events]

    def details(self, kind: str) -> Json:
        """Return the details of the last event of a type."""
        (found,) = [event for event in self.events if event["type"] == kind][-1:]
        return next((value for name, value in found.items() if name.endswith("Details")), {})


@dataclass
class World:
    """A rehearsal, with what the entries need of it, made once."""

    rehearsal: Rehearsal
    _made: dict[str, Any] = field(default_factory=dict)

    def client(self, service: str) -> Any:
        return self.once(f"client {service}", lambda: self.rehearsal.client(service))

    def once(self, name: str, make: Callable[[], Any]) -> Any:
        if name not in self._made:
            self._made[name] = make()
        return self._made[name]

    def function(self, name: str, body: str, **settings: Any) -> str:
        source = f"import os, sys, time\n\ndef lambda_handler(event, context):\n    {body}\n"
        return str(self.once(f"function {name}", lambda: create_function(self.rehearsal, name, source, **settings)))

    def queue(self, name: str, **attributes: str) -> str:
        """Return the address of a queue."""
        make = self.client("sqs").create_queue
        return str(self.once(f"queue {name}", lambda: make(QueueName=name, Attributes=attributes)["QueueUrl"]))

    def queue_arn(self, name: str) -> str:
        return f"arn:aws:sqs:us-east-1:123456789012:{name}"

    def messages(self, name: str, count: int = 1) -> list[str]:
        """Return the bodies of as many messages of a queue, and delete them."""
        sqs, address = self.client("sqs"), self.queue(name)
        bodies: list[str] = []

        def receive() -> bool:
            for message in sqs.receive_message(QueueUrl=address, MaxNumberOfMessages=10).get("Messages", []):
                sqs.delete_message(QueueUrl=address, ReceiptHandle=message["ReceiptHandle"])
                bodies.append(message["Body"])
            return len(bodies) >= count

        wait_for(receive)
        return bodies

    def bucket(self) -> str:
        """Return the name of a new bucket that sends its events to EventBridge."""
        name, s3 = f"conformance-{uuid.uuid4().hex[:8]}", self.client("s3")
        s3.create_bucket(Bucket=name)
        s3.put_bucket_notification_configuration(
            Bucket=name, NotificationConfiguration={"EventBridgeConfiguration": {}}
        )
        return name

    def machine(self, definition: Json, name: str = "") -> str:
        """Return the ARN of a new state machine."""
        name = name or f"conformance-{uuid.uuid4().hex[:8]}"
        made = self.client("stepfunctions").create_state_machine(
            name=name, definition=json.dumps(definition), roleArn=ROLE
        )
        return str(made["stateMachineArn"])

    def start(self, definition: Json, event: Any = None) -> str:
        """Start an execution of a new state machine; return its ARN."""
        return self.rehearsal.execute(self.machine(definition), {} if event is None else event)

    def ended(self, execution: str) -> Execution:
        """Wait for the end of an execution."""
        described = self.rehearsal.outcome(execution)
        history = self.client("stepfunctions").get_execution_history(executionArn=execution)
        return Execution(described, history["events"])

    def run(self, definition: Json, event: Any = None) -> Execution:
        return self.ended(self.start(definition, event))

    def invoke(self, body: str, name: str, **state: Any) -> Execution:
        """Run a workflow of one task, which invokes a function."""
        return self.run(task("lambda:invoke", {"FunctionName": self.function(name, body), "Payload.$": "$"}, **state))


def task(resource: str, parameters: Json, **state: Any) -> Json:
    """Return a definition of one task; a state that catches may name ``Caught`` as the next."""
    first = {"Type": "Task", "Resource": f"arn:aws:states:::{resource}", "Parameters": parameters, "End": True}
    return {"StartAt": "Work", "States": {"Work": {**first, **state}, "Caught": {"Type": "Pass", "End": True}}}


def error_of(call: Callable[[], Any]) -> tuple[str, str]:
    """Return the code and the message of the error with which a call is refused; the answer if it is not."""
    try:
        return "no error", str(call())
    except ClientError as refused:
        error = refused.response["Error"]
        return error["Code"], error["Message"]


@dataclass(frozen=True)
class Behaviour:
    """One thing that AWS does."""

    area: str
    name: str
    source: str
    expected: Any
    observe: Callable[[World], Any]
    #: How the rehearsal differs; empty where it does as AWS.
    differs: str = ""

    @property
    def rehearsed(self) -> bool:
        return self.expected != NOT_REHEARSED

    @property
    def state(self) -> str:
        """What the table says of it."""
        if not self.rehearsed:
            return "not rehearsed"
        return f"differs: {self.differs}" if self.differs else "as AWS"


BEHAVIOURS: list[Behaviour] = []
Observe = Callable[[World], Any]


def behaviour(area: str, name: str, source: str, expected: Any, differs: str = "") -> Callable[[Observe], Observe]:
    """Enter a way to see a behaviour, with what AWS answered."""

    def enter(observe: Observe) -> Observe:
        BEHAVIOURS.append(Behaviour(area, name, source, expected, observe, differs))
        return observe

    return enter


def not_rehearsed(area: str, name: str, source: str, call: Callable[[World], Any]) -> None:
    """Enter something of AWS that the rehearsal refuses in one sentence."""

    def observe(world: World) -> str:
        message = error_of(lambda: call(world))[1]
        return NOT_REHEARSED if "The rehearsal" in message else message

    BEHAVIOURS.append(Behaviour(area, name, source, NOT_REHEARSED, observe))
