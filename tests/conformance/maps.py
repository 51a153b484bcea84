"""Step Functions: Map Runs, Express workflows, versions and aliases, redrives."""

import json
import uuid
from functools import partial
from typing import Any

from tests.conformance.behaviours import STATES_DOCS, Execution, Json, World, behaviour, error_of
from tests.support.stack import ROLE, wait_for

MAPS = "stepfunctions/v2/scenarios/test_base_scenarios"
RUNS = "stepfunctions/v2/test_sfn_api_map_run"
EXPRESS = "stepfunctions/v2/test_sfn_api_express"
SYNC = "stepfunctions/v2/express/test_express_sync"
ALIASES = "stepfunctions/v2/test_sfn_api_aliasing"
WRITER = f"{STATES_DOCS}input-output-resultwriter.html"
TOLERANCE = f"{STATES_DOCS}state-map-distributed.html"
REDRIVE = f"{STATES_DOCS}redrive-map-run.html"
EXCEEDED = "States.ExceedToleratedFailureThreshold"

#: Fails for the item 2, or a batch that begins with it.
FAIL_TWO: Json = {
    "StartAt": "Two?",
    "States": {
        "Two?": {
            "Type": "Choice",
            "Choices": [
                {
                    "Or": [
                        {"And": [{"Variable": "$", "IsNumeric": True}, {"Variable": "$", "NumericEquals": 2}]},
                        {
                            "And": [
                                {"Variable": "$.Items", "IsPresent": True},
                                {"Variable": "$.Items[0]", "NumericEquals": 2},
                            ]
                        },
                    ],
                    "Next": "Fail",
                }
            ],
            "Default": "Pass",
        },
        "Pass": {"Type": "Pass", "End": True},
        "Fail": {"Type": "Fail", "Error": "Two", "Cause": "is refused"},
    },
}


def distributed(kind: str = "STANDARD", processor: Json = FAIL_TWO, **state: Any) -> Json:
    """Return a definition of one Distributed Map, whose children run one after the other unless told otherwise."""
    config = {"Mode": "DISTRIBUTED", "ExecutionType": kind}
    first = {"Type": "Map", "ItemProcessor": {"ProcessorConfig": config, **processor}, "MaxConcurrency": 1}
    return {"StartAt": "Each", "States": {"Each": {**first, "End": True, **state}}}


def run_of(world: World, ended: Execution) -> Json:
    """Return the description of an execution's Map Run."""
    states = world.client("stepfunctions")
    (listed,) = states.list_map_runs(executionArn=ended.described["executionArn"])["mapRuns"]
    return dict(states.describe_map_run(mapRunArn=listed["mapRunArn"]))


def numbers(described: Json, kind: str) -> Json:
    """Return the counts of a Map Run that are not 0."""
    return {name: value for name, value in described[kind].items() if value}


# --- Failures and tolerances ------------------------------------------------------------------------------------------


@behaviour(
    "Map Runs",
    "one failed child fails the run, and what had not started stays pending",
    TOLERANCE,
    ("FAILED", EXCEEDED, ["MapRunStarted", "MapRunFailed", "MapStateFailed", "ExecutionFailed"], (1, 1, 3)),
)
def _(world: World) -> Any:
    ended = world.run(distributed(), [1, 2, 3, 4, 5])
    counted = run_of(world, ended)["executionCounts"]
    return (
        ended.status,
        ended.failure[0],
        ended.types[3:],
        (counted["succeeded"], counted["failed"], counted["pending"]),
    )


@behaviour(
    "Map Runs",
    "failures up to ToleratedFailureCount are tolerated",
    TOLERANCE,
    ("SUCCEEDED", {"failed": 1, "succeeded": 4, "total": 5}, "SUCCEEDED"),
)
def _(world: World) -> Any:
    ended = world.run(distributed(ToleratedFailureCount=1), [1, 2, 3, 4, 5])
    run = run_of(world, ended)
    counted = numbers(run, "itemCounts")
    counted.pop("resultsWritten")
    return ended.status, counted, run["status"]


