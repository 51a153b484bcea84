"""CloudFormation in the rehearsal refuses what AWS refuses, and undoes what fails."""

import io
import json
import zipfile
from pathlib import Path
from typing import Any

import pytest
from botocore.exceptions import ClientError

from rehearsal.s3 import is_bucket_name
from tests.support.stack import Rehearsal

ROLE = "arn:aws:iam::123456789012:role/r"
QUEUE = {"Type": "AWS::SQS::Queue"}
#: A workflow that no engine takes.
BROKEN = {"Type": "AWS::StepFunctions::StateMachine", "Properties": {"RoleArn": ROLE, "DefinitionString": "${No}"}}


def template(resources: dict[str, Any], parameters: dict[str, Any] | None = None, **more: Any) -> str:
    return json.dumps({"Parameters": parameters or {}, "Resources": resources, **more})


class Cloud:
    """One stack, changed by change sets as SAM CLI does."""

    def __init__(self, rehearsal: Rehearsal, name: str) -> None:
        self.client, self.name, self._count = rehearsal.client("cloudformation"), name, 0

    def deploy(self, body: str, kind: str, **parameters: str) -> str:
        """Apply a template; return the stack's status."""
        self._count += 1
        change_set = f"change-{self._count}"
        given = [{"ParameterKey": name, "ParameterValue": value} for name, value in parameters.items()]
        names = {"StackName": self.name, "ChangeSetName": change_set}
        made = self.client.create_change_set(**names, ChangeSetType=kind, TemplateBody=body, Parameters=given)
        self.client.execute_change_set(StackName=self.name, ChangeSetName=made["Id"])
        return self.status

    @property
    def described(self) -> dict[str, Any]:
        (stack,) = self.client.describe_stacks(StackName=self.name)["Stacks"]
        return dict(stack)

    @property
    def status(self) -> str:
        return str(self.described["StackStatus"])

    @property
    def outputs(self) -> dict[str, str]:
        return {output["OutputKey"]: output["OutputValue"] for output in self.described.get("Outputs", [])}

    @property
    def resources(self) -> dict[str, str]:
        listed = self.client.describe_stack_resources(StackName=self.name)["StackResources"]
        return {resource["LogicalResourceId"]: resource["PhysicalResourceId"] for resource in listed}

    def events(self) -> list[tuple[str, str, str]]:
        """Return name, status and reason of each event, oldest first."""
        events = self.client.describe_stack_events(StackName=self.name)["StackEvents"]
        return [
            (event["LogicalResourceId"], event["ResourceStatus"], event.get("ResourceStatusReason", ""))
            for event in reversed(events)
        ]

    def delete(self) -> None:
        self.client.delete_stack(StackName=self.name)


@pytest.mark.parametrize(
    ("slot", "value", "message"),
    [
        ({"Type": "Number", "MaxValue": 1}, "70", "Parameter 'P' must be a number not greater than 1"),
        ({"Type": "Number", "MinValue": "0.5"}, ".49", "Parameter 'P' must be a number not less than 0.5"),
        ({"Type": "Number"}, "", "Parameter 'P' must be a number"),
        ({"Type": "Number"}, "nan", "Parameter 'P' must be a number"),
        ({"Type": "Number"}, "1_0", "Parameter 'P' must be a number"),
        ({"Type": "List<Number>", "MaxValue": 2}, "1,3", "Parameter 'P' must be a number not greater than 2"),
        ({"Type": "Number", "AllowedValues": [1, 2]}, "3", "Parameter 'P' must be one of AllowedValues"),
        ({"Type": "String", "AllowedValues": [True]}, "True", "Parameter 'P' must be one of AllowedValues"),
        ({"Type": "CommaDelimitedList", "AllowedValues": ["a"]}, "a,b", "Parameter 'P' must be one of AllowedValues"),
        ({"Type": "String", "AllowedPattern": "[a-z]+"}, "ab1", "Parameter 'P' must match pattern [a-z]+"),
        ({"Type": "String", "AllowedPattern": "[a-z]+"}, "ab\n", "Parameter 'P' must match pattern [a-z]+"),
        ({"Type": "String", "MinLength": 2}, "a", "Parameter 'P' must contain at least 2 characters"),
        ({"Type": "String", "MaxLength": "2"}, "abc", "Parameter 'P' must contain at most 2 characters"),
        ({"Type": "String", "Default": "a"}, None, "Parameter 'P' must match pattern [b]"),
        ({"Type": "String"}, None, "Parameters: [P] must have values"),
        (
            {"Type": "Number", "MaxValue": 1, "ConstraintDescription": "a share of one."},
            "2",
            "Parameter P failed to satisfy constraint: a share of one.",
        ),
    ],
)
def test_a_parameter_that_breaks_its_constraint_is_refused(
    rehearsal: Rehearsal, slot: dict[str, Any], value: str | None, message: str
) -> None:
    if "[b]" in message:
        slot = {**slot, "AllowedPattern": "[b]"}
    cloud = Cloud(rehearsal, "constraints")
    given = {} if value is None else {"P": value}
    with pytest.raises(ClientError) as caught:
        cloud.deploy(template({"Queue": QUEUE}, {"P": slot}), "CREATE", **given)
    error = caught.value.response["Error"]
    assert (error["Code"], error["Message"]) == ("ValidationError", message)
    assert "constraints" not in str(cloud.client.describe_stacks()["Stacks"]), "no stack is left of it"


