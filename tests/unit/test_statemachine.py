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
#: Those that say that something has more to do than it can: it may take minutes to scale out.
THROTTLED = {"EndpointThrottled", "Lambda.TooManyRequestsException"}
FUNCTIONS = ("Serialize", "Classify", "Filter")
#: An Express execution lasts five minutes at most.
EXPRESS_SECONDS = 300


def delays(retry: dict[str, Any]) -> list[float]:
    """Return the longest that each attempt of a retrier can wait; full jitter takes half of it on average."""
    backoff = (retry["IntervalSeconds"] * retry["BackoffRate"] ** attempt for attempt in range(retry["MaxAttempts"]))
    return [min(delay, retry["MaxDelaySeconds"]) for delay in backoff]


def longest(state: dict[str, Any]) -> float:
    """Return the seconds after which a task has failed for good, at the latest."""
    waiting = [delay for retry in state.get("Retry", []) for delay in delays(retry)]
    return sum(waiting) + (len(waiting) + 1) * int(state.get("TimeoutSeconds", 0))


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
    for retry in STATES[name]["Retry"]:
        assert retry["JitterStrategy"] == "FULL" and retry["BackoffRate"] >= 2
        assert retry["MaxDelaySeconds"] and retry["MaxAttempts"] and retry["Comment"]


@pytest.mark.parametrize("name", FUNCTIONS)
def test_exactly_the_errors_that_can_succeed_later_are_retried(name: str) -> None:
    retried = [error for retry in STATES[name]["Retry"] for error in retry["ErrorEquals"]]
    errors = named_errors(name.lower())
    assert len(errors) >= 4
    assert set(retried) & errors == errors & CAN_SUCCEED_LATER
    assert len(set(retried)) == len(retried), "of two retriers with an error the first counts"
    assert not {"States.ALL", "States.TaskFailed"} & set(retried)
    assert {"Lambda.TooManyRequestsException", "Lambda.ServiceException", "States.Timeout"} <= set(retried)


@pytest.mark.parametrize("name", FUNCTIONS)
def test_throttling_is_waited_out_for_ten_minutes_on_average(name: str) -> None:
    throttled, transient = STATES[name]["Retry"]
    assert set(throttled["ErrorEquals"]) == THROTTLED & ({*throttled["ErrorEquals"]} | named_errors(name.lower()))
    assert "Lambda.TooManyRequestsException" in throttled["ErrorEquals"]
    assert 540 <= sum(delays(throttled)) / 2 <= 720
    assert 25 <= sum(delays(transient)) / 2 <= 120


def test_the_workflow_outlasts_its_slowest_path() -> None:
    path = [STATES[name] for name in (*FUNCTIONS, "Publish result", "Record failure")]
    # Both retriers of each function to their end, and the last attempt of each step succeeds.
    assert sum(map(longest, path)) <= DEFINITIONS["classify"]["TimeoutSeconds"]


def test_a_drift_check_waits_for_a_busy_quota_within_its_time() -> None:
    """AWS's own example retries these names: https://docs.aws.amazon.com/step-functions/latest/dg/connect-sagemaker.html."""
    definition = DEFINITIONS["monitor"]
    check = definition["States"]["Run drift check"]
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
    choice = STATES[unsure["Next"]]
    assert (choice["Type"], choice["Default"]) == ("Choice", "Queue for review")
    ends = {STATES[choice["Default"]]["Next"], *(rule["Next"] for rule in choice["Choices"])}
    assert [STATES[name]["Type"] for name in ends] == ["Fail"]


@pytest.mark.parametrize("name", [name for name, state in STATES.items() if state["Type"] == "Task"])
def test_whatever_else_fails_is_kept_under_its_own_name(name: str) -> None:
    catcher = STATES[name]["Catch"][-1]
    assert catcher["ErrorEquals"] == ["States.ALL"]
    if name == "Record failure":
        failed = STATES[catcher["Next"]]
        assert (failed["Error"], catcher["ResultPath"]) == ("FailureNotRecorded", None)
        assert "$.error" in failed["CausePath"] and "$.cause" in failed["CausePath"], "the first error is in the cause"
    else:
        assert catcher["Next"] == "Check input type"
        # The image would come along, and the state could become too large, which nothing can catch.
        assert "ResultPath" not in catcher


