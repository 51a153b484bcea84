"""Versions, aliases and canaries: what CloudFormation gets from the template in each environment."""

import functools
import json
import os
import shlex
import tomllib
from graphlib import TopologicalSorter
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
from samtranslator.translator.transform import transform
from samtranslator.yaml_helper import yaml_parse

from rehearsal.cloudformation_updates import mentions

ROOT = Path(__file__).parents[2]
FUNCTIONS = ("Serialize", "Classify", "Filter")
CHAINS = ("Workflow", "ExpressWorkflow")


class _NoManagedPolicies:
    """The template has none."""

    def load(self) -> dict[str, str]:
        return {}


@functools.cache
def parsed() -> dict[str, Any]:
    template: dict[str, Any] = yaml_parse((ROOT / "template.yaml").read_text())
    return template


def resolved(part: Any, conditions: dict[str, bool]) -> Any:
    """Return a part of the template after its conditions."""
    if isinstance(part, list):
        return [resolved(item, conditions) for item in part]
    if not isinstance(part, dict):
        return part
    if "Fn::If" in part:
        name, yes, no = part["Fn::If"]
        return resolved(yes if conditions[name] else no, conditions)
    values = {key: resolved(value, conditions) for key, value in part.items()}
    return {key: value for key, value in values.items() if value != {"Ref": "AWS::NoValue"}}


@functools.cache
def deployed(environment: str, timeout: int = 15) -> dict[str, Any]:
    """Return the resources that an environment of samconfig.toml gets."""
    template = json.loads(json.dumps(parsed()))  # YAML's anchors are shared objects, which the transform changes
    template["Globals"]["Function"]["Timeout"] = timeout
    for name, body in template["Resources"].items():
        for key in {"CodeUri", "DefinitionUri"} & set(body["Properties"]):
            body["Properties"][key] = f"s3://packages/{name}"  # as `sam deploy` uploads it
    options = tomllib.loads((ROOT / "samconfig.toml").read_text())[environment]["deploy"]["parameters"]
    given = dict(pair.split("=", 1) for pair in shlex.split(options.get("parameter_overrides", "")))
    values = {name: str(slot["Default"]) for name, slot in template["Parameters"].items()} | given
    conditions = {}
    for name, rule in template["Conditions"].items():
        same = rule.get("Fn::Equals") or rule["Fn::Not"][0]["Fn::Equals"]
        conditions[name] = (values[same[0]["Ref"]] == same[1]) == ("Fn::Equals" in rule)
    with mock.patch.dict(os.environ, AWS_DEFAULT_REGION="us-east-1"):
        resources: dict[str, Any] = transform(template, values, _NoManagedPolicies())["Resources"]
    return {
        name: resolved(body, conditions)
        for name, body in resources.items()
        if conditions.get(body.get("Condition"), True)
    }


def ref(name: str) -> dict[str, str]:
    return {"Ref": name}


@pytest.fixture(params=["default", "prod"])
def resources(request: pytest.FixtureRequest) -> dict[str, Any]:
    """Return the resources of an environment without and of one with canaries."""
    return deployed(request.param)


def test_all_callers_use_aliases(resources: dict[str, Any]) -> None:
    aliases = [ref(f"{name}Aliaslive") for name in FUNCTIONS]
    for name in CHAINS:
        given = resources[name]["Properties"]["DefinitionSubstitutions"]
        assert [given[f"{function}FunctionArn"] for function in FUNCTIONS] == aliases
    policies = resources["WorkflowRole"]["Properties"]["Policies"]
    allowed = [statement for policy in policies for statement in policy["PolicyDocument"]["Statement"]]
    assert [each["Resource"] for each in allowed if each["Action"] == "lambda:InvokeFunction"] == [aliases]
    batch = resources["BatchWorkflow"]["Properties"]["DefinitionSubstitutions"]
    assert batch["ExpressWorkflowArn"] == ref("ExpressWorkflowAliaslive")
    starter = resources["UploadStarter"]["Properties"]["DefinitionSubstitutions"]
    assert starter["WorkflowArn"] == ref("WorkflowAliaslive")
    for name in CHAINS:
        assert parsed()["Outputs"][f"{name}Arn"]["Value"] == ref(f"{name}Aliaslive")


def test_permissions_to_start_are_those_that_aws_checks(resources: dict[str, Any]) -> None:
    # https://docs.aws.amazon.com/step-functions/latest/dg/auth-version-alias.html
    by_alias = {"ForAnyValue:StringEquals": {"states:StateMachineQualifier": ["live"]}}
    for role, action, machine in [
        ("UploadStarterRole", "states:StartExecution", "Workflow"),
        ("BatchRole", "states:StartSyncExecution", "ExpressWorkflow"),
    ]:
        policies = resources[role]["Properties"]["Policies"]
        allowed = [statement for policy in policies for statement in policy["PolicyDocument"]["Statement"]]
        (start,) = [statement for statement in allowed if statement["Action"] == action]
        assert (start["Resource"], start["Condition"]) == (ref(machine), by_alias)


