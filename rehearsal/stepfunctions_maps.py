"""Step Functions: Map Runs of Distributed Map states, with their child executions, tolerances, batches and results."""

import datetime
import functools
import json
import threading
import uuid
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from botocore.exceptions import BotoCoreError, ClientError
from moto.core.responses import ActionResult
from moto.core.utils import iso_8601_datetime_with_milliseconds
from moto.stepfunctions.parser.api import (
    ExecutionStartedEventDetails,
    HistoryEventExecutionDataDetails,
    HistoryEventType,
    MapRunFailedEventDetails,
    MapRunStartedEventDetails,
    MapRunStatus,
)
from moto.stepfunctions.parser.asl.component.common.error_name.failure_event import (
    FailureEvent,
    FailureEventException,
)
from moto.stepfunctions.parser.asl.component.common.error_name.states_error_name import StatesErrorName
from moto.stepfunctions.parser.asl.component.common.error_name.states_error_name_type import StatesErrorNameType
from moto.stepfunctions.parser.asl.component.common.timeouts.timeout import TimeoutSeconds
from moto.stepfunctions.parser.asl.component.program.program import Program
from moto.stepfunctions.parser.asl.component.state.exec.state_map.item_reader.eval.resource_eval_s3 import (
    ResourceEvalS3,
)
from moto.stepfunctions.parser.asl.component.state.exec.state_map.item_reader.eval.resource_output_transformer.transformer import (  # noqa: E501
    ResourceOutputTransformer,
)
from moto.stepfunctions.parser.asl.component.state.exec.state_map.iteration.distributed_iteration_component import (
    DistributedIterationComponent,
)
from moto.stepfunctions.parser.asl.component.state.exec.state_map.iteration.itemprocessor.map_run_record import (
    MapRunRecord,
)
from moto.stepfunctions.parser.asl.eval.environment import Environment
from moto.stepfunctions.parser.asl.eval.event.event_detail import EventDetails
from moto.stepfunctions.parser.asl.eval.event.event_manager import EventHistoryContext
from moto.stepfunctions.parser.asl.eval.program_state import ProgramEnded, ProgramError, ProgramTimedOut
from moto.stepfunctions.parser.asl.eval.states import ContextObjectData, ExecutionData, StateMachineData
from moto.stepfunctions.parser.asl.parse.asl_parser import AmazonStateLanguageParser, ASLParserException
from moto.stepfunctions.parser.models import StepFunctionsParserBackend
from moto.stepfunctions.responses import StepFunctionResponse

from rehearsal.patches import Difference, patch

#: https://docs.aws.amazon.com/step-functions/latest/dg/service-quotas.html
MAX_PAYLOAD_BYTES = 262_144
EXPRESS_SECONDS = 300
#: Children that run at once where MaxConcurrency is 0 or higher; AWS runs up to 10,000.
MAX_THREADS = 64
BATCHER_FIELDS = {
    *("MaxItemsPerBatch", "MaxItemsPerBatchPath", "MaxInputBytesPerBatch", "MaxInputBytesPerBatchPath", "BatchInput"),
}

DEFINED = Difference(
    "distributed_maps_are_accepted",
    "definitions with ItemBatcher, Express children, JSON Lines, WriterConfig or an integer ToleratedFailurePercentage "
    "are rejected",
)
RUN = Difference(
    "map_runs_fail_as_their_children",
    "a Map Run succeeds although children failed, whatever its tolerance, and its counts are wrong",
    bug=True,
)
WRITTEN = Difference(
    "results_of_map_runs_are_written",
    "ResultWriter writes a manifest without results",
)
PAGES = Difference(
    "map_runs_list_all_objects",
    "the reader of an S3 listing reads the first 1,000 objects only, and fails if there are none",
    bug=True,
)


# --- Definitions ------------------------------------------------------------------------------------------------------


@patch(AmazonStateLanguageParser, "parse", DEFINED)
def _parse(original: Any, definition: str) -> Any:
    return _parse_once(original, definition)


@functools.lru_cache(maxsize=256)
def _parse_once(original: Any, definition: str) -> Any:
    """Parse a definition; components keep no state, so that all executions can share them."""
    try:
        document = json.loads(definition)
        plain = _plain(document)
    except (ValueError, AttributeError, TypeError):  # moto says what is wrong
        return original(definition)
    parsed = original(definition if plain == document else json.dumps(plain))
    if isinstance(document.get("States"), dict):
        _attach(parsed[0].states.states, document["States"])
    return parsed