@behaviour(
    "Map Runs",
    "either tolerance that is exceeded fails the run",
    TOLERANCE,
    {"100%": "SUCCEEDED", "20%": "SUCCEEDED", "19.9%": "FAILED", "20%, 0": "FAILED", "19%, 1": "FAILED"},
)
def _(world: World) -> Any:
    given: dict[str, Json] = {
        "100%": {"ToleratedFailurePercentage": 100},
        "20%": {"ToleratedFailurePercentage": 20},
        "19.9%": {"ToleratedFailurePercentage": 19.9},
        "20%, 0": {"ToleratedFailurePercentage": 20, "ToleratedFailureCount": 0},
        "19%, 1": {"ToleratedFailurePercentage": 19, "ToleratedFailureCount": 1},
    }
    return {name: world.run(distributed(**state), [1, 2, 3, 4, 5]).status for name, state in given.items()}


@behaviour("Map Runs", "a tolerance that is exceeded can be caught", TOLERANCE, ("SUCCEEDED", EXCEEDED))
def _(world: World) -> Any:
    definition = distributed(Catch=[{"ErrorEquals": [EXCEEDED], "Next": "Caught"}])
    definition["States"]["Caught"] = {"Type": "Pass", "End": True}
    ended = world.run(definition, [2])
    return ended.status, ended.output["Error"]


@behaviour("Map Runs", "Retry starts another Map Run with all children", TOLERANCE, [2, 2])
def _(world: World) -> Any:
    retry = [{"ErrorEquals": [EXCEEDED], "IntervalSeconds": 1, "MaxAttempts": 1}]
    ended = world.run(distributed(Retry=retry, MaxConcurrency=2), [2, 1])
    states = world.client("stepfunctions")
    runs = states.list_map_runs(executionArn=ended.described["executionArn"])["mapRuns"]
    return [states.describe_map_run(mapRunArn=run["mapRunArn"])["itemCounts"]["total"] for run in runs]


@behaviour(
    "Map Runs",
    "the fields of DescribeMapRun, and the counts of a run that succeeded",
    RUNS,
    (
        [
            *("executionArn", "executionCounts", "itemCounts", "mapRunArn", "maxConcurrency", "startDate", "status"),
            *("stopDate", "toleratedFailureCount", "toleratedFailurePercentage"),
        ],
        {"resultsWritten": 2, "succeeded": 2, "total": 2},
    ),
)
def _(world: World) -> Any:
    run = run_of(world, world.run(distributed(), [0, 1]))
    return sorted(set(run) - {"ResponseMetadata", "redriveCount"}), numbers(run, "executionCounts")


@behaviour("Map Runs", "the ARNs of a run and of its children's state machine", RUNS, ("Label", True, True))
def _(world: World) -> Any:
    machine = world.machine(distributed(Label="Label"))
    ended = world.ended(world.rehearsal.execute(machine, [0]))
    states = world.client("stepfunctions")
    (run,) = states.list_map_runs(executionArn=ended.described["executionArn"])["mapRuns"]
    (child,) = states.list_executions(mapRunArn=run["mapRunArn"])["executions"]
    expected = f"{machine.replace(':stateMachine:', ':execution:')}/Label:{child['name']}"
    return (
        run["mapRunArn"].split("/")[1].split(":")[0],
        run["stateMachineArn"] == f"{machine}/Label",
        (child["executionArn"] == expected),
    )


@behaviour(
    "Map Runs",
    "a child is an execution of its own, with its own id and input in the context object",
    f"{STATES_DOCS}state-map-distributed.html",
    (True, 7, "SUCCEEDED", ["ExecutionStarted", "PassStateEntered", "PassStateExited", "ExecutionSucceeded"]),
)
def _(world: World) -> Any:
    state = {"Type": "Pass", "Parameters": {"id.$": "$$.Execution.Id", "given.$": "$$.Execution.Input"}, "End": True}
    ended = world.run(distributed(processor={"StartAt": "Look", "States": {"Look": state}}), [7])
    states = world.client("stepfunctions")
    run = run_of(world, ended)["mapRunArn"]
    (child,) = states.list_executions(mapRunArn=run, statusFilter="SUCCEEDED")["executions"]
    described = states.describe_execution(executionArn=child["executionArn"])
    history = states.get_execution_history(executionArn=child["executionArn"])["events"]
    (output,) = ended.output
    return (
        output["id"] == child["executionArn"],
        output["given"],
        described["status"],
        [event["type"] for event in history],
    )


# --- Batches and readers ----------------------------------------------------------------------------------------------


