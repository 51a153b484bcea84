"""Step Functions: histories, names and causes of errors, limits, nested workflows, and the API around executions."""

import json
import uuid
from functools import partial
from typing import Any

from tests.conformance.behaviours import (
    STATES_DOCS,
    Execution,
    Json,
    World,
    behaviour,
    error_of,
    not_rehearsed,
    task,
)
from tests.support.stack import wait_for

TASKS = "stepfunctions/v2/services/"
ERRORS = "stepfunctions/v2/error_handling/"
LAMBDA = f"{ERRORS}test_task_service_lambda"
LIMITS = f"{ERRORS}test_states_errors"
SCENARIOS = "stepfunctions/v2/scenarios/test_base_scenarios"
TIMEOUTS = "stepfunctions/v2/timeouts/test_timeouts"
CALLBACK = "stepfunctions/v2/callback/test_callback"
API = "stepfunctions/v2/test_sfn_api"
CATCH_ALL = [{"ErrorEquals": ["States.ALL"], "Next": "Caught"}]
RAISE = 'raise RuntimeError("told so")'
#: More than 262,144 bytes, though not as many characters.
LARGE = 'return "é" * 150_000'
TOO_LARGE = "returned a result with a size exceeding the maximum number of bytes service limit."
NOWHERE = "arn:aws:states:us-east-1:123456789012:stateMachine:nowhere"

# --- A function's task ----------------------------------------------------------------------------------------------


@behaviour(
    "Functions in workflows",
    "the history of a failed task, with each event's predecessor",
    LAMBDA,
    [
        ("ExecutionStarted", 0),
        ("TaskStateEntered", 0),
        ("TaskScheduled", 2),
        ("TaskStarted", 3),
        ("TaskFailed", 4),
        ("ExecutionFailed", 5),
    ],
)
def _(world: World) -> Any:
    ended = world.invoke(RAISE, "raises")
    return [(event["type"], event["previousEventId"]) for event in ended.events]


@behaviour(
    "Functions in workflows",
    "an exception's class is the error; the cause is the function's answer, in the task's and the execution's failure",
    LAMBDA,
    ("RuntimeError", ["errorMessage", "errorType", "requestId", "stackTrace"], "told so", True),
)
def _(world: World) -> Any:
    ended = world.invoke(RAISE, "raises")
    error, cause = ended.failure
    answer = json.loads(cause)
    return error, sorted(answer), answer["errorMessage"], ended.details("TaskFailed")["cause"] == cause


@behaviour(
    "Functions in workflows",
    "which fields TaskScheduled, TaskStarted and TaskFailed have",
    LAMBDA,
    [
        ["parameters", "region", "resource", "resourceType", "timeoutInSeconds"],
        ["resource", "resourceType"],
        ["cause", "error", "resource", "resourceType"],
    ],
)
def _(world: World) -> Any:
    ended = world.invoke(RAISE, "raises", TimeoutSeconds=30)
    return [sorted(ended.details(kind)) for kind in ("TaskScheduled", "TaskStarted", "TaskFailed")]


@behaviour(
    "Functions in workflows",
    "a result's fields",
    f"{TASKS}test_lambda_task_service",
    ["ExecutedVersion", "Payload", "SdkHttpMetadata", "SdkResponseMetadata", "StatusCode"],
    differs="no SdkHttpMetadata and no SdkResponseMetadata",
)
def _(world: World) -> Any:
    return sorted(world.invoke("return event", "echoes").output)


@behaviour(
    "Functions in workflows",
    "the payload is the function's answer as JSON",
    f"{TASKS}test_lambda_task_service",
    {"a": [1]},
)
def _(world: World) -> Any:
    definition = task("lambda:invoke", {"FunctionName": world.function("echoes", "return event"), "Payload.$": "$"})
    return world.run(definition, {"a": [1]}).output["Payload"]


@behaviour(
    "Functions in workflows",
    "Catch hands on Error and Cause in place of the input, whatever OutputPath says",
    f"{LAMBDA} (catch_output_path)",
    (["Cause", "Error"], "RuntimeError", ["TaskFailed", "TaskStateExited", "PassStateEntered"]),
)
def _(world: World) -> Any:
    ended = world.invoke(RAISE, "raises", Catch=CATCH_ALL, OutputPath="$.no.such.path")
    return sorted(ended.output), ended.output["Error"], ended.types[4:7]


