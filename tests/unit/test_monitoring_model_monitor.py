"""Model Monitor, where an account has it: a request that AWS would take, and rows that mean what ours mean."""

import json
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import boto3
import pytest
from botocore.stub import ANY, Stubber
from hypothesis import given
from hypothesis import strategies as st

from common import storage
from monitoring.__main__ import main
from monitoring.baseline import CONSTRAINTS, STATISTICS, constraints, statistics
from monitoring.features import observe
from monitoring.model_monitor import COLUMNS
from monitoring.model_monitor_preprocessor import preprocess_handler
from tests.support.scenes import BASELINE, MODEL, captured, scene

ROLE = "arn:aws:iam::123456789012:role/monitor"
PICTURE = scene(0)


@pytest.fixture
def arguments(tmp_path: Path) -> list[str]:
    """Return the command's arguments, with a baseline that is there."""
    (tmp_path / STATISTICS).write_text(json.dumps(statistics(BASELINE)))
    (tmp_path / CONSTRAINTS).write_text(json.dumps(constraints(MODEL)))
    names = ["--endpoint-name", "endpoint", "--role-arn", ROLE, "--baseline", str(tmp_path)]
    return ["model-monitor", *names, "--output", "s3://bucket/monitor"]


@pytest.fixture
def written(monkeypatch: pytest.MonkeyPatch) -> dict[str, bytes]:
    """Return what is written to S3, by address."""
    found: dict[str, bytes] = {}
    monkeypatch.setattr(storage, "write", lambda address, content, _: found.__setitem__(address, content))
    return found


@pytest.fixture
def stub(monkeypatch: pytest.MonkeyPatch) -> Stubber:
    client = boto3.client("sagemaker")
    monkeypatch.setattr(boto3, "client", lambda _: client)
    return Stubber(client)


def test_a_schedule_compares_answers_with_their_part_of_the_baseline(
    arguments: list[str], written: dict[str, bytes], stub: Stubber, capsys: pytest.CaptureFixture[str]
) -> None:
    arn = "arn:aws:sagemaker:us-east-1:123456789012:monitoring-schedule/endpoint-answers"
    stub.add_response(
        "create_monitoring_schedule",
        {"MonitoringScheduleArn": arn},
        {"MonitoringScheduleName": "endpoint-answers", "MonitoringScheduleConfig": ANY},
    )
    with stub:
        assert main([*arguments, "--analyzer-image", "1.dkr.ecr.us-east-1.amazonaws.com/analyzer"]) == 0
    assert capsys.readouterr().out.strip() == arn
    for name in (STATISTICS, CONSTRAINTS):
        kept = json.loads(written[f"s3://bucket/monitor/baseline/{name}"])
        assert {each["name"] for each in kept["features"]} == set(COLUMNS)
    assert b"def preprocess_handler" in written["s3://bucket/monitor/code/model_monitor_preprocessor.py"]


def test_an_account_without_model_monitor_hears_what_to_do(
    arguments: list[str], written: dict[str, bytes], stub: Stubber, capsys: pytest.CaptureFixture[str]
) -> None:
    stub.add_client_error("create_monitoring_schedule", "AccessDeniedException", "not available to new customers")
    with stub:
        assert main([*arguments, "--analyzer-image", "image"]) == 1
    error = capsys.readouterr().err
    assert "AccessDeniedException" in error and "MonitorSchedule" in error and error.count("\n") == 1


def test_another_error_is_told_in_its_own_words(
    arguments: list[str], written: dict[str, bytes], stub: Stubber, capsys: pytest.CaptureFixture[str]
) -> None:
    stub.add_client_error("create_monitoring_schedule", "ResourceInUse", "endpoint-answers exists")
    with stub:
        assert main([*arguments, "--analyzer-image", "image"]) == 1
    error = capsys.readouterr().err
    assert "endpoint-answers exists" in error and "customers" not in error and error.count("\n") == 1


def test_nothing_is_written_before_the_arguments_are_known_to_be_right(
    arguments: list[str], written: dict[str, bytes], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*arguments[:-1], "build/monitor", "--analyzer-image", "image"]) == 1
    assert "'build/monitor' is not of the form s3://bucket/prefix" in capsys.readouterr().err
    monkeypatch.setitem(sys.modules, "sagemaker", None)
    monkeypatch.setitem(sys.modules, "sagemaker.core", None)
    assert main(arguments) == 1
    assert "--analyzer-image" in capsys.readouterr().err
    assert written == {}


@given(st.tuples(st.floats(0, 1), st.floats(0, 1)).map(lambda pair: [pair[0], pair[1] * (1 - pair[0])]))
def test_a_row_says_what_our_own_features_say(probabilities: list[float]) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LABELS", ",".join(MODEL.labels))
        patch.setenv("THRESHOLD", str(MODEL.threshold))
        record: Any = SimpleNamespace(endpoint_output=SimpleNamespace(data=json.dumps(probabilities)))
        row = preprocess_handler(record)
    observed = observe(captured(PICTURE, probabilities), MODEL)
    expected = (observed.numeric["confidence"], observed.answer, observed.outcome)
    assert tuple(row[name] for name in COLUMNS) == expected
