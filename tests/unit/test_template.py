"""The stack: least privilege, limits that hold together, and parameters that explain themselves."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
from botocore.session import Session
from botocore.validate import ParamValidator
from moto.events.models import EventPattern
from samtranslator.yaml_helper import yaml_parse

from operations.batch import FOLDER
from operations.replay import CORRECTED
from src.serialize import app as serialize
from src.serialize import decoder
from training.deployment.settings import Deployment, sagemaker_settings

ROOT = Path(__file__).parents[2]
FUNCTIONS = ("Serialize", "Classify", "Filter")


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


def arn(name: str) -> dict[str, list[str]]:
    return {"Fn::GetAtt": [name, "Arn"]}


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


def test_every_permission_names_its_resource(template: dict[str, Any]) -> None:
    prefix = "arn:${AWS::Partition}:%s:${AWS::Region}:${AWS::AccountId}:"
    expected = {
        "s3:GetObject": {"Fn::Sub": "${ImageBucket.Arn}/*"},
        "s3:ListBucket": arn("ImageBucket"),
        "sagemaker:InvokeEndpoint": {"Fn::Sub": f"{prefix % 'sagemaker'}endpoint/${{EndpointName}}"},
        "lambda:InvokeFunction": [{"Ref": f"{name}.Alias"} for name in FUNCTIONS],
        "events:PutEvents": arn("ResultBus"),
        "sqs:SendMessage": [arn("ReviewQueue"), arn("FailureQueue")],
    }
    seen = set()
    for name in ("SerializeRole", "ClassifyRole", "FilterRole", "WorkflowRole"):
        role = template["Resources"][name]
        for statement in statements(role):
            for action in actions(statement):
                if action in ("logs:CreateLogStream", "logs:PutLogEvents"):
                    assert statement["Resource"] == arn(f"{name.removesuffix('Role')}LogGroup")
                elif action.startswith(("xray:", "logs:")):
                    assert statement["Resource"] == "*", "AWS knows no resources for these"
                else:
                    assert statement["Resource"] == expected[action], action
                    seen.add(action)
    assert seen == set(expected)


def test_standard_and_express_run_one_chain(template: dict[str, Any]) -> None:
    standard, express = (template["Resources"][name]["Properties"] for name in ("Workflow", "ExpressWorkflow"))
    for name in ("DefinitionUri", "DefinitionSubstitutions", "Role"):
        assert standard[name] == express[name]
    assert (standard["Type"], express["Type"]) == ("STANDARD", "EXPRESS")
    assert express["Logging"]["IncludeExecutionData"] is False, "execution data hold the image"


def test_uploads_start_the_workflow_through_a_state_machine_that_may_do_nothing_else(template: dict[str, Any]) -> None:
    starter = template["Resources"]["UploadStarter"]["Properties"]
    assert starter["Type"] == "EXPRESS" and "Events" not in template["Resources"]["Workflow"]["Properties"]
    assert starter["Logging"]["Level"] == "ERROR" and starter["Logging"]["IncludeExecutionData"] is False
    allowed = {
        action: statement["Resource"]
        for statement in statements(template["Resources"]["UploadStarterRole"])
        for action in actions(statement)
        if not action.startswith(("logs:", "xray:"))
    }
    assert allowed == {"states:StartExecution": {"Ref": "Workflow"}, "sqs:SendMessage": arn("FailureQueue")}


def test_the_batch_workflow_may_start_its_children_and_touch_one_prefix(template: dict[str, Any]) -> None:
    children = template["Resources"]["BatchChildrenPolicy"]["Properties"]
    assert children["Roles"] == [{"Ref": "BatchRole"}]
    listed = [*statements(template["Resources"]["BatchRole"]), *children["PolicyDocument"]["Statement"]]
    allowed = {
        action: statement["Resource"]
        for statement in listed
        for action in actions(statement)
        if not action.startswith(("logs:", "xray:"))
    }
    execution = "arn:${AWS::Partition}:states:${AWS::Region}:${AWS::AccountId}:execution:${BatchWorkflow.Name}"
    below = {"Fn::Sub": f"${{ImageBucket.Arn}}/{FOLDER}/*"}
    assert allowed == {
        "states:StartSyncExecution": {"Ref": "ExpressWorkflow"},
        "states:StartExecution": {"Ref": "BatchWorkflow"},
        "sqs:SendMessage": arn("FailureQueue"),
        "states:DescribeExecution": {"Fn::Sub": f"{execution}:*"},
        "states:StopExecution": {"Fn::Sub": f"{execution}:*"},
        "states:RedriveExecution": {"Fn::Sub": f"{execution}/*"},
        "s3:ListBucket": arn("ImageBucket"),
        **dict.fromkeys(
            ("s3:GetObject", "s3:PutObject", "s3:ListMultipartUploadParts", "s3:AbortMultipartUpload"), below
        ),
    }


def test_keys_are_used_through_s3_in_every_partition() -> None:
    # Unlike names of endpoints, this one ends alike in all partitions:
    # https://docs.aws.amazon.com/kms/latest/developerguide/conditions-kms.html#conditions-kms-via-service
    for name in ("template.yaml", "training/roles.yaml"):
        conditions = re.findall(r"{.*kms:ViaService.*}", (ROOT / name).read_text())
        assert set(conditions) == {'{ StringEquals: { kms:ViaService: !Sub "s3.${AWS::Region}.amazonaws.com" } }'}, name


def test_no_role_has_a_managed_policy_or_a_resource_that_could_be_named(template: dict[str, Any]) -> None:
    # AWS knows no resources for two of these; its policies for Step Functions and SageMaker's jobs give the third so.
    unnamed = {"cloudwatch:PutMetricData", "ecr:GetAuthorizationToken", "sagemaker:ListTags"}
    unnamed |= {"cloudwatch:DescribeAlarms"}  # as in AWS's policy for CodeDeploy
    for role in of_type(template, "AWS::IAM::Role").values():
        assert "ManagedPolicyArns" not in role["Properties"]
        for statement in statements(role):
            if statement["Resource"] == "*":
                assert all(action in unnamed or action.startswith(("xray:", "logs:")) for action in actions(statement))
            assert not any(action.endswith("*") for action in actions(statement))


def test_the_drift_check_reads_captures_and_writes_its_results_only(template: dict[str, Any]) -> None:
    listed = statements(template["Resources"]["MonitorJobRole"])
    own = "${EndpointName}/*"
    paths = {
        "s3:GetObject": {f"/capture/{own}", f"/monitoring/baseline/{own}"},
        "s3:PutObject": {f"/monitoring/checks/{own}"},
    }
    for action, expected in paths.items():
        (resources,) = [statement["Resource"] for statement in listed if statement["Action"] == action]
        resources = resources if isinstance(resources, list) else [resources]
        assert {
            each["Fn::Sub"][0].removeprefix("arn:${AWS::Partition}:s3:::${Bucket}") for each in resources
        } == expected
    (metrics,) = [statement for statement in listed if statement["Action"] == "cloudwatch:PutMetricData"]
    namespace = {"Fn::Sub": "ImageClassifier/${AWS::StackName}"}
    assert metrics["Condition"] == {"StringEquals": {"cloudwatch:namespace": namespace}}
    passed = template["Resources"]["MonitorWorkflow"]["Properties"]["DefinitionSubstitutions"]["Namespace"]
    assert passed == namespace
    assert not any(action.startswith(("s3:Delete", "sagemaker:")) for each in listed for action in actions(each))


def test_the_drift_check_may_use_the_key_of_its_bucket_and_no_other(template: dict[str, Any]) -> None:
    policy = template["Resources"]["MonitorJobKeyPolicy"]
    assert template["Conditions"][policy["Condition"]] == {"Fn::Not": [{"Fn::Equals": [{"Ref": "KmsKeyArn"}, ""]}]}
    assert policy["Properties"]["Roles"] == [{"Ref": "MonitorJobRole"}]
    (statement,) = policy["Properties"]["PolicyDocument"]["Statement"]
    assert statement["Action"] == ["kms:Decrypt", "kms:GenerateDataKey"]
    assert statement["Resource"] == {"Ref": "KmsKeyArn"}
    key = re.compile(template["Parameters"]["KmsKeyArn"]["AllowedPattern"])
    for arn in ("arn:aws:kms:eu-west-1:123456789012:key/0a1b-2c", "arn:aws-cn:kms:cn-north-1:123456789012:key/mrk-0a"):
        assert key.search(arn)
    assert (
        not key.search("arn:aws:kms:eu-west-1:123456789012:alias/a")
        and template["Parameters"]["KmsKeyArn"]["Default"] == ""
    )


def test_every_function_is_built_for_every_architecture(template: dict[str, Any]) -> None:
    for function in of_type(template, "AWS::Serverless::Function").values():
        build = function["Metadata"]
        assert build["BuildMethod"] == "makefile"
        for architecture in template["Parameters"]["Architecture"]["AllowedValues"]:
            folder = build["ContextPath"]["Fn::Sub"].replace("${Architecture}", architecture)
            assert f'package.py" {architecture} ' in (ROOT / folder / "Makefile").read_text()


def test_step_functions_may_run_a_job_and_read_no_object(template: dict[str, Any]) -> None:
    listed = statements(template["Resources"]["MonitorRole"])
    allowed = {action for statement in listed for action in actions(statement)}
    assert {action for action in allowed if action.startswith("sagemaker:")} == {
        "sagemaker:DescribeEndpoint",
        *("sagemaker:CreateProcessingJob", "sagemaker:DescribeProcessingJob", "sagemaker:StopProcessingJob"),
        *("sagemaker:AddTags", "sagemaker:ListTags"),
    }
    assert not {"s3:GetObject", "s3:PutObject", "sns:Publish"} & allowed


def expiring(rules: list[dict[str, Any]]) -> dict[str, int]:
    return {rule["Prefix"]: rule["ExpirationInDays"] for rule in rules if "ExpirationInDays" in rule}


def test_captures_and_checks_expire_and_nothing_else(template: dict[str, Any], tmp_path: Path) -> None:
    bucket = template["Resources"]["ImageBucket"]["Properties"]
    expected = {"capture/": 90, "monitoring/checks/": 90}
    assert expiring(bucket["LifecycleConfiguration"]["Rules"]) == expected
    assert max(whole_numbers(template, "MonitorHours")) == 90 * 24
    # Data capture goes where the rule is, and where the check may read.
    (tmp_path / "model.onnx").touch()
    image = "123456789012.dkr.ecr.eu-west-1.amazonaws.com/i:1"
    wanted = Deployment("e", "models", "arn:aws:iam::123456789012:role/r", image, tmp_path / "model.onnx")
    assert sagemaker_settings(wanted, image, "s3://m")["capture"]["DestinationS3Uri"] == "s3://models/capture"


def test_the_documented_rules_for_another_bucket_are_those_of_the_stacks_own(template: dict[str, Any]) -> None:
    text = (ROOT / "docs" / "operations.md").read_text()
    (block,) = re.findall(r"^cat > lifecycle\.json <<'END'\n(.*?)^END$", text, re.M | re.S)
    documented = json.loads(block)
    shape = Session().get_service_model("s3").shape_for("PutBucketLifecycleConfigurationRequest")
    report = ParamValidator().validate({"Bucket": "b", "LifecycleConfiguration": documented}, shape)
    assert not report.has_errors(), report.generate_report()
    rules = template["Resources"]["ImageBucket"]["Properties"]["LifecycleConfiguration"]["Rules"]
    own = {rule["Filter"]["Prefix"]: rule["Expiration"]["Days"] for rule in documented["Rules"]}
    assert own == expiring(rules) and {rule["Status"] for rule in documented["Rules"]} == {"Enabled"}


@pytest.mark.parametrize(
    ("queue", "rules"),
    [
        ("EventDeadLetterQueue", [arn("UploadStarterImageUploaded"), arn("UncaughtFailureRule")]),
        ("FailureQueue", arn("UncaughtFailureRule")),
    ],
)
def test_only_the_rules_that_need_it_may_fill_a_queue(template: dict[str, Any], queue: str, rules: Any) -> None:
    (statement,) = [
        statement
        for policy in of_type(template, "AWS::SQS::QueuePolicy").values()
        for statement in policy["Properties"]["PolicyDocument"]["Statement"]
        if statement["Resource"] == arn(queue)
    ]
    assert (statement["Principal"], statement["Action"]) == ({"Service": "events.amazonaws.com"}, "sqs:SendMessage")
    assert statement["Condition"] == {"ArnEquals": {"aws:SourceArn": rules}}


def test_an_upload_is_handed_over_whole_and_a_folder_is_not(template: dict[str, Any]) -> None:
    event = template["Resources"]["UploadStarter"]["Properties"]["Events"]["ImageUploaded"]["Properties"]
    assert event["InputPath"] == "$.detail" and not {"Input", "InputTransformer"} & set(event)
    assert event["DeadLetterConfig"] == {"Arn": arn("EventDeadLetterQueue")}
    assert matches(event["Pattern"], "incoming/a.png", 7) and matches(event["Pattern"], "incoming/a", 7)
    for image in ("jpg", "jpeg", "png", "gif", "tif", "tiff", "webp", "bmp"):
        assert matches(event["Pattern"], f"incoming/empty.{image}", 0), image
        assert not matches(event["Pattern"], f"incoming/folder.{image}/", 0)
    assert not matches(event["Pattern"], "incoming/", 0) and not matches(event["Pattern"], "other/a.png", 7)


def matches(pattern: Any, key: str, size: int) -> bool:
    """Try the rule's pattern on an upload, by moto's matcher."""

    def resolved(part: Any) -> Any:
        if isinstance(part, dict) and set(part) in ({"Ref"}, {"Fn::Sub"}):
            names = {"ImageBucket": "images", "UploadPrefix": "incoming/"}
            return names[part["Ref"]] if "Ref" in part else part["Fn::Sub"].replace("${UploadPrefix}", "incoming/")
        if isinstance(part, dict):
            return {name: resolved(value) for name, value in part.items()}
        return [resolved(item) for item in part] if isinstance(part, list) else part

    detail = {"bucket": {"name": "images"}, "object": {"key": key, "size": size}}
    event: Any = {"source": "aws.s3", "detail-type": "Object Created", "detail": detail}
    return bool(EventPattern.load(json.dumps(resolved(pattern))).matches_event(event))


def test_failures_that_no_catch_sees_reach_the_failure_queue(template: dict[str, Any]) -> None:
    rule = template["Resources"]["UncaughtFailureRule"]["Properties"]
    states = json.loads((ROOT / "statemachine" / "classify.asl.json").read_text())["States"]
    patterns = rule["EventPattern"]["detail"]["$or"]
    assert {status for pattern in patterns for status in pattern["status"]} == {"FAILED", "TIMED_OUT", "ABORTED"}
    (errors,) = [pattern["error"] for pattern in patterns if "FAILED" in pattern["status"]]
    # AWS documents that States.ALL catches neither of the first two:
    # https://docs.aws.amazon.com/step-functions/latest/dg/concepts-error-handling.html
    assert set(errors) == {"States.DataLimitExceeded", "States.Runtime", states["Failure not recorded"]["Error"]}
    (target,) = rule["Targets"]
    assert target["Arn"] == arn("FailureQueue") and target["DeadLetterConfig"] == {"Arn": arn("EventDeadLetterQueue")}


#: Longest name that a service takes, and what it may hold: of a stack it is 128 letters, digits and hyphens.
PHYSICAL_NAMES = {
    "AWS::Events::EventBus": ("Name", 256, r"[/.\-_A-Za-z0-9]+"),
    "AWS::Logs::LogGroup": ("LogGroupName", 512, r"[.\-_/#A-Za-z0-9]+"),
    "AWS::CloudWatch::Dashboard": ("DashboardName", 255, r"[A-Za-z0-9_-]+"),
}


def test_names_of_ours_fit_the_longest_stack_name(template: dict[str, Any]) -> None:
    stack = ("A" + "-a9" * 43)[:128]
    for name, body in template["Resources"].items():
        kind, length, pattern = PHYSICAL_NAMES.get(body["Type"], ("", 0, ""))
        given = {key: body["Properties"][key] for key in body["Properties"] if key == kind}
        for key in (
            "BucketName",
            "QueueName",
            "TopicName",
            "FunctionName",
            "RoleName",
            "AlarmName",
            "StateMachineName",
        ):
            assert key not in body["Properties"], f"{name}: let CloudFormation name it"
        for value in given.values():
            full = value["Fn::Sub"].replace("${AWS::StackName}", stack)
            assert len(full) <= length and re.fullmatch(pattern, full), name


def whole_numbers(template: dict[str, Any], name: str) -> list[int]:
    """Return the numbers that a parameter's pattern accepts."""
    pattern = re.compile(template["Parameters"][name]["AllowedPattern"])
    return [number for number in range(1_000_100) if pattern.fullmatch(str(number))]