def test_an_unknown_parameter_is_refused_and_good_ones_are_taken(rehearsal: Rehearsal) -> None:
    slots = {
        "Share": {"Type": "Number", "MinValue": 0, "MaxValue": 1, "Default": 0.7},
        "Days": {"Type": "Number", "AllowedValues": [1, 14]},
        "Names": {"Type": "CommaDelimitedList", "AllowedPattern": "[a-z]+"},
        "Flag": {"Type": "String", "AllowedValues": [True, False], "Default": True},
        "Code": {"Type": "String", "AllowedPattern": "^$|[A-Z]{3}", "MaxLength": 3, "Default": ""},
    }
    cloud, body = Cloud(rehearsal, "good"), template({"Queue": QUEUE}, slots)
    good = {"Share": "1.0", "Days": "14", "Names": "a,bc"}
    with pytest.raises(ClientError, match=r"Parameters: \[Dyas\] do not exist in the template"):
        cloud.deploy(body, "CREATE", **good, Dyas="1")
    assert cloud.deploy(body, "CREATE", **good) == "CREATE_COMPLETE"
    # SAM CLI keeps what it is not told to change.
    previous = [{"ParameterKey": name, "UsePreviousValue": True} for name in ("Share", "Names", "Flag", "Code")]
    given = [*previous, {"ParameterKey": "Days", "ParameterValue": "1"}]
    names = {"StackName": "good", "ChangeSetName": "keep"}
    cloud.client.create_change_set(**names, ChangeSetType="UPDATE", TemplateBody=body, Parameters=given)
    cloud.client.execute_change_set(**names)
    assert cloud.status == "UPDATE_COMPLETE"
    with pytest.raises(ClientError, match="Parameter 'Days' must be one of AllowedValues"):
        cloud.client.update_stack(
            StackName="good",
            TemplateBody=body,
            Parameters=[*previous, {"ParameterKey": "Days", "ParameterValue": "2"}],
        )
    assert cloud.status == "UPDATE_COMPLETE"
    cloud.delete()


@pytest.mark.parametrize(
    ("name", "good"),
    [
        ("my-bucket.1", True),
        ("abc", True),
        ("a" * 63, True),
        ("192.168.5.400", True),
        ("My-Bucket", False),
        ("ab", False),
        ("a" * 64, False),
        ("my_bucket", False),
        ("-bucket", False),
        ("bucket-", False),
        ("my..bucket", False),
        ("192.168.5.4", False),
        ("xn--bucket", False),
        ("bucket-s3alias", False),
        ("bucket\n", False),
    ],
)
def test_bucket_names(name: str, good: bool) -> None:
    assert is_bucket_name(name) is good


