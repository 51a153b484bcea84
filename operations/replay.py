"""Send an image, or the inputs of failed executions, through the workflow again."""

import hashlib
import json
import re
import secrets
import sys
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import boto3
import rich
from botocore.exceptions import ClientError
from rich.text import Text

from common.command import printable
from common.errors import CommandError
from common.progress import progress
from common.stack import Stack, execution_arn, find_execution, parse_object, reason
from common.storage import naming
from operations.queue import count, work_off

if TYPE_CHECKING:
    from mypy_boto3_sqs.type_defs import MessageTypeDef
    from mypy_boto3_stepfunctions.type_defs import DescribeExecutionOutputTypeDef

#: Prefix of corrected files, with one folder for each corrected execution. UploadPrefix cannot be above or below it.
CORRECTED = "corrected"
#: Exit code for an image whose confidence is still below the threshold.
UNSURE = 3
POLL_SECONDS = 1.0
#: How much of an execution's name goes into its replay's name. With the suffix that is 64 characters, the most that
#: InvokeEndpoint accepts as an inference id: captured data can be found by the whole name.
_NAME_CHARACTERS = 47
_REPLAY = re.compile(r"-replay-[0-9a-f]{8}$")


def replay(stack: Stack, execution: str, file: Path | None) -> int:
    """Start an execution with the input of another one, wait for its end, and print its outcome.

    Parameters
    ----------
    stack : Stack
        The stack of the workflow.
    execution : str
        ARN, name or inference id of the execution to repeat.
    file : pathlib.Path or None
        A corrected image, to be uploaded and classified instead of the original.

    Returns
    -------
    int
        The exit code: 0 accepted, `UNSURE`, or 1 for a failure.

    Raises
    ------
    CommandError
        There is no such execution, or the file cannot replace its image.
    """
    described = find_execution(stack, execution)
    text = described["input"]
    if file:
        text = json.dumps({**parse_object(text), **_upload(stack, described["name"], file)})
    started = boto3.client("stepfunctions").start_execution(
        stateMachineArn=stack.output("WorkflowArn"), name=_name(described["name"], secrets.token_hex(4)), input=text
    )
    print_line(f"started {started['executionArn']}")
    return print_outcome(wait_for_end(started["executionArn"]))


def replay_faults(stack: Stack, limit: int | None) -> int:
    """Start the executions in the failure queue again, with the same input, and delete each message afterwards.

    Then wait for all of them, and print how each one ended.

    The name of a replay is derived from the failed execution's name: if its message could not be deleted in time, it
    does not start a second replay.

    Parameters
    ----------
    stack : Stack
        The stack of the failure queue.
    limit : int or None
        The most messages to take; None takes all.

    Returns
    -------
    int
        The exit code: 0, or 1 if one has failed again, or messages are left although the limit was not reached: they
        are not the workflow's, or SQS did not return them.

    Raises
    ------
    CommandError
        It was interrupted; the message has the number of started executions.
    """
    queue, workflow = stack.output("FailureQueueUrl"), stack.output("WorkflowArn")
    replays: dict[str, str] = {}
    unknown: set[str] = set()

    def again(message: "MessageTypeDef") -> bool:
        fault = parse_object(message["Body"])
        # An image of a batch whose execution did not start has an address only.
        failed = str(fault.get("execution_id") or message["MessageId"])
        if (text := _input(failed, fault)) is None:
            why = "its execution does not exist any more" if "execution_id" in fault else "it has no execution_id"
            print(f"kept message {message['MessageId']}: {why}", file=sys.stderr)
            unknown.add(message["MessageId"])
            return False
        if failed in replays:
            # A replay that failed again waits for the next call; otherwise this one might never end.
            return False
        arn, verb = _start(workflow, failed, text)
        if arn in replays:
            verb = "had started"  # a second message of the same execution
        replays[arn] = str(fault.get("s3_key") or arn.rpartition(":")[2])
        print_line(f"{verb} {arn} (had failed: {fault.get('error') or fault.get('status')})")
        return True

    _, ended = work_off(queue, "start again", "executions", "started again", again, limit)
    done, left = len(replays), count(queue)
    print(f"{done} started again; the failure queue holds about {left} messages (by SQS's count, which lags a minute)")
    failed_again = _print_outcomes(replays)
    return int(failed_again or bool(unknown) or (left > 0 and ended))


