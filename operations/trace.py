"""A timeline of one image: what the workflow, the functions, the endpoint and people did with it."""

import datetime
import hashlib
import json
from typing import TYPE_CHECKING, Any

import boto3
from botocore.exceptions import ClientError

from common import storage
from common.capture import CaptureReader
from common.command import console, printable
from common.errors import CommandError
from common.progress import progress
from common.stack import Stack, data_capture, explain, find_execution, inference_id, parse_object, reason

if TYPE_CHECKING:
    from mypy_boto3_s3.type_defs import HeadObjectRequestTypeDef
    from mypy_boto3_stepfunctions.type_defs import DescribeExecutionOutputTypeDef

FUNCTIONS = ("serialize", "classify", "filter")
#: Clocks differ, and a function's last lines arrive after its result.
BEFORE, AFTER = datetime.timedelta(seconds=10), datetime.timedelta(minutes=2)
#: Fields that every line of a function's log has, and prefixes of those that Powertools and Lambda add.
_COMMON = ("timestamp", "service", "level", "location", "message", "execution_id", "s3_bucket", "s3_key")
_PLATFORM = ("function_", "cold_start", "xray_trace_id", "correlation_id", "exception", "stack_trace", "_aws")


def collect(stack: Stack, execution: str) -> dict[str, Any]:
    """Collect all records of one execution, as one JSON object.

    Parameters
    ----------
    stack : Stack
        The stack of the workflow.
    execution : str
        The execution's ARN, name, or inference id.

    Returns
    -------
    dict
        ``execution``; ``states``, each with ``seconds`` and ``failures`` (attempts that were retried or caught);
        ``object``, ``logs``, ``capture`` and ``review``; ``missing``, the reason for each part that was not found.

    Raises
    ------
    CommandError
        There is no such execution.
    """
    described = find_execution(stack, execution)
    missing: list[str] = []
    with progress("collect records", 5, "sources") as advance:
        states, event = states_and_event(described)
        advance(1)
        stored, image_hash = _object(event, missing)
        advance(1)
        logs = _logs(stack, described, missing)
        advance(1)
        capture = _capture(stack, described, event, missing)
        advance(1)
        review = _review(stack, image_hash, described, missing)
        advance(1)
    return {
        "execution": {
            "arn": described["executionArn"],
            "status": described["status"],
            "started": _iso(described["startDate"]),
            "ended": _iso(described["stopDate"]) if "stopDate" in described else None,
            "input": parse_object(described.get("input")) or described.get("input"),
            "output": parse_object(described.get("output")) or None,
            "error": described.get("error"),
            "cause": reason(described.get("cause")) or None,
        },
        "states": states,
        "object": stored,
        "logs": logs,
        "capture": capture,
        "review": review,
        "missing": missing,
    }


def states_and_event(
    described: "DescribeExecutionOutputTypeDef",
) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """Return the states that an execution entered, and the last value of every field of its event, except the image.

    Parameters
    ----------
    described : dict
        Step Functions' description of the execution.
    """
    states: list[dict[str, Any]] = []
    event: dict[str, Any] = {}
    entered: list[datetime.datetime] = []
    pages = boto3.client("stepfunctions").get_paginator("get_execution_history")
    for page in pages.paginate(executionArn=described["executionArn"], PaginationConfig={"PageSize": 1000}):
        for item in page["events"]:
            if details := item.get("stateEnteredEventDetails"):
                event |= parse_object(details.get("input"))
                entered.append(item["timestamp"])
                states.append({"name": details["name"], "entered": _iso(item["timestamp"])})
                states[-1] |= {"seconds": None, "failures": []}
            elif left := item.get("stateExitedEventDetails"):
                event |= parse_object(left.get("output"))
                states[-1]["seconds"] = _seconds(entered[-1], item["timestamp"])
            elif states and not item["type"].startswith("Execution"):
                # TaskFailed, TaskTimedOut, LambdaFunctionFailed, …: each has its details under a different name.
                failed = next((value for value in item.values() if isinstance(value, dict) and "error" in value), None)
                if failed:
                    states[-1]["failures"].append(failed["error"])
    if states and states[-1]["seconds"] is None and "stopDate" in described:
        states[-1]["seconds"] = _seconds(entered[-1], described["stopDate"])
    event.pop("image_data", None)
    return states, event


