"""What a deployed stack says of itself, and which execution a user means."""

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import boto3
from botocore.exceptions import ClientError

from training.errors import CommandError

if TYPE_CHECKING:
    from mypy_boto3_stepfunctions.type_defs import DescribeExecutionOutputTypeDef


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
    """Describe an execution of the stack's workflow by its ARN or its name.

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
    try:
        described = boto3.client("stepfunctions").describe_execution(executionArn=arn)
    except ClientError as error:
        if error.response["Error"]["Code"] in ("ExecutionDoesNotExist", "InvalidArn", "ValidationException"):
            raise CommandError(
                f"the workflow of stack {stack.name} has no execution {execution!r} (give its ARN or its name; "
                "executions are kept for 90 days)"
            ) from error
        raise
    if described["stateMachineArn"] != workflow:
        raise CommandError(f"{execution} is an execution of {described['stateMachineArn']}, not of stack {stack.name}")
    return described


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
