"""CloudFormation's refusals, Lambda's answers, and EventBridge Scheduler's expressions."""

import json
from typing import Any

from tests.conformance.behaviours import DOCS, Json, World, behaviour, error_of, not_rehearsed
from tests.support.stack import ROLE

STACKS = "cloudformation/api/"
PARAMETERS = f"{DOCS}AWSCloudFormation/latest/UserGuide/parameters-section-structure.html"
INVOKE_DOCS = f"{DOCS}lambda/latest/dg/python-exceptions.html"
QUEUE: Json = {"Type": "AWS::SQS::Queue", "Properties": {}}


def _create(world: World, name: str, template: Json, **more: Any) -> Any:
    return world.client("cloudformation").create_stack(StackName=name, TemplateBody=json.dumps(template), **more)


@behaviour(
    "Stacks",
    "a template without resources",
    f"{STACKS}test_validations",
    ("ValidationError", "Template format error: At least one Resources member must be defined."),
)
def _(world: World) -> Any:
    return error_of(lambda: _create(world, "no-resources", {"Parameters": {}}))


@behaviour(
    "Stacks",
    "a resource without a type",
    f"{STACKS}test_validations",
    (
        "ValidationError",
        "Template format error: [/Resources/A] Every Resources object must contain a Type member.",
    ),
    differs="an internal failure",
)
def _(world: World) -> Any:
    return error_of(lambda: _create(world, "no-type", {"Resources": {"A": {"Properties": {}}}}))


@behaviour(
    "Stacks",
    "an update without changes",
    f"{STACKS}test_update_stack",
    ("ValidationError", "No updates are to be performed."),
    differs="it is accepted (sam deploy asks by a change set, which does say so)",
)
def _(world: World) -> Any:
    template = {"Resources": {"Queue": QUEUE}}
    world.once("stack unchanged", lambda: _create(world, "unchanged", template))
    update = {"StackName": "unchanged", "TemplateBody": json.dumps(template)}
    return error_of(lambda: world.client("cloudformation").update_stack(**update))


def _with_parameter(world: World, name: str, value: str, **constraint: Any) -> str:
    template = {"Parameters": {"P": {"Type": "String", **constraint}}, "Resources": {"Queue": QUEUE}}
    chosen = [{"ParameterKey": "P", "ParameterValue": value}]
    return error_of(lambda: _create(world, f"constraint-{name}", template, Parameters=chosen))[0]


@behaviour("Stacks", "a parameter's constraints are enforced", PARAMETERS, ["ValidationError"] * 4)
def _(world: World) -> Any:
    return [
        _with_parameter(world, "values", "c", AllowedValues=["a", "b"]),
        _with_parameter(world, "pattern", "A", AllowedPattern="[a-z]+"),
        _with_parameter(world, "length", "abc", MaxLength=2),
        _with_parameter(world, "number", "70", Type="Number", MaxValue=1),
    ]


def _invoke(world: World, name: str, body: str, payload: bytes = b"{}", **settings: Any) -> Any:
    world.function(name, body, **settings)
    return world.client("lambda").invoke(FunctionName=name, Payload=payload, LogType="Tail")


@behaviour(
    "Functions",
    "an exception: status, kind of error, and the answer's fields",
    "lambda_/test_lambda_common (uncaught_exception)",
    (200, "Unhandled", ["errorMessage", "errorType", "requestId", "stackTrace"]),
)
def _(world: World) -> Any:
    answer = _invoke(world, "raises-alone", 'raise RuntimeError("told so")')
    return answer["StatusCode"], answer["FunctionError"], sorted(json.loads(answer["Payload"].read()))


@behaviour(
    "Functions",
    "an answer: status, version, no error",
    "lambda_/test_lambda_common (echo)",
    (200, "$LATEST", False, {"a": "é"}),
)
def _(world: World) -> Any:
    answer = _invoke(world, "echoes-alone", "return event", json.dumps({"a": "é"}).encode())
    return (
        answer["StatusCode"],
        answer["ExecutedVersion"],
        "FunctionError" in answer,
        json.loads(answer["Payload"].read()),
    )


@behaviour(
    "Functions",
    "a function that exits while it runs: the error's type",
    f"{DOCS}lambda/latest/dg/troubleshooting-execution.html",
    "Runtime.ExitError",
)
def _(world: World) -> Any:
    return json.loads(_invoke(world, "exits", "os._exit(1)")["Payload"].read())["errorType"]


@behaviour(
    "Functions",
    "a function out of time: the error's type",
    f"{DOCS}lambda/latest/dg/configuration-timeout.html",
    "Sandbox.Timedout",
)
def _(world: World) -> Any:
    return json.loads(_invoke(world, "times-out", "time.sleep(5)", Timeout=1)["Payload"].read())["errorType"]


@behaviour("Functions", "a missing function", f"{DOCS}lambda/latest/api/API_Invoke.html", "ResourceNotFoundException")
def _(world: World) -> Any:
    return error_of(lambda: world.client("lambda").invoke(FunctionName="none"))[0]


@behaviour("Functions", "a request over 6 MB", f"{DOCS}lambda/latest/api/API_Invoke.html", "RequestTooLargeException")
def _(world: World) -> Any:
    return error_of(lambda: _invoke(world, "echoes-alone", "return event", b'"' + b"a" * 6_300_000 + b'"'))[0]


not_rehearsed(
    "Functions",
    "GetAccountSettings",
    f"{DOCS}lambda/latest/api/API_GetAccountSettings.html",
    lambda world: world.client("lambda").get_account_settings(),
)


def _schedule(world: World, expression: str) -> tuple[str, str]:
    return error_of(
        lambda: world.client("scheduler").create_schedule(
            Name="refused",
            ScheduleExpression=expression,
            FlexibleTimeWindow={"Mode": "OFF"},
            Target={"Arn": "arn:aws:states:us-east-1:123456789012:stateMachine:a", "RoleArn": ROLE},
        )
    )


@behaviour(
    "Schedules",
    "expressions that are none: the code",
    "scheduler/test_scheduler",
    ["ValidationException"] * 5,
)
def _(world: World) -> Any:
    wrong = ("rate(10 seconds)", "rate(10)", "rate(-1 minutes)", "rate( 1 hours )", "at(2026-01-01)")
    return [_schedule(world, expression)[0] for expression in wrong]


@behaviour(
    "Schedules",
    "expressions that are none: the message",
    "scheduler/test_scheduler",
    "Invalid Schedule Expression rate(10 seconds).",
    differs="the rehearsal says which expressions it knows",
)
def _(world: World) -> Any:
    return _schedule(world, "rate(10 seconds)")[1]


not_rehearsed("Schedules", "cron(...)", "scheduler/test_scheduler", lambda world: _cron(world))


def _cron(world: World) -> Any:
    return world.client("scheduler").create_schedule(
        Name="cron",
        ScheduleExpression="cron(0 18 ? * MON-FRI *)",
        FlexibleTimeWindow={"Mode": "OFF"},
        Target={"Arn": "arn:aws:states:us-east-1:123456789012:stateMachine:a", "RoleArn": ROLE},
    )