def _print_outcomes(replays: dict[str, str]) -> bool:
    """Wait for executions, print how each ended and how often what happened; return whether any failed."""
    ends: Counter[str] = Counter()
    try:
        with progress("wait for outcomes", len(replays), "executions") as advance:
            for arn, subject in replays.items():
                described = _wait(arn)
                print_outcome(described, f"{subject}: ")
                ends[outcome(described)] += 1
                advance(1)
    except KeyboardInterrupt:
        raise CommandError(
            f"interrupted; {len(replays)} started again, {ends.total()} of them have ended; the others go on"
        ) from None
    if ends:
        print(", ".join(f"{count} {name}" for name, count in ends.most_common()))
    return bool(ends.keys() - {"accepted", "ThresholdNotMet"})


def _input(failed: str, fault: dict[str, Any]) -> str | None:
    """Return a failed execution's input; if it does not exist any more, the image's address in its message."""
    try:
        return boto3.client("stepfunctions").describe_execution(executionArn=failed)["input"]
    except ClientError as error:
        if error.response["Error"]["Code"] not in ("ExecutionDoesNotExist", "InvalidArn", "ValidationException"):
            raise
    address = {name: fault[name] for name in ("s3_bucket", "s3_key") if name in fault}
    return json.dumps(address) if len(address) == 2 else None


def _start(workflow: str, failed: str, text: str) -> tuple[str, str]:
    """Start the replay of an execution, unless it was started before; return its ARN, and which of the two."""
    name = _name(failed.rsplit(":", 1)[-1], hashlib.sha256(failed.encode()).hexdigest()[:8])
    try:
        started = boto3.client("stepfunctions").start_execution(stateMachineArn=workflow, name=name, input=text)
    except ClientError as error:
        if error.response["Error"]["Code"] != "ExecutionAlreadyExists":
            raise
        return execution_arn(workflow, name), "had started"
    return started["executionArn"], "started"


def _name(original: str, mark: str) -> str:
    """Return the name of an execution's replay, or of a replay's."""
    return f"{_REPLAY.sub('', original)[:_NAME_CHARACTERS]}-replay-{mark}"


def _upload(stack: Stack, name: str, file: Path) -> dict[str, str]:
    bucket, key = stack.output("ImageBucketName"), f"{CORRECTED}/{name}/{file.name}"
    if not file.is_file():
        raise CommandError(f"file not found: {file}")
    with naming(f"s3://{bucket}/{key}"):
        boto3.client("s3").put_object(Bucket=bucket, Key=key, Body=file.read_bytes())
    print_line(f"uploaded {file} to s3://{bucket}/{key}")
    return {"s3_bucket": bucket, "s3_key": key}


def wait_for_end(arn: str) -> "DescribeExecutionOutputTypeDef":
    """Wait for the end of an execution; return its description."""
    with progress("classify", None, "s") as advance:
        return _wait(arn, advance)


def _wait(arn: str, advance: Callable[[int], None] = lambda seconds: None) -> "DescribeExecutionOutputTypeDef":
    states = boto3.client("stepfunctions")
    while (described := states.describe_execution(executionArn=arn))["status"] in ("RUNNING", "PENDING_REDRIVE"):
        time.sleep(POLL_SECONDS)
        advance(round(POLL_SECONDS))
    return described


def print_outcome(described: "DescribeExecutionOutputTypeDef", subject: str = "") -> int:
    """Print how an execution ended, after a text that names its subject; return its exit code, as of `replay`."""
    if described["status"] == "SUCCEEDED":
        event = parse_object(described.get("output"))
        print_line(f"{subject}accepted: {event.get('label')}, confidence {event.get('confidence', 0):.3f}")
        return 0
    error = outcome(described)
    print_line(f"{subject}{error}: {reason(described.get('cause'))}")
    return UNSURE if error == "ThresholdNotMet" else 1


def outcome(described: "DescribeExecutionOutputTypeDef") -> str:
    """Return ``accepted``, or the name of the error with which an execution ended, or else its status."""
    return "accepted" if described["status"] == "SUCCEEDED" else described.get("error") or described["status"]


def print_line(text: str) -> None:
    """Print one line to stdout, above a progress bar if there is one, and unbroken: ARNs are copied from it."""
    if sys.stdout.isatty():
        rich.get_console().print(Text(printable(text)), soft_wrap=True)
    else:
        print(printable(text))
