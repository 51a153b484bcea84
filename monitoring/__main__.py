"""``python -m monitoring``: create a drift baseline, and check captured data against it."""

import argparse
import datetime
import sys
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING

from common.command import (
    add_examples,
    console,
    fraction,
    name_cell,
    only_with,
    positive_float,
    positive_int,
    run,
    time,
)

if TYPE_CHECKING:
    from monitoring.check import Check
    from monitoring.features import Model
    from monitoring.window import Window

MODEL = Path(__file__).resolve().parents[1] / "training/model/model.onnx"
LABELS = "bicycle,motorcycle"
THRESHOLD = 0.70
BASELINE = "build/baseline"
CHECK = "build/check"
#: Exit codes of a check, beside 0 (no violations), 1 (failure) and 2 (wrong arguments).
VIOLATED, NOT_COMPARED = 3, 4


def main(arguments: list[str] | None = None) -> int:
    """Run one command; return its exit code: 0 success, 1 failure, 2 wrong arguments, or as its help lists."""
    return run(_parser(), arguments)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m monitoring",
        description="Detect drift and degraded performance of a deployed stack (--stack-name), or in files. An ADDRESS "
        "is a folder or s3://BUCKET/PREFIX.",
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    baseline = commands.add_parser(
        "baseline",
        help="create the drift baseline",
        description="Measure captures of a period without problems, or images that the model was not trained on, and "
        "write statistics.json and constraints.json, and for comparing the images' content the model and its features.",
    )
    _add_stack(baseline)
    source = baseline.add_mutually_exclusive_group()
    source.add_argument("--captures", metavar="ADDRESS", help="captured data (default: the stack's)")
    source.add_argument("--images", type=Path, metavar="DIR", help="class folders; of a staged folder, its test images")
    _add_range(baseline)
    baseline.add_argument(
        "--model",
        type=Path,
        default=MODEL,
        help="ONNX file that classifies --images, and whose features the content of images is compared by (default: "
        "the project's)",
    )
    baseline.add_argument("--labels", help=f"the captured model's labels, in order (default: the stack's, or {LABELS})")
    baseline.add_argument("--threshold", type=fraction, help=f"default: the stack's, or {THRESHOLD}")
    baseline.add_argument(
        "--output", dest="baseline", metavar="ADDRESS", help=f"default: the stack's baseline, or {BASELINE}"
    )
    baseline.set_defaults(run=_baseline)

    check = commands.add_parser(
        "check",
        help="compare a time range with the baseline: a table, a page with the images, and an exit code",
        description="Compare captures with the baseline, as the scheduled check does; print a table, and write "
        "report.html (the page to look at), statistics.json and constraint_violations.json. Exit code: 0 no "
        "violations, 3 violations, 4 too few captures to compare or none at all, 1 failure.",
    )
    _add_stack(check)
    check.add_argument("--captures", metavar="ADDRESS", help="captured data (default: the stack's)")
    _add_range(check)
    _add_baseline(check)
    check.add_argument(
        "--output", action="append", metavar="ADDRESS", help=f"for the results; may be repeated (default: {CHECK})"
    )
    check.add_argument("--namespace", help="put CloudWatch metrics of the endpoint into this namespace")
    check.add_argument("--exit-zero", action="store_true", help="exit with 0 instead of 3 and 4")
    check.set_defaults(run=_check)

    model_monitor = commands.add_parser(
        "model-monitor",
        help="schedule SageMaker Model Monitor for the predictions, in accounts that have it",
        description="Create an hourly Model Monitor schedule for the model's predictions. Model Monitor accepts no new "
        "customers and does not analyse images; the stack's own check does, in every account.",
    )
    _add_stack(model_monitor)
    model_monitor.add_argument("--role-arn", required=True, help="role of its jobs")
    _add_baseline(model_monitor)
    model_monitor.add_argument(
        "--output",
        metavar="s3://BUCKET/PREFIX",
        help="for its scripts and reports (default: model-monitor/ in the stack's ModelBucket)",
    )
    model_monitor.add_argument(
        "--analyzer-image", help="Model Monitor's image in your region (default: sagemaker-core's)"
    )
    model_monitor.set_defaults(run=_model_monitor)

    add_examples(
        commands,
        {
            "baseline": "--stack-name image-classifier --hours 24",
            "check": "--stack-name image-classifier --hours 24",
            "model-monitor": "--stack-name image-classifier --role-arn arn:aws:iam::123456789012:role/NAME",
        },
    )
    return parser


def _add_stack(command: argparse.ArgumentParser) -> None:
    command.add_argument("--stack-name", help="use this stack's settings, except those given here")
    command.add_argument("--endpoint-name", help="default: the stack's, or the only one that has captures")
    command.set_defaults(reject=command.error)


def _add_range(command: argparse.ArgumentParser) -> None:
    command.add_argument("--hours", type=positive_float, help="length of the time range (default: everything)")
    command.add_argument("--newest", type=positive_int, metavar="N", help="use the newest N captures (default: all)")
    command.add_argument(
        "--end", type=time, metavar="TIME", help="end of the range, as 2026-11-23T12:00:00+00:00 (default: now)"
    )


def _add_baseline(command: argparse.ArgumentParser) -> None:
    command.add_argument("--baseline", metavar="ADDRESS", help=f"default: the stack's, or {BASELINE}")


