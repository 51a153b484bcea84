"""Injected faults look as the service's own errors, and only requests of the named operation meet them."""

import time
import urllib.error
from collections.abc import Iterator
from typing import Any

import pytest
from botocore.exceptions import ClientError

from rehearsal.injection import inject
from tests.support.stack import Rehearsal


@pytest.fixture
def clean(rehearsal: Rehearsal) -> Iterator[None]:
    """Take all faults away again."""
    yield
    inject(rehearsal.running.endpoint_url, [])


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
    fault = {"service": service, "operation": operation, "probability": 1, "code": code, "status": status}
    inject(rehearsal.running.endpoint_url, [fault])
    with pytest.raises(ClientError) as caught:
        getattr(client, method)(**arguments)
    answer = caught.value.response
    assert (answer["Error"]["Code"], answer["ResponseMetadata"]["HTTPStatusCode"]) == (code, status)
    assert answer["ResponseMetadata"]["RequestId"]
    if other:
        getattr(client, other)()
    (met,) = inject(rehearsal.running.endpoint_url, [])
    assert met["count"] == 1


@pytest.mark.usefixtures("clean")
def test_a_fault_without_a_code_is_a_late_answer(rehearsal: Rehearsal) -> None:
    late = {"service": "s3", "operation": "ListBuckets", "probability": 1, "delay": 0.5}
    inject(rehearsal.running.endpoint_url, [late])
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
        inject(rehearsal.running.endpoint_url, [fault])
    assert caught.value.code == 400
    caught.value.close()
