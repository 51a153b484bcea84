"""Empty the bucket of a stack, which CloudFormation deletes only then."""

from collections import Counter

import boto3

from common.command import printable
from common.errors import CommandError
from common.progress import progress
from common.stack import Stack
from common.storage import naming

#: The most objects that one request deletes.
BATCH = 1000


def empty(stack: Stack, *, ask: bool) -> None:
    """Delete all objects of the stack's bucket, and all their versions.

    Parameters
    ----------
    stack : Stack
        The stack of the bucket.
    ask : bool
        Whether to print what there is, and to ask first.

    Raises
    ------
    CommandError
        The answer was not the bucket's name, or objects could not be deleted.
    """
    name = stack.outputs.get("ImageBucketName") or _bucket_of(stack)
    bucket = boto3.resource("s3").Bucket(name)
    with naming(f"s3://{name}"):
        versions = [(item.object_key, item.id) for item in bucket.object_versions.all()]
    if not versions:
        print(f"{name} is empty")
        return
    folders = Counter(key.partition("/")[0] + "/" if "/" in key else key for key, _ in versions)
    print(
        f"{name} holds {len(versions):,} objects: "
        + ", ".join(f"{n:,} in {printable(f)}" for f, n in folders.most_common())
    )
    if ask:
        try:
            answer = input("Delete all of them permanently? Type the bucket's name: ")
        except EOFError:
            answer = ""
        if answer.strip() != name:
            raise CommandError("nothing was deleted")
    with progress("delete", len(versions), "objects") as advance:
        for start in range(0, len(versions), BATCH):
            batch = versions[start : start + BATCH]
            objects = [{"Key": key, "VersionId": version} for key, version in batch]
            with naming(f"s3://{name}"):
                answered = bucket.delete_objects(Delete={"Objects": objects, "Quiet": True})  # type: ignore[typeddict-item]
            for error in answered.get("Errors", []):
                raise CommandError(f"s3://{name}/{printable(error['Key'])} could not be deleted: {error['Message']}")
            advance(len(batch))
    print(f"deleted {len(versions):,} objects; now: sam delete --stack-name {stack.name}")


def _bucket_of(stack: Stack) -> str:
    """Return the bucket of a stack that may have lost its outputs, after a deletion that failed."""
    resources = boto3.client("cloudformation").describe_stack_resources(StackName=stack.name)["StackResources"]
    for resource in resources:
        if resource["LogicalResourceId"] == "ImageBucket" and "PhysicalResourceId" in resource:
            return resource["PhysicalResourceId"]
    raise CommandError(f"stack {stack.name} has no bucket ImageBucket (any more)")