@behaviour(
    "Functions in workflows", "Catch with a ResultPath keeps the input", f"{ERRORS}test_aws_sdk", ["failure", "kept"]
)
def _(world: World) -> Any:
    catch = [{"ErrorEquals": ["States.TaskFailed"], "ResultPath": "$.failure", "Next": "Caught"}]
    definition = task("lambda:invoke", {"FunctionName": world.function("raises", RAISE)}, Catch=catch)
    return sorted(world.run(definition, {"kept": 1}).output)


@behaviour(
    "Functions in workflows",
    "each retry is scheduled, started and failed again; the last failure is the execution's",
    f"{SCENARIOS} (retry)",
    (["TaskScheduled", "TaskStarted", "TaskFailed"] * 2, "RuntimeError"),
)
def _(world: World) -> Any:
    retry = [{"ErrorEquals": ["RuntimeError"], "IntervalSeconds": 1, "MaxAttempts": 1}]
    ended = world.invoke(RAISE, "raises", Retry=retry)
    return ended.types[2:-1], ended.failure[0]


@behaviour("Functions in workflows", "exhausted retries are caught", f"{SCENARIOS} (retry)", ("RuntimeError", 2))
def _(world: World) -> Any:
    retry = [{"ErrorEquals": ["States.ALL"], "IntervalSeconds": 1, "MaxAttempts": 1}]
    ended = world.invoke(RAISE, "raises", Retry=retry, Catch=CATCH_ALL)
    return ended.output["Error"], ended.types.count("TaskFailed")


def _without_function(world: World) -> Execution:
    return world.run(task("lambda:invoke", {"FunctionName": "no-such-function"}))


@behaviour("Functions in workflows", "the error of a missing function", LAMBDA, "Lambda.ResourceNotFoundException")
def _(world: World) -> Any:
    return _without_function(world).failure[0]


@behaviour(
    "Functions in workflows",
    "the cause of a missing function begins",
    LAMBDA,
    "Function not found: arn:aws:lambda:us-east-1:123456789012:function:no-such-function:$LATEST (Service: AWSLambda; "
    "Status Code: 404; Error Code: ResourceNotFoundException; Request ID: ",
    differs="without the version ($LATEST)",
)
def _(world: World) -> Any:
    return _without_function(world).failure[1].partition("Request ID: ")[0] + "Request ID: "


@behaviour(
    "Functions in workflows",
    "the error of a throttled function",
    f"{STATES_DOCS}connect-lambda.html",
    "Lambda.TooManyRequestsException",
)
def _(world: World) -> Any:
    world.function("throttled", "return event")
    world.client("lambda").put_function_concurrency(FunctionName="throttled", ReservedConcurrentExecutions=0)
    return world.invoke("return event", "throttled").failure[0]


@behaviour(
    "Functions in workflows", "a state's time-out has no cause", TIMEOUTS, ("TaskTimedOut", ("States.Timeout", None))
)
def _(world: World) -> Any:
    ended = world.invoke("time.sleep(5)", "sleeps", TimeoutSeconds=1)
    return ended.types[-2], ended.failure


@behaviour(
    "Functions in workflows", "a caught time-out has an empty cause", LAMBDA, {"Error": "States.Timeout", "Cause": ""}
)
def _(world: World) -> Any:
    return world.invoke("time.sleep(5)", "sleeps", TimeoutSeconds=1, Catch=CATCH_ALL).output


@behaviour(
    "Functions in workflows",
    "a result over 256 KiB: error and cause",
    LIMITS,
    ("TaskFailed", ("States.DataLimitExceeded", f"The state/task 'lambda' {TOO_LARGE}")),
)
def _(world: World) -> Any:
    ended = world.invoke(LARGE, "large")
    return ended.types[-2], ended.failure


@behaviour(
    "Functions in workflows",
    "States.ALL catches a result over 256 KiB (AWS's documentation says that it does not)",
    LIMITS,
    "States.DataLimitExceeded",
)
def _(world: World) -> Any:
    return world.invoke(LARGE, "large", Catch=CATCH_ALL).output["Error"]