@behaviour(
    "Map Runs",
    "ItemBatcher: the child's input; BatchInput is evaluated once",
    f"{MAPS} (item_batching)",
    [{"BatchInput": {"at": "noon"}, "Items": [1, 3]}, {"BatchInput": {"at": "noon"}, "Items": [5]}],
)
def _(world: World) -> Any:
    batcher = {"MaxItemsPerBatch": 2, "BatchInput": {"at.$": "$.at"}}
    definition = distributed("EXPRESS", ItemBatcher=batcher, ItemsPath="$.numbers")
    return world.run(definition, {"at": "noon", "numbers": [1, 3, 5]}).output


@behaviour(
    "Map Runs",
    "ItemBatcher: size by a path, a limit in bytes, no BatchInput unless declared",
    f"{STATES_DOCS}input-output-itembatcher.html",
    ([[1, 3], [5]], [["a" * 50], ["b" * 50]], ["Items"]),
)
def _(world: World) -> Any:
    by_path = distributed(ItemBatcher={"MaxItemsPerBatchPath": "$.size"}, ItemsPath="$.numbers")
    by_bytes = distributed(ItemBatcher={"MaxInputBytesPerBatch": 100})
    first = world.run(by_path, {"size": 2, "numbers": [1, 3, 5]}).output
    second = world.run(by_bytes, ["a" * 50, "b" * 50]).output
    return [child["Items"] for child in first], [child["Items"] for child in second], sorted(first[0])


@behaviour(
    "Map Runs",
    "itemCounts count items, executionCounts children; a failed batch counts with all its items",
    f"{STATES_DOCS}concepts-examine-map-run.html",
    ({"succeeded": 3, "failed": 2, "total": 5}, {"succeeded": 2, "failed": 1, "total": 3}, "FAILED"),
)
def _(world: World) -> Any:
    items, batcher = [1, 1, 2, 2, 5], {"MaxItemsPerBatch": 2}
    run = run_of(world, world.run(distributed(ItemBatcher=batcher, ToleratedFailureCount=2), items))
    strict = world.run(distributed(ItemBatcher=batcher, ToleratedFailureCount=1, MaxConcurrency=3), items)
    counted = [
        {name: value for name, value in run[kind].items() if value and name != "resultsWritten"}
        for kind in ("itemCounts", "executionCounts")
    ]
    return *counted, strict.status


@behaviour(
    "Map Runs",
    "ItemSelector is applied to each item, before batches are made",
    f"{STATES_DOCS}input-output-itemselector.html",
    [{"Items": [{"index": 0, "of": "all", "value": 5}, {"index": 1, "of": "all", "value": 6}]}],
)
def _(world: World) -> Any:
    selector = {"value.$": "$$.Map.Item.Value", "index.$": "$$.Map.Item.Index", "of.$": "$.of"}
    definition = distributed(ItemSelector=selector, ItemBatcher={"MaxItemsPerBatch": 9}, ItemsPath="$.numbers")
    return world.run(definition, {"of": "all", "numbers": [5, 6]}).output


@behaviour(
    "Map Runs",
    "the fields of the items of an S3 listing, in which folders are items, too",
    f"{MAPS} (list_objects_v2)",
    (["Etag", "Key", "LastModified", "Size", "StorageClass"], ["in/", "in/a.txt"]),
)
def _(world: World) -> Any:
    bucket = world.bucket()
    for key in ("in/", "in/a.txt", "out/b.txt"):
        world.client("s3").put_object(Bucket=bucket, Key=key, Body=b"")
    items = world.run(distributed(ItemReader=_reader("listObjectsV2", Bucket=bucket, Prefix="in/"))).output
    return sorted(items[0]), [item["Key"] for item in items]


@behaviour(
    "Map Runs",
    "a listing of more than a page, and an empty one",
    f"{STATES_DOCS}input-output-itemreader.html",
    (1001, 0),
)
def _(world: World) -> Any:
    bucket = world.bucket()
    for number in range(1001):
        world.client("s3").put_object(Bucket=bucket, Key=f"many/{number}", Body=b"")
    counted = []
    for prefix in ("many/", "none/"):
        reader = _reader("listObjectsV2", Bucket=bucket, Prefix=prefix)
        batcher = {"MaxItemsPerBatch": 500}
        processor = {"StartAt": "Drop", "States": {"Drop": {"Type": "Pass", "Result": "dropped", "End": True}}}
        ended = world.run(distributed(processor=processor, ItemReader=reader, ItemBatcher=batcher))
        counted.append(run_of(world, ended)["itemCounts"]["succeeded"])
    return tuple(counted)