def _object(event: dict[str, Any], missing: list[str]) -> tuple[dict[str, Any] | None, str | None]:
    """Describe the object in S3 as it is now; return it, and the SHA-256 of the image that the model saw."""
    bucket, key = event.get("s3_bucket"), event.get("s3_key")
    if bucket is None and isinstance(event.get("bucket"), dict) and isinstance(event.get("object"), dict):
        bucket, key = event["bucket"].get("name"), event["object"].get("key")  # an upload's event, before serialize
    if not isinstance(bucket, str) or not isinstance(key, str):
        missing.append("object: the input contains no bucket and key")
        return None, None
    source = event.get("source") or {}
    request: HeadObjectRequestTypeDef = {"Bucket": bucket, "Key": key}
    if "version_id" in source:
        request["VersionId"] = source["version_id"]
    s3 = boto3.client("s3")
    try:
        head = s3.head_object(**request)
    except ClientError as error:
        # HEAD has no body: the code is the status.
        gone = error.response["Error"]["Code"] in ("404", "NoSuchKey", "NoSuchBucket")
        missing.append(
            f"object: s3://{bucket}/{key} " + ("does not exist, or not any more" if gone else f"({explain(error)})")
        )
        return None, None
    etag = head["ETag"].strip('"')
    stored = {
        "uri": f"s3://{bucket}/{key}",
        "bytes": head["ContentLength"],
        "etag": etag,
        "last_modified": _iso(head["LastModified"]),
        "as_serialized": etag == source["etag"] if "etag" in source else None,
    }
    if not stored["as_serialized"]:
        return stored, None
    return stored, hashlib.sha256(s3.get_object(**request)["Body"].read()).hexdigest()


def _logs(stack: Stack, described: "DescribeExecutionOutputTypeDef", missing: list[str]) -> list[dict[str, Any]]:
    """Return the functions' log lines with the execution's ARN, oldest first."""
    found: list[dict[str, Any]] = []
    pages = boto3.client("logs").get_paginator("filter_log_events")
    for function in FUNCTIONS:
        group = f"/aws/lambda/{stack.name}-{function}"
        count = len(found)
        try:
            for page in pages.paginate(
                logGroupName=group,
                startTime=_milliseconds(described["startDate"] - BEFORE),
                endTime=_milliseconds(_end(described) + AFTER),
                # A term in quotation marks is matched exactly:
                # https://docs.aws.amazon.com/AmazonCloudWatch/latest/logs/FilterAndPatternSyntax.html
                filterPattern=f'"{described["executionArn"]}"',
            ):
                for item in page["events"]:
                    line = parse_object(item["message"])
                    if "_aws" not in line:  # a metric in embedded format
                        found.append(_line(function, item["timestamp"], line, item["message"]))
        except ClientError as error:
            if error.response["Error"]["Code"] != "ResourceNotFoundException":
                raise
            missing.append(f"logs: there is no log group {group}")
            continue
        if len(found) == count:
            missing.append(f"logs: none from {function} (not reached, expired, or not delivered yet: wait a minute)")
    return sorted(found, key=lambda line: line["time"])


def _line(function: str, timestamp: int, line: dict[str, Any], text: str) -> dict[str, Any]:
    time = datetime.datetime.fromtimestamp(timestamp / 1000, datetime.UTC)
    fields = {name: value for name, value in line.items() if name not in _COMMON and not name.startswith(_PLATFORM)}
    return {
        "time": _iso(time),
        "function": function,
        "level": line.get("level", ""),
        "message": line.get("message", text),
        "fields": fields,
    }


def _capture(
    stack: Stack, described: "DescribeExecutionOutputTypeDef", event: dict[str, Any], missing: list[str]
) -> dict[str, Any] | None:
    """Return the captured record of the execution's request."""
    endpoint = event.get("endpoint") or stack.output("EndpointName")
    if "inferences" not in event:
        missing.append("capture: the endpoint returned no predictions")
        return None
    try:
        config = data_capture(endpoint)
    except CommandError as error:
        missing.append(f"capture: {error}")
        return None
    request_id = inference_id(described["name"])
    reader = CaptureReader(
        config["DestinationS3Uri"], described["startDate"] - BEFORE, _end(described) + AFTER, endpoint
    )
    try:
        for capture in reader:
            if capture.inference_id == request_id:
                return {
                    "time": _iso(capture.time),
                    "event_id": capture.event_id,
                    "variant": capture.variant,
                    "content_type": capture.content_type,
                    "image_bytes": len(capture.image),
                    "probabilities": capture.probabilities,
                }
    except CommandError as error:
        missing.append(f"capture: {error}")
        return None
    if reader.nothing:
        missing.append(f"capture: {reader.nothing}")
        return None
    percentage = config.get("CurrentSamplingPercentage")
    sampling = f"{percentage}% of the requests are captured; " if percentage else ""
    missing.append(f"capture: no record in {config['DestinationS3Uri']} ({sampling}records arrive after minutes)")
    return None