# --- Other tasks ----------------------------------------------------------------------------------------------------


@behaviour(
    "Other tasks",
    "sqs:sendMessage: a result's fields",
    f"{TASKS}test_sqs_task_service",
    ["MD5OfMessageBody", "MessageId", "SdkHttpMetadata", "SdkResponseMetadata"],
    differs="no SdkHttpMetadata and no SdkResponseMetadata",
)
def _(world: World) -> Any:
    parameters = {"QueueUrl": world.queue("tasks"), "MessageBody": {"a": 1}}
    return sorted(world.run(task("sqs:sendMessage", parameters)).output)


@behaviour(
    "Other tasks", "sqs:sendMessage: an object is sent as JSON", f"{TASKS}test_sqs_task_service", {"a": [True, None]}
)
def _(world: World) -> Any:
    parameters = {"QueueUrl": world.queue("bodies"), "MessageBody": {"a": [True, None]}}
    world.run(task("sqs:sendMessage", parameters))
    return json.loads(world.messages("bodies")[0])


@behaviour(
    "Other tasks",
    "sqs:sendMessage: the error of a queue whose address leads nowhere",
    f"{ERRORS}test_task_service_sqs",
    "SQS.SdkClientException",
    differs="SQS is asked all the same, and answers SQS.QueueDoesNotExistException",
)
def _(world: World) -> Any:
    return world.run(task("sqs:sendMessage", {"QueueUrl": "no-such-queue", "MessageBody": "a"})).failure[0]


@behaviour(
    "Other tasks",
    "sqs:sendMessage: error and cause of what SQS refuses",
    f"{ERRORS}test_task_service_sqs",
    (
        "SQS.AmazonSQSException",
        "(Service: AmazonSQS; Status Code: 400; Error Code: InvalidParameterValue; ",
        "; Proxy: null)",
    ),
)
def _(world: World) -> Any:
    parameters = {"QueueUrl": world.queue("tasks"), "MessageBody": "a", "DelaySeconds": 1000}
    error, cause = world.run(task("sqs:sendMessage", parameters)).failure
    return error, cause[cause.index("(") :].partition("Request ID")[0], cause[-14:]


@behaviour(
    "Other tasks",
    "sqs:sendMessage: an empty message is refused (MissingParameter)",
    f"{ERRORS}test_task_service_sqs",
    "SQS.AmazonSQSException",
    differs="it is sent",
)
def _(world: World) -> Any:
    return world.run(task("sqs:sendMessage", {"QueueUrl": world.queue("tasks"), "MessageBody": ""})).failure[0]


@behaviour(
    "Other tasks",
    "aws-sdk: the error of an error that the service's model names",
    f"{ERRORS}test_aws_sdk",
    ["S3.NoSuchBucketException", "S3.NoSuchKeyException", "DynamoDb.ResourceNotFoundException"],
)
def _(world: World) -> Any:
    bucket = world.once("tasks' bucket", world.bucket)
    refused: list[tuple[str, Json]] = [
        ("s3:listObjectsV2", {"Bucket": "no-such-bucket-anywhere"}),
        ("s3:getObject", {"Bucket": bucket, "Key": "none"}),
        ("dynamodb:putItem", {"TableName": "none", "Item": {"a": {"S": "b"}}}),
    ]
    return [world.run(task(f"aws-sdk:{resource}", parameters)).failure[0] for resource, parameters in refused]


@behaviour(
    "Other tasks",
    "aws-sdk: the error of an error that the service's model does not name",
    f"{ERRORS}test_aws_sdk (seen for Secrets Manager and DynamoDB)",
    "SageMaker.SageMakerException",
)
def _(world: World) -> Any:
    return world.run(task("aws-sdk:sagemaker:describeEndpoint", {"EndpointName": "none"})).failure[0]