@behaviour(
    "Map Runs",
    "JSON Lines and CSV are read; MaxItems is obeyed",
    f"{STATES_DOCS}input-output-itemreader.html",
    ([{"k": "a"}, {"k": "b"}], [{"k": "a"}]),
)
def _(world: World) -> Any:
    bucket = world.bucket()
    world.client("s3").put_object(Bucket=bucket, Key="m.jsonl", Body=b'{"k": "a"}\n{"k": "b"}\n')
    world.client("s3").put_object(Bucket=bucket, Key="m.csv", Body=b"k\na\nb\n")
    lines = _reader("getObject", {"InputType": "JSONL"}, Bucket=bucket, Key="m.jsonl")
    rows = _reader(
        "getObject",
        {"InputType": "CSV", "CSVHeaderLocation": "FIRST_ROW", "MaxItems": 1},
        Bucket=bucket,
        Key="m.csv",
    )
    return tuple(world.run(distributed(ItemReader=reader)).output for reader in (lines, rows))


@behaviour(
    "Map Runs",
    "what cannot be read fails the run, before any child",
    f"{STATES_DOCS}concepts-error-handling.html",
    ("FAILED", "States.ItemReaderFailed", ["MapRunStarted", "MapRunFailed", "MapStateFailed", "ExecutionFailed"]),
)
def _(world: World) -> Any:
    reader = _reader("getObject", {"InputType": "JSONL"}, Bucket=world.bucket(), Key="none.jsonl")
    ended = world.run(distributed(ItemReader=reader))
    return ended.status, ended.failure[0], ended.types[3:]


def _reader(action: str, config: Json | None = None, **parameters: str) -> Json:
    made: Json = {"Resource": f"arn:aws:states:::s3:{action}", "Parameters": parameters}
    return made | ({"ReaderConfig": config} if config else {})


# --- Results ----------------------------------------------------------------------------------------------------------


def _results(world: World, items: Any, config: Json | None = None, **state: Any) -> tuple[Execution, Json, Json]:
    """Return how an execution with a ResultWriter ended, its manifest, and each file's text by its status."""
    bucket, s3 = world.bucket(), world.client("s3")
    writer: Json = {
        "Resource": "arn:aws:states:::s3:putObject",
        "Parameters": {"Bucket": bucket, "Prefix": "results"},
    }
    if config:
        writer["WriterConfig"] = config
    ended = world.run(distributed("EXPRESS", ResultWriter=writer, Label="Each", **state), items)
    run = run_of(world, ended)["mapRunArn"].split(":")[-1]

    def read(key: str) -> str:
        return str(s3.get_object(Bucket=bucket, Key=key)["Body"].read().decode())

    manifest = json.loads(read(f"results/{run}/manifest.json"))
    assert manifest["DestinationBucket"] == bucket
    files = manifest["ResultFiles"]
    return ended, manifest, {name: [read(file["Key"]) for file in listed] for name, listed in files.items()}


@behaviour(
    "Map Runs",
    "ResultWriter: the state's result, and where the manifest is",
    f"{MAPS} (result_writer)",
    (["MapRunArn", "ResultWriterDetails"], ["Bucket", "Key"], True),
)
def _(world: World) -> Any:
    ended, manifest, _files = _results(world, ["Hello", "World"])
    details = ended.output["ResultWriterDetails"]
    folder = f"results/{manifest['MapRunArn'].split(':')[-1]}"
    return sorted(ended.output), sorted(details), details["Key"] == f"{folder}/manifest.json"


@behaviour(
    "Map Runs",
    "ResultWriter: one file for each state of children, of failed runs, too",
    WRITER,
    (
        EXCEEDED,
        {"SUCCEEDED": [1], "FAILED": [2], "PENDING": [3]},
        ["FAILED_0.json", "PENDING_0.json", "SUCCEEDED_0.json"],
    ),
)
def _(world: World) -> Any:
    ended, manifest, files = _results(world, [1, 2, 3])
    inputs = {name: [json.loads(entry["Input"]) for entry in json.loads(text)] for name, (text,) in files.items()}
    names = sorted(file["Key"].split("/")[-1] for listed in manifest["ResultFiles"].values() for file in listed)
    return ended.failure[0], inputs, names


