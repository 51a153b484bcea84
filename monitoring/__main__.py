"""``python -m monitoring``: create a drift baseline, and check captured data against it."""

import argparse
import datetime
import sys
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING

from common.command import moment, positive, positive_int, run, share
from common.errors import CommandError

if TYPE_CHECKING:
    from monitoring.check import Check
    from monitoring.features import Model
    from monitoring.window import Window

MODEL = Path("training/model/model.onnx")
LABELS = "bicycle,motorcycle"
BASELINE = "build/baseline"
CHECK = "build/check"
#: Exit codes of a check, beside 0 (compared, nothing found), 1 (failed) and 2 (not understood).
VIOLATED, NOT_COMPARED = 3, 4


def main(arguments: list[str] | None = None) -> int:
    """Run one command; return its exit code: 0 done, 1 failed, 2 not understood, or what the command's help says."""
    return run(_parser(), arguments)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m monitoring",
        description="Find drift and degraded performance before users do. An ADDRESS is a folder or s3://BUCKET/PREFIX.",
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    baseline = commands.add_parser(
        "baseline",
        help="say what is normal",
        description="Measure captures of a good time, or images that the model has not learned from, and write "
        "statistics.json and constraints.json.",
    )
    source = baseline.add_mutually_exclusive_group(required=True)
    source.add_argument("--captures", metavar="ADDRESS", help="captured data of a time that was good")
    source.add_argument(
        "--images", type=Path, metavar="DIR", help="class folders; of a staged folder the test images are taken"
    )
    baseline.add_argument("--model", type=Path, help=f"what answers to --images (default: {MODEL})")
    baseline.add_argument("--labels", help=f"of the model behind --captures, in order (default: {LABELS})")
    baseline.add_argument("--threshold", type=share, default=0.70, help="the stack's Threshold (default: %(default)s)")
    baseline.add_argument("--output", default=BASELINE, metavar="ADDRESS", help="default: %(default)s")
    _add_range(baseline)
    baseline.set_defaults(run=_baseline)

    check = commands.add_parser(
        "check",
        help="compare a time range with the baseline; exit code 3 if it violates it",
        description="Compare captures with the baseline; write statistics.json, constraint_violations.json and "
        "report.html. Exit code: 0 compared and nothing found, 3 violations found, 4 too few captures to compare or "
        "none at all, 1 failed.",
    )
    check.add_argument(
        "--output", action="append", metavar="ADDRESS", help=f"for the results; may be repeated (default: {CHECK})"
    )
    check.add_argument("--namespace", help="put CloudWatch metrics into this namespace (needs --endpoint-name)")
    check.add_argument("--exit-zero", action="store_true", help="end with 0 instead of 3 and 4")
    _add_window(check)
    check.set_defaults(run=_check)

    model_monitor = commands.add_parser(
        "model-monitor",
        help="let SageMaker's own Model Monitor watch the answers, in accounts that have it",
        description="Create an hourly Model Monitor schedule for the model's answers. Model Monitor takes no new "
        "customers, and cannot see pictures: the stack's own check is what everybody has.",
    )
    model_monitor.add_argument("--endpoint-name", required=True)
    model_monitor.add_argument("--role-arn", required=True, help="role of its jobs")
    model_monitor.add_argument("--baseline", default=BASELINE, metavar="ADDRESS", help="default: %(default)s")
    model_monitor.add_argument(
        "--output", required=True, metavar="s3://BUCKET/PREFIX", help="for its scripts and reports"
    )
    model_monitor.add_argument(
        "--analyzer-image", help="Model Monitor's image in your region (default: sagemaker-core's)"
    )
    model_monitor.set_defaults(run=_model_monitor)

    report = commands.add_parser(
        "report",
        help="make one page of a time range: pictures, outcomes, drift",
        description="Write one HTML file that needs no network.",
    )
    report.add_argument(
        "--output",
        default="build/monitoring.html",
        metavar="FILE",
        help="FILE.html, or s3://BUCKET/KEY.html (default: %(default)s)",
    )
    _add_window(report)
    report.set_defaults(run=_report)
    return parser


def _add_window(command: argparse.ArgumentParser) -> None:
    """Add the options that choose captures and what they are compared with."""
    command.add_argument("--captures", required=True, metavar="ADDRESS", help="captured data")
    command.add_argument("--baseline", default=BASELINE, metavar="ADDRESS", help="default: %(default)s")
    _add_range(command)


def _add_range(command: argparse.ArgumentParser) -> None:
    """Add the options that choose captures."""
    command.add_argument("--endpoint-name", help="whose captures (default: the only endpoint's)")
    command.add_argument("--hours", type=positive, help="length of the time range (default: everything)")
    command.add_argument("--newest", type=positive_int, help="of these, take so many newest captures (default: all)")
    command.add_argument(
        "--end", type=moment, metavar="TIME", help="end of the range, as 2026-11-23T12:00:00+00:00 (default: now)"
    )