@behaviour(
    "Other tasks",
    "aws-sdk: the cause of S3's errors names two requests",
    f"{ERRORS}test_aws_sdk",
    ["Service: S3", "Status Code: 404", "Request ID", "Extended Request ID"],
    differs="no Extended Request ID",
)
def _(world: World) -> Any:
    cause = world.run(task("aws-sdk:s3:listObjectsV2", {"Bucket": "no-such-bucket-anywhere"})).failure[1]
    parts = cause.rpartition("(")[2].strip(")").split(", ")
    return [part if "Request ID" not in part else part.partition(":")[0] for part in parts]


@behaviour(
    "Other tasks",
    "aws-sdk: a cause ends with the number of attempts",
    f"{TASKS}test_aws_sdk_task_service (of 2025; older recordings have none)",
    ("Sfn.InvalidTokenException", True),
    differs="no (SDK Attempt Count: 1)",
)
def _(world: World) -> Any:
    error, cause = world.run(task("aws-sdk:sfn:sendTaskSuccess", {"TaskToken": "none", "Output": "{}"})).failure
    return error, cause.endswith("(SDK Attempt Count: 1)")


@behaviour(
    "Other tasks",
    "aws-sdk:s3:getObject: body as text, ETag in quotes, length as a number",
    f"{TASKS}test_aws_sdk_task_service",
    ("some text", '"552e21cd4cd9918678e3c1a0df491bc3"', 9, {}, "bytes"),
)
def _(world: World) -> Any:
    bucket = world.once("tasks' bucket", world.bucket)
    world.client("s3").put_object(Bucket=bucket, Key="text", Body=b"some text")
    output = world.run(task("aws-sdk:s3:getObject", {"Bucket": bucket, "Key": "text"})).output
    return tuple(output[name] for name in ("Body", "ETag", "ContentLength", "Metadata", "AcceptRanges"))


@behaviour(
    "Other tasks",
    "aws-sdk:sfn: parameters and results have names that begin with capitals; an object becomes JSON text",
    f"{TASKS}test_aws_sdk_task_service",
    (["ExecutionArn", "StartDate"], {"key": "value"}),
)
def _(world: World) -> Any:
    parameters = {"StateMachineArn": _child(world, "echo"), "Input": {"key": "value"}}
    output = world.run(task("aws-sdk:sfn:startExecution", parameters)).output
    return sorted(output), world.ended(output["ExecutionArn"]).output


@behaviour(
    "Other tasks",
    "events:putEvents: the result, and the resources that join each entry",
    f"{TASKS}test_events_task_service",
    (["Entries", "FailedEntryCount"], 0, ["stateMachine", "execution"], {"a": 1}),
)
def _(world: World) -> Any:
    world.queue("published")
    events = world.client("events")
    events.put_rule(Name="published", EventPattern='{"source": ["conformance"]}')
    events.put_targets(Rule="published", Targets=[{"Id": "q", "Arn": world.queue_arn("published")}])
    entry = {"Source": "conformance", "DetailType": "d", "Detail": {"a": 1}}
    output = world.run(task("events:putEvents", {"Entries": [entry]})).output
    event = json.loads(world.messages("published")[0])
    resources = [resource.split(":")[5] for resource in event["resources"]]
    output = {name: value for name, value in output.items() if not name.startswith("Sdk")}
    return sorted(output), output["FailedEntryCount"], resources, event["detail"]


def _failed_entry(world: World, **entry: Any) -> Any:
    return world.run(task("events:putEvents", {"Entries": [{"DetailType": "d", **entry}]})).failure


@behaviour(
    "Other tasks",
    "events:putEvents: a refused entry fails the task; the cause is the answer as JSON",
    f"{TASKS}test_events_task_service",
    (
        "EventBridge.FailedEntry",
        {
            "Entries": [
                {
                    "ErrorCode": "InvalidArgument",
                    "ErrorMessage": "Parameter Source is not valid. Reason: Source is a required argument.",
                }
            ],
            "FailedEntryCount": 1,
        },
    ),
)
def _(world: World) -> Any:
    error, cause = _failed_entry(world, Detail={"a": 1})
    return error, json.loads(cause)


@behaviour(
    "Other tasks",
    "events:putEvents: a detail that is no JSON object is refused (MalformedDetail)",
    f"{TASKS}test_events_task_service",
    "EventBridge.FailedEntry",
    differs="another error, or none where no rule looks at it",
)
def _(world: World) -> Any:
    return _failed_entry(world, Detail='"text"', Source="conformance")[0]


