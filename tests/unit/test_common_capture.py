"""Captured data: what is read, in which time range, and what is counted instead."""

import base64
import datetime
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from common.capture import Capture, CaptureReader, UnreadableRecord, parse_record
from common.errors import CommandError
from common.stack import TEST_REQUEST
from monitoring.features import Model
from monitoring.window import read_window
from tests.support.captures import BEGIN, record, write_captures

HOUR = datetime.timedelta(hours=1)


def read(
    source: Path,
    start: datetime.datetime | None = None,
    end: datetime.datetime | None = None,
    endpoint: str | None = None,
) -> list[Capture]:
    return list(CaptureReader(str(source), start, end, endpoint))


def test_a_record_has_what_was_asked_and_answered() -> None:
    capture = parse_record(record(b"image", [0.9, 0.05], BEGIN, "execution").encode(), "endpoint", "AllTraffic")
    assert (capture.image, capture.content_type, capture.probabilities) == (b"image", "image/png", [0.9, 0.05])
    assert (capture.time, capture.inference_id) == (BEGIN, "execution")
    assert (capture.endpoint, capture.variant) == ("endpoint", "AllTraffic")


def test_an_answer_captured_as_base64_is_read() -> None:
    line = json.loads(record(b"image", [0.25]))
    answer = {"encoding": "BASE64", "data": base64.b64encode(b"[0.5, 0.25]").decode()}
    line["captureData"]["endpointOutput"].update(answer)
    assert parse_record(json.dumps(line).encode(), "", "").probabilities == [0.5, 0.25]


def test_the_test_requests_of_a_deployment_are_left_out(tmp_path: Path) -> None:
    write_captures(tmp_path, [(b"image", [0.9])])
    (file,) = tmp_path.rglob("*.jsonl")
    with file.open("a") as lines:
        lines.write(record(b"known", [0.9], name=TEST_REQUEST) + "\n")
    assert [capture.image for capture in read(tmp_path)] == [b"image"]
    assert [capture.image for capture in CaptureReader(str(tmp_path), newest=5)] == [b"image"]


def test_a_shadows_answers_are_read_only_when_asked_for(tmp_path: Path) -> None:
    write_captures(tmp_path, [(b"answered", [0.9])])
    write_captures(tmp_path, [(b"copied", [0.1])], variant="Shadow-0123abcd")
    assert [capture.image for capture in read(tmp_path)] == [b"answered"]
    assert [capture.image for capture in CaptureReader(str(tmp_path), newest=5)] == [b"answered"]
    for variant, image in (("AllTraffic", b"answered"), ("Shadow-0123abcd", b"copied")):
        assert [capture.image for capture in CaptureReader(str(tmp_path), variant=variant)] == [image]


def changed(path: str, value: Any) -> bytes:
    line = json.loads(record(b"image", [0.9]))
    *parents, last = path.split(".")
    part = line
    for name in parents:
        part = part[name]
    part[last] = value
    return json.dumps(line).encode()


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        (record(b"image", [0.9]).encode()[:-40], "not JSON"),
        (b"\xff\xfe", "not JSON"),
        (b"[]", "no captured data"),
        (b"7", "no captured data"),
        (changed("eventMetadata", {"eventId": "a"}), "no captured data"),
        (changed("eventMetadata.inferenceTime", "yesterday"), "no captured data"),
        (changed("eventMetadata.inferenceTime", "2026-11-23T10:00:00"), "without a zone"),
        (changed("eventMetadata.inferenceTime", "0001-01-01T00:00:00+12:00"), "no captured data, event id or time"),
        (changed("eventMetadata.inferenceId", 7), "inference id that is not a string"),
        (b"[" * 100_000, "not JSON"),
        (changed("captureData.endpointInput", None), "no endpointInput"),
        (changed("captureData.endpointInput.data", "*"), "endpointInput that is not base64"),
        (changed("captureData.endpointOutput.data", "0.9"), "not a list of probabilities"),
        (changed("captureData.endpointOutput.data", "[NaN]"), "not a list of probabilities"),
        (changed("captureData.endpointOutput.data", "[true]"), "not a list of probabilities"),
        (changed("captureData.endpointOutput.data", "[1.5]"), "not a list of probabilities"),
        (changed("captureData.endpointOutput.data", "{"), "not JSON"),
    ],
)
def test_a_line_that_is_no_record_says_why(line: bytes, reason: str) -> None:
    with pytest.raises(UnreadableRecord, match=reason):
        parse_record(line, "", "")


def test_a_truncated_last_line_costs_that_line_only(tmp_path: Path) -> None:
    write_captures(tmp_path, [(b"a", [0.9]), (b"b", [0.8])])
    (file,) = tmp_path.rglob("*.jsonl")
    file.write_text(file.read_text()[:-30] + "\n")
    reader = CaptureReader(str(tmp_path))
    assert [capture.image for capture in reader] == [b"a"]
    assert dict(reader.unreadable) == {"not JSON, perhaps truncated": 1}