def test_without_canaries_aliases_move_at_once() -> None:
    resources = deployed("default")
    assert not [name for name, body in resources.items() if "CodeDeploy" in body["Type"]]
    assert not {"DeploymentRole", "NewVersionAlarm", "NewWorkflowAlarm"} & {*resources}
    for name in FUNCTIONS:
        assert "UpdatePolicy" not in resources[f"{name}Aliaslive"]
    for name in CHAINS:
        shift = resources[f"{name}Aliaslive"]["Properties"]["DeploymentPreference"]
        assert shift == {"Type": "ALL_AT_ONCE", "StateMachineVersionArn": ref(f"{name}Version")}


def test_canaries_move_a_tenth_under_alarms() -> None:
    resources = deployed("prod")
    watched = {"UnsureShareAlarm", "EndpointErrorAlarm", "EndpointLatencyAlarm"}
    for name in FUNCTIONS:
        (update,) = resources[f"{name}Aliaslive"]["UpdatePolicy"].values()
        group = resources[update["DeploymentGroupName"]["Ref"]]["Properties"]
        alarms = [alarm["Name"]["Ref"] for alarm in group["AlarmConfiguration"]["Alarms"]]
        assert {*alarms} == watched | {"NewVersionAlarm"}
        assert all(resources[alarm]["Type"] == "AWS::CloudWatch::Alarm" for alarm in alarms)
        assert "DEPLOYMENT_STOP_ON_ALARM" in group["AutoRollbackConfiguration"]["Events"]
        assert group["DeploymentConfigName"]["Fn::Sub"][1] == {"ConfigName": "Canary10Percent10Minutes"}
        assert group["ServiceRoleArn"] == {"Fn::GetAtt": ["DeploymentRole", "Arn"]}
    for name in CHAINS:
        shift = resources[f"{name}Aliaslive"]["Properties"]["DeploymentPreference"]
        assert (shift["Type"], shift["Percentage"], shift["Interval"]) == ("CANARY", 10, 20)
        assert {alarm["Ref"] for alarm in shift["Alarms"]} == watched | {"NewWorkflowAlarm", "ThrottleAlarm"}


def test_codedeploy_may_move_these_aliases_only() -> None:
    resources = deployed("prod")
    # SAM's own role would have a managed policy for all functions, topics and tagged objects of the account.
    assert "CodeDeployServiceRole" not in resources
    assert not [name for name, body in resources.items() if body.get("Properties", {}).get("ManagedPolicyArns")]
    (policy,) = resources["DeploymentRole"]["Properties"]["Policies"]
    move, look = policy["PolicyDocument"]["Statement"]
    assert {*move["Action"]} == {"lambda:GetAlias", "lambda:UpdateAlias", "lambda:GetProvisionedConcurrencyConfig"}
    expected = [{"Fn::GetAtt": [name, "Arn"]} for name in FUNCTIONS]
    assert move["Resource"] == [*expected, *({"Fn::Sub": f"${{{name}.Arn}}:*"} for name in FUNCTIONS)]
    assert look == {"Effect": "Allow", "Action": "cloudwatch:DescribeAlarms", "Resource": "*"}


def test_no_resources_wait_for_each_other(resources: dict[str, Any]) -> None:
    graph = {name: mentions(body) & {*resources} - {name} for name, body in resources.items()}
    assert {*TopologicalSorter(graph).static_order()} == {*resources}


def versions(resources: dict[str, Any]) -> set[str]:
    return {name for name, body in resources.items() if body["Type"] == "AWS::Lambda::Version"}


@pytest.mark.parametrize("name", FUNCTIONS)
def test_every_parameter_of_a_function_makes_a_new_version(name: str) -> None:
    # SAM does not notice that a parameter has changed: https://github.com/aws/serverless-application-model/issues/3820
    template = parsed()
    variables = template["Resources"][name]["Properties"]["Environment"]["Variables"]
    shared = template["Globals"]["Function"]["Environment"]["Variables"]
    used = mentions([variables, shared]) & {*template["Parameters"]}
    resources = deployed("default")
    (version,) = [resources[each] for each in versions(resources) if each.startswith(f"{name}Version")]
    assert used and used <= mentions(version["Properties"]["Description"])
    longest = {"EndpointName": 63, "Labels": template["Parameters"]["Labels"]["MaxLength"]}
    assert sum(longest.get(parameter, 5) for parameter in used) + len(used) - 1 <= 256


def test_a_changed_property_makes_a_new_version() -> None:
    before = versions(deployed("default"))
    assert len(before) == 3 and not before & versions(deployed("default", timeout=16))