# --- The States Language's own errors -------------------------------------------------------------------------------


def _runtime(state: Json, event: Any = None) -> Json:
    return {"StartAt": "Work", "States": {"Work": {"Type": "Pass", "End": True, **state}}}


RUNTIME = "An error occurred while executing the state 'Work' (entered at the event id #2). "


@behaviour(
    "Errors of the language",
    "InputPath and OutputPath that find nothing",
    f"{SCENARIOS} (invalid_jsonpath)",
    [("States.Runtime", f"{RUNTIME}Invalid path '$.none' : No results for path: $['none']")] * 2,
)
def _(world: World) -> Any:
    return [world.run(_runtime({name: "$.none"})).failure for name in ("InputPath", "OutputPath")]


@behaviour(
    "Errors of the language",
    "Parameters that find nothing",
    f"{SCENARIOS} (invalid_jsonpath)",
    (
        "States.Runtime",
        f"{RUNTIME}The JSONPath '$.none' specified for the field 'value.$' could not be found in the input '{{}}'",
    ),
)
def _(world: World) -> Any:
    return world.run(_runtime({"Parameters": {"value.$": "$.none"}})).failure


@behaviour(
    "Errors of the language",
    "a Fail state whose CausePath finds nothing",
    f"{SCENARIOS} (invalid_jsonpath)",
    (
        "States.Runtime",
        f"{RUNTIME}The JSONPath '$.none' specified for the field 'CausePath' could not be found in the input '{{}}'",
    ),
)
def _(world: World) -> Any:
    state = {"Type": "Fail", "CausePath": "$.none"}
    return world.run({"StartAt": "Work", "States": {"Work": state}}).failure


@behaviour(
    "Errors of the language",
    "no catcher matches States.Runtime, not even one that names it; the history has no failed task",
    f"{SCENARIOS} (catch_states_runtime); {STATES_DOCS}concepts-error-handling.html",
    [("FAILED", "ExecutionFailed", 0)] * 2,
)
def _(world: World) -> Any:
    found = []
    for name in ("States.Runtime", "States.ALL"):
        catch = [{"ErrorEquals": [name], "Next": "Caught"}]
        definition = task("lambda:invoke", {"FunctionName.$": "$.none"}, Catch=catch)
        ended = world.run(definition)
        found.append((ended.status, ended.types[-1], ended.types.count("TaskFailed")))
    return found


@behaviour(
    "Errors of the language",
    "a state's output over 256 KiB fails the execution at once",
    LIMITS,
    (["ExecutionStarted", "PassStateEntered", "ExecutionFailed"], f"The state/task 'Work' {TOO_LARGE}"),
)
def _(world: World) -> Any:
    ended = world.run(_runtime({"Result": {}, "ResultPath": "$.more"}), {"text": "a" * 262_120})
    return ended.types, ended.failure[1]


@behaviour("Errors of the language", "a Fail state without a cause", f"{SCENARIOS} (fail)", ("Reason", None))
def _(world: World) -> Any:
    return world.run({"StartAt": "Work", "States": {"Work": {"Type": "Fail", "Error": "Reason"}}}).failure


@behaviour(
    "Errors of the language",
    "an execution that runs out of time: its state, no error, no cause, and its end",
    TIMEOUTS,
    ("TIMED_OUT", (None, None), True),
)
def _(world: World) -> Any:
    wait = {"Type": "Wait", "Seconds": 30, "End": True}
    ended = world.run({"StartAt": "Work", "TimeoutSeconds": 1, "States": {"Work": wait}})
    return ended.status, ended.failure, "stopDate" in ended.described


# --- Workflows that start workflows ---------------------------------------------------------------------------------

CHILDREN: dict[str, Json] = {
    "echo": {"StartAt": "Work", "States": {"Work": {"Type": "Pass", "End": True}}},
    "fail": {"StartAt": "Work", "States": {"Work": {"Type": "Fail", "Error": "Reason", "Cause": "because"}}},
    "slow": {"StartAt": "Work", "States": {"Work": {"Type": "Wait", "Seconds": 60, "End": True}}},
}
DESCRIBED = ["ExecutionArn", "Input", "InputDetails", "Name", "Output", "OutputDetails", "StartDate", "StateMachineArn"]


