"""Send an image, or what ended in a fault, through the workflow again."""

import hashlib
import json
import re
import secrets
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import boto3
import rich
from botocore.exceptions import ClientError
from rich.text import Text

from common.command import printable
from common.errors import CommandError
from common.progress import progress
from common.stack import Stack, find_execution, parse_object, reason
from operations.queue import count, work_off

if TYPE_CHECKING:
    from mypy_boto3_sqs.type_defs import MessageTypeDef
    from mypy_boto3_stepfunctions.type_defs import DescribeExecutionOutputTypeDef

#: Corrected files are kept under this prefix, one folder for each execution that they correct.
CORRECTED = "corrected"
#: The exit code for an image that the model is still not sure of.
UNSURE = 3
POLL_SECONDS = 1.0
#: Of an execution's name that becomes part of its replay's: with what follows, 64 characters, which is also the most
#: that InvokeEndpoint takes as an inference id, so that captured data can be found by the whole name.
_NAME_CHARACTERS = 47
_REPLAY = re.compile(r"-replay-[0-9a-f]{8}$")


def replay(stack: Stack, execution: str, file: Path | None) -> int:
    """Start an execution's input again, wait for its end, and print what became of it.

    Parameters
    ----------
    stack : Stack
        Whose workflow is started.
    execution : str
        ARN, name or inference id of the execution that is repeated.
    file : pathlib.Path or None
        A corrected image, which is uploaded and classified in the place of the original one.

    Returns
    -------
    int
        The exit code: 0 accepted, `UNSURE`, or 1 for a fault.

    Raises
    ------
    CommandError
        There is no such execution, or the file cannot take its image's place.
    """
    described = find_execution(stack, execution)
    text = described["input"]
    if file:
        text = json.dumps({**parse_object(text), **_upload(stack, described["name"], file)})
    started = boto3.client("stepfunctions").start_execution(
        stateMachineArn=stack.output("WorkflowArn"), name=_name(described["name"], secrets.token_hex(4)), input=text
    )
    _say(f"started {started['executionArn']}")
    return _report(_wait(started["executionArn"]))


def replay_faults(stack: Stack, limit: int | None) -> int:
    """Start again what lies in the failure queue, with the same input, and delete each message once that is started.

    The name of an execution follows from the message's own, so that a message that could not be deleted in time
    cannot start a second one.

    Parameters
    ----------
    stack : Stack
        Whose failure queue is read.
    limit : int or None
        The most messages to take, which leaves the rest; None takes all that lie there.

    Returns
    -------
    int
        The exit code: 0, or 1 if messages are left though the limit was not reached: some are none of the workflow's,
        or have failed again, or SQS did not give them.

    Raises
    ------
    CommandError
        It was interrupted; says how many had been started.
    """
    queue, workflow = stack.output("FailureQueueUrl"), stack.output("WorkflowArn")
    ours: set[str] = set()
    strange: set[str] = set()

    def again(message: "MessageTypeDef") -> bool:
        fault = parse_object(message["Body"])
        of = fault.get("execution_id")
        if not isinstance(of, str) or (text := _input(of, fault)) is None:
            why = "its execution is gone" if isinstance(of, str) else "it names no execution"
            print(f"left message {message['MessageId']}: {why}", file=sys.stderr)
            strange.add(message["MessageId"])
            return False
        if of in ours:
            # What has just failed again waits for the next call, else this one would never end.
            return False
        arn, said = _start(workflow, of, text)
        ours.add(arn)
        _say(f"{said} {arn} (had failed: {fault.get('error') or fault.get('status')})")
        return True

    done, ended = work_off(queue, "start again", "executions", "started again", again, limit)
    left = count(queue)
    print(f"{done} started again; the failure queue holds about {left} messages (by SQS's count, which lags a minute)")
    return int(bool(strange) or (left > 0 and ended))


def _input(of: str, fault: dict[str, Any]) -> str | None:
    """Return a failed execution's input; where the execution is gone, what its message has of it."""
    try:
        return boto3.client("stepfunctions").describe_execution(executionArn=of)["input"]
    except ClientError as error:
        if error.response["Error"]["Code"] not in ("ExecutionDoesNotExist", "InvalidArn", "ValidationException"):
            raise
    address = {name: fault[name] for name in ("s3_bucket", "s3_key") if name in fault}
    return json.dumps(address) if len(address) == 2 else None


def _start(workflow: str, of: str, text: str) -> tuple[str, str]:
    """Start the replay of an execution, unless it was started before; return its ARN, and which of both it is."""
    name = _name(of.rsplit(":", 1)[-1], hashlib.sha256(of.encode()).hexdigest()[:8])
    try:
        started = boto3.client("stepfunctions").start_execution(stateMachineArn=workflow, name=name, input=text)
    except ClientError as error:
        if error.response["Error"]["Code"] != "ExecutionAlreadyExists":
            raise
        return f"{workflow.replace(':stateMachine:', ':execution:')}:{name}", "had started"
    return started["executionArn"], "started"


def _name(of: str, mark: str) -> str:
    """Name the replay of an execution, or of a replay of it."""
    return f"{_REPLAY.sub('', of)[:_NAME_CHARACTERS]}-replay-{mark}"


def _upload(stack: Stack, name: str, file: Path) -> dict[str, str]:
    bucket, key = stack.output("ImageBucketName"), f"{CORRECTED}/{name}/{file.name}"
    prefix = stack.parameters["UploadPrefix"]
    if key.startswith(prefix):
        raise CommandError(
            f"s3://{bucket}/{key} would start the workflow by itself, as it is below the stack's UploadPrefix {prefix}"
        )
    if not file.is_file():
        raise CommandError(f"{file} is no file")
    boto3.client("s3").put_object(Bucket=bucket, Key=key, Body=file.read_bytes())
    _say(f"uploaded {file} to s3://{bucket}/{key}")
    return {"s3_bucket": bucket, "s3_key": key}


def _wait(arn: str) -> "DescribeExecutionOutputTypeDef":
    states = boto3.client("stepfunctions")
    with progress("classify", None, "s") as advance:
        while (described := states.describe_execution(executionArn=arn))["status"] in ("RUNNING", "PENDING_REDRIVE"):
            time.sleep(POLL_SECONDS)
            advance(round(POLL_SECONDS))
    return described


def _report(described: "DescribeExecutionOutputTypeDef") -> int:
    if described["status"] == "SUCCEEDED":
        event = parse_object(described.get("output"))
        _say(f"accepted: {event.get('label')}, confidence {event.get('confidence', 0):.3f}")
        return 0
    error = described.get("error") or described["status"]
    _say(f"{error}: {reason(described.get('cause'))}")
    return UNSURE if error == "ThresholdNotMet" else 1


def _say(text: str) -> None:
    """Print a line to stdout: above a bar if there is one, and never broken in two, as ARNs are to be copied."""
    rich.get_console().print(Text(printable(text)), soft_wrap=True)
