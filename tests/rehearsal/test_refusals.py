"""What the rehearsal does not know is refused in one sentence, in the form of the service's own errors."""

import http.client
import json
from pathlib import Path
from typing import Any

import pytest
from botocore.exceptions import ClientError

from tests.support.stack import Rehearsal

#: One of each protocol and way of failing: no such operation, no such service, no such path, another operation's path.
UNKNOWN: list[tuple[str, str, dict[str, Any], str]] = [
    ("stepfunctions", "TestState", {"definition": "{}"}, "UnknownOperationException"),
    ("stepfunctions", "ValidateStateMachineDefinition", {"definition": "{}"}, "UnknownOperationException"),
    ("sagemaker", "ListHubs", {}, "UnknownOperationException"),
    ("cloudwatch", "PutCompositeAlarm", {"AlarmName": "a", "AlarmRule": "ALARM(b)"}, "UnknownOperationException"),
    ("cloudformation", "DetectStackDrift", {"StackName": "a"}, "InvalidAction"),
    ("ec2", "DescribeFpgaImages", {}, "InvalidAction"),
    ("lambda", "GetAccountSettings", {}, "UnknownOperationException"),
    ("schemas", "ListRegistries", {}, "UnknownOperationException"),
    ("gamelift", "ListFleets", {}, "UnknownOperationException"),
    ("s3", "GetBucketMetricsConfiguration", {"Bucket": "bucket", "Id": "a"}, "NotImplemented"),
    ("s3", "GetObjectTorrent", {"Bucket": "bucket", "Key": "a"}, "NotImplemented"),
]


@pytest.mark.parametrize(
    ("service", "operation", "parameters", "code"), UNKNOWN, ids=[f"{name}-{what}" for name, what, *_ in UNKNOWN]
)
def test_an_unknown_operation_is_refused_as_by_its_service(
    rehearsal: Rehearsal, service: str, operation: str, parameters: dict[str, Any], code: str
) -> None:
    client = rehearsal.client(service)
    method = {api: name for name, api in client.meta.method_to_api_mapping.items()}[operation]
    with pytest.raises(ClientError) as caught:
        getattr(client, method)(**parameters)
    error = caught.value.response["Error"]
    assert (error["Code"], error["Message"]) == (
        code,
        f"The rehearsal does not know the operation {operation} of {service}",
    )
    assert caught.value.response["ResponseMetadata"]["HTTPStatusCode"] == 501, "nothing is worth another attempt"


def test_a_fault_of_the_rehearsal_is_one_sentence(rehearsal: Rehearsal) -> None:
    client = http.client.HTTPConnection("localhost", rehearsal.running.port)
    scope = "AWS4-HMAC-SHA256 Credential=a/20260101/us-east-1/states/aws4_request, SignedHeaders=host, Signature=b"
    headers = {"Authorization": scope, "X-Amz-Target": "AWSStepFunctions.StartExecution"}
    client.request("POST", "/", "no JSON", {**headers, "Content-Type": "application/x-amz-json-1.0"})
    response = client.getresponse()
    answer = {name.lower(): value.split("#")[-1] for name, value in json.loads(response.read()).items()}
    client.close()
    assert (response.status, answer["__type"]) == (500, "InternalFailure")
    assert answer["message"].startswith("The rehearsal failed: ")


def test_sam_shows_the_sentence(rehearsal: Rehearsal, tmp_path: Path) -> None:
    code = "def handler(event, context): return event"
    function = {"Runtime": "python3.13", "Handler": "index.handler", "InlineCode": code}
    resources = {"Echo": {"Type": "AWS::Serverless::Function", "Properties": function}}
    body = json.dumps({"Transform": "AWS::Serverless-2016-10-31", "Resources": resources})
    rehearsal.client("cloudformation").create_stack(StackName="shown", TemplateBody=body)
    (tmp_path / "template.yaml").write_text(body)
    (tmp_path / "event.json").write_text("{}")
    for command, operation in {
        "list endpoints": "GetResource of cloudcontrolapi",
        "remote test-event list Echo": "DescribeRegistry of schemas",
        "remote test-event put Echo --name a --file event.json": "DescribeRegistry of schemas",
    }.items():
        done = rehearsal.run("sam", *command.split(), "--stack-name", "shown", check=False, cwd=tmp_path)
        assert done.returncode == 1, command
        assert f"The rehearsal does not know the operation {operation}" in done.stderr
        assert "Traceback" not in done.stderr and "<html" not in done.stdout + done.stderr
    rehearsal.client("cloudformation").delete_stack(StackName="shown")