@behaviour(
    "Map Runs",
    "ResultWriter: the fields of a child that succeeded, and of one that failed",
    WRITER,
    (
        [
            *("ExecutionArn", "Input", "InputDetails", "Name", "Output", "OutputDetails", "RedriveCount", "StartDate"),
            *("StateMachineArn", "Status", "StopDate"),
        ],
        ("FAILED", "Two", "is refused"),
    ),
)
def _(world: World) -> Any:
    files = _results(world, [1, 2], ToleratedFailurePercentage=100)[2]
    (done,), (failed,) = (json.loads(files[name][0]) for name in ("SUCCEEDED", "FAILED"))
    return sorted(done), (failed["Status"], failed["Error"], failed["Cause"])


@behaviour(
    "Map Runs",
    "WriterConfig: flattened outputs as JSON Lines; failed children are written as without it",
    WRITER,
    (['{"n":1}', '{"n":2}', '{"n":3}'], "Two"),
)
def _(world: World) -> Any:
    config = {"Transformation": "FLATTEN", "OutputType": "JSONL"}
    items = [[{"n": 1}, {"n": 2}], [{"n": 3}], 2]
    files = _results(world, items, config, ToleratedFailureCount=1)[2]
    return files["SUCCEEDED"][0].splitlines(), json.loads(files["FAILED"][0])["Error"]


# --- Redrives ---------------------------------------------------------------------------------------------------------

#: Fails until there is a message in a queue; takes the name of the queue from the state machine's input.
CONDITION: Json = {
    "StartAt": "Even?",
    "States": {
        "Even?": {
            "Type": "Choice",
            "Choices": [{"Variable": "$.n", "NumericEquals": 2, "Next": "Look"}],
            "Default": "Done",
        },
        "Look": {
            "Type": "Task",
            "Resource": "arn:aws:states:::aws-sdk:s3:headObject",
            "Parameters": {"Bucket.$": "$.bucket", "Key": "exists"},
            "ResultPath": None,
            "Next": "Done",
        },
        "Done": {"Type": "Pass", "End": True},
    },
}


@behaviour(
    "Redrives",
    "a redrive runs what did not succeed again, in the same execution and Map Run",
    REDRIVE,
    ("FAILED", "SUCCEEDED", {"succeeded": 3, "total": 3}, 1, ["ExecutionRedriven", "MapRunRedriven"], [0, 0, 1]),
)
def _(world: World) -> Any:
    bucket, states = world.bucket(), world.client("stepfunctions")
    items = [{"n": number, "bucket": bucket} for number in (1, 3, 2)]
    writer = {"Resource": "arn:aws:states:::s3:putObject", "Parameters": {"Bucket": bucket, "Prefix": "r"}}
    first = world.run(distributed("EXPRESS", CONDITION, ResultWriter=writer), items)
    world.client("s3").put_object(Bucket=bucket, Key="exists", Body=b"")
    states.redrive_execution(executionArn=first.described["executionArn"])
    second = world.ended(first.described["executionArn"])
    run = run_of(world, second)
    counted = {name: run["executionCounts"][name] for name in ("succeeded", "total")}
    place = second.output["ResultWriterDetails"]
    manifest = json.loads(world.client("s3").get_object(**place)["Body"].read())
    (file,) = manifest["ResultFiles"]["SUCCEEDED"]
    written = json.loads(world.client("s3").get_object(Bucket=bucket, Key=file["Key"])["Body"].read())
    redriven = [kind for kind in second.types if kind.endswith("Redriven")]
    redrives = [entry["RedriveCount"] for entry in written]
    return first.status, second.status, counted, second.described["redriveCount"], redriven, redrives


@behaviour(
    "Redrives",
    "an execution that succeeded cannot be redriven",
    f"{ALIASES} (redriveStatusReason)",
    ("ExecutionNotRedrivable", "NOT_REDRIVABLE", "Execution is SUCCEEDED and cannot be redriven"),
)
def _(world: World) -> Any:
    described = world.run(distributed(), [0]).described
    redrive = partial(world.client("stepfunctions").redrive_execution, executionArn=described["executionArn"])
    return error_of(redrive)[0], described["redriveStatus"], described["redriveStatusReason"]


# --- Express workflows ------------------------------------------------------------------------------------------------

PASS: Json = {"StartAt": "Done", "States": {"Done": {"Type": "Pass", "Result": {"a": 1}, "End": True}}}
FAIL: Json = {"StartAt": "Done", "States": {"Done": {"Type": "Fail", "Error": "Reason", "Cause": "because"}}}