@pytest.mark.parametrize(
    ("name", "least", "most"),
    [
        ("MaxEdge", 32, serialize.LARGEST_MAX_EDGE),
        ("BatchSize", 1, 40),
        ("BatchConcurrency", 1, 1000),
        ("MonitorHours", 1, 2160),
        ("MonitorNewest", 30, 999_999),
    ],
)
def test_a_whole_number_is_accepted_within_its_limits_and_nothing_else_is(
    template: dict[str, Any], name: str, least: int, most: int
) -> None:
    assert whole_numbers(template, name) == list(range(least, most + 1))
    pattern = template["Parameters"][name]["AllowedPattern"]
    texts = ("224.5", "224.0", "", " 224", "0224", "2e2", "-224", "+224", "224\n")
    assert not any(re.fullmatch(pattern, text) for text in texts)


def test_a_parameter_that_takes_fractions_is_a_fraction(template: dict[str, Any]) -> None:
    # CloudFormation checks AllowedPattern for strings only, and a Number may have a fraction.
    for name, parameter in template["Parameters"].items():
        if parameter["Type"] == "Number" and "AllowedValues" not in parameter:
            assert (parameter["MinValue"], parameter["MaxValue"]) == (0, 1), f"{name}: a String with an AllowedPattern"
            assert re.fullmatch(r"0\.\d+", parameter["Default"]), "sam local invoke loses a number with a fraction"


