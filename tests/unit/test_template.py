"""The stack: least privilege, limits that hold together, and parameters that explain themselves."""

import json
from pathlib import Path
from typing import Any

import pytest
from samtranslator.yaml_helper import yaml_parse

from src.serialize import app as serialize

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def template() -> dict[str, Any]:
    parsed: dict[str, Any] = yaml_parse((ROOT / "template.yaml").read_text())
    return parsed


def statements(role: dict[str, Any]) -> list[dict[str, Any]]:
    policies = role["Properties"]["Policies"]
    return [statement for policy in policies for statement in policy["PolicyDocument"]["Statement"]]


def actions(statement: dict[str, Any]) -> list[str]:
    listed = statement["Action"]
    return [listed] if isinstance(listed, str) else list(listed)


def of_type(template: dict[str, Any], kind: str) -> dict[str, Any]:
    return {name: body for name, body in template["Resources"].items() if body["Type"] == kind}


def test_no_role_may_do_more_than_it_must(template: dict[str, Any]) -> None:
    roles = of_type(template, "AWS::IAM::Role")
    allowed = {
        name: {action for statement in statements(role) for action in actions(statement)}
        for name, role in roles.items()
    }
    logs = {"logs:CreateLogStream", "logs:PutLogEvents"}
    traces = {"xray:PutTraceSegments", "xray:PutTelemetryRecords"}
    assert allowed["SerializeRole"] - logs - traces == {"s3:GetObject", "s3:ListBucket"}
    assert allowed["ClassifyRole"] - logs - traces == {"sagemaker:InvokeEndpoint"}
    assert allowed["FilterRole"] - logs - traces == set()
    of_workflow = {a for a in allowed["WorkflowRole"] if not a.startswith(("logs:", "xray:"))}
    assert of_workflow == {"lambda:InvokeFunction", "events:PutEvents", "sqs:SendMessage"}


def test_only_actions_without_resources_name_every_resource(template: dict[str, Any]) -> None:
    seen = 0
    for role in of_type(template, "AWS::IAM::Role").values():
        assert "ManagedPolicyArns" not in role["Properties"]
        for statement in statements(role):
            assert all("*" not in action for action in actions(statement))
            if statement["Resource"] == "*":
                seen += 1
                for action in actions(statement):
                    assert action.startswith("xray:") or (action.startswith("logs:") and "LogEvents" not in action), (
                        action
                    )
    assert seen == 4


def test_classify_may_ask_one_endpoint(template: dict[str, Any]) -> None:
    (invoke,) = [s for s in statements(template["Resources"]["ClassifyRole"]) if "sagemaker" in str(s["Action"])]
    arn = invoke["Resource"]["Fn::Sub"]
    assert arn.endswith(":endpoint/${EndpointName}") and "*" not in arn
    # SageMaker writes endpoint names into ARNs in lower case, so a name with capitals would never match.
    assert "A-Z" not in template["Parameters"]["EndpointName"]["AllowedPattern"]


def test_the_bucket_is_closed(template: dict[str, Any]) -> None:
    bucket = template["Resources"]["ImageBucket"]["Properties"]
    assert set(bucket["PublicAccessBlockConfiguration"].values()) == {True}
    assert bucket["BucketEncryption"]["ServerSideEncryptionConfiguration"]
    (policy,) = of_type(template, "AWS::S3::BucketPolicy").values()
    (statement,) = policy["Properties"]["PolicyDocument"]["Statement"]
    assert statement["Effect"] == "Deny" and statement["Condition"] == {"Bool": {"aws:SecureTransport": "false"}}


def test_every_queue_is_encrypted(template: dict[str, Any]) -> None:
    queues = of_type(template, "AWS::SQS::Queue")
    assert len(queues) == 3
    assert all(queue["Properties"]["SqsManagedSseEnabled"] is True for queue in queues.values())


def test_every_parameter_explains_and_constrains_itself(template: dict[str, Any]) -> None:
    for name, parameter in template["Parameters"].items():
        assert parameter["Description"].endswith("."), name
        assert "Default" in parameter, name
        assert {"AllowedPattern", "AllowedValues", "MinValue"} & set(parameter), name
    assert template["Parameters"]["Threshold"]["Default"] == "0.70", "sam local invoke loses a number with a fraction"
    assert template["Parameters"]["MaxEdge"]["Default"] == 224


def test_every_function_logs_json_to_a_group_with_retention(template: dict[str, Any]) -> None:
    for name, function in of_type(template, "AWS::Serverless::Function").items():
        config = function["Properties"]["LoggingConfig"]
        assert config["LogFormat"] == "JSON"
        group = template["Resources"][config["LogGroup"]["Ref"]]
        assert group["Properties"]["RetentionInDays"] == {"Ref": "LogRetentionDays"}, name
        assert {"Ref": "Architecture"} in template["Globals"]["Function"]["Architectures"]


def test_the_workflow_waits_longer_than_its_functions_may_run(template: dict[str, Any]) -> None:
    definition = json.loads((ROOT / "statemachine" / "classify.asl.json").read_text())
    longest = template["Globals"]["Function"]["Timeout"]
    for state in definition["States"].values():
        if state.get("Resource", "").endswith("lambda:invoke"):
            assert state["TimeoutSeconds"] > longest


def test_a_decoded_image_fits_the_memory_of_serialize(template: dict[str, Any]) -> None:
    memory = template["Resources"]["Serialize"]["Properties"]["MemorySize"]
    two_rgba_copies = 2 * 4 * serialize.MAX_PIXELS / 2**20
    assert two_rgba_copies + serialize.MAX_BYTES / 2**20 + 150 < memory
