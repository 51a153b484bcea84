"""What the three functions say of an image and of a failure, in the same words."""

import ast
import contextlib
import inspect
from collections.abc import Callable
from types import ModuleType
from typing import Any

import pytest
from aws_xray_sdk.core.models.entity import Entity

from src.classify import app as classify
from src.filter import app as filter_
from src.serialize import app as serialize

FUNCTIONS = pytest.mark.parametrize("app", [serialize, classify, filter_], ids=["serialize", "classify", "filter"])
Logged = Callable[[ModuleType], Callable[[], list[dict[str, Any]]]]


def test_helpers_that_functions_share_are_the_same_in_each() -> None:
    """Each function's folder is packaged alone, so they are copies."""
    copies: dict[str, list[str]] = {}
    for app in (serialize, classify, filter_):
        source = inspect.getsource(app)
        for node in ast.parse(source).body:
            names = [node.name] if isinstance(node, ast.FunctionDef) else []
            names += [target.id for target in getattr(node, "targets", []) if isinstance(target, ast.Name)]
            for name in names:
                copies.setdefault(name, []).append(ast.get_source_segment(source, node) or "")
    shared = {"IDENTITY", "MAX_ANNOTATION", "identify", "report", "shown"}
    assert {name for name in shared if len(copies[name]) > 1 and len(set(copies[name])) == 1} == shared


@FUNCTIONS
def test_an_error_of_the_contract_is_logged_without_its_stack_and_any_other_with_it(
    app: ModuleType, logged: Logged
) -> None:
    lines = logged(app)
    for error in (app.InvalidEvent("no key"), ZeroDivisionError("by zero")):
        try:
            raise error
        except Exception as caught:
            app.report(caught)
    named, unnamed = lines()
    assert (named["level"], named["message"], named["error"]) == ("ERROR", "no key", "InvalidEvent")
    assert "exception" not in named
    assert (unnamed["message"], unnamed["error"]) == ("by zero", "ZeroDivisionError")
    assert "ZeroDivisionError: by zero" in unnamed["exception"]


@FUNCTIONS
@pytest.mark.parametrize(
    ("event", "known"),
    [
        ({"s3_bucket": "b", "s3_key": "k", "other": "x"}, {"s3_bucket": "b", "s3_key": "k"}),
        ({"s3_bucket": 5, "s3_key": "", "execution_id": None}, {}),
        ({"s3_key": ["k"], "execution_id": "arn"}, {"execution_id": "arn"}),
        (["s3_key"], {}),
        (None, {}),
    ],
)
def test_texts_that_identify_an_image_are_on_every_line_and_nothing_else_is(
    app: ModuleType, logged: Logged, event: Any, known: dict[str, str]
) -> None:
    lines = logged(app)
    app.logger.remove_keys([*app.IDENTITY, "other"])
    app.identify(event)
    app.logger.info("Said")
    (line,) = lines()
    app.logger.remove_keys([*app.IDENTITY])
    assert {name: line[name] for name in (*app.IDENTITY, "other") if name in line} == known


@FUNCTIONS
def test_a_line_names_its_request_and_no_image_of_an_earlier_one(
    app: ModuleType, logged: Logged, context: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in {"MAX_EDGE": "224", "ENDPOINT_NAME": "e", "LABELS": "a,b", "THRESHOLD": "0.7"}.items():
        monkeypatch.setenv(name, value)
    lines = logged(app)
    for event in ({"s3_key": "first.png", "execution_id": "arn:first"}, {}):
        with pytest.raises(app.InvalidEvent):
            app.lambda_handler(event, context)
    first, second = lines()
    assert first["function_request_id"] == second["function_request_id"] == context.aws_request_id
    assert (first["s3_key"], first["execution_id"]) == ("first.png", "arn:first")
    assert "s3_key" not in second and "execution_id" not in second


@pytest.mark.parametrize("confidence", [0.9, 0.1])
def test_neither_an_accepted_event_nor_an_unsure_one_is_written_into_the_trace(
    context: Any, monkeypatch: pytest.MonkeyPatch, traced: Any, confidence: float
) -> None:
    monkeypatch.setenv("THRESHOLD", "0.7")
    written: list[Any] = []
    monkeypatch.setattr(Entity, "put_metadata", lambda self, **what: written.append(what))
    event = {"s3_bucket": "b", "s3_key": "k", "label": "a", "inferences": [confidence], "confidence": confidence}

    def run() -> None:
        with contextlib.suppress(filter_.ThresholdNotMet):
            filter_.lambda_handler(event, context)

    assert traced(filter_, run)["s3_key"] == "k"
    assert written == []