def test_a_bucket_with_capitals_is_refused_everywhere(rehearsal: Rehearsal) -> None:
    with pytest.raises(ClientError) as caught:
        rehearsal.client("s3").create_bucket(Bucket="With-Capitals")
    assert caught.value.response["Error"]["Code"] == "InvalidBucketName"
    cloud = Cloud(rehearsal, "capitals")
    bucket = {"Type": "AWS::S3::Bucket", "Properties": {"BucketName": {"Fn::Sub": "${AWS::StackName}-Images"}}}
    assert cloud.deploy(template({"Queue": QUEUE, "Bucket": bucket}), "CREATE") == "ROLLBACK_COMPLETE"
    failed = [event for event in cloud.events() if event[1] == "CREATE_FAILED"]
    assert [(name, "bucket is not valid" in reason) for name, _, reason in failed] == [("Bucket", True)]
    assert cloud.resources == {}
    cloud.delete()


def test_a_failed_creation_takes_no_update_and_can_be_deleted(rehearsal: Rehearsal) -> None:
    cloud, queues = Cloud(rehearsal, "broken"), rehearsal.client("sqs")
    named = {"Type": "AWS::SQS::Queue", "Properties": {"QueueName": "of-broken"}}
    outputs = {"Queue": {"Value": {"Ref": "Queue"}, "Export": {"Name": "broken-queue"}}}
    body = template({"Queue": named, "Broken": BROKEN}, WORD, Outputs=outputs)
    assert cloud.deploy(body, "CREATE", Word="given") == "ROLLBACK_COMPLETE"
    told = [(name, status) for name, status, _ in cloud.events()]
    assert told[1:] == [
        ("broken", "CREATE_IN_PROGRESS"),
        ("Queue", "CREATE_COMPLETE"),
        ("Broken", "CREATE_FAILED"),
        ("broken", "ROLLBACK_IN_PROGRESS"),
        ("Queue", "DELETE_COMPLETE"),
        ("broken", "ROLLBACK_COMPLETE"),
    ]
    reasons = [reason for _, status, reason in cloud.events() if status in ("CREATE_FAILED", "ROLLBACK_IN_PROGRESS")]
    assert "no value for" in reasons[0]
    assert reasons[1] == "The following resource(s) failed to create: [Broken]. Rollback requested by user."
    assert "QueueUrls" not in queues.list_queues(QueueNamePrefix="of-broken") and cloud.outputs == {}
    with pytest.raises(ClientError, match="is in ROLLBACK_COMPLETE state and can not be updated"):
        cloud.deploy(template({"Queue": named}), "UPDATE")
    with pytest.raises(ClientError, match=r"Stack \[broken\] already exists and cannot be created again"):
        cloud.deploy(template({"Queue": named}), "CREATE")
    cloud.delete()
    assert cloud.deploy(template({"Queue": named}, Outputs=outputs), "CREATE") == "CREATE_COMPLETE"
    cloud.delete()
    cloud.client.create_stack(StackName="broken", TemplateBody=body)
    assert (cloud.status, cloud.resources) == ("ROLLBACK_COMPLETE", {})
    cloud.delete()
    cloud.delete()
    assert "broken" not in str(cloud.client.describe_stacks()["Stacks"])


def update_that_fails(broken: dict[str, Any], name: str = "another") -> dict[str, Any]:
    """Return a template's resources that change, replace, remove and add, before one fails."""
    return {
        "Kept": {"Type": "AWS::SQS::Queue", "Properties": {"QueueName": "kept", "VisibilityTimeout": 77}},
        "Renamed": {"Type": "AWS::S3::Bucket", "Properties": {"BucketName": f"renamed-{name}"}},
        "Added": {"Type": "AWS::SQS::Queue", "Properties": {"QueueName": "added"}},
        "Conditional": {"Type": "AWS::SQS::Queue", "Condition": "No", "Properties": {"QueueName": "conditional"}},
        "Last": broken,
    }


BEFORE = {
    "Kept": {"Type": "AWS::SQS::Queue", "Properties": {"QueueName": "kept"}},
    "Renamed": {"Type": "AWS::S3::Bucket", "Properties": {"BucketName": "renamed-first"}},
    "Removed": {"Type": "AWS::SQS::Queue", "Properties": {"QueueName": "removed"}},
    "Conditional": {"Type": "AWS::SQS::Queue", "Properties": {"QueueName": "conditional"}},
}
CONDITIONS = {"No": {"Fn::Equals": [{"Ref": "Word"}, "first"]}}
WORD = {"Word": {"Type": "String", "Default": "first"}}


