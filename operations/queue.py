"""Work off an SQS queue: message by message, to its end, without losing what stays."""

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
#: Long polling asks all of the queue's servers, and yet an answer without messages does not prove that there are none:
#: only so many in a row are taken for the end.
WAIT_SECONDS, EMPTY_ANSWERS = 2, 2
#: Where messages wait for people, by the stack's output.
RENEWED = {"ReviewQueueUrl": "reviews", "FailureQueueUrl": "faults"}


def work_off(
    queue: str, task: str, unit: str, done_as: str, handle: Callable[["MessageTypeDef"], bool], limit: int | None = None
) -> tuple[int, bool]:
    """Receive a queue's messages, and delete each that was handled; what was not handled is visible again at the end.

    Parameters
    ----------
    queue : str
        The queue's URL.
    task, unit : str
        What the progress bar says.
    done_as : str
        What has become of a message that was handled, for the message of an interruption.
    handle : callable
        Handles a message, and says whether it may be deleted.
    limit : int or None, optional
        The most messages to handle, which leaves the rest; None takes all that lie there.

    Returns
    -------
    tuple of (int, bool)
        How many were handled, and whether the queue's end was reached.

    Raises
    ------
    CommandError
        It was interrupted; says how many had been handled.
    """
    sqs = boto3.client("sqs")
    kept: dict[str, str] = {}
    received: list[MessageTypeDef] = []
    done = empty = 0
    try:
        with progress(task, limit, unit) as advance:
            while empty < EMPTY_ANSWERS and (limit is None or done < limit):
                received = sqs.receive_message(
                    QueueUrl=queue,
                    MaxNumberOfMessages=min(10, limit - done) if limit else 10,
                    VisibilityTimeout=VISIBILITY_SECONDS,
                    WaitTimeSeconds=WAIT_SECONDS,
                    MessageSystemAttributeNames=["SentTimestamp"],
                    MessageAttributeNames=["All"],
                ).get("Messages", [])
                # What was kept comes back, and is nothing new.
                empty = empty + 1 if all(message["MessageId"] in kept for message in received) else 0
                for message in received:
                    if message["MessageId"] in kept or not handle(message):
                        kept[message["MessageId"]] = message["ReceiptHandle"]
                        continue
                    sqs.delete_message(QueueUrl=queue, ReceiptHandle=message["ReceiptHandle"])
                    done += 1
                    advance(1)
    except KeyboardInterrupt:
        # What was deleted is among them too, and stays deleted.
        kept |= {message["MessageId"]: message["ReceiptHandle"] for message in received}
        raise CommandError(f"interrupted; {done} {done_as}, the rest stays in the queue") from None
    finally:
        for receipt in kept.values():
            # One that was kept for long is back in the queue already.
            with contextlib.suppress(ClientError):
                sqs.change_message_visibility(QueueUrl=queue, ReceiptHandle=receipt, VisibilityTimeout=0)
    return done, empty == EMPTY_ANSWERS


def count(queue: str) -> int:
    """Return about how many messages a queue holds, by SQS's own count, which lags a minute."""
    names: list[str] = ["ApproximateNumberOfMessages", "ApproximateNumberOfMessagesNotVisible"]
    counts = boto3.client("sqs").get_queue_attributes(QueueUrl=queue, AttributeNames=names)["Attributes"]  # type: ignore[arg-type]
    return sum(map(int, counts.values()))


def renew(stack: Stack, days: float) -> None:
    """Put old messages of the review queue and of the failure queue back at the end, as new ones: SQS deletes old ones.

    The copy is sent before the original is deleted: an interruption leaves both at worst.

    Parameters
    ----------
    stack : Stack
        Whose queues are renewed.
    days : float
        Age from which a message counts as old.

    Raises
    ------
    CommandError
        It was interrupted; says how many had been renewed.
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
            print(f"SQS did not give all {what}: run this again", file=sys.stderr)