def test_a_time_range_is_half_open_and_crosses_hours(tmp_path: Path) -> None:
    write_captures(tmp_path, [(bytes([n]), [0.9]) for n in range(6)], seconds=1800)
    times = [capture.time for capture in read(tmp_path, BEGIN + HOUR / 2, BEGIN + 2 * HOUR)]
    assert times == [BEGIN + HOUR / 2, BEGIN + HOUR, BEGIN + HOUR * 1.5]


def test_a_capture_in_the_next_hours_file_is_found(tmp_path: Path) -> None:
    file = tmp_path / "endpoint/AllTraffic/2026/11/23/11/late.jsonl"
    file.parent.mkdir(parents=True)
    file.write_text(record(b"late", [0.9], BEGIN + datetime.timedelta(minutes=59)) + "\n")
    assert [capture.image for capture in read(tmp_path, BEGIN, BEGIN + HOUR)] == [b"late"]


def test_files_of_other_days_are_not_opened(tmp_path: Path) -> None:
    write_captures(tmp_path, [(b"a", [0.9])])
    elsewhere = tmp_path / "image-classifier/AllTraffic/2026/11/20/10/unreadable.jsonl"
    elsewhere.parent.mkdir(parents=True)
    elsewhere.write_text("damaged\n")
    reader = CaptureReader(str(tmp_path), BEGIN, BEGIN + HOUR)
    assert len(list(reader)) == 1
    assert not reader.unreadable


def test_one_endpoint_is_read_of_several(tmp_path: Path) -> None:
    write_captures(tmp_path, [(b"a", [0.9])], "one")
    write_captures(tmp_path, [(b"b", [0.9])], "two")
    assert [capture.image for capture in read(tmp_path, endpoint="two")] == [b"b"]
    with pytest.raises(CommandError, match="several endpoints: choose one of one, two"):
        read(tmp_path)


def test_an_endpoint_without_captures_is_named_with_those_that_have_some(tmp_path: Path) -> None:
    write_captures(tmp_path, [(b"a", [0.9])], "one")
    reader = CaptureReader(str(tmp_path), endpoint="two")
    assert list(reader) == list(CaptureReader(str(tmp_path), endpoint="two", newest=5)) == []
    assert reader.nothing == f"{tmp_path} holds no captures of endpoint two; there are one. Is data capture enabled?"


@pytest.mark.parametrize("endpoint", [None, "image-classifier"])
@pytest.mark.parametrize(
    "below", ["image-classifier", "image-classifier/AllTraffic", "image-classifier/AllTraffic/2026/11/23/10"]
)
def test_a_folder_within_an_endpoints_one_is_not_taken_for_an_empty_one(
    below: str, endpoint: str | None, tmp_path: Path
) -> None:
    write_captures(tmp_path, [(b"a", [0.9])])
    with pytest.raises(CommandError, match="give the folder above the endpoints'"):
        read(tmp_path / below, endpoint=endpoint)


def test_a_file_is_not_a_folder_of_captures(tmp_path: Path) -> None:
    write_captures(tmp_path, [(b"a", [0.9])])
    (file,) = tmp_path.rglob("*.jsonl")
    with pytest.raises(CommandError, match="is a file, not a folder"):
        read(file, endpoint="image-classifier")


@pytest.mark.parametrize("count", [1, 3, 7, 100])
def test_the_newest_captures_are_those_of_the_latest_time_in_order(count: int, tmp_path: Path) -> None:
    write_captures(tmp_path, [(bytes([n]), [0.9]) for n in range(12)], seconds=1200)
    late = tmp_path / "image-classifier/AllTraffic/2026/11/23/13/99-late.jsonl"
    late.write_text(record(b"late", [0.9], BEGIN + 3 * HOUR - datetime.timedelta(seconds=1)) + "\n")
    expected = sorted(read(tmp_path), key=lambda capture: capture.time)[-count:]
    assert list(CaptureReader(str(tmp_path), newest=count)) == expected


def test_the_newest_captures_are_found_without_reading_all(tmp_path: Path) -> None:
    write_captures(tmp_path, [(bytes([n]), [0.9]) for n in range(200)], seconds=600)
    reader = CaptureReader(str(tmp_path), newest=10)
    assert len(list(reader)) == 10
    assert reader.read < 30


def test_a_window_counts_all_records_that_were_read_however_many_it_keeps(
    tmp_path: Path, png: Callable[..., bytes]
) -> None:
    write_captures(tmp_path, [(png(16, 16), [0.9, 0.1])] * 100)
    (file,) = tmp_path.rglob("*.jsonl")
    lines = file.read_text().splitlines()
    file.write_text("".join(f"{line[:50] if i < 3 else line}\n" for i, line in enumerate(lines)))
    window = read_window(CaptureReader(str(tmp_path), newest=10), Model(["bicycle", "motorcycle"], 0.7))
    assert (len(window.records), window.completeness, window.unreadable.total()) == (10, 0.97, 3)
