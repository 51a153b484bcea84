"""What a deployed stack says of itself, which execution a user means, and how to repeat what they say."""

import json
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import boto3
from botocore.exceptions import ClientError

from common.errors import CommandError
from common.progress import progress

if TYPE_CHECKING:
    from mypy_boto3_stepfunctions.type_defs import DescribeExecutionOutputTypeDef

#: As in classify, which makes the inference id of the execution's name; a name may be longer, up to 80 characters, and
#: those that EventBridge's rules give are.
MAX_INFERENCE_ID = 64


@dataclass(frozen=True)
class Stack:
    """A deployed stack: its outputs and parameters, by name."""

    name: str
    outputs: dict[str, str]
    parameters: dict[str, str]

    def output(self, name: str) -> str:
        """Return an output.

        Raises
        ------
        CommandError
            The stack has none of this name: it is another one, or older than this program.
        """
        try:
            return self.outputs[name]
        except KeyError as error:
            raise CommandError(
                f"stack {self.name} has no output {name}; deploy this version of the application, or name another stack"
            ) from error

    @property
    def labels(self) -> list[str]:
        """The labels in the order of the model's probabilities."""
        return self.parameters["Labels"].split(",")

    @property
    def labels_uri(self) -> str:
        """Where reviewed images lie, beside the captured ones."""
        return f"s3://{self.output('ModelBucketName')}/labels"


def find_stack(name: str) -> Stack:
    """Look a stack up.

    Raises
    ------
    CommandError
        There is none of this name.
    """
    try:
        (stack,) = boto3.client("cloudformation").describe_stacks(StackName=name)["Stacks"]
    except ClientError as error:
        if error.response["Error"]["Code"] == "ValidationError":
            raise CommandError(f"there is no stack {name!r} in this account and region") from error
        raise
    return Stack(
        name,
        {output["OutputKey"]: output["OutputValue"] for output in stack.get("Outputs", [])},
        {slot["ParameterKey"]: slot["ParameterValue"] for slot in stack.get("Parameters", [])},
    )


def find_execution(stack: Stack, execution: str) -> "DescribeExecutionOutputTypeDef":
    """Describe an execution of the stack's workflow by its ARN, its name, or its inference id.

    An inference id, which data capture and the drift report have, may be but the end of a name. Then the newest
    execution whose name ends in it is meant, for which all of them may have to be listed.

    Raises
    ------
    CommandError
        The workflow has no such execution; Step Functions forgets them after 90 days.
    """
    workflow = stack.output("WorkflowArn")
    arn = execution
    if not execution.startswith("arn:"):
        # https://docs.aws.amazon.com/step-functions/latest/dg/concepts-amazon-resource-names.html
        arn = f"{workflow.replace(':stateMachine:', ':execution:')}:{execution}"
    states = boto3.client("stepfunctions")
    try:
        described = states.describe_execution(executionArn=arn)
    except ClientError as error:
        if error.response["Error"]["Code"] not in ("ExecutionDoesNotExist", "InvalidArn", "ValidationException"):
            raise
        found = _find_by_inference_id(workflow, execution) if len(execution) == MAX_INFERENCE_ID else None
        if not found:
            raise CommandError(
                f"the workflow of stack {stack.name} has no execution {execution!r} (give its ARN or its name; "
                "executions are kept for 90 days)"
            ) from error
        described = states.describe_execution(executionArn=found)
    if described["stateMachineArn"] != workflow:
        raise CommandError(f"{execution} is an execution of {described['stateMachineArn']}, not of stack {stack.name}")
    return described


def inference_id(name: str) -> str:
    """Return the id under which data capture records an execution's request, as classify makes it of the name."""
    return re.sub(r"[^!-~]", "_", name)[-MAX_INFERENCE_ID:]


def _find_by_inference_id(workflow: str, wanted: str) -> str | None:
    """Return the ARN of the newest execution that has an inference id."""
    pages = boto3.client("stepfunctions").get_paginator("list_executions")
    with progress("look through the executions", None, "executions") as advance:
        for page in pages.paginate(stateMachineArn=workflow, PaginationConfig={"PageSize": 1000}):
            for execution in page["executions"]:
                if inference_id(execution["name"]) == wanted:
                    return execution["executionArn"]
            advance(len(page["executions"]))
    return None


def parse_object(text: str | None) -> dict[str, Any]:
    """Parse a JSON object; an empty one stands for everything else."""
    try:
        parsed = json.loads(text or "")
    except ValueError:
        return {}
    return parsed if isinstance(parsed, dict) else {}


def reason(cause: str | None) -> str:
    """Return what a failed execution's cause says: the message inside a function's JSON, else the text itself."""
    return str(parse_object(cause).get("errorMessage") or cause or "")


def explain(error: ClientError) -> str:
    """Return what S3 said of an object that could not be read, and what a denial may mean."""
    # HEAD has no body: its code is the status.
    if error.response["Error"]["Code"] not in ("AccessDenied", "403"):
        return str(error)
    return (
        f"{error}; you may lack s3:GetObject, or s3:ListBucket, without which S3 denies an object that is gone as well"
    )


def printable(text: str) -> str:
    """Return a text that a terminal shows as it is: keys, logs and causes hold what an uploader chose.

    White space becomes spaces; U+FFFD takes the place of anything else that is not printed, such as the escapes that
    command a terminal, or marks that reverse a line.
    """
    return "".join(c if c.isprintable() else " " if c.isspace() else "\ufffd" for c in text)