def _child(world: World, name: str) -> str:
    return str(world.once(f"child {name}", lambda: world.machine(CHILDREN[name], f"child-{name}")))


def _parent(world: World, form: str, child: str, **state: Any) -> Json:
    parameters = {
        "StateMachineArn": _child(world, child),
        "Input": {"given.$": "$.given", "AWS_STEP_FUNCTIONS_STARTED_BY_EXECUTION_ID.$": "$$.Execution.Id"},
    }
    return task(f"states:startExecution{form}", parameters, **state)


@behaviour(
    "Nested workflows",
    "startExecution: the result's fields",
    f"{TASKS}test_sfn_task_service",
    ["ExecutionArn", "SdkHttpMetadata", "SdkResponseMetadata", "StartDate"],
    differs="no SdkHttpMetadata and no SdkResponseMetadata",
)
def _(world: World) -> Any:
    return sorted(world.run(_parent(world, "", "echo"), {"given": 1}).output)


@behaviour(
    "Nested workflows",
    "startExecution does not wait, and passes its input and the id of its own execution on",
    f"{TASKS}test_sfn_task_service; {STATES_DOCS}concepts-nested-workflows.html",
    (["TaskScheduled", "TaskStarted", "TaskSucceeded"], {"a": [1]}, True),
)
def _(world: World) -> Any:
    execution = world.start(_parent(world, "", "echo"), {"given": {"a": [1]}})
    ended = world.ended(execution)
    child = world.ended(ended.output["ExecutionArn"]).output
    return ended.types[2:5], child["given"], child["AWS_STEP_FUNCTIONS_STARTED_BY_EXECUTION_ID"] == execution


@behaviour("Nested workflows", "startExecution without an input starts with {}", CALLBACK, "{}")
def _(world: World) -> Any:
    definition = task("states:startExecution.sync", {"StateMachineArn": _child(world, "echo"), "Input": None})
    return world.run(definition).output["Input"]


@behaviour(
    "Nested workflows",
    "startExecution.sync waits; input and output are texts",
    CALLBACK,
    (
        ["TaskStarted", "TaskSubmitted", "TaskSucceeded"],
        [*DESCRIBED, "Status", "StopDate"],
        "SUCCEEDED",
        str,
        '{"x":1}',
    ),
)
def _(world: World) -> Any:
    definition = task("states:startExecution.sync", {"StateMachineArn": _child(world, "echo"), "Input": {"x": 1}})
    ended = world.run(definition)
    output = {name: value for name, value in ended.output.items() if not name.startswith("Sdk")}
    return ended.types[3:6], sorted(output), output["Status"], type(output["Input"]), output["Output"]


@behaviour(
    "Nested workflows",
    "startExecution.sync:2 gives input and output as JSON",
    CALLBACK,
    ({"x": 1}, {"x": 1}, {"Included": True}, "startExecution.sync:2"),
)
def _(world: World) -> Any:
    definition = task("states:startExecution.sync:2", {"StateMachineArn": _child(world, "echo"), "Input": {"x": 1}})
    ended = world.run(definition)
    output = ended.output
    return output["Input"], output["Output"], output["OutputDetails"], ended.details("TaskSucceeded")["resource"]


@behaviour(
    "Nested workflows",
    "a child that fails is States.TaskFailed; the cause describes its execution",
    CALLBACK,
    [("States.TaskFailed", "FAILED", "Reason", "because", False)] * 2,
)
def _(world: World) -> Any:
    found = []
    for form in (".sync", ".sync:2"):
        error, cause = world.run(_parent(world, form, "fail"), {"given": 1}).failure
        child = json.loads(cause)
        found.append((error, child["Status"], child["Error"], child["Cause"], "Output" in child))
    return found


@behaviour("Nested workflows", "a parent may catch it by that name", CALLBACK, "States.TaskFailed")
def _(world: World) -> Any:
    catch = [{"ErrorEquals": ["States.TaskFailed"], "Next": "Caught"}]
    return world.run(_parent(world, ".sync:2", "fail", Catch=catch), {"given": 1}).output["Error"]


