"""Adapt the sample events to a deployed stack: upload their images, write the events with the stack's bucket.

    python -m events.prepare --stack-name image-classifier

The events in this folder name a bucket that AWS reserves for documentation. Events that need no bucket (filter-*.json)
work unchanged as well.
"""

import argparse
import hashlib
import json
import sys
from pathlib import Path

import boto3

from common.command import run
from common.stack import find_stack

FOLDER = Path(__file__).parent
PLACEHOLDER = "amzn-s3-demo-bucket"


def main() -> int:
    """Run the command line; return its exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m events.prepare",
        description=str(__doc__).splitlines()[0],
        epilog="example: python -m events.prepare --stack-name image-classifier",
    )
    parser.add_argument("--stack-name", required=True, help="as in samconfig.toml")
    parser.add_argument("--out", type=Path, default=Path("build/events"), help="folder to write (default: %(default)s)")
    parser.set_defaults(run=_prepare)
    return run(parser, None)


def _prepare(options: argparse.Namespace) -> None:
    bucket = find_stack(options.stack_name).output("ImageBucketName")
    for path in sorted((FOLDER / "images").iterdir()):
        boto3.client("s3").upload_file(str(path), bucket, f"samples/{path.name}")
        print(f"s3://{bucket}/samples/{path.name}")
    options.out.mkdir(parents=True, exist_ok=True)
    for path in sorted(FOLDER.glob("*.json")):
        event = json.loads(path.read_text().replace(PLACEHOLDER, bucket))
        if "image_id" in event:  # as serialize makes it
            name = "\0".join((bucket, event["s3_key"], event["source"]["etag"]))
            event["image_id"] = hashlib.sha256(name.encode()).hexdigest()[:32]
        (options.out / path.name).write_text(json.dumps(event, indent=2) + "\n")
        print(options.out / path.name)


if __name__ == "__main__":
    sys.exit(main())
