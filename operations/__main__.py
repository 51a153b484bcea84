"""``python -m operations``: work with a deployed stack and its images."""

import argparse
import getpass
import json
import sys
from pathlib import Path

from common.command import add_examples, fraction, only_with, port, positive_float, positive_int, retention_days, run

EXECUTION = "an S3 key (its newest execution), ARN or name of an execution, or the inference id of a capture"

MODEL = Path(__file__).resolve().parents[1] / "training" / "model" / "model.onnx"


def main(arguments: list[str] | None = None) -> int:
    """Run one command; return its exit code: 0 success, 1 failure, 2 wrong arguments, or as its help lists."""
    return run(_parser(), arguments)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m operations",
        description="Work with a deployed stack: try photos, trace an image, review unsure images, replay executions, "
        "run batches.",
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    attempt = commands.add_parser(
        "try",
        help="classify your photos",
        description="Upload photos, start the workflow with each, and print its outcome and how to see its timeline. "
        "Exit code: 0 all accepted, 3 the model is not sure of one, 1 one failed.",
    )
    attempt.add_argument("photos", nargs="+", type=Path, metavar="PHOTO")
    attempt.add_argument(
        "--explain",
        action="store_true",
        help="write each photo to build/heat-maps/, with a heat map of where the model looked",
    )
    attempt.set_defaults(run=_try)

    trace = commands.add_parser(
        "trace",
        help="show a timeline of one image",
        description="Print what happened to one image, in order of time: the workflow's states, log lines of the "
        "functions, the object in S3, the captured record, the review.",
    )
    which = trace.add_mutually_exclusive_group(required=True)
    which.add_argument("execution", nargs="?", metavar="EXECUTION", help=EXECUTION)
    which.add_argument("--latest", action="store_true", help="the execution that was started last")
    trace.add_argument("--json", action="store_true", help="print one JSON object instead")
    trace.set_defaults(run=_trace)

    review = commands.add_parser(
        "review",
        help="label the images that were not accepted (unsure or neither), on a local page",
        description="Serve a page on this machine that shows the images of the review queue one by one, and writes "
        "their labels to S3. It can be stopped at any time: images without a label stay in the queue.",
    )
    review.add_argument("--reviewer", help="the reviewer's name, for the records (default: your user name)")
    review.add_argument(
        "--labels-uri", metavar="ADDRESS", help="folder of the labels (default: labels/ in the stack's ModelBucket)"
    )
    review.add_argument(
        "--model",
        type=Path,
        metavar="FILE",
        help=f"the model that made the predictions, to show where it looked (default: {MODEL}, if it exists)",
    )
    review.add_argument("--port", type=port, default=0, help="default: a free port")
    review.add_argument("--no-browser", action="store_true", help="print the page's address, but do not open it")
    review.set_defaults(run=_review)

    replay = commands.add_parser(
        "replay",
        help="send an image, or all faults, through the workflow again",
        description="Start the workflow again with an execution's image, or with every message of the failure queue. "
        "With --faults, wait for all of them. Exit code for one image: 0 accepted, 3 the model is not sure, 1 failed; "
        "with --faults: 0, or 1 if one failed again or messages are left.",
    )
    what = replay.add_mutually_exclusive_group(required=True)
    what.add_argument("execution", nargs="?", metavar="EXECUTION", help=EXECUTION)
    what.add_argument("--faults", action="store_true", help="start every execution in the failure queue again")
    replay.add_argument("--image", type=Path, metavar="FILE", help="a corrected image for EXECUTION")
    replay.add_argument("--limit", type=positive_int, metavar="N", help="with --faults: take at most N messages")
    replay.set_defaults(run=_replay)

    faults = commands.add_parser(
        "faults",
        help="list the failure queue, or remove what cannot be fixed",
        description="List the messages of the failure queue. With drop, delete those with one error: only the sender "
        "of an image can fix ObjectNotFound, UnsupportedImage, ImageTooLarge and InvalidEvent.",
    )
    faults.add_argument("action", nargs="?", choices=["list", "drop"], default="list", help="default: %(default)s")
    faults.add_argument("error", nargs="?", metavar="ERROR", help="with drop: the error's name, as the list shows it")
    faults.set_defaults(run=_faults, reject=faults.error)

    renew = commands.add_parser(
        "renew",
        help="put old reviews and faults back at the end of their queue, before SQS deletes them",
        description="Send old messages of the review queue and the failure queue again, and delete the originals. SQS "
        "deletes messages after 14 days, read or not. It can be stopped at any time: at worst a message is duplicated.",
    )
    renew.add_argument(
        "--days",
        type=retention_days,
        default=7,
        metavar="N",
        help="least age of a renewed message (default: %(default)s)",
    )
    renew.set_defaults(run=_renew)
    empty = commands.add_parser(
        "empty",
        help="delete everything in the stack's bucket, so that sam delete can delete it",
        description="Delete all objects in the bucket of the stack, and all their versions: CloudFormation deletes a "
        "bucket only if it is empty. If ModelBucket is empty, that includes labels, models and the baseline. Remove "
        "the endpoint first: it goes on to capture data. Asks before it deletes anything.",
    )
    empty.add_argument("--yes", action="store_true", help="do not ask")
    empty.set_defaults(run=_empty)
    batch = commands.add_parser(
        "batch",
        help="classify all images below a prefix, or those of a manifest",
        description="Start runs of the batch workflow, and work with their results.",
    )
    steps = batch.add_subparsers(required=True, metavar="STEP")
    begin = steps.add_parser("start", help="start a run and print its ARN")
    source = begin.add_mutually_exclusive_group(required=True)
    source.add_argument("--prefix", help="every object of the image bucket below this prefix; end it with /")
    source.add_argument(
        "--manifest", metavar="KEY", help="a .csv or .jsonl file below batches/ of the image bucket: s3_bucket, s3_key"
    )
    begin.add_argument("--name", help="name of the execution and of the folder of its results")
    begin.add_argument(
        "--rate",
        type=positive_float,
        default=50,
        help="images per second of one endpoint instance (default: %(default)s)",
    )
    begin.add_argument(
        "--seconds",
        type=positive_float,
        default=0.5,
        help="how long an image is in the workflow (default: %(default)s)",
    )
    begin.add_argument("--wait", action="store_true", help="follow it")
    begin.set_defaults(run=_batch_start)
    summary = steps.add_parser("summarize", help="count the outcomes, and say where the results are")
    summary.add_argument("--failed-manifest", metavar="KEY", help="write the failed images there, for another run")
    summary.set_defaults(run=_batch_summarize)
    texts = {
        "follow": ("show a run's progress until it ends", _batch_follow),
        "redrive": ("run the children of a failed run that did not succeed again", _batch_redrive),
        "reconcile": ("check that each given key has exactly one result", _batch_reconcile),
    }
    runs = [summary]
    for name, (text, function) in texts.items():
        runs.append(steps.add_parser(name, help=text))
        runs[-1].set_defaults(run=function)
    for command in (begin, summary, runs[1]):
        command.add_argument(
            "--max-failed",
            type=fraction,
            default=0.1,
            metavar="F",
            help="exit with 1 if more than this fraction of the images failed (default: %(default)s)",
        )
    for command in runs:
        command.add_argument("execution", metavar="EXECUTION", help="ARN or name of a run")
    for command in (attempt, trace, review, replay, faults, renew, empty, begin, *runs):
        command.add_argument("--stack-name", required=True, metavar="STACK", help="as in samconfig.toml")
    add_examples(
        commands,
        {
            "try": "bike.jpg --explain --stack-name image-classifier",
            "trace": "incoming/bike.jpg --stack-name image-classifier",
            "review": "--stack-name image-classifier",
            "replay": "--faults --stack-name image-classifier",
            "faults": "drop UnsupportedImage --stack-name image-classifier",
            "renew": "--stack-name image-classifier",
            "empty": "--stack-name image-classifier",
            "batch": "start --prefix incoming/ --wait --stack-name image-classifier",
        },
    )
    add_examples(
        steps,
        {
            "start": "--prefix incoming/ --wait --stack-name image-classifier",
            "follow": "RUN --stack-name image-classifier",
            "summarize": "RUN --stack-name image-classifier",
            "redrive": "RUN --stack-name image-classifier",
            "reconcile": "RUN --stack-name image-classifier",
        },
    )
    return parser