def _complete(options: argparse.Namespace, *required: str) -> None:
    """Take options that were not given from the stack, or from the defaults without one."""
    found = {"baseline": BASELINE, "labels": LABELS, "threshold": THRESHOLD}
    if options.stack_name:
        from common.stack import data_capture, find_stack

        stack = find_stack(options.stack_name)
        endpoint = options.endpoint_name or stack.output("EndpointName")
        found = {
            "endpoint_name": endpoint,
            "baseline": stack.baseline_uri(endpoint),
            "labels": ",".join(stack.labels),
            "threshold": float(stack.parameter("Threshold")),
        }
        if "captures" in required and not options.captures:
            found["captures"] = data_capture(endpoint)["DestinationS3Uri"]
        if "output" in required:
            found["output"] = f"s3://{stack.output('ModelBucketName')}/model-monitor"
    for name, value in found.items():
        if getattr(options, name, None) is None:
            setattr(options, name, value)
    if missing := [f"--{name.replace('_', '-')}" for name in required if not getattr(options, name)]:
        options.reject(f"the following arguments are required without --stack-name: {', '.join(missing)}")


def _baseline(options: argparse.Namespace) -> None:
    from common.labels import parse_labels
    from monitoring.check import captures_of_images, write_baseline
    from monitoring.features import Model
    from monitoring.window import read_window

    if options.images:
        only_with(options, "--captures", "--labels", "--hours", "--newest", "--end")
        only_with(options, "--stack-name", "--endpoint-name")
        _complete(options)
        captures, labels = captures_of_images(options.images, options.model)
        window = read_window(captures, model := Model(labels, options.threshold))
    else:
        _complete(options, "captures")
        window = _window(options, model := Model(parse_labels(options.labels), options.threshold))
    content = write_baseline(window, model, options.baseline, options.model)
    # Labels that were given in the wrong order can be noticed here, and nowhere else.
    predictions = ", ".join(f"{count} {name}" for name, count in Counter(window.features.categorical["answer"]).items())
    print(f"baseline of {len(window.features)} captures ({predictions}; threshold {model.threshold:g})")
    if content:
        print(f"content will be compared with {content} images")
    else:
        print(f"content will not be compared: {options.model} has no features")
    print(f"wrote {options.baseline.rstrip('/')}/")


def _check(options: argparse.Namespace) -> int:
    from monitoring.baseline import load_baseline
    from monitoring.check import check, put_metrics, write_check
    from monitoring.report import render

    _complete(options, "captures")
    only_with(options, "--endpoint-name", "--namespace")
    baseline = load_baseline(options.baseline)
    window = _window(options, baseline.model, baseline.captures)
    result = check(window, baseline)
    page = render(window, baseline, result)
    outputs = options.output or [CHECK]
    for output in outputs:
        write_check(result, window, page, output)
    # Last: the message of the alarm that this may raise contains the page's address.
    if options.namespace:
        put_metrics(result, options.namespace, options.endpoint_name)
    _print(result, window)
    for output in outputs:
        print(f"wrote {output.rstrip('/')}/report.html, constraint_violations.json and statistics.json")
    if options.exit_zero or (result.findings and not result.violations):
        return 0
    return VIOLATED if result.violations else NOT_COMPARED


def _model_monitor(options: argparse.Namespace) -> None:
    from monitoring.model_monitor import create_schedule

    _complete(options, "endpoint_name", "output")
    print(
        create_schedule(
            options.endpoint_name, options.role_arn, options.baseline, options.output, options.analyzer_image
        )
    )


def _window(options: argparse.Namespace, model: "Model", in_baseline: frozenset[str] = frozenset()) -> "Window":
    # Not at the top: importing boto3 takes so long that Ctrl-C may come during it.
    from common.capture import CaptureReader
    from monitoring.window import read_window

    start, end = None, options.end
    if options.hours:
        end = end or datetime.datetime.now(datetime.UTC)
        start = end - datetime.timedelta(hours=options.hours)
    reader = CaptureReader(options.captures, start, end, options.endpoint_name, options.newest)
    window = read_window(reader, model, in_baseline)
    if window.in_baseline:
        print(f"left out {window.in_baseline} captures that the baseline was created from", file=sys.stderr)
    for reason, count in window.unreadable.most_common():
        print(f"skipped {count}: {reason}", file=sys.stderr)
    if window.nothing:
        print(window.nothing, file=sys.stderr)
    return window


def _print(result: "Check", window: "Window") -> None:
    from rich.table import Table
    from rich.text import Text

    from monitoring.drift import LEAST_CAPTURES

    if not result.findings:
        print(f"Too few captures to compare: need at least {LEAST_CAPTURES}, got {result.captures}")
    else:
        table = Table("feature", "test", box=None, pad_edge=False)
        for heading in ("statistic", "p", "PSI"):
            table.add_column(heading, justify="right", no_wrap=True)
        table.add_column("", no_wrap=True)
        for finding in result.findings:
            numbers = (f"{finding.statistic:.3f}", f"{finding.p_value:.1e}", f"{finding.psi:.2f}")
            verdict = Text("DRIFT", "red") if finding.drifted else Text("ok", "green")
            table.add_row(finding.feature, name_cell(finding.test), *numbers, verdict)
        console().print(table)
    for violation in result.violations:
        text = f"violation ({violation['constraint_check_type']}): {violation['description']}"
        console().print(Text(text, "red"), soft_wrap=True)
    if result.violations:
        print("what to do: docs/operations.md#driftalarm")
    if result.findings and not result.violations:
        span = f"{window.records[0].time:%Y-%m-%d %H:%M} to {window.records[-1].time:%Y-%m-%d %H:%M} UTC"
        print(f"no violations in {result.captures} captures, {span}")


if __name__ == "__main__":
    sys.exit(main())
