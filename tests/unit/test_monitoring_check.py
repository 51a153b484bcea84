"""Baselines and checks on files, as the command line runs them."""

import datetime
import json
import re
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest.mock import ANY

import boto3
import numpy as np
import pytest
from botocore.stub import Stubber
from moto import mock_aws
from PIL import Image, ImageFilter

from common import storage
from common.errors import CommandError
from demo import drawing
from monitoring import check as checking
from monitoring import features
from monitoring.__main__ import _parser, main
from monitoring.baseline import CONSTRAINTS, STATISTICS, VIOLATIONS, constraints, load_baseline, statistics
from monitoring.drift import Finding
from monitoring.features import CATEGORICAL, NUMERIC, PASSES, Features, Observation
from monitoring.window import PICTURES, read_window
from tests.support.captures import write_captures
from tests.support.scenes import CLEAN, MODEL, captured, scene

END = "2026-11-23T12:00:00+00:00"


def made(folder: Path, images: list[Image.Image], first: int = 0) -> None:
    """Write captures of pictures, half of them of each label, a tenth of them unsure."""

    def items() -> Any:
        for number, image in enumerate(images, first):
            sure = 0.65 if number % 10 == 0 else 0.9 + number % 7 / 100
            yield drawing.encoded(image), [sure, 1 - sure] if number % 2 else [1 - sure, sure]

    write_captures(folder, items())


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with captures ``good`` (300), ``clean`` and ``blurred`` (100 each), and a baseline."""
    root = tmp_path_factory.mktemp("monitoring")
    made(root / "good", [scene(seed) for seed in range(300)])
    made(root / "clean", CLEAN)
    made(root / "blurred", [image.filter(ImageFilter.GaussianBlur(1.2)) for image in CLEAN])
    assert main(["baseline", "--captures", str(root / "good"), "--output", str(root / "baseline")]) == 0
    return root


def run_check(folder: Path, captures: str, output: Path, *more: str) -> int:
    arguments = ("--captures", str(folder / captures), "--baseline", str(folder / "baseline"), "--end", END)
    return main(["check", *arguments, "--output", str(output), *more])


def violations(output: Path) -> list[dict[str, str]]:
    found: list[dict[str, str]] = json.loads((output / VIOLATIONS).read_text())["violations"]
    return found


def test_clean_traffic_ends_with_0_and_no_violation(folder: Path, tmp_path: Path) -> None:
    assert run_check(folder, "clean", tmp_path) == 0
    assert violations(tmp_path) == []
    assert json.loads((tmp_path / STATISTICS).read_text())["dataset"]["item_count"] == 100
    assert "<html" in (tmp_path / "report.html").read_text()


def test_drifted_traffic_ends_with_3_and_names_the_feature(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run_check(folder, "blurred", tmp_path) == 3
    found = {violation["feature_name"]: violation for violation in violations(tmp_path)}
    assert found["sharpness"]["constraint_check_type"] == "baseline_drift_check"
    assert "median" in found["sharpness"]["description"]
    assert "sharpness" in capsys.readouterr().out
    # Four pictures of the window, and four of those that the baseline keeps.
    page = (tmp_path / "report.html").read_text()
    (card,) = re.findall(r'<article[^>]*"test-sharpness">.*?</article>', page, re.DOTALL)
    usual = {picture.thumbnail.uri for picture in load_baseline(str(folder / "baseline")).pictures}
    assert len(usual) == 24
    assert [source in usual for source in re.findall('<img src="([^"]*)"', card)] == [False] * 4 + [True] * 4
    assert run_check(folder, "blurred", tmp_path, "--exit-zero") == 0
    assert violations(tmp_path)


def test_the_newest_captures_of_a_range_can_be_taken_alone(folder: Path, tmp_path: Path) -> None:
    run_check(folder, "clean", tmp_path, "--newest", "40")
    assert json.loads((tmp_path / STATISTICS).read_text())["dataset"]["item_count"] == 40


def test_too_few_captures_are_not_compared(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run_check(folder, "blurred", tmp_path, "--newest", "29") == 4
    assert "need at least 30, got 29" in capsys.readouterr().out
    assert run_check(folder, "blurred", tmp_path, "--newest", "29", "--exit-zero") == 0


def test_no_capture_in_the_range_is_neither_drift_nor_its_absence(folder: Path, tmp_path: Path) -> None:
    run_check(folder, "clean", tmp_path)
    arguments = ["--captures", str(folder / "clean"), "--baseline", str(folder / "baseline"), "--output", str(tmp_path)]
    assert main(["check", *arguments, "--end", "2026-11-29T12:00:00+00:00", "--hours", "24"]) == 4
    assert violations(tmp_path) == []
    assert json.loads((tmp_path / STATISTICS).read_text())["dataset"]["item_count"] == 0, "nothing of an earlier check"


@pytest.fixture
def cloudwatch() -> Iterator[Any]:
    """Return a client of an AWS that exists in memory, as do the buckets."""
    storage._s3.cache_clear()
    with mock_aws():
        yield boto3.client("cloudwatch")
    storage._s3.cache_clear()


@pytest.mark.parametrize(
    "place", ["nowhere", "other endpoints", "no variant", "no file", "s3", "s3 with other endpoints"]
)
def test_an_endpoint_that_captured_nothing_has_0_captures(
    place: str, folder: Path, tmp_path: Path, cloudwatch: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    captures = str(tmp_path / "captures")
    if place.startswith("s3"):
        captures = "s3://of-captures/capture"
        boto3.client("s3").create_bucket(Bucket="of-captures")
        if place != "s3":
            boto3.client("s3").put_object(Bucket="of-captures", Key="capture/other/AllTraffic/2026/11/23/10/a.jsonl")
    elif place == "other endpoints":
        write_captures(tmp_path / "captures", [(b"a", [0.9])], "other")
    elif place != "nowhere":
        (tmp_path / "captures" / "e" / ("AllTraffic" if place == "no file" else "")).mkdir(parents=True)
    for more, code in ([], 4), (["--exit-zero"], 0):
        out = tmp_path / f"check-{code}"
        arguments = ["--captures", captures, "--endpoint-name", "e", "--baseline", str(folder / "baseline")]
        arguments += ["--output", str(out), "--namespace", "N", "--hours", "24", "--newest", "1000"]
        assert main(["check", *arguments, *more]) == code
        assert violations(out) == []
        assert json.loads((out / STATISTICS).read_text())["dataset"]["item_count"] == 0
        assert "No captures in this time range" in (out / "report.html").read_text()
    assert "need at least 30, got 0" in capsys.readouterr().out
    put = {metric["MetricName"] for metric in cloudwatch.list_metrics(Namespace="N")["Metrics"]}
    assert put == {"CapturesRead", "CapturesUnreadable"}, "an alarm must not end for want of data"
    now = datetime.datetime.now(datetime.UTC)
    (point,) = cloudwatch.get_metric_statistics(
        Namespace="N",
        MetricName="CapturesRead",
        Dimensions=[{"Name": "Endpoint", "Value": "e"}],
        StartTime=now - datetime.timedelta(hours=1),
        EndTime=now + datetime.timedelta(hours=1),
        Period=7200,
        Statistics=["SampleCount", "Maximum"],
    )["Datapoints"]
    assert (point["SampleCount"], point["Maximum"]) == (2, 0)


def test_a_mistyped_place_of_captures_can_be_noticed(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run_check(folder, "cleen", tmp_path) == 4
    assert "cleen holds no captures. Is data capture enabled?" in capsys.readouterr().err
    assert run_check(folder, "clean", tmp_path, "--endpoint-name", "x") == 4
    assert "no captures of endpoint x; there are image-classifier" in capsys.readouterr().err


def test_a_bucket_that_does_not_exist_is_not_an_empty_one(
    folder: Path, cloudwatch: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["--captures", "s3://not-there/capture", "--baseline", str(folder / "baseline")]
    assert main(["check", *arguments, "--output", str(tmp_path), "--endpoint-name", "e", "--namespace", "N"]) == 1
    assert "NoSuchBucket" in capsys.readouterr().err
    assert not list(tmp_path.iterdir()) and not cloudwatch.list_metrics()["Metrics"]


def test_of_no_captures_there_is_no_baseline_but_a_report(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    captures = ("--captures", str(tmp_path / "nowhere"))
    assert main(["baseline", *captures, "--output", str(tmp_path / "baseline")]) == 1
    assert "Need at least 30 captures for a baseline, got 0" in capsys.readouterr().err
    assert main(["check", *captures, "--baseline", str(folder / "baseline"), "--output", str(tmp_path)]) == 4
    assert "No captures in this time range" in (tmp_path / "report.html").read_text()


def test_results_are_written_to_every_output(folder: Path, tmp_path: Path) -> None:
    assert run_check(folder, "blurred", tmp_path / "a", "--output", str(tmp_path / "b")) == 3
    names = {"report.html", STATISTICS, VIOLATIONS}
    first, second = ({file.name: file.read_bytes() for file in (tmp_path / name).iterdir()} for name in "ab")
    assert first == second and set(first) == names


def test_captures_that_cannot_be_read_are_a_violation_when_they_are_many(folder: Path, tmp_path: Path) -> None:
    def spoil(share: int) -> list[dict[str, str]]:
        made(tmp_path / "clean", CLEAN)
        (file,) = (tmp_path / "clean").rglob("*.jsonl")
        lines = file.read_text().splitlines()
        file.write_text("".join(f"{line[:50] if i < share else line}\n" for i, line in enumerate(lines)))
        shutil.copytree(folder / "baseline", tmp_path / "baseline", dirs_exist_ok=True)
        run_check(tmp_path, "clean", tmp_path / "check")
        return violations(tmp_path / "check")

    assert spoil(1) == []
    (violation,) = spoil(10)
    assert violation["constraint_check_type"] == "completeness_check"
    assert "only 90.0% of the captures" in violation["description"]
    assert "not JSON, perhaps truncated (10 times)" in violation["description"]


def test_a_baseline_of_images_asks_the_model_itself(tmp_path: Path) -> None:
    for label, draw in (("bicycle", drawing.bicycle), ("motorcycle", drawing.motorcycle)):
        (tmp_path / "images" / label).mkdir(parents=True)
        for seed in range(16):
            draw(320, 240, seed).save(tmp_path / "images" / label / f"{seed}.png")
    assert main(["baseline", "--images", str(tmp_path / "images"), "--output", str(tmp_path / "baseline")]) == 0
    baseline = load_baseline(str(tmp_path / "baseline"))
    assert len(baseline.features) == 32
    assert set(baseline.features.numeric["pixels"]) == {224 * 168}  # shrunk as the workflow does
    assert baseline.model == MODEL


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["check", "--captures", "CLEAN", "--baseline", "nowhere"], "nowhere/statistics.json does not exist; create"),
        (
            ["check", "--captures", "CLEAN", "--baseline", "BASELINE", "--namespace", "N"],
            "can only be used with --endpoint-name",
        ),
        (["check", "--captures", "ABOVE", "--baseline", "BASELINE"], "several endpoints"),
        (["check", "--captures", "BELOW", "--baseline", "BASELINE"], "give the folder above the endpoints'"),
        (["baseline", "--images", "nowhere"], "nowhere is not a folder"),
        (["baseline", "--images", "nowhere", "--labels", "cat,dog"], "--labels can only be used with --captures"),
        (["baseline", "--captures", "CLEAN", "--model", "model.onnx"], "model model.onnx does not exist"),
        (["baseline", "--captures", "CLEAN", "--newest", "5"], "Need at least 30 captures for a baseline, got 5"),
    ],
)
def test_what_cannot_be_done_is_one_line(
    arguments: list[str], said: str, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    clean = str(folder / "clean")
    places = {"CLEAN": clean, "BASELINE": str(folder / "baseline"), "ABOVE": str(folder)}
    places["BELOW"] = f"{clean}/image-classifier"
    assert main([places.get(argument, argument) for argument in arguments]) == 1
    error = capsys.readouterr().err
    assert said in error
    assert error.startswith("error: ")
    assert error.count("\n") == 1


@pytest.mark.parametrize("count", [1, 2048, 2049, 9000])
def test_a_baseline_survives_its_file(count: int, tmp_path: Path) -> None:
    random = np.random.default_rng(count)
    before = Features()
    for _ in range(count):
        numeric = {name: float(random.normal(3, 1)) for name in NUMERIC}
        before.add(Observation(numeric, str(random.choice(MODEL.labels)), PASSES))
    (tmp_path / STATISTICS).write_text(json.dumps(statistics(before)))
    (tmp_path / CONSTRAINTS).write_text(json.dumps(constraints(MODEL)))
    after = load_baseline(str(tmp_path)).features
    for name in NUMERIC:
        a, b = np.sort(before.numeric[name]), np.sort(after.numeric[name])
        assert len(b) == pytest.approx(len(a), abs=8)
        levels = np.linspace(0, 1, 21)
        assert np.quantile(b, levels[1:-1]) == pytest.approx(np.quantile(a, levels[1:-1]), abs=0.02)
    for name in CATEGORICAL:
        assert sorted(before.categorical[name]) == sorted(after.categorical[name])


def test_what_never_varies_is_the_same_after_the_file(tmp_path: Path) -> None:
    images = [scene(seed, (64, 48)) for seed in range(40)]  # an aspect ratio that no decimal number equals
    made(tmp_path / "captures", images)
    places = ["--captures", str(tmp_path / "captures"), "--endpoint-name", "image-classifier"]
    assert main(["baseline", *places, "--output", str(tmp_path / "baseline")]) == 0
    made(tmp_path / "captures", images)  # other captures of the same images
    places += ["--baseline", str(tmp_path / "baseline"), "--output", str(tmp_path / "check"), "--end", END]
    assert main(["check", *places]) == 0


def test_a_damaged_baseline_is_refused(folder: Path, tmp_path: Path) -> None:
    for name in (STATISTICS, CONSTRAINTS):
        (tmp_path / name).write_bytes((folder / "baseline" / name).read_bytes())
    described = json.loads((tmp_path / STATISTICS).read_text())
    described["features"] = [each for each in described["features"] if each["name"] != "sharpness"]
    (tmp_path / STATISTICS).write_text(json.dumps(described))
    with pytest.raises(CommandError, match=r"lacks .*sharpness"):
        load_baseline(str(tmp_path))
    (tmp_path / STATISTICS).write_text("{")
    with pytest.raises(CommandError, match="not JSON"):
        load_baseline(str(tmp_path))
    (tmp_path / STATISTICS).write_text("[]")
    with pytest.raises(CommandError, match="is not valid"):
        load_baseline(str(tmp_path))


def test_a_constraint_that_makes_no_sense_is_named(folder: Path, tmp_path: Path) -> None:
    (tmp_path / STATISTICS).write_bytes((folder / "baseline" / STATISTICS).read_bytes())
    changed = constraints(MODEL)
    changed["image_classifier"]["threshold"] = 7
    (tmp_path / CONSTRAINTS).write_text(json.dumps(changed))
    with pytest.raises(CommandError, match="threshold must be a number from 0 to 1, got 7"):
        load_baseline(str(tmp_path))


def test_a_window_keeps_the_newest_and_the_least_confident_pictures() -> None:
    captures = [captured(scene(0), [0.5 + number / 1000, 0.1]) for number in range(100)]
    window = read_window(captures, MODEL)
    assert [round(each.record.confidence, 3) for each in window.least_confident[:2]] == [0.5, 0.501]
    assert len(window.least_confident) == len(window.newest) == PICTURES


def test_one_and_several_processes_measure_a_window_alike(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    captures = [captured(scene(seed), [0.6 + seed / 100, 0.1]) for seed in range(20)]
    captures[3] = replace(captures[3], image=b"no image")
    captures[12] = replace(captures[12], probabilities=[0.5, 0.2, 0.1])
    alone = read_window(captures, MODEL)
    monkeypatch.setattr(features, "_BATCH", 2)
    monkeypatch.setattr(features, "_SERIAL", 4)
    assert read_window(captures, MODEL) == replace(alone, features=ANY)
    assert alone.unreadable == {"an image that the endpoint rejects": 1, "3 probabilities for 2 labels": 1}
    assert (len(alone.records), alone.completeness) == (18, 0.9)


def test_the_schedule_asks_for_what_the_command_knows() -> None:
    definition = json.loads((Path(__file__).parents[2] / "statemachine" / "monitor.asl.json").read_text())
    job = definition["States"]["Run drift check"]["Parameters"]["AppSpecification"]
    assert job["ContainerEntrypoint"] == ["python", "-m", "monitoring"]
    asked = job["ContainerArguments.$"].removeprefix("States.Array(").removesuffix(")")
    asked = asked.replace("States.Format('s3://${Bucket}/{}', $.check.folder)", "'${Bucket}/folder'")
    arguments = [argument.strip().strip("'") for argument in asked.split(",")]
    numbers = {"${Hours}": "24", "${Newest}": "1000"}
    options = _parser().parse_args([numbers.get(argument, argument) for argument in arguments])
    assert (options.run.__name__, options.hours, options.newest, options.exit_zero) == ("_check", 24, 1000, True)
    assert options.baseline.endswith(definition["States"]["Look up baseline"]["Parameters"]["Prefix"].rsplit("/", 1)[0])
    assert options.output == ["${Bucket}/folder", "s3://${Bucket}/monitoring/checks/${EndpointName}/latest"]


def test_metrics_are_put_by_endpoint_and_feature(monkeypatch: pytest.MonkeyPatch) -> None:
    client = boto3.client("cloudwatch")
    finding = Finding("sharpness", "KS", 0.9, 1e-9, 2.5, "", "", True)
    result = checking.Check([finding], [{"feature_name": "sharpness"}], 100, 2)
    endpoint = {"Name": "Endpoint", "Value": "e"}
    counts = {"CapturesRead": 100, "CapturesUnreadable": 2, "DriftViolations": 1}
    data: list[dict[str, Any]] = [
        {"MetricName": name, "Dimensions": [endpoint], "Unit": "Count", "Value": value}
        for name, value in counts.items()
    ]
    feature = {"Name": "Feature", "Value": "sharpness"}
    data.append({"MetricName": "DriftPSI", "Dimensions": [endpoint, feature], "Unit": "None", "Value": 2.5})
    with Stubber(client) as stub:
        stub.add_response("put_metric_data", {}, {"Namespace": "N", "MetricData": data})
        monkeypatch.setattr(boto3, "client", lambda _: client)
        checking.put_metrics(result, "N", "e")
        stub.assert_no_pending_responses()


def test_nothing_is_said_of_violations_where_nothing_was_compared(monkeypatch: pytest.MonkeyPatch) -> None:
    client = boto3.client("cloudwatch")
    endpoint = [{"Name": "Endpoint", "Value": "e"}]
    data = [
        {"MetricName": name, "Dimensions": endpoint, "Unit": "Count", "Value": value}
        for name, value in (("CapturesRead", 3), ("CapturesUnreadable", 0))
    ]
    with Stubber(client) as stub:
        stub.add_response("put_metric_data", {}, {"Namespace": "N", "MetricData": data})
        monkeypatch.setattr(boto3, "client", lambda _: client)
        checking.put_metrics(checking.Check([], [], 3, 0), "N", "e")
        stub.assert_no_pending_responses()