def test_uploads_cannot_go_where_the_system_writes(template: dict[str, Any]) -> None:
    parameter = template["Parameters"]["UploadPrefix"]
    written = (FOLDER, "capture", CORRECTED, "labels", "model-monitor", "models", "monitoring", "samples")
    for folder in written:
        assert f"{folder}/" in parameter["ConstraintDescription"]
        # Every key below a prefix starts the workflow, so the first letters of a folder include it.
        for prefix in (f"{folder}/", f"{folder}/new/", folder, folder[:3], folder[0]):
            assert not re.fullmatch(parameter["AllowedPattern"], prefix), prefix
    for prefix in ("incoming/", "a/b/", "captures/", "my-labels/", "in/capture/"):
        assert re.fullmatch(parameter["AllowedPattern"], prefix), prefix
    assert not any(re.fullmatch(parameter["AllowedPattern"], prefix) for prefix in ("", "/", "incoming", "a//", "a b/"))


def test_only_alarms_of_this_account_may_publish_on_the_topic(template: dict[str, Any]) -> None:
    (policy,) = of_type(template, "AWS::SNS::TopicPolicy").values()
    (statement,) = policy["Properties"]["PolicyDocument"]["Statement"]
    assert (statement["Principal"], statement["Action"]) == ({"Service": "cloudwatch.amazonaws.com"}, "sns:Publish")
    assert statement["Condition"] == {"StringEquals": {"aws:SourceAccount": {"Ref": "AWS::AccountId"}}}


