"""The documented examples of calling the classifier, run as they stand against a deployed stack."""

import base64
import contextlib
import io
import json
import re
from pathlib import Path
from typing import Any

import pytest

from demo import drawing
from tests.support.stack import REPOSITORY, STACK, Stack, wait_for


def snippet(language: str) -> str:
    """Return the page's only block in a language, with the name of the deployed stack."""
    text = (REPOSITORY / "docs" / "calling.md").read_text()
    (found,) = re.findall(rf"^```{language}\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
    return str(found)


def test_python(stack: Stack, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in stack.rehearsal.environment.items():
        monkeypatch.setenv(name, value)
    monkeypatch.chdir(tmp_path)
    drawing.bicycle(64, 64).save("bike.jpg")
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        exec(snippet("python").replace('"image-classifier"', f'"{STACK}"'), {})
    label, confidence = printed.getvalue().split()
    assert label == "bicycle" and float(confidence) >= 0.7


def test_nested_workflow(stack: Stack) -> None:
    task = json.loads(snippet("json").replace("WORKFLOW_ARN", stack.outputs["WorkflowArn"]))
    ends = {"Classified": {"Type": "Succeed"}, "Not classified": {"Type": "Fail", "ErrorPath": "$.failure.Error"}}
    machine = stack.rehearsal.client("stepfunctions").create_state_machine(
        name="caller",
        roleArn="arn:aws:iam::123456789012:role/caller",
        definition=json.dumps({"StartAt": "Classify image", "States": {"Classify image": task, **ends}}),
    )
    image = stack.put("nested/bike.png", drawing.bicycle(64, 64))
    address = {"bucket": image["s3_bucket"], "key": image["s3_key"]}
    done = stack.rehearsal.outcome(stack.rehearsal.execute(machine["stateMachineArn"], address))
    assert done["status"] == "SUCCEEDED", done
    classified = json.loads(done["output"])["classified"]
    assert classified["label"] == "bicycle" and classified["confidence"] >= 0.7


def test_rule_on_the_result_bus(stack: Stack) -> None:
    cloudformation, sqs = stack.rehearsal.client("cloudformation"), stack.rehearsal.client("sqs")
    bus = [{"ParameterKey": "ResultBusName", "ParameterValue": stack.outputs["ResultBusName"]}]
    cloudformation.create_stack(StackName="subscriber", TemplateBody=snippet("yaml"), Parameters=bus)
    try:
        resources = cloudformation.describe_stack_resources(StackName="subscriber")["StackResources"]
        queue = next(r["PhysicalResourceId"] for r in resources if r["ResourceType"] == "AWS::SQS::Queue")
        stack.classify(stack.put("rule/motorcycle.png", drawing.motorcycle(64, 64)))
        stack.classify(stack.put("rule/bicycle.png", drawing.bicycle(64, 64)))
        received: list[dict[str, Any]] = wait_for(
            lambda: (found := sqs.receive_message(QueueUrl=queue, MaxNumberOfMessages=10).get("Messages")) and found
        )
        assert [json.loads(m["Body"])["detail"]["s3_key"] for m in received] == ["rule/bicycle.png"]
    finally:
        cloudformation.delete_stack(StackName="subscriber")


def request(route: str, body: bytes = b"", **path: str) -> dict[str, Any]:
    """Return a request in the payload format 2.0, as API Gateway documents it, without what the function ignores."""
    method, pattern = route.split()
    return {
        "version": "2.0",
        "routeKey": route,
        "rawPath": pattern.format(**path),
        "headers": {"content-type": "image/png"},
        "pathParameters": path,
        "requestContext": {"http": {"method": method, "path": pattern.format(**path)}},
        "body": base64.b64encode(body).decode(),
        "isBase64Encoded": True,
    }


def test_http_api(stack: Stack) -> None:
    names = ("--stack-name", "http", "--config-env", "none", "--capabilities", "CAPABILITY_IAM", "--resolve-s3")
    given = f"WorkflowArn={stack.outputs['WorkflowArn']} ImageBucketName={stack.bucket}"
    template = str(REPOSITORY / "examples" / "http-api.yaml")
    stack.rehearsal.run("sam", "deploy", *names, "--template-file", template, "--parameter-overrides", given)
    (described,) = stack.rehearsal.client("cloudformation").describe_stacks(StackName="http")["Stacks"]
    outputs = {output["OutputKey"]: output["OutputValue"] for output in described["Outputs"]}

    def call(event: dict[str, Any]) -> tuple[int, dict[str, Any]]:
        invoked = stack.rehearsal.client("lambda").invoke(
            FunctionName=outputs["FunctionName"], Payload=json.dumps(event).encode()
        )
        answered = json.loads(invoked["Payload"].read())
        return answered["statusCode"], json.loads(answered["body"])

    def outcome(image: bytes) -> dict[str, Any]:
        status, started = call(request("POST /images", image))
        assert (status, started["status"]) == (202, "RUNNING")
        asked = request("GET /executions/{name}", name=started["execution"])
        return dict(wait_for(lambda: (found := call(asked)[1])["status"] != "RUNNING" and found))

    try:
        accepted = outcome(drawing.encoded(drawing.bicycle(64, 64)))
        assert accepted["status"] == "SUCCEEDED" and accepted["label"] == "bicycle" and accepted["confidence"] >= 0.7
        rejected = outcome(b"not an image")
        assert (rejected["status"], rejected["error"]) == ("FAILED", "UnsupportedImage")
        assert call(request("GET /executions/{name}", name="never"))[0] == 404
    finally:
        stack.rehearsal.client("cloudformation").delete_stack(StackName="http")