def _try(options: argparse.Namespace) -> int:
    from common.stack import find_stack
    from operations.attempt import try_photos

    return try_photos(find_stack(options.stack_name), options.photos, MODEL if options.explain else None)


def _trace(options: argparse.Namespace) -> None:
    from common.stack import find_latest, find_stack
    from operations.trace import collect, show

    stack = find_stack(options.stack_name)
    timeline = collect(stack, find_latest(stack) if options.latest else options.execution)
    print(json.dumps(timeline, indent=1)) if options.json else show(timeline)


def _review(options: argparse.Namespace) -> None:
    from operations.review import review

    reviewer = options.reviewer or getpass.getuser()
    model = options.model or (MODEL if MODEL.is_file() else None)
    review(options.stack_name, reviewer, options.labels_uri, options.port, not options.no_browser, model)


def _replay(options: argparse.Namespace) -> int:
    from common.stack import find_stack
    from operations.replay import replay, replay_faults

    only_with(options, "EXECUTION", "--image")
    only_with(options, "--faults", "--limit")
    stack = find_stack(options.stack_name)
    if options.faults:
        return replay_faults(stack, options.limit)
    return replay(stack, options.execution, options.image)


def _faults(options: argparse.Namespace) -> int:
    from common.stack import find_stack
    from operations.faults import drop_faults, show_faults

    if (options.action == "drop") != (options.error is not None):
        options.reject("drop needs the name of an error, and list takes none")
    stack = find_stack(options.stack_name)
    if options.action == "drop":
        return drop_faults(stack, options.error)
    show_faults(stack)
    return 0


