"""Make the sample events fit a deployed stack: upload their images, write the events with the stack's bucket.

    python events/prepare.py --stack-name image-classifier

The events in this folder name the bucket that the rehearsal's stack has, so there they work as they are.
"""

import argparse
import json
import sys
from pathlib import Path

import boto3
from botocore.exceptions import BotoCoreError, ClientError

FOLDER = Path(__file__).parent
REHEARSAL_BUCKET = "image-classifier-rehearsal-images-123456789012-us-east-1"


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
        text = path.read_text().replace(REHEARSAL_BUCKET, bucket)
        json.loads(text)
        (arguments.out / path.name).write_text(text)
        print(arguments.out / path.name)
    return 0


if __name__ == "__main__":
    sys.exit(main())