def _processor(state: dict[str, Any]) -> dict[str, Any]:
    found = state.get("ItemProcessor") or state.get("Iterator") or {}
    return found if isinstance(found, dict) else {}


def is_distributed(state: dict[str, Any]) -> bool:
    """Return whether a Map state is a Distributed Map."""
    return _processor(state).get("ProcessorConfig", {}).get("Mode") == "DISTRIBUTED"


def _plain(document: Any) -> Any:
    """Return a copy of a definition, or of a part, without what moto's grammar lacks."""
    if isinstance(document, list):
        return [_plain(item) for item in document]
    if not isinstance(document, dict):
        return document
    made = {name: _plain(value) for name, value in document.items()}
    if made.get("Type") != "Map" or not is_distributed(made):
        return made
    _processor(made)["ProcessorConfig"].pop("ExecutionType", None)
    if unknown := set(made.pop("ItemBatcher", {})) - BATCHER_FIELDS:
        raise ASLParserException([f"ItemBatcher has no field {', '.join(sorted(unknown))}"])
    if "ToleratedFailurePercentage" in made:
        made["ToleratedFailurePercentage"] = float(made["ToleratedFailurePercentage"])
    reader = made.get("ItemReader", {}).get("ReaderConfig", {})
    if reader.get("InputType") == "JSONL":
        reader["InputType"] = "JSON"
    writer = made.get("ResultWriter", {})
    if "WriterConfig" in writer:
        del writer["WriterConfig"]
        if not writer:
            del made["ResultWriter"]
    return made


def _attach(states: dict[str, Any], document: dict[str, Any]) -> None:
    """Give each Distributed Map's component its part of the definition."""
    for name, state in document.items():
        if state.get("Type") == "Parallel":
            for program, branch in zip(states[name].branches.programs, state["Branches"], strict=True):
                _attach(program.states.states, branch["States"])
        if state.get("Type") != "Map":
            continue
        component = states[name].iteration_component
        _attach(component._states.states, _processor(state)["States"])
        if isinstance(component, DistributedIterationComponent):
            made: Any = component
            made.declared, made.writer, states[name].result_writer = state, states[name].result_writer, None
            if state.get("ItemReader", {}).get("ReaderConfig", {}).get("InputType") == "JSONL":
                states[name].item_reader.resource_output_transformer = JsonLines()


class JsonLines(ResourceOutputTransformer):
    """Reader of JSON Lines."""

    def _eval_body(self, env: Environment) -> None:
        config, text = env.stack.pop(), env.stack.pop()
        try:
            items = [json.loads(line) for line in text.splitlines() if line.strip()]
        except ValueError as error:
            raise _failed(env, StatesErrorNameType.StatesItemReaderFailed, f"Invalid JSON Lines: {error}") from error
        env.stack.append(items[: config["MaxItemsValue"]])


# --- Runs -------------------------------------------------------------------------------------------------------------


@dataclass(eq=False)
class Child:
    """A child execution; its fields are those that StepFunctionResponse describes."""

    name: str
    execution_arn: str
    state_machine_arn: str
    input: Any
    #: How many items it processes.
    items: int
    status: str = "PENDING"
    start_date: datetime.datetime | None = None
    stop_date: datetime.datetime | None = None
    output: Any = None
    output_details: Any = None
    error: str | None = None
    cause: str | None = None
    redrives: int = 0
    env: Environment | None = None

    @property
    def execution_input(self) -> str:
        """The input as text."""
        return _text(self.input)

    def to_history_output(self) -> dict[str, Any]:
        """Return the history, as moto's executions do."""
        return {"events": self.env.event_manager.get_event_history() if self.env else []}

    def again(self) -> None:
        """Make it wait for another attempt."""
        self.status, self.redrives = "PENDING", self.redrives + 1
        self.start_date = self.stop_date = self.error = self.cause = self.env = None

    def exported(self) -> dict[str, Any]:
        """Return what ResultWriter writes about it."""
        result: dict[str, Any] = {
            "ExecutionArn": self.execution_arn,
            "Input": self.execution_input,
            "InputDetails": {"Included": True},
            "Name": self.name,
            "OutputDetails": {"Included": True},
            "RedriveCount": self.redrives,
            "StateMachineArn": self.state_machine_arn,
            "Status": self.status,
        }
        if self.status == "SUCCEEDED":
            result["Output"] = _text(self.output)
        for name, value in {"Error": self.error, "Cause": self.cause}.items():
            if value is not None:
                result[name] = value
        for name, moment in {"StartDate": self.start_date, "StopDate": self.stop_date}.items():
            if moment:
                result[name] = iso_8601_datetime_with_milliseconds(moment)
        return result


