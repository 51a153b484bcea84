"""Unit tests touch no network: a test that opens a socket fails."""

import io
import json
from collections.abc import Callable, Iterator
from types import ModuleType
from typing import Any

import pytest
from aws_xray_sdk import global_sdk_config
from aws_xray_sdk.core import xray_recorder
from aws_xray_sdk.core.models.segment import Segment
from pytest_socket import disable_socket

from tests.support.functions import FakeLambdaContext


@pytest.fixture(autouse=True)
def _no_sockets() -> None:
    disable_socket(allow_unix_socket=True)


@pytest.fixture
def context() -> FakeLambdaContext:
    """Return a Lambda context."""
    return FakeLambdaContext()


@pytest.fixture
def logged(monkeypatch: pytest.MonkeyPatch) -> Callable[[ModuleType], Callable[[], list[dict[str, Any]]]]:
    """Return a recorder: given a function's module, it returns a getter of the lines that it has logged since."""

    def record(app: ModuleType) -> Callable[[], list[dict[str, Any]]]:
        stream = io.StringIO()
        monkeypatch.setattr(app.logger.registered_handler, "stream", stream)
        return lambda: [json.loads(line) for line in stream.getvalue().splitlines()]

    return record


@pytest.fixture
def counted(capsys: pytest.CaptureFixture[str]) -> Callable[[], list[dict[str, Any]]]:
    """Return a getter of the lines in CloudWatch's embedded metric format that were printed since it was last asked."""
    return lambda: [json.loads(line) for line in capsys.readouterr().out.splitlines() if line.startswith('{"_aws"')]


@pytest.fixture
def traced(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[ModuleType, Callable[[], None]], dict[str, Any]]]:
    """Return a runner: given a function's module and a call of its handler, it returns the annotations of the trace."""
    sent: list[Segment] = []

    class Emitter:
        def send_entity(self, entity: Segment) -> None:
            sent.append(entity)

    monkeypatch.setattr(xray_recorder, "_emitter", Emitter())
    monkeypatch.setattr(xray_recorder, "sampling", False)
    global_sdk_config.set_sdk_enabled(True)

    def run(app: ModuleType, call: Callable[[], None]) -> dict[str, Any]:
        monkeypatch.setattr(app.tracer, "disabled", False)
        with xray_recorder.in_segment("test"):
            call()
        (segment,) = sent
        (handler,) = [part for part in segment.subsegments if part.name == "## lambda_handler"]
        annotations: dict[str, Any] = handler.annotations
        return annotations

    yield run
    global_sdk_config.set_sdk_enabled(False)
