"""What the three functions say of an image and of a failure, in the same words."""

from collections.abc import Callable
from types import ModuleType
from typing import Any

import pytest

from src.classify import app as classify
from src.filter import app as filter_
from src.serialize import app as serialize

FUNCTIONS = pytest.mark.parametrize("app", [serialize, classify, filter_], ids=["serialize", "classify", "filter"])
Logged = Callable[[ModuleType], Callable[[], list[dict[str, Any]]]]


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
