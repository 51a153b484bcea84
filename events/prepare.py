"""Make the sample events fit a deployed stack: upload their images, write the events with the stack's bucket.

    python events/prepare.py --stack-name image-classifier

The events in this folder name a bucket that nobody can have: AWS reserves its name for documentation. Of those that
need no bucket (filter-*.json) both copies work.
"""

import argparse
import hashlib
import json
import sys
from pathlib import Path

import boto3
from botocore.exceptions import BotoCoreError, ClientError

FOLDER = Path(__file__).parent
PLACEHOLDER = "amzn-s3-demo-bucket"


def main() -> int:
    """Run the command line; return its exit code."""
    parser = argparse.ArgumentParser(description=str(__doc__).splitlines()[0])
    parser.add_argument("--stack-name", required=True, help="as in samconfig.toml")
    parser.add_argument("--out", type=Path, default=Path("build/events"), help="where to write them (%(default)s)")
    arguments = parser.parse_args()
    try:
        stacks = boto3.client("cloudformation").describe_stacks(StackName=arguments.stack_name)["Stacks"]
        outputs = {output["OutputKey"]: output["OutputValue"] for output in stacks[0]["Outputs"]}
        bucket = outputs["ImageBucketName"]
        for path in sorted((FOLDER / "images").iterdir()):
            boto3.client("s3").upload_file(str(path), bucket, f"samples/{path.name}")
            print(f"s3://{bucket}/samples/{path.name}")
    except (BotoCoreError, ClientError, KeyError) as error:
        print(f"prepare: {error}", file=sys.stderr)
        return 1
    arguments.out.mkdir(parents=True, exist_ok=True)
    for path in sorted(FOLDER.glob("*.json")):
        event = json.loads(path.read_text().replace(PLACEHOLDER, bucket))
        if "image_id" in event:  # as serialize makes it
            name = "\0".join((bucket, event["s3_key"], event["source"]["etag"]))
            event["image_id"] = hashlib.sha256(name.encode()).hexdigest()[:32]
        (arguments.out / path.name).write_text(json.dumps(event, indent=2) + "\n")
        print(arguments.out / path.name)
    return 0


if __name__ == "__main__":
    sys.exit(main())
