"""``python -m operations``: trace an image through a deployed stack, review unsure images, replay executions."""

import argparse
import getpass
import json
import sys
from pathlib import Path

from common.command import only_with, port, positive_int, retention_days, run

MODEL = Path("training/model/model.onnx")


def main(arguments: list[str] | None = None) -> int:
    """Run one command; return its exit code: 0 success, 1 failure, 2 wrong arguments, or as its help lists."""
    return run(_parser(), arguments)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m operations",
        description="Work with a deployed stack: trace an image, review unsure images, replay executions.",
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    trace = commands.add_parser(
        "trace",
        help="show a timeline of one image",
        description="Print what happened to one image, in order of time: the workflow's states, log lines of the "
        "functions, the object in S3, the captured record, the review.",
    )
    trace.add_argument(
        "execution", metavar="EXECUTION", help="ARN or name of an execution, or the inference id of a capture"
    )
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
        "Exit code for one image: 0 accepted, 3 the model is not sure, 1 failed.",
    )
    what = replay.add_mutually_exclusive_group(required=True)
    what.add_argument(
        "execution",
        nargs="?",
        metavar="EXECUTION",
        help="ARN or name of an execution, or the inference id of a capture",
    )
    what.add_argument("--faults", action="store_true", help="start every execution in the failure queue again")
    replay.add_argument("--image", type=Path, metavar="FILE", help="a corrected image for EXECUTION")
    replay.add_argument("--limit", type=positive_int, metavar="N", help="with --faults: take at most N messages")
    replay.set_defaults(run=_replay)

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
    for command in (trace, review, replay, renew):
        command.add_argument("--stack-name", required=True, help="as in samconfig.toml")
    return parser


def _trace(options: argparse.Namespace) -> None:
    from common.stack import find_stack
    from operations.trace import collect, show

    timeline = collect(find_stack(options.stack_name), options.execution)
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


def _renew(options: argparse.Namespace) -> None:
    from common.stack import find_stack
    from operations.queue import renew

    renew(find_stack(options.stack_name), options.days)


if __name__ == "__main__":
    sys.exit(main())
