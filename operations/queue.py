"""Process the messages of an SQS queue one by one, and release those that remain."""

import contextlib
import sys
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

import boto3
from botocore.exceptions import ClientError

from common.errors import CommandError
from common.progress import progress
from common.stack import Stack

if TYPE_CHECKING:
    from mypy_boto3_sqs.type_defs import MessageTypeDef

#: How long a message is hidden from others while it is handled.
VISIBILITY_SECONDS = 60
#: Long polling queries all of the queue's servers, but an empty response does not prove that the queue is empty: only
#: so many in a row count as its end.
WAIT_SECONDS, EMPTY_RESPONSES = 2, 2
#: Queues whose messages wait for people: the stack's output, and a name for the messages.
RENEWED = {"ReviewQueueUrl": "reviews", "FailureQueueUrl": "faults"}


def work_off(
    queue: str, task: str, unit: str, done_as: str, handle: Callable[["MessageTypeDef"], bool], limit: int | None = None
) -> tuple[int, bool]:
    """Receive a queue's messages, and delete each that was handled; the others become visible again at the end.

    Parameters
    ----------
    queue : str
        The queue's URL.
    task, unit : str
        Texts of the progress bar.
    done_as : str
        Past participle of the task, for the message after an interruption.
    handle : callable
        Handles a message; returns whether to delete it.
    limit : int or None, optional
        The most messages to handle; None handles all.

    Returns
    -------
    tuple of (int, bool)
        The number of handled messages, and whether the queue's end was reached.

    Raises
    ------
    CommandError
        It was interrupted; the message has the number of handled messages.
    """
    sqs = boto3.client("sqs")
    kept: dict[str, str] = {}
    received: list[MessageTypeDef] = []
    done = empty = 0
    try:
        with progress(task, limit, unit) as advance:
            while empty < EMPTY_RESPONSES and (limit is None or done < limit):
                received = sqs.receive_message(
                    QueueUrl=queue,
                    MaxNumberOfMessages=min(10, limit - done) if limit else 10,
                    VisibilityTimeout=VISIBILITY_SECONDS,
                    WaitTimeSeconds=WAIT_SECONDS,
                    MessageSystemAttributeNames=["SentTimestamp"],
                    MessageAttributeNames=["All"],
                ).get("Messages", [])
                # Messages that were kept may be received again.
                empty = empty + 1 if all(message["MessageId"] in kept for message in received) else 0
                for message in received:
                    if message["MessageId"] in kept or not handle(message):
                        kept[message["MessageId"]] = message["ReceiptHandle"]
                        continue
                    sqs.delete_message(QueueUrl=queue, ReceiptHandle=message["ReceiptHandle"])
                    done += 1
                    advance(1)
    except KeyboardInterrupt:
        # Some of these are deleted already; that does no harm.
        kept |= {message["MessageId"]: message["ReceiptHandle"] for message in received}
        raise CommandError(f"interrupted; {done} {done_as}, the rest stays in the queue") from None
    finally:
        for receipt in kept.values():
            # A message that was kept for long is visible already.
            with contextlib.suppress(ClientError):
                sqs.change_message_visibility(QueueUrl=queue, ReceiptHandle=receipt, VisibilityTimeout=0)
    return done, empty == EMPTY_RESPONSES


def count(queue: str) -> int:
    """Return the approximate number of messages in a queue; SQS's count lags a minute."""
    names: list[str] = ["ApproximateNumberOfMessages", "ApproximateNumberOfMessagesNotVisible"]
    counts = boto3.client("sqs").get_queue_attributes(QueueUrl=queue, AttributeNames=names)["Attributes"]  # type: ignore[arg-type]
    return sum(map(int, counts.values()))


def renew(stack: Stack, days: float) -> None:
    """Send old messages of the review queue and of the failure queue again, before SQS deletes them.

    The copy is sent before the original is deleted: at worst, an interruption leaves both.

    Parameters
    ----------
    stack : Stack
        The stack of the queues.
    days : float
        Age from which a message counts as old.

    Raises
    ------
    CommandError
        It was interrupted; the message has the number of renewed messages.
    """
    sqs = boto3.client("sqs")
    oldest = (time.time() - days * 86400) * 1000
    for output, what in RENEWED.items():
        queue = stack.output(output)

        def again(message: "MessageTypeDef", queue: str = queue) -> bool:
            if int(message["Attributes"]["SentTimestamp"]) > oldest:
                return False
            attributes = message.get("MessageAttributes", {})
            sqs.send_message(QueueUrl=queue, MessageBody=message["Body"], MessageAttributes=attributes)
            return True

        done, ended = work_off(queue, f"renew {what}", "messages", "renewed", again)
        print(f"{done} {what} renewed; the queue holds about {count(queue)} (by SQS's count, which lags a minute)")
        if not ended:
            print(f"SQS did not return all {what}: run this command again", file=sys.stderr)