@behaviour(
    "Nested workflows",
    "a missing state machine",
    f"{ERRORS}test_task_service_sfn",
    (
        "StepFunctions.StateMachineDoesNotExistException",
        f"State Machine Does Not Exist: '{NOWHERE}' (Service: AWSStepFunctions; Status Code: 400; "
        "Error Code: StateMachineDoesNotExist; ",
    ),
)
def _(world: World) -> Any:
    error, cause = world.run(task("states:startExecution.sync", {"StateMachineArn": NOWHERE})).failure
    return error, cause.partition("Request ID")[0]


@behaviour(
    "Nested workflows",
    "stopping the parent stops the child that it waits for",
    f"{STATES_DOCS}connect-to-resource.html",
    ("ABORTED", "ABORTED"),
)
def _(world: World) -> Any:
    states = world.client("stepfunctions")
    parent = world.start(_parent(world, ".sync", "slow"), {"given": 1})
    running = {"stateMachineArn": _child(world, "slow"), "statusFilter": "RUNNING"}
    (child,) = wait_for(lambda: states.list_executions(**running)["executions"])
    states.stop_execution(executionArn=parent)
    return world.ended(parent).status, world.ended(child["executionArn"]).status


# --- The API around executions --------------------------------------------------------------------------------------


def _started(world: World, child: str, name: str, text: str = "{}") -> Any:
    return world.client("stepfunctions").start_execution(stateMachineArn=_child(world, child), name=name, input=text)


@behaviour("Executions", "the same name and input, while it runs: the same execution", f"{API} (idempotent)", True)
def _(world: World) -> Any:
    name = str(uuid.uuid4())
    first, second = (_started(world, "slow", name)["executionArn"] for _ in range(2))
    world.client("stepfunctions").stop_execution(executionArn=first)
    return first == second


@behaviour(
    "Executions",
    "the same name and another input",
    f"{API} (idempotent)",
    ("ExecutionAlreadyExists", "Execution Already Exists: 'ARN'"),
)
def _(world: World) -> Any:
    name = str(uuid.uuid4())
    arn = _started(world, "slow", name)["executionArn"]
    code, message = error_of(lambda: _started(world, "slow", name, '{"other": 1}'))
    world.client("stepfunctions").stop_execution(executionArn=arn)
    return code, message.replace(arn, "ARN")


@behaviour(
    "Executions",
    "a missing state machine",
    API,
    ("StateMachineDoesNotExist", f"State Machine Does Not Exist: '{NOWHERE}'"),
)
def _(world: World) -> Any:
    return error_of(lambda: world.client("stepfunctions").start_execution(stateMachineArn=NOWHERE))


@behaviour(
    "Executions",
    "an input that is no JSON: the error's code",
    API,
    ["InvalidExecutionInput"] * 3,
)
def _(world: World) -> Any:
    texts = ("not JSON", "{'a': 1}", "")
    return [error_of(partial(_started, world, "echo", str(uuid.uuid4()), text))[0] for text in texts]


@behaviour(
    "Executions",
    "an input that is no JSON: the message",
    API,
    "Invalid State Machine Execution Input: 'Unrecognized token 'not': was expecting (JSON String, Number, Array, "
    "Object or token 'null', 'true' or 'false')'",
)
def _(world: World) -> Any:
    return error_of(lambda: _started(world, "echo", str(uuid.uuid4()), "not JSON"))[1]


@behaviour("Executions", "a number, a text and null are inputs", API, [2, "text", None])
def _(world: World) -> Any:
    texts = ("2", '"text"', "null")
    started = [_started(world, "echo", str(uuid.uuid4()), text)["executionArn"] for text in texts]
    return [world.ended(execution).output for execution in started]


@behaviour(
    "Executions",
    "a name with a space",
    "https://docs.aws.amazon.com/step-functions/latest/apireference/API_StartExecution.html",
    "InvalidName",
)
def _(world: World) -> Any:
    return error_of(lambda: _started(world, "echo", "a name"))[0]


