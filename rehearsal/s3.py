"""S3: bucket names, and the events of objects that EventBridge gets.

Sources: https://docs.aws.amazon.com/AmazonS3/latest/userguide/bucketnamingrules.html and
https://docs.aws.amazon.com/AmazonS3/latest/userguide/ev-events.html.
"""

import ipaddress
import itertools
import logging
import re
import time
import uuid
from typing import Any

from moto.core.responses import ActionResult
from moto.core.utils import unix_time
from moto.events.models import events_backends
from moto.s3 import notifications
from moto.s3.exceptions import InvalidBucketName
from moto.s3.models import FakeBucket, S3Backend
from moto.s3.notifications import S3NotificationEvent
from moto.s3.responses import S3Response

from rehearsal.patches import Difference, patch

log = logging.getLogger("rehearsal")

RESERVED_PREFIXES = ("xn--", "sthree-", "amzn-s3-demo-")
RESERVED_SUFFIXES = ("-s3alias", "--ol-s3", ".mrap", "--x-s3", "--table-s3")
CREATED: dict[str, str] = {
    S3NotificationEvent.OBJECT_CREATED_PUT_EVENT: "PutObject",
    S3NotificationEvent.OBJECT_CREATED_POST_EVENT: "POST Object",
    S3NotificationEvent.OBJECT_CREATED_COPY_EVENT: "CopyObject",
    S3NotificationEvent.OBJECT_CREATED_COMPLETE_MULTIPART_UPLOAD_EVENT: "CompleteMultipartUpload",
}
DELETED: dict[str, str] = {
    S3NotificationEvent.OBJECT_REMOVED_DELETE_EVENT: "Permanently Deleted",
    S3NotificationEvent.OBJECT_REMOVED_DELETE_MARKER_CREATED_EVENT: "Delete Marker Created",
}
_sequence = itertools.count(time.time_ns())


def is_bucket_name(name: str) -> bool:
    """Return whether S3 accepts a name for a general purpose bucket."""
    try:
        ipaddress.IPv4Address(name)
        return False
    except ValueError:
        formed = re.fullmatch(r"[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]", name) and ".." not in name
        return bool(formed) and not name.startswith(RESERVED_PREFIXES) and not name.endswith(RESERVED_SUFFIXES)


NAMES = Difference(
    "bucket_names_are_checked",
    "a bucket may have any name of 3 to 63 characters, including capital letters",
    bug=True,
)
EVENTS = Difference(
    "objects_send_one_event_per_change",
    "a multipart upload sends two events, each upload sends a tag event too, and events have another form than AWS's",
    bug=True,
)


@patch(S3Backend, "create_bucket", NAMES)
def _create_bucket(original: Any, self: S3Backend, bucket_name: str, *rest: Any, **more: Any) -> FakeBucket:
    if not is_bucket_name(bucket_name):
        raise InvalidBucketName()
    return original(self, bucket_name, *rest, **more)


def _detail(event: str, bucket: FakeBucket, key: Any, account: str, version: str | None) -> dict[str, Any]:
    changed: dict[str, Any] = {"key": key.name}
    if event not in DELETED:
        changed["etag"] = key.etag.strip('"')
    if event in CREATED or "ObjectRestore" in event:
        changed["size"] = key.size
    if version:
        changed["version-id"] = version
    detail = {
        "version": "0",
        "bucket": {"name": bucket.name},
        "object": changed,
        "request-id": uuid.uuid4().hex[:16].upper(),
        "requester": account,
        "source-ip-address": "127.0.0.1",
    }
    if event in CREATED or event in DELETED:
        changed["sequencer"] = f"{next(_sequence):018X}"
        detail["reason"] = CREATED.get(event, "DeleteObject")
    if event in DELETED:
        detail["deletion-type"] = DELETED[event]
    return detail