def express(world: World, definition: Json) -> str:
    """Return the ARN of a new Express workflow."""
    name = f"express-{uuid.uuid4().hex[:8]}"
    made = world.client("stepfunctions").create_state_machine(
        name=name, definition=json.dumps(definition), roleArn=ROLE, type="EXPRESS"
    )
    return str(made["stateMachineArn"])


def _synchronous(world: World, definition: Json) -> Json:
    answer = world.client("stepfunctions").start_sync_execution(stateMachineArn=express(world, definition), input="{}")
    return dict(answer)


@behaviour(
    "Express workflows",
    "StartSyncExecution waits for the output",
    SYNC,
    (
        [
            *("billingDetails", "executionArn", "input", "inputDetails", "name", "output", "outputDetails"),
            *("startDate", "stateMachineArn", "status", "stopDate"),
        ],
        ("SUCCEEDED", {"a": 1}, 64),
    ),
)
def _(world: World) -> Any:
    answer = _synchronous(world, PASS)
    billed = answer["billingDetails"]["billedMemoryUsedInMB"]
    return sorted(set(answer) - {"ResponseMetadata"}), (answer["status"], json.loads(answer["output"]), billed)


@behaviour(
    "Express workflows",
    "StartSyncExecution returns a failure as data",
    SYNC,
    ("FAILED", "Reason", "because", False, 200),
)
def _(world: World) -> Any:
    answer = _synchronous(world, FAIL)
    code = answer["ResponseMetadata"]["HTTPStatusCode"]
    return answer["status"], answer["error"], answer["cause"], "output" in answer, code


@behaviour("Express workflows", "the parts of an execution's ARN", SYNC, ("express", True, 2))
def _(world: World) -> Any:
    answer = _synchronous(world, PASS)
    kind, machine, *rest = answer["executionArn"].split(":")[5:]
    return kind, answer["stateMachineArn"].endswith(f":{machine}"), len(rest)


UNSUPPORTED = ("StateMachineTypeNotSupported", "This operation is not supported by this type of state machine")


@behaviour("Express workflows", "StartSyncExecution of a Standard workflow", EXPRESS, UNSUPPORTED[0])
def _(world: World) -> Any:
    return error_of(partial(world.client("stepfunctions").start_sync_execution, stateMachineArn=world.machine(PASS)))[0]


@behaviour("Express workflows", "executions cannot be listed", EXPRESS, UNSUPPORTED)
def _(world: World) -> Any:
    return error_of(partial(world.client("stepfunctions").list_executions, stateMachineArn=express(world, PASS)))


@behaviour(
    "Express workflows",
    "an execution cannot be described or stopped, and has no history",
    EXPRESS,
    [("InvalidArn", "Invalid Arn: 'Resource type not valid in this context: express'")] * 3,
)
def _(world: World) -> Any:
    states = world.client("stepfunctions")
    arn = states.start_execution(stateMachineArn=express(world, PASS))["executionArn"]
    calls = (states.describe_execution, states.stop_execution, states.get_execution_history)
    return [error_of(partial(call, executionArn=arn)) for call in calls]


@behaviour("Express workflows", "the type is described", EXPRESS, "EXPRESS")
def _(world: World) -> Any:
    return world.client("stepfunctions").describe_state_machine(stateMachineArn=express(world, PASS))["type"]


@behaviour(
    "Express workflows",
    "StartExecution with a name twice starts two executions",
    f"{STATES_DOCS}choosing-workflow-type.html",
    2,
)
def _(world: World) -> Any:
    states, arn = world.client("stepfunctions"), express(world, PASS)
    return len({states.start_execution(stateMachineArn=arn, name="same")["executionArn"] for _ in range(2)})


@behaviour(
    "Express workflows",
    "what they do not support is rejected",
    f"{EXPRESS} (illegal_callbacks)",
    [
        "Express state machine does not support '.waitForTaskToken' service integration  at /States/Work/Resource'",
        "Express state machine does not support '.sync' service integration at /States/Work/Resource'",
        "Express state machine does not support Activity ARN at /States/Work/Resource'",
    ],
)
def _(world: World) -> Any:
    resources = (
        "arn:aws:states:::sqs:sendMessage.waitForTaskToken",
        "arn:aws:states:::states:startExecution.sync",
        "arn:aws:states:us-east-1:123456789012:activity:none",
    )
    found = []
    for resource in resources:
        parameters: Json = {} if ":activity:" in resource else {"Parameters": {}}
        work = {"Type": "Task", "Resource": resource, "End": True, **parameters}
        code, message = error_of(partial(express, world, {"StartAt": "Work", "States": {"Work": work}}))
        assert code == "InvalidDefinition", code
        found.append(message.removeprefix("Invalid State Machine Definition: 'SCHEMA_VALIDATION_FAILED: "))
    return found


