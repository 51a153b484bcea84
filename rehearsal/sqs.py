"""SQS: messages of a dead-letter queue move back to their source queue."""

import time
import uuid
from typing import Any

from moto.core.responses import ActionResult
from moto.core.utils import unix_time_millis
from moto.sqs.exceptions import InvalidParameterValue, SQSException
from moto.sqs.models import Queue, SQSBackend
from moto.sqs.responses import SQSResponse

from rehearsal.patches import Difference, add


class ResourceNotFound(SQSException):
    """SQS's answer to the ARN of a queue that does not exist."""

    code = "ResourceNotFoundException"

    def __init__(self, parameter: str) -> None:
        super().__init__(self.code, f"The resource that you specified for the {parameter} parameter doesn't exist.")


def _queue(backend: SQSBackend, arn: str, parameter: str) -> Queue:
    for queue in backend.queues.values():
        if queue.queue_arn == arn:
            return queue
    raise ResourceNotFound(parameter)


MOVES = Difference("messages_move_back", "StartMessageMoveTask and ListMessageMoveTasks are not implemented")


def _tasks(source: Queue) -> list[dict[str, Any]]:
    """Return the tasks that moved a queue's messages, the latest one first."""
    return vars(source).setdefault("message_move_tasks", [])


@add(SQSResponse, "start_message_move_task", MOVES)
def _start_message_move_task(self: SQSResponse) -> ActionResult:
    """Move all visible messages at once; AWS takes a while, and allows to stop it."""
    backend = self.sqs_backend
    source = _queue(backend, self._get_param("SourceArn"), "SourceArn")
    senders = backend.list_dead_letter_source_queues(source.name)
    if not senders:
        raise InvalidParameterValue("Source queue must be configured as a Dead Letter Queue.")
    named = self._get_param("DestinationArn")
    if not named and len(senders) > 1:
        raise InvalidParameterValue(
            f"The rehearsal does not know from which of {len(senders)} queues a message came: name DestinationArn"
        )
    target = _queue(backend, named, "DestinationArn") if named else senders[0]
    # AWS documents that a moved message is a new one: it has another id, and its age starts again.
    moved = [message for message in source.messages if message.visible]
    for message in moved:
        sent = backend.send_message(target.name, message.body, group_id=message.group_id)
        sent.message_attributes = message.message_attributes
        source._messages.remove(message)
    task = {
        "Status": "COMPLETED",
        "SourceArn": source.queue_arn,
        "ApproximateNumberOfMessagesMoved": len(moved),
        "ApproximateNumberOfMessagesToMove": len(moved),
        "StartedTimestamp": int(time.time() * 1000),
    }
    _tasks(source).insert(0, task | ({"DestinationArn": named} if named else {}))
    return ActionResult({"TaskHandle": str(uuid.uuid4())})


@add(SQSResponse, "list_message_move_tasks", MOVES)
def _list_message_move_tasks(self: SQSResponse) -> ActionResult:
    source = _queue(self.sqs_backend, self._get_param("SourceArn"), "SourceArn")
    return ActionResult({"Results": _tasks(source)[: int(self._get_param("MaxResults") or 1)]})


def age_of_oldest(queue: Queue) -> float:
    """Return for how many seconds a queue's oldest message has been waiting; 0 for an empty queue."""
    sent: list[Any] = [message.sent_timestamp for message in queue._messages if message.sent_timestamp is not None]
    return max(0.0, (unix_time_millis() - min(sent)) / 1000) if sent else 0.0