@pytest.mark.parametrize("by", ["change set", "update_stack"])
@pytest.mark.parametrize("fault", ["resource", "output"])
def test_a_failed_update_leaves_everything_as_it_was(rehearsal: Rehearsal, by: str, fault: str) -> None:
    cloud, sqs, s3 = Cloud(rehearsal, "undone"), rehearsal.client("sqs"), rehearsal.client("s3")
    outputs = {"Word": {"Value": {"Fn::Sub": "${Word} ${Renamed}"}}}
    before = template(BEFORE, WORD, Outputs=outputs)
    assert cloud.deploy(before, "CREATE") == "CREATE_COMPLETE"
    resources = cloud.resources
    s3.put_object(Bucket="renamed-first", Key="precious", Body=b"1")
    for name in ("kept", "removed", "conditional"):
        sqs.send_message(QueueUrl=sqs.get_queue_url(QueueName=name)["QueueUrl"], MessageBody=f"in {name}")
    bad = {**outputs, "Bad": {"Value": {"Fn::GetAtt": ["Kept", "Colour"]}}} if fault == "output" else outputs
    changed = template(
        update_that_fails(BROKEN if fault == "resource" else QUEUE), WORD, Conditions=CONDITIONS, Outputs=bad
    )
    if by == "change set":
        status = cloud.deploy(changed, "UPDATE", Word="second")
    else:
        given = [{"ParameterKey": "Word", "ParameterValue": "second"}]
        cloud.client.update_stack(StackName="undone", TemplateBody=changed, Parameters=given)
        status = cloud.status
    assert status == "UPDATE_ROLLBACK_COMPLETE"
    assert (cloud.resources, cloud.outputs) == (resources, {"Word": "first renamed-first"})
    assert cloud.described["Parameters"] == [{"ParameterKey": "Word", "ParameterValue": "first"}]
    assert "77" not in json.dumps(cloud.client.get_template(StackName="undone")["TemplateBody"])
    buckets = [bucket["Name"] for bucket in s3.list_buckets()["Buckets"]]
    assert "renamed-first" in buckets and "renamed-another" not in buckets
    s3.get_object(Bucket="renamed-first", Key="precious")
    for name in ("kept", "removed", "conditional"):
        url = sqs.get_queue_url(QueueName=name)["QueueUrl"]
        attributes = sqs.get_queue_attributes(QueueUrl=url, AttributeNames=["All"])["Attributes"]
        assert (attributes["ApproximateNumberOfMessages"], attributes["VisibilityTimeout"]) == ("1", "30")
    assert "QueueUrls" not in sqs.list_queues(QueueNamePrefix="added")
    events = cloud.events()
    if fault == "resource":
        assert ("Last", "CREATE_FAILED") in [event[:2] for event in events]
        assert (
            "undone",
            "UPDATE_ROLLBACK_IN_PROGRESS",
            "The following resource(s) failed to create: [Last]. ",
        ) in events
    assert events[-1][:2] == ("undone", "UPDATE_ROLLBACK_COMPLETE")
    # What failed can be mended, and what the change removes and replaces is gone then.
    s3.delete_object(Bucket="renamed-first", Key="precious")
    mended = template(update_that_fails(QUEUE), WORD, Conditions=CONDITIONS, Outputs=outputs)
    assert cloud.deploy(mended, "UPDATE", Word="second") == "UPDATE_COMPLETE"
    assert cloud.outputs == {"Word": "second renamed-another"}
    assert set(cloud.resources) == {"Kept", "Renamed", "Added", "Last"}
    for name in ("removed", "conditional"):
        assert "QueueUrls" not in sqs.list_queues(QueueNamePrefix=name)
    assert "renamed-first" not in str(s3.list_buckets()["Buckets"])
    cloud.delete()
    assert "renamed-another" not in str(s3.list_buckets()["Buckets"])