def _publish(account: str, bucket: FakeBucket, event: str, key: Any, version: str | None) -> None:
    """Send an event of an object to the rules of the default bus, if the bucket is set up for it."""
    if bucket.notification_configuration is None or bucket.notification_configuration.event_bridge is None:
        return
    message = {
        "version": "0",
        "id": str(uuid.uuid4()),
        "detail-type": notifications._detail_type(event),
        "source": "aws.s3",
        "account": account,
        "time": unix_time(),
        "region": bucket.region_name,
        "resources": [bucket.arn],
        "detail": _detail(event, bucket, key, account, version),
    }
    for rule in [*events_backends[account][bucket.region_name].event_buses["default"].rules.values()]:
        try:
            rule.send_to_targets(message, transform_input=False)  # type: ignore[arg-type]
        except Exception:  # the upload has succeeded, whatever comes of its event
            log.exception("Rule %s failed with %s", rule.name, message)


@patch(notifications, "send_event", EVENTS)
def _send_event(original: Any, account_id: str, event_name: S3NotificationEvent, bucket: FakeBucket, key: Any) -> None:
    upload = event_name == S3NotificationEvent.OBJECT_CREATED_PUT_EVENT and key.multipart is not None
    tags = event_name == S3NotificationEvent.OBJECT_TAGGING_PUT_EVENT
    version = event_name == S3NotificationEvent.OBJECT_REMOVED_DELETE_EVENT and bucket.is_versioned
    if not (upload or tags or version):  # these are sent below, or repeat another event
        original(account_id, event_name, bucket, key)


@patch(notifications, "_send_event_bridge_message", EVENTS)
def _send_event_bridge_message(original: Any, account_id: str, bucket: FakeBucket, event_name: str, key: Any) -> None:
    _publish(account_id, bucket, event_name, key, key.version_id if bucket.is_versioned else None)


@patch(S3Response, "put_object_tagging", EVENTS)
def _put_object_tagging(original: Any, self: S3Response) -> Any:
    answer = original(self)
    bucket, version = self.backend.get_bucket(self.bucket_name), self._get_param("versionId")
    key: Any = self.backend.get_object(self.bucket_name, self.parse_key_name(), version_id=version)
    tagged = S3NotificationEvent.OBJECT_TAGGING_PUT_EVENT
    _publish(self.current_account, bucket, tagged, key, key.version_id if bucket.is_versioned else None)
    return answer


@patch(S3Backend, "delete_object", EVENTS)
def _delete_object(
    original: Any,
    self: S3Backend,
    bucket_name: str,
    key_name: str,
    version_id: str | None = None,
    bypass: bool = False,
) -> tuple[bool, dict[str, Any]]:
    bucket = self.get_bucket(bucket_name)
    key = next((key for key in bucket.keys.getlist(key_name, []) if key.version_id == version_id), None)
    done, meta = original(self, bucket_name, key_name, version_id, bypass)
    if done and bucket.is_versioned:
        marker = S3NotificationEvent.OBJECT_REMOVED_DELETE_MARKER_CREATED_EVENT
        event = S3NotificationEvent.OBJECT_REMOVED_DELETE_EVENT if version_id else marker
        gone = key if version_id else bucket.keys[key_name]
        if gone:
            _publish(self.account_id, bucket, event, gone, meta["version-id"])
    return done, meta


@patch(
    S3Response,
    "get_bucket_notification",
    Difference(
        "notifications_name_eventbridge",
        "GetBucketNotificationConfiguration leaves out that events go to EventBridge",
        bug=True,
    ),
)
def _get_bucket_notification(original: Any, self: S3Response) -> Any:
    found = self.backend.get_bucket_notification_configuration(self.bucket_name)
    if found is None or found.event_bridge is None:
        return original(self)
    serialized = self.serialized

    def with_eventbridge(answer: Any) -> Any:
        return serialized(ActionResult({**answer.result, "EventBridgeConfiguration": {}}))

    self.serialized = with_eventbridge  # type: ignore[assignment, method-assign]
    try:
        return original(self)
    finally:
        self.serialized = serialized  # type: ignore[method-assign]