@behaviour(
    "Express workflows",
    "called by another workflow: the failure is the task's result, and the output is text",
    "https://docs.aws.amazon.com/step-functions/latest/apireference/API_StartSyncExecution.html",
    (("FAILED", "Reason", "because"), ("SUCCEEDED", '{"a":1}')),
)
def _(world: World) -> Any:
    def call(definition: Json) -> Json:
        parameters = {"StateMachineArn": express(world, definition), "Input.$": "$"}
        work = {"Type": "Task", "Resource": "arn:aws:states:::aws-sdk:sfn:startSyncExecution", "Parameters": parameters}
        output: Json = world.run({"StartAt": "Work", "States": {"Work": {**work, "End": True}}}, {"b": 2}).output
        return output

    failed, done = call(FAIL), call(PASS)
    return (failed["Status"], failed["Error"], failed["Cause"]), (done["Status"], done["Output"])


# --- Versions and aliases ---------------------------------------------------------------------------------------------


def _alias(world: World, kind: str = "STANDARD") -> tuple[str, str, str]:
    """Return the ARNs of a state machine, its version and an alias of that; the definition has changed since."""
    states, name = world.client("stepfunctions"), f"aliased-{uuid.uuid4().hex[:8]}"
    made = states.create_state_machine(name=name, definition=json.dumps(PASS), roleArn=ROLE, type=kind, publish=True)
    version = made["stateMachineVersionArn"]
    routes = [{"stateMachineVersionArn": version, "weight": 100}]
    alias = states.create_state_machine_alias(name="live", routingConfiguration=routes)["stateMachineAliasArn"]
    states.update_state_machine(stateMachineArn=made["stateMachineArn"], definition=json.dumps(FAIL))
    return made["stateMachineArn"], version, alias


@behaviour(
    "Versions and aliases",
    "an alias executes its version, and the execution names both",
    ALIASES,
    ("SUCCEEDED", True, True, True),
)
def _(world: World) -> Any:
    machine, version, alias = _alias(world)
    described = world.ended(world.rehearsal.execute(alias, {})).described
    return (
        described["status"],
        described["stateMachineArn"] == machine,
        described["stateMachineVersionArn"] == version,
        described["stateMachineAliasArn"] == alias,
    )


@behaviour(
    "Versions and aliases",
    "a version executes its definition, whatever changed since",
    ALIASES,
    ["SUCCEEDED", "FAILED"],
)
def _(world: World) -> Any:
    machine, version, _alias_arn = _alias(world)
    return [world.ended(world.rehearsal.execute(arn, {})).status for arn in (version, machine)]


@behaviour(
    "Versions and aliases",
    "an alias with two versions divides executions by weight",
    ALIASES,
    {"SUCCEEDED", "FAILED"},
)
def _(world: World) -> Any:
    states = world.client("stepfunctions")
    machine, version, alias = _alias(world)
    changed = states.update_state_machine(stateMachineArn=machine, definition=json.dumps(FAIL), publish=True)
    other = changed["stateMachineVersionArn"]
    routes = [{"stateMachineVersionArn": arn, "weight": 50} for arn in (version, other)]
    states.update_state_machine_alias(stateMachineAliasArn=alias, routingConfiguration=routes)
    seen: set[str] = set()

    def both() -> bool:
        seen.add(world.ended(world.rehearsal.execute(alias, {})).status)
        return len(seen) == 2

    wait_for(both)
    return seen


@behaviour("Versions and aliases", "StartSyncExecution through an alias", ALIASES, "SUCCEEDED")
def _(world: World) -> Any:
    alias = _alias(world, "EXPRESS")[2]
    return world.client("stepfunctions").start_sync_execution(stateMachineArn=alias)["status"]


@behaviour("Versions and aliases", "an alias that does not exist", ALIASES, "StateMachineDoesNotExist")
def _(world: World) -> Any:
    arn = f"{_alias(world)[0]}:none"
    return error_of(partial(world.client("stepfunctions").start_execution, stateMachineArn=arn))[0]