def _review(
    stack: Stack, image_hash: str | None, described: "DescribeExecutionOutputTypeDef", missing: list[str]
) -> dict[str, Any] | None:
    """Return the record of a person's label for the image."""
    if described.get("error") != "ThresholdNotMet":
        missing.append("review: not requested")
        return None
    if image_hash is None:
        missing.append("review: labels are stored by the image's content, which is not available")
        return None
    address = storage.join(stack.labels_uri, f"{image_hash[:16]}.json")
    try:
        record = parse_object(storage.read(address).decode())
    except CommandError:
        missing.append("review: none yet: it is in the review queue or its dead-letter queue, or was dismissed")
        return None
    except ClientError as error:
        missing.append(f"review: {address} cannot be read ({explain(error)})")
        return None
    return {"uri": address, **{name: record.get(name) for name in ("label", "reviewer", "reviewed_at")}}


def show(timeline: dict[str, Any]) -> None:
    """Print a timeline, oldest line first."""
    from rich.table import Table
    from rich.text import Text

    execution, start = timeline["execution"], datetime.datetime.fromisoformat(timeline["execution"]["started"])
    out = console()

    def safe(text: str, style: str = "") -> Text:
        return Text(printable(text), style)

    def print_line(text: str, style: str = "") -> None:
        out.print(safe(text, style), soft_wrap=True)

    print_line(execution["arn"], "bold")
    print_line(f"{execution['status']}, started {execution['started']}")
    print_line(f"input {json.dumps(execution['input'])}")
    out.print()

    lines: list[tuple[str, str, str, str]] = []
    if timeline["object"]:
        stored = timeline["object"]
        rejected = any(state["name"] == "Serialize" and state["failures"] for state in timeline["states"])
        ended = "rejected by serialize" if rejected else "never serialized"
        same = {
            True: "the same that serialize read",
            False: "NOT the one that serialize read",
            None: "not yet serialized" if execution["status"] == "RUNNING" else ended,
        }
        lines.append(
            (stored["last_modified"], "S3", f"{stored['bytes']:,} bytes stored, {same[stored['as_serialized']]}", "")
        )
    for state in timeline["states"]:
        took = "still running" if state["seconds"] is None else f"{state['seconds']:.3f} s"
        failures = f", failed: {', '.join(state['failures'])}" if state["failures"] else ""
        lines.append((state["entered"], "workflow", f"{state['name']} ({took}{failures})", "bold"))
    for line in timeline["logs"]:
        fields = " ".join(f"{name}={value}" for name, value in line["fields"].items())
        style = "" if line["level"] in ("INFO", "DEBUG") else "yellow"
        lines.append((line["time"], line["function"], f"{line['level']} {line['message']} {fields}".rstrip(), style))
    if capture := timeline["capture"]:
        probabilities = ", ".join(f"{value:.3f}" for value in capture["probabilities"])
        text = f"captured {capture['content_type']} of {capture['image_bytes']:,} bytes; probabilities {probabilities}"
        # Captures have whole seconds, which would put the response before its request.
        requests = [state["entered"] for state in timeline["states"] if state["name"] == "Classify"]
        lines.append((max([capture["time"], *requests]), f"endpoint {capture['variant']}", text, ""))
    if review := timeline["review"]:
        lines.append((review["reviewed_at"], "review", f"labelled {review['label']} by {review['reviewer']}", "bold"))

    table = Table(box=None, pad_edge=False, show_header=False)
    table.add_column(justify="right", no_wrap=True)
    table.add_column(no_wrap=True)
    table.add_column(overflow="fold")
    for time, place, text, style in sorted(lines, key=lambda line: datetime.datetime.fromisoformat(line[0])):
        table.add_row(_since(datetime.datetime.fromisoformat(time) - start), safe(place), safe(text, style))
    out.print(table)
    if timeline["missing"]:
        out.print()
        print_line("not found")
        for text in timeline["missing"]:
            print_line(f"  {text}")
    output = execution["output"] or {}
    result = f"accepted: {output.get('label')}, confidence {output.get('confidence', 0):.3f}"
    if execution["status"] != "SUCCEEDED":
        result = f"{execution['error'] or execution['status']}: {execution['cause'] or 'no result yet'}"
    out.print()
    print_line(result, "bold")


def _since(passed: datetime.timedelta) -> str:
    seconds = passed.total_seconds()
    return f"{seconds:+.3f} s" if abs(seconds) < 600 else f"{seconds / 3600:+.1f} h"


def _seconds(start: datetime.datetime, end: datetime.datetime) -> float:
    return round((end - start).total_seconds(), 3)


def _end(described: "DescribeExecutionOutputTypeDef") -> datetime.datetime:
    return described["stopDate"] if "stopDate" in described else datetime.datetime.now(datetime.UTC)


def _iso(time: datetime.datetime) -> str:
    return time.astimezone(datetime.UTC).isoformat(timespec="milliseconds")


def _milliseconds(time: datetime.datetime) -> int:
    return int(time.timestamp() * 1000)