def _text(value: Any) -> str:
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False)


def _failed(env: Environment, error: StatesErrorNameType, cause: str) -> FailureEventException:
    name = StatesErrorName(typ=error)
    details = MapRunFailedEventDetails(error=name.error_name, cause=cause)
    event = EventDetails(mapRunFailedEventDetails=details)  # type: ignore[typeddict-item]
    return FailureEventException(FailureEvent(env, name, HistoryEventType.MapRunFailed, event))


@dataclass
class MapRun:
    """One run of a Distributed Map."""

    component: Any
    env: Environment
    given: Any
    record: Any
    lock: threading.Lock = field(default_factory=threading.Lock)
    stopped: bool = False

    @property
    def declared(self) -> dict[str, Any]:
        """The state's definition."""
        found: dict[str, Any] = self.component.declared
        return found

    @property
    def express(self) -> bool:
        """Whether the children are Express workflows."""
        return bool(_processor(self.declared)["ProcessorConfig"].get("ExecutionType") == "EXPRESS")

    def _items(self) -> list[Any]:
        items = self.given.input_items
        if self.given.item_reader:
            try:
                self.given.item_reader.eval(env=self.env)
            except (BotoCoreError, ClientError, KeyError, ValueError) as error:
                raise _failed(self.env, StatesErrorNameType.StatesItemReaderFailed, str(error)) from error
            items = self.env.stack.pop()
        return [self._selected(index, item) for index, item in enumerate(items)]

    def _selected(self, index: int, item: Any) -> Any:
        selector = self.given.item_selector or self.given.parameters
        if not selector:
            return item
        frame = self.env.open_inner_frame()
        context: Any = frame.states.context_object.context_object_data
        context["Map"] = {"Item": {"Index": index, "Value": item}}
        frame.states.reset(self.env.states.get_input())
        frame.stack.append(frame.states.get_input())
        selector.eval(frame)
        self.env.delete_frame(frame)
        return frame.stack[-1]

    def _number(self, batcher: dict[str, Any], name: str, default: int) -> int:
        path = batcher.get(f"{name}Path")
        return int(self.env.states.get_input(path)) if path else int(batcher.get(name, default))

    def _batches(self, items: list[Any]) -> Iterator[tuple[Any, int]]:
        """Yield each child's input, and how many items it has."""
        batcher = self.declared.get("ItemBatcher")
        if not batcher:
            yield from ((item, 1) for item in items)
            return
        most = self._number(batcher, "MaxItemsPerBatch", len(items))
        limit = min(self._number(batcher, "MaxInputBytesPerBatch", MAX_PAYLOAD_BYTES), MAX_PAYLOAD_BYTES)
        shared = {"BatchInput": self._template(batcher["BatchInput"])} if "BatchInput" in batcher else {}
        empty = len(_text({**shared, "Items": []}).encode())
        batch: list[Any] = []
        size = empty
        for item in items:
            more = len(_text(item).encode()) + 1
            if batch and (len(batch) >= most or size + more > limit):
                yield {**shared, "Items": batch}, len(batch)
                batch, size = [], empty
            batch.append(item)
            size += more
        if batch:
            yield {**shared, "Items": batch}, len(batch)

    def _template(self, template: Any) -> Any:
        """Evaluate a payload template against the state's input."""
        state = {"Type": "Pass", "Parameters": template, "End": True}
        definition = _text({"StartAt": "Template", "States": {"Template": state}})
        program: Any = AmazonStateLanguageParser.parse(definition)[0]
        frame = self.env.open_inner_frame()
        frame.states.reset(self.env.states.get_input())
        frame.stack.append(frame.states.get_input())
        program.states.states["Template"].parameters.eval(frame)
        self.env.delete_frame(frame)
        return frame.stack[-1]

    def _prepare(self) -> None:
        machine = self.record.map_state_machine_arn
        kind = "express" if self.express else "execution"
        children = []
        for given, items in self._batches(self._items()):
            name = str(uuid.uuid4())
            arn = f"{machine.replace(':stateMachine:', f':{kind}:')}:{name}"
            if self.express:
                arn += f":{uuid.uuid4()}"
            children.append(Child(name, arn, machine, given, items))
        self.record.children = children

    def execute(self) -> Any:
        """Run all children that wait; return the state's result.

        Raises
        ------
        FailureEventException
            If the items could not be read, the results not be written, or more failed than is tolerated.
        """
        if not self.record.children:
            self._prepare()
        destination = self._destination()
        waiting = [child for child in reversed(self.record.children) if child.status == "PENDING"]
        number = min(self.record.max_concurrency or MAX_THREADS, MAX_THREADS, len(waiting))
        threads = [threading.Thread(target=self._work, args=(waiting,), daemon=True) for _ in range(number)]
        for thread in threads:
            thread.start()
        for thread in threads:
            while thread.is_alive():
                thread.join(0.05)
                if not self.env.is_running():
                    self._stop()
        exceeded = self.env.is_running() and self._exceeded()
        result = self._written(destination)
        if exceeded:
            cause = "The specified tolerated failure threshold was exceeded"
            raise _failed(self.env, StatesErrorNameType.StatesExceedToleratedFailureThreshold, cause)
        return result

    def _work(self, waiting: list[Child]) -> None:
        while True:
            with self.lock:
                if self.stopped or not waiting:
                    return
                child = waiting.pop()
                child.status = "RUNNING"
            self._run(child)
            if self._exceeded():
                self._stop()

    def _run(self, child: Child) -> None:
        child.start_date = datetime.datetime.now(datetime.UTC)
        started = iso_8601_datetime_with_milliseconds(child.start_date)
        role = self.env.aws_execution_details.role_arn
        execution: Any = ExecutionData(
            Id=child.execution_arn, Input=child.input, Name=child.name, RoleArn=role, StartTime=started
        )
        machine = StateMachineData(Id=child.state_machine_arn, Name=child.state_machine_arn.split(":")[-1])
        env = child.env = Environment(
            aws_execution_details=self.env.aws_execution_details,
            execution_type="EXPRESS" if self.express else "STANDARD",  # type: ignore[arg-type]
            context=ContextObjectData(Execution=execution, StateMachine=machine),  # type: ignore[typeddict-item]
            event_history_context=EventHistoryContext.of_program_start(),
            cloud_watch_logging_session=None,
            activity_store=self.env.activity_store,
        )
        env.callback_pool_manager = self.env.callback_pool_manager
        env.map_run_record_pool_manager = self.env.map_run_record_pool_manager
        data = HistoryEventExecutionDataDetails(truncated=False)
        details = ExecutionStartedEventDetails(input=child.execution_input, inputDetails=data, roleArn=role)
        event: Any = EventDetails(executionStartedEventDetails=details)  # type: ignore[typeddict-item]
        env.event_manager.add_event(
            env.event_history_context, HistoryEventType.ExecutionStarted, event, update_source_event_id=False
        )
        program = self.component._get_iteration_program()
        if self.express:
            limit = TimeoutSeconds(EXPRESS_SECONDS)
            program = Program(program.query_language, program.start_at, program.states, limit, program.comment)
        if self.stopped:  # while this child was prepared
            env.set_stop(stop_date=datetime.datetime.now(datetime.UTC), cause=None, error=None)
        program.eval(env)
        ended: Any = env.program_state()
        with self.lock:
            child.stop_date = datetime.datetime.now(datetime.UTC)
            if isinstance(ended, ProgramEnded):
                child.status, child.output = "SUCCEEDED", env.states.get_input()
            elif self.stopped:
                child.status = "ABORTED"
            elif isinstance(ended, ProgramTimedOut):
                child.status = "TIMED_OUT"
            elif isinstance(ended, ProgramError):
                error: Any = ended.error or {}
                child.status, child.error, child.cause = "FAILED", error.get("error"), error.get("cause")
            else:
                child.status = "ABORTED"

    def _stop(self) -> None:
        with self.lock:
            if self.stopped:
                return
            self.stopped = True
            running = [child.env for child in self.record.children if child.status == "RUNNING" and child.env]
        for env in running:
            env.set_stop(stop_date=datetime.datetime.now(datetime.UTC), cause=None, error=None)

    def _exceeded(self) -> bool:
        counted = counts(self.record, items=True)
        failed, total = counted["failed"] + counted["timedOut"], counted["total"]
        names = {name.removesuffix("Path") for name in self.declared}
        count, percentage = self.record.tolerated_failure_count, self.record.tolerated_failure_percentage
        by_count = "ToleratedFailureCount" in names or count > 0
        by_percentage = "ToleratedFailurePercentage" in names or percentage > 0
        if not by_count and not by_percentage:
            return bool(failed)
        return bool((by_count and failed > count) or (by_percentage and 100 * failed > percentage * total))

    def _destination(self) -> tuple[Any, Any] | None:
        """Return the client and the place to which results are written, while the execution evaluates."""
        writer = self.component.writer
        if not writer:
            return None
        writer.parargs.eval(env=self.env)
        place = self.env.stack.pop()
        writer.resource_eval.resource.eval(env=self.env)
        return writer.resource_eval._get_s3_client(self.env.stack.pop(), None), place

    def _written(self, destination: tuple[Any, Any] | None) -> Any:
        """Return the state's result, after it has been written if there is a ResultWriter."""
        config = self.declared.get("ResultWriter", {}).get("WriterConfig", {})
        transformation = config.get("Transformation", "NONE" if destination else "COMPACT")
        ended = [child for child in self.record.children if child.status != "PENDING"]
        if not destination:
            done = [child.items for child in ended if child.status == "SUCCEEDED"]
            self.record.written = len(done), sum(done)
            return _transformed(ended, transformation)
        s3, place = destination
        folder = f"{place['Prefix'].rstrip('/')}/".lstrip("/") + self.record.map_run_arn.split(":")[-1]
        ending = "jsonl" if config.get("OutputType") == "JSONL" else "json"
        manifest: dict[str, Any] = {
            "DestinationBucket": place["Bucket"],
            "MapRunArn": self.record.map_run_arn,
            "ResultFiles": {"FAILED": [], "PENDING": [], "SUCCEEDED": []},
        }
        states = {"SUCCEEDED": ("SUCCEEDED",), "FAILED": ("FAILED", "TIMED_OUT", "ABORTED"), "PENDING": ("PENDING",)}
        try:
            for name, statuses in states.items():
                children = [child for child in self.record.children if child.status in statuses]
                if not children:
                    continue
                results = _transformed(children, transformation)
                lines = [_text(result) for result in results]
                body = (
                    "".join(f"{line}\n" for line in lines) if ending == "jsonl" else f"[{','.join(lines)}]"
                ).encode()
                key = f"{folder}/{name}_0.{ending}"
                s3.put_object(Bucket=place["Bucket"], Key=key, Body=body)
                manifest["ResultFiles"][name].append({"Key": key, "Size": len(body)})
            key = f"{folder}/manifest.json"
            s3.put_object(Bucket=place["Bucket"], Key=key, Body=json.dumps(manifest).encode())
        except (BotoCoreError, ClientError) as error:
            raise _failed(self.env, StatesErrorNameType.StatesResultWriterFailed, str(error)) from error
        self.record.written = len(ended), sum(child.items for child in ended)
        details = {"Bucket": place["Bucket"], "Key": key}
        return {"MapRunArn": self.record.map_run_arn, "ResultWriterDetails": details}