def _stopped(world: World, **reason: str) -> Execution:
    """Stop an execution in its first state; return it once its history is complete."""
    arn = _started(world, "slow", str(uuid.uuid4()))["executionArn"]
    states = world.client("stepfunctions")

    def events() -> list[str]:
        return [event["type"] for event in states.get_execution_history(executionArn=arn)["events"]]

    wait_for(lambda: "WaitStateEntered" in events())
    states.stop_execution(executionArn=arn, **reason)
    wait_for(lambda: "ExecutionAborted" in events())
    return world.ended(arn)


@behaviour(
    "Executions", "a stopped execution's history", f"{API} (stop)", (["WaitStateEntered", "ExecutionAborted"], {})
)
def _(world: World) -> Any:
    ended = _stopped(world)
    return ended.types[1:], ended.details("ExecutionAborted")


@behaviour(
    "Executions",
    "a stopped execution keeps the error and the cause that it was stopped with",
    "https://docs.aws.amazon.com/step-functions/latest/apireference/API_StopExecution.html",
    (("Reason", "because"), {"error": "Reason", "cause": "because"}),
)
def _(world: World) -> Any:
    ended = _stopped(world, error="Reason", cause="because")
    return ended.failure, ended.details("ExecutionAborted")


@behaviour(
    "Executions",
    "the fields of DescribeExecution",
    API,
    [
        *("executionArn", "input", "inputDetails", "name", "output", "outputDetails", "redriveCount", "redriveStatus"),
        *("redriveStatusReason", "startDate", "stateMachineArn", "status", "stopDate"),
    ],
)
def _(world: World) -> Any:
    described = world.ended(_started(world, "echo", str(uuid.uuid4()))["executionArn"]).described
    return sorted(set(described) - {"ResponseMetadata"})


@behaviour("Executions", "a missing execution", API, ("ExecutionDoesNotExist", "Execution Does Not Exist: 'ARN'"))
def _(world: World) -> Any:
    arn = "arn:aws:states:us-east-1:123456789012:execution:child-echo:none"
    _child(world, "echo")
    code, message = error_of(lambda: world.client("stepfunctions").describe_execution(executionArn=arn))
    return code, message.replace(arn, "ARN")


@behaviour(
    "Executions",
    "an ARN that is none",
    API,
    ("InvalidArn", "Invalid Arn: 'Invalid ARN prefix: none'"),
    differs="the message is that of a missing execution",
)
def _(world: World) -> Any:
    return error_of(lambda: world.client("stepfunctions").describe_execution(executionArn="none"))


@behaviour(
    "Executions",
    "a history in reverse",
    API,
    ["ExecutionSucceeded", "PassStateExited", "PassStateEntered", "ExecutionStarted"],
)
def _(world: World) -> Any:
    arn = _started(world, "echo", str(uuid.uuid4()))["executionArn"]
    world.ended(arn)
    history = world.client("stepfunctions").get_execution_history(executionArn=arn, reverseOrder=True)
    return [event["type"] for event in history["events"]]


@behaviour("Executions", "a state machine is created twice alike: the same one", API, True)
def _(world: World) -> Any:
    name = str(uuid.uuid4())
    return world.machine(CHILDREN["echo"], name) == world.machine(CHILDREN["echo"], name)


@behaviour("Executions", "a state machine is created twice, differently", API, "StateMachineAlreadyExists")
def _(world: World) -> Any:
    name = str(uuid.uuid4())
    world.machine(CHILDREN["echo"], name)
    return error_of(lambda: world.machine(CHILDREN["fail"], name))[0]


@behaviour("Executions", "a definition without states: the error's code", API, "InvalidDefinition")
def _(world: World) -> Any:
    return error_of(lambda: world.machine({"StartAt": "Work"}))[0]


@behaviour(
    "Executions",
    "a definition without states: the message",
    API,
    "Invalid State Machine Definition: 'SCHEMA_VALIDATION_FAILED: These fields are required: [States] at /'",
    differs="the reason is in the words of moto's parser",
)
def _(world: World) -> Any:
    return error_of(lambda: world.machine({"StartAt": "Work"}))[1]


not_rehearsed(
    "Executions",
    "ValidateStateMachineDefinition",
    "stepfunctions/v2/test_sfn_api_validation",
    lambda world: world.client("stepfunctions").validate_state_machine_definition(definition="{}"),
)