def test_a_change_that_fails_half_way_through_a_resource_is_undone(rehearsal: Rehearsal) -> None:
    cloud, alarms = Cloud(rehearsal, "half"), rehearsal.client("cloudwatch")
    properties = {
        "AlarmName": "half",
        "Namespace": "N",
        "MetricName": "M",
        "Statistic": "Sum",
        "Period": 60,
        "EvaluationPeriods": 1,
        "Threshold": 3,
        "ComparisonOperator": "GreaterThanThreshold",
    }

    def body(threshold: int, actions: list[str], definition: str) -> str:
        alarm = {**properties, "Threshold": threshold, "AlarmActions": actions}
        machine = {"RoleArn": ROLE, "DefinitionString": definition}
        return template(
            {
                "Machine": {"Type": "AWS::StepFunctions::StateMachine", "Properties": machine},
                "Alarm": {"Type": "AWS::CloudWatch::Alarm", "Properties": alarm},
            }
        )

    first, second = (json.dumps({"StartAt": name, "States": {name: {"Type": "Succeed"}}}) for name in "AB")
    assert cloud.deploy(body(3, [], first), "CREATE") == "CREATE_COMPLETE"
    assert cloud.deploy(body(4, ["arn:aws:elsewhere:::x"], second), "UPDATE") == "UPDATE_ROLLBACK_COMPLETE"
    (alarm,) = alarms.describe_alarms(AlarmNames=["half"])["MetricAlarms"]
    assert (alarm["Threshold"], alarm["AlarmActions"]) == (3.0, [])
    states = rehearsal.client("stepfunctions")
    assert states.describe_state_machine(stateMachineArn=cloud.resources["Machine"])["definition"] == first
    assert ("Alarm", "UPDATE_FAILED") in [event[:2] for event in cloud.events()]
    assert cloud.deploy(body(4, [], second), "UPDATE") == "UPDATE_COMPLETE"
    cloud.delete()


def test_a_stack_fails_with_a_stack_inside_it(rehearsal: Rehearsal) -> None:
    cloud, s3 = Cloud(rehearsal, "outer"), rehearsal.client("s3")
    s3.create_bucket(Bucket="inner-templates")
    s3.put_object(Bucket="inner-templates", Key="t.json", Body=template({"Queue": QUEUE, "Broken": BROKEN}).encode())
    where = {"TemplateURL": "https://s3.amazonaws.com/inner-templates/t.json"}
    inner = {"Type": "AWS::CloudFormation::Stack", "Properties": where}
    assert cloud.deploy(template({"Queue": QUEUE, "Inner": inner}), "CREATE") == "ROLLBACK_COMPLETE"
    (reason,) = [reason for name, status, reason in cloud.events() if (name, status) == ("Inner", "CREATE_FAILED")]
    assert reason.endswith("The following resource(s) failed to create: [Broken]. Rollback requested by user.")
    assert [stack["StackName"] for stack in cloud.client.describe_stacks()["Stacks"] if "outer" in str(stack)] == [
        "outer"
    ]
    cloud.delete()


def test_a_full_bucket_survives_its_removal_and_keeps_its_stack(rehearsal: Rehearsal) -> None:
    cloud, s3 = Cloud(rehearsal, "full"), rehearsal.client("s3")
    bucket = {"Type": "AWS::S3::Bucket", "Properties": {"BucketName": "full-one"}}
    retained = {**bucket, "Properties": {"BucketName": "full-two"}, "DeletionPolicy": "Retain"}
    last = {"Type": "AWS::S3::Bucket", "Properties": {"BucketName": "full-three"}}
    assert cloud.deploy(template({"One": bucket, "Two": retained, "Queue": QUEUE}), "CREATE") == "CREATE_COMPLETE"
    s3.put_object(Bucket="full-one", Key="k", Body=b"")
    assert cloud.deploy(template({"Queue": QUEUE, "Three": last}), "UPDATE") == "UPDATE_COMPLETE"
    told = [event[:2] for event in cloud.events()]
    assert ("One", "DELETE_FAILED") in told and ("Two", "DELETE_SKIPPED") in told
    names = [bucket["Name"] for bucket in s3.list_buckets()["Buckets"]]
    assert {"full-one", "full-two", "full-three"} <= set(names)
    s3.put_object(Bucket="full-three", Key="k", Body=b"")
    cloud.delete()
    assert cloud.status == "DELETE_FAILED" and "not empty" in cloud.events()[-1][2]
    with pytest.raises(ClientError, match="is in DELETE_FAILED state and can not be updated"):
        cloud.deploy(template({"Queue": QUEUE}), "UPDATE")
    s3.delete_object(Bucket="full-three", Key="k")
    cloud.delete()
    assert "full" not in [stack["StackName"] for stack in cloud.client.describe_stacks()["Stacks"]]
    s3.delete_object(Bucket="full-one", Key="k")
    for name in ("full-one", "full-two"):
        s3.delete_bucket(Bucket=name)