def _transformed(children: list[Child], transformation: str) -> list[Any]:
    results: list[Any] = []
    for child in children:
        if transformation == "NONE" or child.status != "SUCCEEDED":
            results.append(child.exported())
        elif transformation == "FLATTEN" and isinstance(child.output, list):
            results += child.output
        else:
            results.append(child.output)
    return results


def counts(record: Any, *, items: bool) -> dict[str, int]:
    """Return how many children, or items, of a Map Run are in which state."""
    names = {"aborted": "ABORTED", "failed": "FAILED", "pending": "PENDING", "running": "RUNNING"}
    names |= {"succeeded": "SUCCEEDED", "timedOut": "TIMED_OUT"}
    children = list(record.children)
    weights = [(child.status, child.items if items else 1) for child in children]
    found = {name: sum(weight for status, weight in weights if status == wanted) for name, wanted in names.items()}
    return {**found, "total": sum(weight for _, weight in weights), "resultsWritten": record.written[items]}


@patch(MapRunRecord, "__init__", RUN)
def _new_record(original: Any, self: Any, **given: Any) -> None:
    original(self, **given)
    self.children, self.written, self.redrives, self.redriven = [], (0, 0), 0, None


@patch(MapRunRecord, "describe", RUN)
def _describe_record(original: Any, self: Any) -> Any:
    described = original(self)
    described |= {"itemCounts": counts(self, items=True), "executionCounts": counts(self, items=False)}
    described["redriveCount"] = self.redrives
    if self.redriven:
        described["redriveDate"] = iso_8601_datetime_with_milliseconds(self.redriven)
    return described