def test_a_failure_is_recorded_with_an_address_at_most() -> None:
    choice = STATES["Check input type"]
    known = {"execution_id", "error", "cause"}
    for name in successors(choice):
        state = STATES[name]
        assert (state["Type"], state["Next"]) == ("Pass", "Record failure")
        kept = {key.removesuffix(".$"): path for key, path in state["Parameters"].items()}
        assert set(kept) - {"s3_bucket", "s3_key"} == known
        # A path that leads nowhere is an error that nothing can catch.
        asked = {test["Variable"] for rule in choice["Choices"] if rule["Next"] == name for test in rule["And"]}
        assert asked == {path for key, path in kept.items() if key not in known}
    for rule in choice["Choices"]:
        first, second = rule["And"][::2], rule["And"][1::2]
        assert all(present["IsPresent"] and text["IsString"] for present, text in zip(first, second, strict=True))
        assert [test["Variable"] for test in first] == [test["Variable"] for test in second]


def test_an_upload_is_started_or_recorded_within_the_time_of_an_express_execution() -> None:
    definition = DEFINITIONS["start"]
    start, record = (definition["States"][name] for name in ("Start workflow", "Record failure"))
    known, others = start["Retry"]
    assert known["MaxAttempts"] == 0 and known["ErrorEquals"] == start["Catch"][0]["ErrorEquals"]
    assert definition["States"][start["Catch"][0]["Next"]]["Type"] == "Succeed"
    assert start["Catch"][1]["ErrorEquals"] == ["States.ALL"] and start["Catch"][1]["Next"] == "Record failure"
    (recorded,) = record["Retry"]
    for retry in (others, recorded):
        assert retry["ErrorEquals"] == ["States.TaskFailed", "States.Timeout"]
        assert retry["JitterStrategy"] == "FULL" and retry["MaxDelaySeconds"] and retry["Comment"]
    # Attempts that are repeated have failed at once, and one of each takes its time.
    waiting = sum(delays(others)) + sum(delays(recorded)) + start["TimeoutSeconds"] + record["TimeoutSeconds"]
    assert 240 <= waiting < definition["TimeoutSeconds"] == EXPRESS_SECONDS


def test_only_an_unsure_prediction_is_no_failure() -> None:
    catchers = [catcher for state in STATES.values() for catcher in state.get("Catch", [])]
    assert {error for catcher in catchers for error in catcher["ErrorEquals"]} == {"ThresholdNotMet", "States.ALL"}


@pytest.mark.parametrize("definition", DEFINITIONS.values(), ids=DEFINITIONS)
def test_names_come_from_the_template_alone(definition: dict[str, Any]) -> None:
    text = json.dumps(definition)
    assert "arn:aws" not in text and "$LATEST" not in text and "us-east-1" not in text


BATCH = DEFINITIONS["batch"]["States"]
MAPS = [state for state in BATCH.values() if state["Type"] == "Map"]


def test_all_sources_of_a_batch_are_processed_alike() -> None:
    first, *others = [{**state, "Comment": "", "Label": "", "ItemReader": "", "ItemSelector": ""} for state in MAPS]
    assert len(others) == 2
    for other in others:
        assert other == first, "copy the ItemProcessor of the first Map to the others"
    assert len({state["Label"] for state in MAPS}) == 3 and all(len(state["Label"]) <= 40 for state in MAPS)


def test_an_image_cannot_fail_its_batch() -> None:
    config = MAPS[0]["ItemProcessor"]["ProcessorConfig"]
    assert config == {"Mode": "DISTRIBUTED", "ExecutionType": "EXPRESS"}
    (each,) = MAPS[0]["ItemProcessor"]["States"].values()
    states = each["ItemProcessor"]["States"]
    assert not [name for name, state in states.items() if state["Type"] == "Fail"]
    work = states["Classify image"]
    assert work["Catch"][-1]["ErrorEquals"] == ["States.ALL"] and work["Catch"][-1]["ResultPath"]
    record = states["Record failure"]
    assert record["Catch"][-1]["ErrorEquals"] == ["States.ALL"]
    # One attempt takes up to its time-out; those that are repeated have failed at once.
    tasks = (work, record)
    waiting = sum(sum(map(sum, map(delays, task["Retry"]))) for task in tasks)
    assert sum(task["TimeoutSeconds"] for task in tasks) + waiting < EXPRESS_SECONDS
    # What the chain cannot record itself is recorded here.
    assert {states[name]["Next"] for name in ("Timed out", "Not classified")} == {"Record failure"}
    ends = {state["Parameters"]["outcome"] for state in states.values() if "outcome" in state.get("Parameters", {})}
    assert ends == {"accepted", "unsure", "failed", "skipped"}
    for state in states.values():
        for name in successors(state):
            assert name in states