def _baseline(options: argparse.Namespace) -> None:
    from common.labels import parse_labels
    from monitoring.check import captures_of_images, write_baseline
    from monitoring.features import Model
    from monitoring.window import read_window

    of_captures = ("labels", "hours", "newest", "end", "endpoint_name")
    unused = [name for name in of_captures if getattr(options, name)] if options.images else []
    if unused or (options.captures and options.model):
        option = unused[0].replace("_", "-") if unused else "model"
        raise CommandError(f"--{option} goes with --{'captures' if unused else 'images'} only")
    if options.images:
        captures, labels = captures_of_images(options.images, options.model or MODEL)
        window = read_window(captures, model := Model(labels, options.threshold))
    else:
        window = _window(options, model := Model(parse_labels(options.labels or LABELS), options.threshold))
    write_baseline(window.features, model, options.output)
    # Whoever named the labels in another order can see it here, and nowhere else.
    answers = ", ".join(f"{count} {name}" for name, count in Counter(window.features.categorical["answer"]).items())
    print(f"baseline of {len(window.features)} captures ({answers}; threshold {model.threshold:g}) in {options.output}")


def _check(options: argparse.Namespace) -> int:
    from monitoring.baseline import load_baseline
    from monitoring.check import check, put_metrics, write_check
    from monitoring.report import render

    if options.namespace and not options.endpoint_name:
        raise CommandError("--namespace needs --endpoint-name: metrics are kept by endpoint")
    baseline = load_baseline(options.baseline)
    window = _window(options, baseline.model)
    result = check(window, baseline)
    page = render(window, baseline, result)
    outputs = options.output or [CHECK]
    for output in outputs:
        write_check(result, window, page, output)
    # Last, as the alarm that it may raise says where the page is.
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

    print(
        create_schedule(
            options.endpoint_name, options.role_arn, options.baseline, options.output, options.analyzer_image
        )
    )


def _report(options: argparse.Namespace) -> None:
    from common import storage
    from monitoring.baseline import load_baseline
    from monitoring.check import PAGE_TYPE, check
    from monitoring.report import render

    if not options.output.endswith(".html"):
        raise CommandError(
            f"--output {options.output}: name the page itself, as in {options.output.rstrip('/')}/report.html"
        )
    baseline = load_baseline(options.baseline)
    window = _window(options, baseline.model)
    page = render(window, baseline, check(window, baseline))
    storage.write(options.output, page.encode(), PAGE_TYPE)
    print(f"wrote {options.output}")


def _window(options: argparse.Namespace, model: "Model") -> "Window":
    # Not at the top: what boto3 takes to be imported is long enough for an impatient Ctrl-C.
    from monitoring.capture import CaptureReader
    from monitoring.window import read_window

    start, end = None, options.end
    if options.hours:
        end = end or datetime.datetime.now(datetime.UTC)
        start = end - datetime.timedelta(hours=options.hours)
    reader = CaptureReader(options.captures, start, end, options.endpoint_name)
    window = read_window(reader.newest(options.newest) if options.newest else reader, model)
    window.unreadable += reader.unreadable
    window.completeness = min(window.completeness, reader.completeness)
    _say_unreadable(window)
    if reader.nothing:
        print(reader.nothing, file=sys.stderr)
    return window


def _say_unreadable(window: "Window") -> None:
    for reason, count in window.unreadable.most_common():
        print(f"left out {count}: {reason}", file=sys.stderr)


def _print(result: "Check", window: "Window") -> None:
    from rich.console import Console
    from rich.table import Table

    from monitoring.drift import LEAST_CAPTURES

    if not result.findings:
        print(f"{result.captures} captures are too few to compare; at least {LEAST_CAPTURES} are needed")
    else:
        table = Table("feature", "test", box=None, pad_edge=False)
        for heading in ("statistic", "p", "PSI"):
            table.add_column(heading, justify="right")
        table.add_column("")
        for finding in result.findings:
            numbers = (f"{finding.statistic:.3f}", f"{finding.p_value:.1e}", f"{finding.psi:.2f}")
            table.add_row(finding.feature, finding.test, *numbers, "DRIFT" if finding.drifted else "")
        Console(highlight=False).print(table)
    for violation in result.violations:
        print(f"violation ({violation['constraint_check_type']}): {violation['description']}")
    if result.findings and not result.violations:
        span = f"{window.records[0].time:%Y-%m-%d %H:%M} to {window.records[-1].time:%Y-%m-%d %H:%M} UTC"
        print(f"no violation in {result.captures} captures, {span}")


if __name__ == "__main__":
    sys.exit(main())
