"""Describe an endpoint, delete it, and wait for its changes."""

import time
from collections.abc import Callable
from typing import Any

from botocore.exceptions import BotoCoreError, ClientError, ConnectionError, HTTPClientError

from common.command import explain_aws
from common.errors import CommandError
from common.progress import progress

# An endpoint may be ready in a second, or take minutes: poll often at first, then less.
FIRST_POLL_SECONDS, LAST_POLL_SECONDS = 0.5, 10.0
# SageMaker itself gives up on a container after at most an hour.
TIMEOUT_SECONDS = 3900.0

# Other states end without a request:
# https://docs.aws.amazon.com/sagemaker/latest/APIReference/API_DescribeEndpoint.html
SETTLED = ("InService", "Failed", "OutOfService", "UpdateRollbackFailed")
_CONTINUE = "AWS continues without this command; run it again to continue waiting"


def describe_endpoint(sagemaker: Any, name: str) -> dict[str, Any]:
    """Describe the endpoint; return an empty dictionary if there is none."""
    try:
        return dict(sagemaker.describe_endpoint(EndpointName=name))
    except ClientError as error:
        if _is_missing(error):
            return {}
        raise


def target_config(endpoint: dict[str, Any]) -> str | None:
    """Return the name of the configuration that an endpoint has, or is changing to."""
    return endpoint.get("PendingDeploymentSummary", endpoint).get("EndpointConfigName")


def rollout_ended(config: str, before: dict[str, Any]) -> Callable[[dict[str, Any]], bool]:
    """Return a function of an endpoint's description: has the change from ``before`` ended, successfully or not?"""
    begun = False

    def has_ended(current: dict[str, Any]) -> bool:
        nonlocal begun
        if not current:
            return begun or bool(before)
        status = current["EndpointStatus"]
        # Right after the request AWS may still describe the endpoint as it was, which looks like a rollback.
        begun = begun or status != "InService" or current.get("LastModifiedTime") != before.get("LastModifiedTime")
        return status in SETTLED and (begun or current["EndpointConfigName"] == config)

    return has_ended


def wait_for_endpoint(
    sagemaker: Any,
    name: str,
    has_ended: Callable[[dict[str, Any]], bool],
    meanwhile: Callable[[float, dict[str, Any]], object] = lambda seconds, current: time.sleep(seconds),
) -> dict[str, Any]:
    """Poll the endpoint until a condition holds; return its description, empty when it is gone.

    ``meanwhile`` takes up a number of seconds between two polls, and gets the last description.

    Raises
    ------
    CommandError
        An error that is not transient, Ctrl-C, or a timeout; AWS continues.
    """
    started, pause = time.monotonic(), FIRST_POLL_SECONDS
    status, shown = "not described yet", 0
    current: dict[str, Any] = {}
    try:
        with progress(f"wait for endpoint {name}", None, "seconds") as advance:
            while True:
                try:
                    current = describe_endpoint(sagemaker, name)
                    if has_ended(current):
                        return current
                    status = current.get("EndpointStatus", status)
                except (ClientError, BotoCoreError) as error:
                    if not is_transient(error):
                        raise CommandError(
                            f"endpoint {name} is {status}, but AWS: {explain_aws(error)}; {_CONTINUE}"
                        ) from error
                waited = time.monotonic() - started
                if waited > TIMEOUT_SECONDS:
                    raise CommandError(f"endpoint {name} is still {status} after {TIMEOUT_SECONDS:.0f} s; {_CONTINUE}")
                advance(int(waited) - shown)
                shown = int(waited)
                meanwhile(pause, current)
                pause = min(2 * pause, LAST_POLL_SECONDS)
    except KeyboardInterrupt:
        raise CommandError(f"interrupted while endpoint {name} is {status}; {_CONTINUE}") from None


def _code(error: Exception) -> str:
    return str(error.response["Error"]["Code"]) if isinstance(error, ClientError) else ""


def is_transient(error: Exception) -> bool:
    """Return whether the same request may succeed later."""
    if not isinstance(error, ClientError):
        return isinstance(error, ConnectionError | HTTPClientError)
    status = error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
    return (
        status >= 500
        or "Throttl" in _code(error)
        or _code(error) in ("TooManyRequestsException", "RequestLimitExceeded")
    )


def delete_endpoint(sagemaker: Any, name: str, status: str | None) -> None:
    """Delete an endpoint, unless it is being deleted, and wait until it is gone."""
    if status not in (None, "Deleting"):
        sagemaker.delete_endpoint(EndpointName=name)
    wait_for_endpoint(sagemaker, name, lambda current: not current)


def tags_of(sagemaker: Any, arn: str) -> dict[str, str]:
    """Return the tags of a resource."""
    pages = sagemaker.get_paginator("list_tags").paginate(ResourceArn=arn)
    return {tag["Key"]: tag["Value"] for page in pages for tag in page["Tags"]}


def exists(describe: Callable[..., Any], **what: str) -> bool:
    """Return whether a describe or head request finds its resource."""
    try:
        describe(**what)
    except ClientError as error:
        if _is_missing(error):
            return False
        raise
    return True


def _is_missing(error: ClientError) -> bool:
    # SageMaker has no specific error code for missing resources.
    detail = error.response.get("Error", {})
    return detail.get("Code") in ("404", "NoSuchKey", "ResourceNotFound") or (
        detail.get("Code") == "ValidationException" and "Could not find" in detail.get("Message", "")
    )