def test_sam_deploy_shows_what_failed(rehearsal: Rehearsal, tmp_path: Path) -> None:
    source = tmp_path / "template.yaml"
    slots = {"Threshold": {"Type": "Number", "MinValue": 0, "MaxValue": 1, "Default": 0.7}}
    names = ("--stack-name", "shown", "--resolve-s3", "--capabilities", "CAPABILITY_IAM")

    def deploy(resources: dict[str, Any], *more: str) -> tuple[int, str]:
        body = json.loads(template(resources, slots))
        source.write_text(json.dumps({"Transform": "AWS::Serverless-2016-10-31", **body}))
        done = rehearsal.run("sam", "deploy", "-t", str(source), *names, *more, check=False, cwd=tmp_path)
        return done.returncode, " ".join((done.stdout + done.stderr).split())

    code, said = deploy({"Queue": QUEUE}, "--parameter-overrides", "Threshold=70")
    assert code == 1 and "Parameter 'Threshold' must be a number not greater than 1" in said
    code, said = deploy({"Queue": QUEUE, "Broken": BROKEN})
    assert code == 1 and "CREATE_FAILED" in said and "ROLLBACK_COMPLETE" in said and "no value for ${No}" in said
    code, said = deploy({"Queue": QUEUE})
    assert code == 1 and "ROLLBACK_COMPLETE state and can not be updated" in said
    rehearsal.run("sam", "delete", "--stack-name", "shown", "--no-prompts")
    assert deploy({"Queue": QUEUE})[0] == 0
    code, said = deploy({"Queue": QUEUE, "Broken": BROKEN})
    assert code == 1 and "UPDATE_ROLLBACK_COMPLETE" in said
    assert deploy({"Queue": QUEUE, "Other": QUEUE})[0] == 0
    rehearsal.run("sam", "delete", "--stack-name", "shown", "--no-prompts")


FUNCTION = "import os\n\ndef lambda_handler(event, context):\n    return [%r, os.environ['WORD']]\n"


def published(rehearsal: Rehearsal, code: str, **more: Any) -> str:
    """Return a template as SAM makes it for a function and a state machine that are called by their aliases."""
    package = io.BytesIO()
    with zipfile.ZipFile(package, "w") as archive:
        archive.writestr("app.py", FUNCTION % code)
    s3, key = rehearsal.client("s3"), f"{code}.zip"
    s3.create_bucket(Bucket="packages")
    s3.put_object(Bucket="packages", Key=key, Body=package.getvalue())
    allow = {"Effect": "Allow", "Principal": {"Service": "lambda.amazonaws.com"}, "Action": "sts:AssumeRole"}
    word, retain = {"Ref": "Word"}, {"DeletionPolicy": "Retain", "UpdateReplacePolicy": "Retain"}
    task = {"Type": "Task", "Resource": "arn:aws:states:::lambda:invoke", "OutputPath": "$.Payload", "End": True}
    task["Parameters"] = {"FunctionName": "${Function}", "Payload": {}}
    machine = {"Fn::GetAtt": ["Machine", "StateMachineRevisionId"]}
    resources: dict[str, Any] = {
        "Role": {"Type": "AWS::IAM::Role", "Properties": {"AssumeRolePolicyDocument": {"Statement": [allow]}}},
        "Function": {
            "Type": "AWS::Lambda::Function",
            "Properties": {
                "Code": {"S3Bucket": "packages", "S3Key": key},
                "Handler": "app.lambda_handler",
                "Role": {"Fn::GetAtt": ["Role", "Arn"]},
                "Runtime": "python3.13",
                "Timeout": 900,
                "Environment": {"Variables": {"WORD": word}},
            },
        },
        f"Version{code}": {
            "Type": "AWS::Lambda::Version",
            "Properties": {"FunctionName": {"Ref": "Function"}, "Description": word},
            **retain,
        },
        "Alias": {
            "Type": "AWS::Lambda::Alias",
            "Properties": {
                "FunctionName": {"Ref": "Function"},
                "FunctionVersion": {"Fn::GetAtt": [f"Version{code}", "Version"]},
                "Name": "live",
            },
        },
        "Machine": {
            "Type": "AWS::StepFunctions::StateMachine",
            "Properties": {
                "RoleArn": ROLE,
                "DefinitionString": json.dumps({"Comment": "${Word}", "StartAt": "A", "States": {"A": task}}),
                "DefinitionSubstitutions": {"Function": {"Ref": "Alias"}, "Word": word},
            },
        },
        "MachineVersion": {
            "Type": "AWS::StepFunctions::StateMachineVersion",
            "Properties": {"StateMachineArn": {"Ref": "Machine"}, "StateMachineRevisionId": machine},
            **retain,
        },
        "MachineAlias": {
            "Type": "AWS::StepFunctions::StateMachineAlias",
            "Properties": {
                "Name": "live",
                "DeploymentPreference": {"StateMachineVersionArn": {"Ref": "MachineVersion"}, "Type": "ALL_AT_ONCE"},
            },
        },
        **more,
    }
    return template(resources, WORD)


