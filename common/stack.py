"""A deployed stack and its executions: outputs, parameters, and places that follow from them."""

import json
import re
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import boto3
from botocore.exceptions import ClientError

from common.errors import CommandError
from common.labels import NEITHER
from common.progress import progress

if TYPE_CHECKING:
    from mypy_boto3_stepfunctions.type_defs import DescribeExecutionOutputTypeDef

#: As in classify, which derives the inference id from the execution's name. A name may be longer, up to 80 characters;
#: the names that EventBridge gives are.
MAX_INFERENCE_ID = 64
#: Inference id of the requests with which a deployment tries a new fleet; the drift check leaves them out.
TEST_REQUEST = "deployment-test"


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
            The stack has no output of this name: it is another stack, or older than this program.
        """
        return self._get(self.outputs, "output", name)

    def parameter(self, name: str) -> str:
        """Return a parameter's value.

        Raises
        ------
        CommandError
            As `output`.
        """
        return self._get(self.parameters, "parameter", name)

    def _get(self, values: dict[str, str], kind: str, name: str) -> str:
        try:
            return values[name]
        except KeyError as error:
            raise CommandError(
                f"stack {self.name} has no {kind} {name}; deploy this version of the application, or name another stack"
            ) from error

    @property
    def labels(self) -> list[str]:
        """The labels in the order of the model's probabilities; "neither", which may follow them, is not one."""
        return self.parameter("Labels").removesuffix(f",{NEITHER}").split(",")

    @property
    def labels_uri(self) -> str:
        """Folder of the reviewed images, beside the captured ones."""
        return f"s3://{self.output('ModelBucketName')}/labels"

    def baseline_uri(self, endpoint: str) -> str:
        """Return the folder in which the scheduled drift check looks for an endpoint's baseline."""
        return f"s3://{self.output('ModelBucketName')}/monitoring/baseline/{endpoint}"


def state_machine(arn: str) -> str:
    """Return the ARN of a state machine, without the name of an alias at its end."""
    return ":".join(arn.split(":")[:7])


def execution_arn(workflow: str, name: str) -> str:
    """Return the ARN of an execution of a state machine, by whichever alias it was started."""
    # https://docs.aws.amazon.com/step-functions/latest/dg/execution-alias-version-associate.html
    return f"{state_machine(workflow).replace(':stateMachine:', ':execution:')}:{name}"


def find_stack(name: str) -> Stack:
    """Describe a stack.

    Raises
    ------
    CommandError
        There is no stack of this name.
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


def data_capture(endpoint: str) -> dict[str, Any]:
    """Describe an endpoint's data capture.

    Raises
    ------
    CommandError
        There is no such endpoint, or it captures no data.
    """
    try:
        config = boto3.client("sagemaker").describe_endpoint(EndpointName=endpoint).get("DataCaptureConfig")
    except ClientError as error:
        if error.response["Error"]["Code"] != "ValidationException":
            raise
        raise CommandError(
            f"endpoint {endpoint} does not exist; create it with: python -m training deploy --endpoint-name {endpoint}"
        ) from error
    if not config or not config["EnableCapture"]:
        raise CommandError(f"endpoint {endpoint} captures no data; deploy it with a --capture-percentage above 0")
    return dict(config)


def find_execution(stack: Stack, execution: str) -> "DescribeExecutionOutputTypeDef":
    """Describe an execution of the stack's workflow by its ARN, its name, its inference id, or its image's S3 key.

    Of several executions of one key, the newest one is found, by the log of serialize. An inference id, as data capture
    and the drift report contain it, may be only the end of a name. It stands for the newest execution whose name ends
    in it; finding that one may take a listing of all executions.

    Raises
    ------
    CommandError
        The workflow has no such execution; Step Functions deletes them after 90 days.
    """
    workflow = state_machine(stack.output("WorkflowArn"))
    if ":express:" in execution:
        raise CommandError(f"{execution} is an Express execution, which has no history; search the logs for it")
    arn = execution if execution.startswith("arn:") else execution_arn(workflow, execution)
    states = boto3.client("stepfunctions")
    try:
        described = states.describe_execution(executionArn=arn)
    except ClientError as error:
        if error.response["Error"]["Code"] not in ("ExecutionDoesNotExist", "InvalidArn", "ValidationException"):
            raise
        found = _find_by_inference_id(workflow, execution) if len(execution) == MAX_INFERENCE_ID else None
        if not (found := found or _find_by_key(stack, execution)):
            raise CommandError(
                f"the workflow of stack {stack.name} has no execution {execution!r} (give its ARN, its name, or the "
                "image's S3 key; executions are kept for 90 days, keys as long as the logs)"
            ) from error
        described = states.describe_execution(executionArn=found)
    if described["stateMachineArn"] != workflow:
        raise CommandError(f"{execution} is an execution of {described['stateMachineArn']}, not of stack {stack.name}")
    return described


def inference_id(name: str) -> str:
    """Return the id of an execution's request in the captured data, as classify derives it from the name."""
    return re.sub(r"[^!-~]", "_", name)[-MAX_INFERENCE_ID:]