@patch(DistributedIterationComponent, "_eval_body", RUN)
def _run_map(original: Any, self: Any, env: Environment) -> None:
    given = env.stack.pop()
    pool: Any = env.map_run_record_pool_manager
    record = given.map_run_record
    record.state_name = given.state_name
    earlier = getattr(pool, "redriven", {}).pop(given.state_name, None)
    kind: Any = HistoryEventType.MapRunStarted
    if earlier:
        del pool._pool[record.map_run_arn]
        record, kind = earlier, HistoryEventType.MapRunRedriven
        record.status, record.stop_date = MapRunStatus.RUNNING, None
        record.redrives, record.redriven = record.redrives + 1, datetime.datetime.now(datetime.UTC)
        for child in record.children:
            if child.status != "SUCCEEDED":
                child.again()
    details: Any = MapRunStartedEventDetails(mapRunArn=record.map_run_arn)
    named = {"mapRunStartedEventDetails": details}
    if earlier:
        named = {"mapRunRedrivenEventDetails": {"mapRunArn": record.map_run_arn, "redriveCount": record.redrives}}
    env.event_manager.add_event(env.event_history_context, kind, EventDetails(**named))  # type: ignore[typeddict-item]
    try:
        result = MapRun(self, env, given, record).execute()
    except Exception as error:
        failed: Any = error.failure_event.event_details if isinstance(error, FailureEventException) else None
        if not failed or "mapRunFailedEventDetails" not in failed:
            failed = EventDetails(mapRunFailedEventDetails=MapRunFailedEventDetails())  # type: ignore[typeddict-item]
        env.event_manager.add_event(env.event_history_context, HistoryEventType.MapRunFailed, failed)
        record.set_stop(status=MapRunStatus.FAILED)
        raise
    env.stack.append(result)
    if env.is_running():
        env.event_manager.add_event(env.event_history_context, HistoryEventType.MapRunSucceeded)
        record.set_stop(status=MapRunStatus.SUCCEEDED)
    else:
        env.event_manager.add_event(env.event_history_context, HistoryEventType.MapRunAborted)
        record.set_stop(status=MapRunStatus.ABORTED)


