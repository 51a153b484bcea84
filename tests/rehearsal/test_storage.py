"""One change of an object is one event, in the words of AWS."""

import io
import json
import re
from typing import Any

import pytest

from tests.support.stack import Rehearsal, wait_for

SENDER = {"version", "bucket", "object", "request-id", "requester", "source-ip-address"}


class Watched:
    """A bucket, each of whose events starts an execution that keeps it."""

    def __init__(self, rehearsal: Rehearsal, name: str, versioned: bool) -> None:
        self.s3, self.states, self.name = rehearsal.client("s3"), rehearsal.client("stepfunctions"), name
        definition = json.dumps({"StartAt": "Keep", "States": {"Keep": {"Type": "Succeed"}}})
        role = "arn:aws:iam::123456789012:role/r"
        made = self.states.create_state_machine(name=name, definition=definition, roleArn=role)
        self._machine, self._seen = made["stateMachineArn"], set[str]()
        events = rehearsal.client("events")
        pattern = {"source": ["aws.s3"], "detail": {"bucket": {"name": [name]}}}
        events.put_rule(Name=name, EventPattern=json.dumps(pattern))
        events.put_targets(Rule=name, Targets=[{"Id": "1", "Arn": self._machine}])
        self.s3.create_bucket(Bucket=name)
        if versioned:
            self.s3.put_bucket_versioning(Bucket=name, VersioningConfiguration={"Status": "Enabled"})
        self.s3.put_bucket_notification_configuration(
            Bucket=name, NotificationConfiguration={"EventBridgeConfiguration": {}}
        )

    def event(self) -> dict[str, Any]:
        """Return the only new event."""

        def new() -> list[str]:
            listed = self.states.list_executions(stateMachineArn=self._machine)["executions"]
            return [execution["executionArn"] for execution in listed if execution["executionArn"] not in self._seen]

        (arn,) = wait_for(new)
        self._seen.add(arn)
        event: dict[str, Any] = json.loads(self.states.describe_execution(executionArn=arn)["input"])
        assert (event["source"], event["resources"]) == ("aws.s3", [f"arn:aws:s3:::{self.name}"])
        assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", event["time"]) and len(event["id"]) == 36
        assert event["detail"]["bucket"] == {"name": self.name} and event["detail"]["requester"] == event["account"]
        return event


def shape(event: dict[str, Any]) -> tuple[str, str | None, set[str]]:
    """Return what happened, why, and what is said of the object."""
    detail = event["detail"]
    assert set(detail) - {"reason", "deletion-type"} == SENDER
    return event["detail-type"], detail.get("reason"), set(detail["object"])


@pytest.fixture(scope="module")
def plain(rehearsal: Rehearsal) -> Watched:
    return Watched(rehearsal, "watched-plain", versioned=False)


@pytest.fixture(scope="module")
def versioned(rehearsal: Rehearsal) -> Watched:
    return Watched(rehearsal, "watched-versions", versioned=True)


CREATED = {"key", "size", "etag", "sequencer"}


def test_each_way_to_create_an_object_is_one_event(plain: Watched) -> None:
    answer = plain.s3.put_object(Bucket=plain.name, Key="a b/ü+%41.png", Body=b"four", Tagging="colour=red")
    event = plain.event()
    assert shape(event) == ("Object Created", "PutObject", CREATED)
    first = event["detail"]["object"]
    assert (first["key"], first["size"]) == ("a b/ü+%41.png", 4) and f'"{first["etag"]}"' == answer["ETag"]
    plain.s3.copy_object(Bucket=plain.name, Key="copy", CopySource={"Bucket": plain.name, "Key": "a b/ü+%41.png"})
    event = plain.event()
    assert shape(event) == ("Object Created", "CopyObject", CREATED)
    assert int(event["detail"]["object"]["sequencer"], 16) > int(first["sequencer"], 16)
    assert event["detail"]["request-id"]


def test_a_large_file_is_one_event(plain: Watched) -> None:
    size = 8 * 1024 * 1024 + 1
    plain.s3.upload_fileobj(io.BytesIO(bytes(size)), plain.name, "large")
    event = plain.event()
    assert shape(event) == ("Object Created", "CompleteMultipartUpload", CREATED)
    found = plain.s3.head_object(Bucket=plain.name, Key="large")
    assert (event["detail"]["object"]["size"], f'"{event["detail"]["object"]["etag"]}"') == (size, found["ETag"])
    assert found["ETag"].endswith('-2"'), "it came in parts"
    plain.s3.copy_object(Bucket=plain.name, Key="large copy", CopySource={"Bucket": plain.name, "Key": "large"})
    assert shape(plain.event()) == ("Object Created", "CopyObject", CREATED)


def test_what_happens_to_an_object_later(plain: Watched) -> None:
    names = {"Bucket": plain.name, "Key": "later"}
    plain.s3.put_object(**names, Body=b"1")
    plain.event()
    plain.s3.put_object_tagging(**names, Tagging={"TagSet": [{"Key": "colour", "Value": "red"}]})
    assert shape(plain.event()) == ("Object Tags Added", None, {"key", "etag"})
    plain.s3.delete_object_tagging(**names)
    assert shape(plain.event()) == ("Object Tags Deleted", None, {"key", "etag"})
    plain.s3.put_object_acl(**names, ACL="private")
    assert shape(plain.event()) == ("Object ACL Updated", None, {"key", "etag"})
    plain.s3.delete_object(**names)
    event = plain.event()
    assert shape(event) == ("Object Deleted", "DeleteObject", {"key", "sequencer"})
    assert event["detail"]["deletion-type"] == "Permanently Deleted"


def test_versions_are_named(versioned: Watched) -> None:
    names = {"Bucket": versioned.name, "Key": "k"}
    versions = []
    for body in (b"1", b"2"):
        versions.append(versioned.s3.put_object(**names, Body=body)["VersionId"])
        event = versioned.event()
        assert shape(event) == ("Object Created", "PutObject", CREATED | {"version-id"})
        assert event["detail"]["object"]["version-id"] == versions[-1]
    marker = versioned.s3.delete_object(**names)["VersionId"]
    gone = [(marker, "Delete Marker Created")]
    for version in (versions[0], marker, versions[1]):
        event = versioned.event()
        assert shape(event) == ("Object Deleted", "DeleteObject", {"key", "version-id", "sequencer"})
        detail = event["detail"]
        assert (detail["object"]["version-id"], detail["deletion-type"]) == gone[-1]
        versioned.s3.delete_object(**names, VersionId=version)
        gone.append((version, "Permanently Deleted"))
    assert versioned.event()["detail"]["object"]["version-id"] == versions[1]