def _find_by_inference_id(workflow: str, searched: str) -> str | None:
    """Return the ARN of the newest execution with an inference id."""
    pages = boto3.client("stepfunctions").get_paginator("list_executions")
    with progress("search executions", None, "executions") as advance:
        for page in pages.paginate(stateMachineArn=workflow, PaginationConfig={"PageSize": 1000}):
            for execution in page["executions"]:
                if inference_id(execution["name"]) == searched:
                    return execution["executionArn"]
            advance(len(page["executions"]))
    return None


def _find_by_key(stack: Stack, key: str) -> str | None:
    """Return the ARN of the newest execution with an S3 key, by the log lines of serialize."""
    # A filter term in quotation marks is matched exactly, and log lines escape some characters of a key.
    term = max(re.findall(r"[\w/.-]+", key, re.ASCII), key=len, default="s3_key")
    pages = boto3.client("logs").get_paginator("filter_log_events")
    now = time.time()
    for days in (1 / 24, 1, 7, 3653):
        newest: tuple[int, str] | None = None
        try:
            for page in pages.paginate(
                logGroupName=f"/aws/lambda/{stack.name}-serialize",
                filterPattern=f'"{term}"',
                startTime=max(0, int((now - days * 86400) * 1000)),
            ):
                for item in page["events"]:
                    line = parse_object(item["message"])
                    if line.get("s3_key") == key and "execution_id" in line:
                        newest = max(newest or (0, ""), (item["timestamp"], str(line["execution_id"])))
        except ClientError as error:
            if error.response["Error"]["Code"] != "ResourceNotFoundException":
                raise
            return None
        if newest:
            return newest[1]
    return None


def find_latest(stack: Stack) -> str:
    """Return the ARN of the execution that was started last.

    Raises
    ------
    CommandError
        There is none.
    """
    workflow = state_machine(stack.output("WorkflowArn"))
    listed = boto3.client("stepfunctions").list_executions(stateMachineArn=workflow, maxResults=1)
    if not listed["executions"]:
        raise CommandError(f"the workflow of stack {stack.name} has no executions")
    return listed["executions"][0]["executionArn"]


def parse_object(text: str | None) -> dict[str, Any]:
    """Parse a JSON object; return an empty one for any other text."""
    try:
        parsed = json.loads(text or "")
    except ValueError:
        return {}
    return parsed if isinstance(parsed, dict) else {}


def reason(cause: str | None) -> str:
    """Return the message of a failed execution's cause: the one inside a function's JSON, or else the text itself."""
    return str(parse_object(cause).get("errorMessage") or cause or "")


def explain(error: ClientError) -> str:
    """Return S3's error for an object that could not be read, with the likely reasons for a denial."""
    # HEAD has no body: its code is the status.
    if error.response["Error"]["Code"] not in ("AccessDenied", "403"):
        return str(error)
    return f"{error}; you may lack s3:GetObject, or s3:ListBucket (without it, S3 denies access to missing objects too)"