def test_a_change_publishes_versions_and_moves_their_aliases(rehearsal: Rehearsal) -> None:
    cloud, functions, states = Cloud(rehearsal, "live"), rehearsal.client("lambda"), rehearsal.client("stepfunctions")
    assert cloud.deploy(published(rehearsal, "a"), "CREATE") == "CREATE_COMPLETE"
    function, alias, machine_alias = (cloud.resources[name] for name in ("Function", "Alias", "MachineAlias"))
    assert alias.endswith(f":function:{function}:live") and machine_alias == f"{cloud.resources['Machine']}:live"

    def seen() -> tuple[Any, str, str, str]:
        """Return what the function and the workflow answer by their aliases, and which version each of them ran."""
        answer = functions.invoke(FunctionName=alias)
        ended = rehearsal.outcome(rehearsal.execute(machine_alias, {}))
        words = json.load(answer["Payload"])
        assert json.loads(ended["output"]) == words and ended["stateMachineAliasArn"] == machine_alias
        for asked in (machine_alias, machine_alias.removesuffix(":live")):
            newest = states.list_executions(stateMachineArn=asked, maxResults=1)["executions"][0]
            assert (newest["executionArn"], newest["stateMachineArn"]) == (
                ended["executionArn"],
                ended["stateMachineArn"],
            )
        ran = states.describe_state_machine(stateMachineArn=ended["stateMachineVersionArn"])
        version = ended["stateMachineVersionArn"].rpartition(":")[2]
        return words, answer["ExecutedVersion"], version, json.loads(ran["definition"])["Comment"]

    assert seen() == (["a", "first"], "1", "1", "first")
    # New code is another version of the function; the state machine stays as it is.
    assert cloud.deploy(published(rehearsal, "b"), "UPDATE") == "UPDATE_COMPLETE"
    assert seen() == (["b", "first"], "2", "1", "first")
    # So is a changed parameter, if the version's description has it.
    assert cloud.deploy(published(rehearsal, "b"), "UPDATE", Word="second") == "UPDATE_COMPLETE"
    assert seen() == (["b", "second"], "3", "2", "second")
    # A failed change leaves both aliases where they were.
    broken = published(rehearsal, "c", Broken=BROKEN)
    assert cloud.deploy(broken, "UPDATE", Word="third") == "UPDATE_ROLLBACK_COMPLETE"
    assert seen() == (["b", "second"], "3", "2", "second")
    # Earlier versions stay callable.
    assert json.load(functions.invoke(FunctionName=function, Qualifier="1")["Payload"]) == ["a", "first"]
    cloud.delete()
    assert cloud.name not in str(functions.list_functions()["Functions"])


def test_shifting_in_steps_is_refused(rehearsal: Rehearsal) -> None:
    cloud = Cloud(rehearsal, "steps")
    body = published(rehearsal, "steps").replace("ALL_AT_ONCE", "CANARY")
    assert cloud.deploy(body, "CREATE") == "ROLLBACK_COMPLETE"
    assert any("all at once" in reason for name, _, reason in cloud.events() if name == "MachineAlias")
    cloud.delete()