def _renew(options: argparse.Namespace) -> None:
    from common.stack import find_stack
    from operations.queue import renew

    renew(find_stack(options.stack_name), options.days)


def _empty(options: argparse.Namespace) -> None:
    from common.stack import find_stack
    from operations.empty import empty

    empty(find_stack(options.stack_name), ask=not options.yes)


def _batch_start(options: argparse.Namespace) -> int:
    from common.stack import find_stack
    from operations.batch import follow, start

    stack = find_stack(options.stack_name)
    source = {name: value for name in ("prefix", "manifest") if (value := getattr(options, name))}
    execution = start(stack, source, options.rate, options.seconds, options.name)
    return follow(stack, execution, options.max_failed) if options.wait else 0


def _batch_follow(options: argparse.Namespace) -> int:
    from common.stack import find_stack
    from operations.batch import follow

    return follow(find_stack(options.stack_name), options.execution, options.max_failed)


def _batch_summarize(options: argparse.Namespace) -> int:
    from common.stack import find_stack
    from operations.batch import summarize

    return summarize(find_stack(options.stack_name), options.execution, options.failed_manifest, options.max_failed)


def _batch_redrive(options: argparse.Namespace) -> None:
    from common.stack import find_stack
    from operations.batch import redrive

    redrive(find_stack(options.stack_name), options.execution)


def _batch_reconcile(options: argparse.Namespace) -> int:
    from common.stack import find_stack
    from operations.batch import reconcile

    return reconcile(find_stack(options.stack_name), options.execution)


if __name__ == "__main__":
    sys.exit(main())
