"""The workflows' definitions: no dead ends, and nothing retried that cannot succeed."""

import ast
import json
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
DEFINITIONS: dict[str, dict[str, Any]] = {
    path.name.split(".")[0]: json.loads(path.read_text()) for path in (ROOT / "statemachine").glob("*.asl.json")
}
STATES: dict[str, dict[str, Any]] = DEFINITIONS["classify"]["States"]
#: Named errors of the functions after which the same input can succeed.
CAN_SUCCEED_LATER = {"StorageUnavailable", "EndpointThrottled", "EndpointUnavailable"}


def named_errors(function: str) -> set[str]:
    """Return the names of the error classes that a function defines, but for their base class."""
    tree = ast.parse((ROOT / "src" / function / "app.py").read_text())
    classes = {node.name for node in tree.body if isinstance(node, ast.ClassDef)}
    return {name for name in classes if name != f"{function.title()}Error"}


def successors(state: dict[str, Any]) -> list[str]:
    found = [state[key] for key in ("Next", "Default") if key in state]
    return found + [branch["Next"] for branch in [*state.get("Catch", []), *state.get("Choices", [])]]


@pytest.mark.parametrize("definition", DEFINITIONS.values(), ids=DEFINITIONS)
def test_every_next_state_exists_and_every_state_is_reached(definition: dict[str, Any]) -> None:
    states = definition["States"]
    reached, waiting = set(), [definition["StartAt"]]
    while waiting:
        name = waiting.pop()
        assert name in states, f"{name} is named but not defined"
        if name not in reached:
            reached.add(name)
            waiting += successors(states[name])
    assert reached == set(states)


@pytest.mark.parametrize("definition", DEFINITIONS.values(), ids=DEFINITIONS)
def test_every_path_ends(definition: dict[str, Any]) -> None:
    for name, state in definition["States"].items():
        assert successors(state) or state.get("End") or state["Type"] in ("Succeed", "Fail"), name


@pytest.mark.parametrize("name", [name for name, state in STATES.items() if state["Type"] == "Task"])
def test_retries_back_off_with_full_jitter_and_a_ceiling(name: str) -> None:
    (retry,) = STATES[name]["Retry"]
    assert retry["JitterStrategy"] == "FULL" and retry["BackoffRate"] >= 2
    assert retry["MaxDelaySeconds"] and retry["MaxAttempts"] and retry["Comment"]


@pytest.mark.parametrize("function", ["serialize", "classify", "filter"])
def test_exactly_the_errors_that_can_succeed_later_are_retried(function: str) -> None:
    (retry,) = STATES[function.title()]["Retry"]
    errors = named_errors(function)
    assert len(errors) >= 4
    assert set(retry["ErrorEquals"]) & errors == errors & CAN_SUCCEED_LATER
    assert not {"States.ALL", "States.TaskFailed"} & set(retry["ErrorEquals"])
    assert {"Lambda.TooManyRequestsException", "Lambda.ServiceException"} <= set(retry["ErrorEquals"])


def test_a_drift_check_waits_for_a_busy_quota_within_its_time() -> None:
    """AWS's own example retries these names: https://docs.aws.amazon.com/step-functions/latest/dg/connect-sagemaker.html."""
    definition = DEFINITIONS["monitor"]
    check = definition["States"]["Check"]
    assert [error for retry in check["Retry"] for error in retry["ErrorEquals"]] == [
        "SageMaker.ResourceLimitExceededException",
        "SageMaker.AmazonSageMakerException",
        "SageMaker.ThrottlingException",
    ]
    waits = [
        sum(
            min(retry["IntervalSeconds"] * retry["BackoffRate"] ** number, retry["MaxDelaySeconds"])
            for number in range(retry["MaxAttempts"])
        )
        for retry in check["Retry"]
    ]
    assert waits[0] / 2 >= 1800, "full jitter halves it"
    runtime = check["Parameters"]["StoppingCondition"]["MaxRuntimeInSeconds"]
    assert sum(waits) + runtime + 600 < definition["TimeoutSeconds"]


def test_an_unsure_answer_waits_for_review_and_still_fails() -> None:
    unsure, _ = STATES["Filter"]["Catch"]
    assert unsure["ErrorEquals"] == ["ThresholdNotMet"]
    assert STATES[STATES[unsure["Next"]]["Next"]]["Type"] == "Fail"


@pytest.mark.parametrize("name", [name for name, state in STATES.items() if state["Type"] == "Task"])
def test_whatever_else_fails_is_kept_under_its_own_name(name: str) -> None:
    catcher = STATES[name]["Catch"][-1]
    assert catcher["ErrorEquals"] == ["States.ALL"]
    if name == "Keep fault":
        assert (catcher["Next"], catcher["ResultPath"]) == ("Failed", None), "the first error is the one to report"
    else:
        assert catcher["Next"] == "Keep fault"
        # The image would come along, and the state could become too large, which nothing can catch.
        assert "ResultPath" not in catcher


def test_only_an_unsure_answer_is_no_fault() -> None:
    catchers = [catcher for state in STATES.values() for catcher in state.get("Catch", [])]
    assert {error for catcher in catchers for error in catcher["ErrorEquals"]} == {"ThresholdNotMet", "States.ALL"}


@pytest.mark.parametrize("definition", DEFINITIONS.values(), ids=DEFINITIONS)
def test_names_come_from_the_template_alone(definition: dict[str, Any]) -> None:
    text = json.dumps(definition)
    assert "arn:aws:lambda" not in text and "$LATEST" not in text and "us-east-1" not in text
