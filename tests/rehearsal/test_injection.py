"""Injected faults look as the service's own errors, and only requests of the named operation meet them."""

import json
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from typing import Any

import pytest
from botocore.exceptions import ClientError

from rehearsal.injection import PATH
from tests.support.stack import Rehearsal


def put(rehearsal: Rehearsal, *faults: dict[str, Any]) -> None:
    url = f"{rehearsal.running.endpoint_url}{PATH}"
    with urllib.request.urlopen(urllib.request.Request(url, json.dumps(faults).encode(), method="PUT")):
        pass


@pytest.fixture
def clean(rehearsal: Rehearsal) -> Iterator[None]:
    """Take all faults away again."""
    yield
    put(rehearsal)


@pytest.mark.usefixtures("clean")
@pytest.mark.parametrize(
    ("service", "method", "arguments", "other", "code", "status"),
    [
        (
            *("lambda", "invoke", {"FunctionName": "f", "Payload": b"x" * 200_000}),
            *("list_functions", "TooManyRequestsException", 429),
        ),
        ("s3", "get_object", {"Bucket": "bucket", "Key": "a/b"}, "list_buckets", "SlowDown", 503),
        (
            *("sagemaker-runtime", "invoke_endpoint", {"EndpointName": "e", "Body": b"x"}),
            *("", "ThrottlingException", 400),
        ),
        (
            *("stepfunctions", "start_execution", {"stateMachineArn": "arn:aws:states:us-east-1:1:stateMachine:m"}),
            *("list_state_machines", "ThrottlingException", 400),
        ),
        ("sqs", "send_message", {"QueueUrl": "q", "MessageBody": "m"}, "list_queues", "ServiceUnavailable", 503),
    ],
)
def test_a_fault_is_an_error_of_its_operation(
    rehearsal: Rehearsal, service: str, method: str, arguments: dict[str, Any], other: str, code: str, status: int
) -> None:
    client = rehearsal.client(service)
    operation = client.meta.method_to_api_mapping[method]
    put(
        rehearsal,
        {"service": service, "operation": operation, "probability": 1, "code": code, "status": status},
    )
    with pytest.raises(ClientError) as caught:
        getattr(client, method)(**arguments)
    answer = caught.value.response
    assert (answer["Error"]["Code"], answer["ResponseMetadata"]["HTTPStatusCode"]) == (code, status)
    if other:
        getattr(client, other)()
    with urllib.request.urlopen(f"{rehearsal.running.endpoint_url}{PATH}") as listed:
        (fault,) = json.load(listed)
    assert fault["count"] == 1


@pytest.mark.usefixtures("clean")
def test_a_fault_without_a_code_is_a_late_answer(rehearsal: Rehearsal) -> None:
    put(rehearsal, {"service": "s3", "operation": "ListBuckets", "probability": 1, "delay": 0.5})
    began = time.monotonic()
    assert "Buckets" in rehearsal.client("s3").list_buckets()
    assert time.monotonic() - began >= 0.5


@pytest.mark.usefixtures("clean")
@pytest.mark.parametrize(
    "fault",
    [
        {"service": "s3", "operation": "Unknown", "probability": 1},
        {"service": "none", "operation": "GetObject", "probability": 1},
        {"service": "sns", "operation": "Publish", "probability": 1},
        {"operation": "GetObject"},
    ],
)
def test_a_fault_that_nothing_could_meet_is_refused(rehearsal: Rehearsal, fault: dict[str, Any]) -> None:
    with pytest.raises(urllib.error.HTTPError) as caught:
        put(rehearsal, fault)
    assert caught.value.code == 400
    caught.value.close()