@patch(ResourceEvalS3, "_handle_list_objects_v2", PAGES)
def _list_all(original: Any, env: Environment, resource_runtime_part: Any, state_credentials: Any) -> None:
    client = ResourceEvalS3._get_s3_client(resource_runtime_part, state_credentials)
    pages = client.get_paginator("list_objects_v2").paginate(**env.stack.pop())
    env.stack.append(
        [
            {
                "Etag": item["ETag"],
                "Key": item["Key"],
                "LastModified": int(item["LastModified"].timestamp()),
                "Size": item["Size"],
                "StorageClass": item["StorageClass"],
            }
            for page in pages
            for item in page.get("Contents", [])
        ]
    )


# --- Children through the API -----------------------------------------------------------------------------------------


def _records(backend: Any) -> Iterator[Any]:
    for execution in backend._get_executions():
        if execution.exec_worker and execution.exec_worker.env:
            yield from execution.exec_worker.env.map_run_record_pool_manager.get_all()


CHILDREN = Difference("map_runs_have_executions", "the children of a Map Run cannot be listed or described")


@patch(StepFunctionsParserBackend, "describe_execution", CHILDREN)
def _describe_execution(original: Any, self: Any, execution_arn: str) -> Any:
    if "/" in execution_arn:
        for record in _records(self):
            for child in record.children:
                if child.execution_arn == execution_arn:
                    return child
    return original(self, execution_arn)


@patch(StepFunctionResponse, "list_executions", CHILDREN)
def _list_executions(original: Any, self: StepFunctionResponse) -> Any:
    wanted = self._get_param("mapRunArn")
    if not wanted:
        return original(self)
    status = self._get_param("statusFilter")
    children = [
        child
        for record in _records(self.stepfunction_backend)
        if record.map_run_arn == wanted
        for child in record.children
        if child.start_date and status in (None, child.status)
    ]
    listed = [
        {
            "executionArn": child.execution_arn,
            "stateMachineArn": child.state_machine_arn,
            "name": child.name,
            "status": child.status,
            "startDate": child.start_date,
            "mapRunArn": wanted,
            "itemCount": child.items,
            **({"stopDate": child.stop_date} if child.stop_date else {}),
        }
        for child in sorted(children, key=lambda child: child.start_date, reverse=True)
    ]
    first = int(self._get_param("nextToken") or 0)
    last = first + (self._get_int_param("maxResults") or 100)
    page: dict[str, Any] = {"executions": listed[first:last]}
    return ActionResult(page | ({"nextToken": str(last)} if last < len(listed) else {}))