def test_without_an_address_nobody_is_subscribed(template: dict[str, Any]) -> None:
    condition, given, otherwise = template["Resources"]["AlarmTopic"]["Properties"]["Subscription"]["Fn::If"]
    assert template["Conditions"][condition] == {"Fn::Not": [{"Fn::Equals": [{"Ref": "AlarmEmail"}, ""]}]}
    assert given == [{"Protocol": "email", "Endpoint": {"Ref": "AlarmEmail"}}]
    assert otherwise == {"Ref": "AWS::NoValue"} and template["Parameters"]["AlarmEmail"]["Default"] == ""


def test_the_workflow_is_traced_and_logged_without_images(template: dict[str, Any]) -> None:
    workflow = template["Resources"]["Workflow"]["Properties"]
    assert workflow["Type"] == "STANDARD" and workflow["Tracing"] == {"Enabled": True}
    assert workflow["Logging"]["Level"] == "ERROR"
    assert workflow["Logging"]["IncludeExecutionData"] is False, "execution data hold the image"
    assert workflow["Logging"]["Destinations"]
    assert template["Globals"]["Function"]["Tracing"] == "Active"


def test_an_endpoints_name_is_written_as_in_its_arn(template: dict[str, Any]) -> None:
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
    for name, queue in of_type(template, "AWS::SQS::Queue").items():
        assert queue["Properties"]["SqsManagedSseEnabled"] is True, name


def test_every_parameter_has_a_default_and_a_constraint(template: dict[str, Any]) -> None:
    for name, parameter in template["Parameters"].items():
        assert "Default" in parameter, name
        assert {"AllowedPattern", "AllowedValues", "MinValue"} & set(parameter), name


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
    four_rgba_copies = 4 * 4 * decoder.MAX_PIXELS / 2**20
    assert four_rgba_copies + decoder.MAX_BYTES / 2**20 + 150 < memory


def test_every_image_below_the_threshold_is_reviewed_unless_a_parameter_says_otherwise(template: Any) -> None:
    parameter = template["Parameters"]["ReviewNeither"]
    assert (parameter["Default"], parameter["AllowedValues"]) == ("true", ["true", "false"])
    variables = template["Resources"]["Filter"]["Properties"]["Environment"]["Variables"]
    assert variables["REVIEW_NEITHER"] == {"Ref": "ReviewNeither"}
