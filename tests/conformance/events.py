"""EventBridge's patterns, targets and transformers, and S3's events."""

import json
from typing import Any

from tests.conformance.behaviours import DOCS, Json, World, behaviour, error_of
from tests.support.stack import wait_for

PATTERNS = "events/test_events_patterns"
INPUTS = "events/test_events_inputs"
BUCKETS = "s3/test_s3_notifications_eventbridge"
BUCKETS_DOCS = f"{DOCS}AmazonS3/latest/userguide/ev-events.html"

EVENT: Json = {
    "id": "1",
    "account": "123456789012",
    "source": "shop",
    "time": "2026-01-02T03:04:05Z",
    "region": "us-east-1",
    "resources": ["arn:a", "arn:b"],
    "detail-type": "Sold",
    "detail": {
        "file": "photos/Bike.PNG",
        "count": 7,
        "price": 2.5,
        "new": True,
        "note": None,
        "empty": "",
        "tags": ["red", "fast"],
        "none": [],
        "lines": [{"sku": "a"}],
    },
}


def _detail(name: str, *filters: Any) -> Json:
    return {"detail": {name: list(filters)}}


#: What it shows, the pattern, and whether the event above matches.
MATCHES: list[tuple[str, Json, bool]] = [
    ("an exact value", {"source": ["shop"], "detail": {"count": [7]}}, True),
    ("names are case-sensitive", {"Source": ["shop"]}, False),
    ("values are case-sensitive", {"source": ["Shop"]}, False),
    ("any of the listed values, all of the named fields", {"source": ["a", "shop"], "detail-type": ["Bought"]}, False),
    ("one of an array's items is enough", _detail("tags", "blue", "fast"), True),
    ("null matches null alone", _detail("note", None), True),
    ("an empty text is no null", _detail("empty", None), False),
    ("true is no text", _detail("new", "true"), False),
    ("2.50 is 2.5", _detail("price", 2.50), True),
    ("prefix", _detail("file", {"prefix": "photos/"}), True),
    ("prefix of a number", _detail("count", {"prefix": "7"}), False),
    ("prefix in any case", _detail("file", {"prefix": {"equals-ignore-case": "PHOTOS/b"}}), True),
    ("an empty prefix", _detail("file", {"prefix": ""}), True),
    ("suffix", _detail("file", {"suffix": ".png"}), False),
    ("suffix in any case", _detail("file", {"suffix": {"equals-ignore-case": ".png"}}), True),
    ("equals-ignore-case", {"detail-type": [{"equals-ignore-case": "SOLD"}]}, True),
    ("wildcard", _detail("file", {"wildcard": "photos/*.PNG"}), True),
    ("wildcard that matches no more", _detail("file", {"wildcard": "*/*/*"}), False),
    ("anything-but a text", _detail("file", {"anything-but": "other"}), True),
    ("anything-but a list", _detail("count", {"anything-but": [6, 7]}), False),
    ("anything-but a prefix", _detail("file", {"anything-but": {"prefix": "photos/"}}), False),
    ("anything-but of several suffixes", _detail("file", {"anything-but": {"suffix": [".jpg", ".gif"]}}), True),
    ("anything-but a wildcard", _detail("file", {"anything-but": {"wildcard": "*.PNG"}}), False),
    ("anything-but does not match what is missing", _detail("gone", {"anything-but": "a"}), False),
    ("anything-but matches null", _detail("note", {"anything-but": "a"}), True),
    ("exists", _detail("count", {"exists": True}), True),
    ("exists: false", _detail("gone", {"exists": False}), True),
    ("exists: false on what is there", _detail("count", {"exists": False}), False),
    ("numeric range", _detail("count", {"numeric": [">", 5, "<=", 7]}), True),
    ("numeric of a text", _detail("file", {"numeric": ["=", 7]}), False),
    ("several operators: one is enough", _detail("count", {"prefix": "a"}, {"numeric": [">", 1]}), True),
    ("$or", {"detail": {"$or": [{"count": [1]}, {"price": [{"numeric": ["<", 3]}]}]}}, True),
    ("$or with none that matches", {"$or": [{"source": ["a"]}, {"detail-type": [{"prefix": "b"}]}]}, False),
]
for _name, _pattern, _expected in MATCHES:

    @behaviour("Event patterns", _name, PATTERNS, _expected)
    def _(world: World, pattern: Json = _pattern) -> Any:
        tried = {"EventPattern": json.dumps(pattern), "Event": json.dumps(EVENT)}
        return world.client("events").test_event_pattern(**tried)["Result"]


def _tried(world: World, pattern: Json, event: Json) -> bool:
    asked = {"EventPattern": json.dumps(pattern), "Event": json.dumps(event)}
    return bool(world.client("events").test_event_pattern(**asked)["Result"])


@behaviour("Event patterns", "an empty array does not exist", PATTERNS, False, differs="it exists")
def _(world: World) -> Any:
    return _tried(world, _detail("none", {"exists": True}), EVENT)


@behaviour(
    "Event patterns", "fields of the objects in an array are found", PATTERNS, True, differs="they are not found"
)
def _(world: World) -> Any:
    return _tried(world, {"detail": {"lines": {"sku": [{"exists": True}]}}}, EVENT)


#: What is wrong, the pattern, and the reason that AWS gives.
REFUSED: list[tuple[str, Json, str]] = [
    ("an unknown operator", _detail("a", {"startswith": "b"}), "Unrecognized match type startswith"),
    ("an operator in capitals", _detail("a", {"EXISTS": True}), "Unrecognized match type EXISTS"),
    ("a prefix that is a list", _detail("a", {"prefix": ["b"]}), "prefix match pattern must be a string"),
    ("a suffix that is a number", _detail("a", {"suffix": 1}), "suffix match pattern must be a string"),
    ("a wildcard that is a list", _detail("a", {"wildcard": ["b*"]}), "wildcard match pattern must be a string"),
    (
        "a list for equals-ignore-case",
        _detail("a", {"equals-ignore-case": ["b"]}),
        "equals-ignore-case match pattern must be a string",
    ),
    ("numeric without a list", _detail("a", {"numeric": 1}), "Value of numeric must be an array."),
    ("an empty list", {"source": []}, "Empty arrays are not allowed"),
]
for _name, _pattern, _reason in REFUSED:

    @behaviour(
        "Event patterns",
        f"refused: {_name}",
        PATTERNS,
        ("InvalidEventPatternException", f"Event pattern is not valid. Reason: {_reason}"),
    )
    def _(world: World, pattern: Json = _pattern) -> Any:
        return error_of(lambda: world.client("events").put_rule(Name="refused", EventPattern=json.dumps(pattern)))


@behaviour(
    "Event patterns",
    "refused: a value without a list",
    PATTERNS,
    'Reason: "source" must be an object or an array',
    differs="single quotes around the field's name",
)
def _(world: World) -> Any:
    refused = error_of(lambda: world.client("events").put_rule(Name="refused", EventPattern='{"source": "shop"}'))
    return refused[1].removeprefix("Event pattern is not valid. ")


@behaviour("Event patterns", "refused: two asterisks in a row", PATTERNS, "InvalidEventPatternException")
def _(world: World) -> Any:
    pattern = json.dumps(_detail("a", {"wildcard": "b**c"}))
    return error_of(lambda: world.client("events").put_rule(Name="refused", EventPattern=pattern))[0]


@behaviour(
    "Event patterns",
    "refused: a wildcard that is too complex",
    PATTERNS,
    "InvalidEventPatternException",
    differs="accepted",
)
def _(world: World) -> Any:
    pattern = json.dumps(_detail("a", {"wildcard": "*:*:*:*:*:bus/*"}))
    return error_of(lambda: world.client("events").put_rule(Name="refused", EventPattern=pattern))[0]


# --- What a target gets ---------------------------------------------------------------------------------------------

DETAIL = {"id": "i-1", "user": {"name": "ann", "age": 3}, "one": ["HIGH"], "two": ["A", "B"], "sure": True, "n": 1.5}
PATHS = {name: f"$.detail.{name}" for name in (*DETAIL, "gone")} | {"type": "$.detail-type", "age": "$.detail.user.age"}


def _sent(world: World, target: Json) -> str:
    """Return what a queue gets of an event by a rule with this target."""
    events = world.client("events")
    world.queue("transformed")
    events.put_rule(Name="transformed", EventPattern='{"source": ["transformer"]}')
    events.put_targets(Rule="transformed", Targets=[{"Id": "q", "Arn": world.queue_arn("transformed"), **target}])
    events.put_events(Entries=[{"Source": "transformer", "DetailType": "Sold", "Detail": json.dumps(DETAIL)}])
    return world.messages("transformed")[0]


def _transformed(world: World, template: str) -> str:
    return _sent(world, {"InputTransformer": {"InputPathsMap": PATHS, "InputTemplate": template}})


#: What it shows, the template, and what the target gets.
TEMPLATES = [
    (
        "JSON: values without quotes keep their types",
        '{"a": <id>, "b": <user>, "c": <sure>}',
        {"a": "i-1", "b": DETAIL["user"], "c": True},
    ),
    ("JSON: a value may stand in a text, twice", '{"a": "x/<id>/y/<id>"}', {"a": "x/i-1/y/i-1"}),
    ("JSON: a text in quotes gets no second quotes", '{"a": "<id>"}', {"a": "i-1"}),
    ("JSON: in arrays and in depth", '{"a": [<id>, "b"], "c": {"d": "<id>"}}', {"a": ["i-1", "b"], "c": {"d": "i-1"}}),
    ("JSON: a list without quotes", '{"a": <one>}', {"a": ["HIGH"]}),
    ("JSON: what the event lacks is an empty text", '{"a": <gone>}', {"a": ""}),
    ("text: values", '"<type> of <id>, <age>, <n>"', "Sold of i-1, 3, 1.5"),
    ("text: an object loses its quotation marks", '"User <user>!"', "User {name:ann,age:3}!"),
    ("text: lists", '"<one> and <two>"', "[HIGH] and [A,B]"),
    ("text: true", '"It is <sure>"', "It is true"),
    ("text: what the event lacks is nothing", '"a<gone>b"', "ab"),
    ("text: it may begin with braces", '"{[/ <id>"', "{[/ i-1"),
    ("text: the rule's name", '"<aws.events.rule-name>"', "transformed"),
]
for _name, _template, _result in TEMPLATES:

    @behaviour("Event targets", f"transformer, {_name}", INPUTS, _result)
    def _(world: World, template: str = str(_template)) -> Any:
        return json.loads(_transformed(world, template))


@behaviour("Event targets", "transformer, several lines of text", INPUTS, '"a i-1"\n"b [HIGH]"')
def _(world: World) -> Any:
    return _transformed(world, '"a <id>"\n"b <one>"')


@behaviour("Event targets", "transformer, JSON: a list in quotes is delivered to nobody", INPUTS, '"next"')
def _(world: World) -> Any:
    events = world.client("events")
    world.queue("transformed")
    events.put_rule(Name="transformed", EventPattern='{"source": ["transformer"]}')
    lost = {"InputTransformer": {"InputPathsMap": PATHS, "InputTemplate": '{"a": "<one>"}'}}
    events.put_targets(Rule="transformed", Targets=[{"Id": "q", "Arn": world.queue_arn("transformed"), **lost}])
    events.put_events(Entries=[{"Source": "transformer", "DetailType": "Sold", "Detail": json.dumps(DETAIL)}])
    return _transformed(world, '"next"')


@behaviour("Event targets", "transformer, the whole event", INPUTS, (DETAIL, "Sold", False))
def _(world: World) -> Any:
    got = json.loads(_transformed(world, '{"all": <aws.events.event.json>, "most": <aws.events.event>}'))
    return got["all"]["detail"], got["most"]["detailType"], "detail" in got["most"]


@behaviour(
    "Event targets",
    "transformer, refused: a placeholder without a path",
    INPUTS,
    ("ValidationException", "InputTemplate for target q contains invalid placeholder unknown."),
)
def _(world: World) -> Any:
    return error_of(lambda: _transformed(world, '"<unknown>"'))


@behaviour(
    "Event targets",
    "refused: two kinds of input",
    INPUTS,
    ("ValidationException", "Only one of Input, InputPath, or InputTransformer must be provided for target q."),
)
def _(world: World) -> Any:
    transformer = {"InputPathsMap": {}, "InputTemplate": '"a"'}
    return error_of(lambda: _sent(world, {"InputPath": "$.detail", "InputTransformer": transformer}))


@behaviour("Event targets", "InputPath", INPUTS, [DETAIL, DETAIL["user"], "ann"])
def _(world: World) -> Any:
    return [
        json.loads(_sent(world, {"InputPath": path})) for path in ("$.detail", "$.detail.user", "$.detail.user.name")
    ]


@behaviour(
    "Event targets",
    "a state machine gets what InputPath finds",
    f"{INPUTS}; {DOCS}eventbridge/latest/userguide/eb-targets.html",
    DETAIL,
)
def _(world: World) -> Any:
    events, states = world.client("events"), world.client("stepfunctions")
    arn = world.machine({"StartAt": "a", "States": {"a": {"Type": "Pass", "End": True}}})
    events.put_rule(Name="starts", EventPattern='{"source": ["starter"]}')
    events.put_targets(Rule="starts", Targets=[{"Id": "s", "Arn": arn, "InputPath": "$.detail"}])
    events.put_events(Entries=[{"Source": "starter", "DetailType": "Sold", "Detail": json.dumps(DETAIL)}])
    (started,) = wait_for(lambda: states.list_executions(stateMachineArn=arn)["executions"])
    return world.ended(started["executionArn"]).output


@behaviour(
    "Event targets",
    "the whole event",
    "events/test_events_targets",
    ["account", "detail", "detail-type", "id", "region", "resources", "source", "time", "version"],
)
def _(world: World) -> Any:
    return sorted(json.loads(_sent(world, {})))


# --- S3's events ----------------------------------------------------------------------------------------------------


def _events(world: World, act: Any, count: int, versioned: bool = False) -> list[Json]:
    """Return what a bucket tells while something is done to it."""
    bucket, events, s3 = world.bucket(), world.client("events"), world.client("s3")
    if versioned:
        s3.put_bucket_versioning(Bucket=bucket, VersioningConfiguration={"Status": "Enabled"})
    name = f"of-{bucket}"
    world.queue(name)
    events.put_rule(
        Name=name, EventPattern=json.dumps({"source": ["aws.s3"], "detail": {"bucket": {"name": [bucket]}}})
    )
    events.put_targets(Rule=name, Targets=[{"Id": "q", "Arn": world.queue_arn(name)}])
    act(s3, bucket)
    s3.put_object(Bucket=bucket, Key="the end")
    told = [json.loads(body) for body in world.messages(name, count + 1)]
    events.remove_targets(Rule=name, Ids=["q"])
    events.delete_rule(Name=name)
    return [event for event in told if event["detail"]["object"]["key"] != "the end"]


def _put(key: str = "in/a.txt") -> Any:
    return lambda s3, bucket: s3.put_object(Bucket=bucket, Key=key, Body=b"data")


def _put_and_delete(s3: Any, bucket: str) -> None:
    s3.put_object(Bucket=bucket, Key="a", Body=b"data")
    s3.delete_object(Bucket=bucket, Key="a")


def _put_and_copy(s3: Any, bucket: str) -> None:
    s3.put_object(Bucket=bucket, Key="a", Body=b"data")
    s3.copy_object(Bucket=bucket, Key="b", CopySource={"Bucket": bucket, "Key": "a"})


def _upload_in_parts(s3: Any, bucket: str) -> None:
    upload = {"Bucket": bucket, "Key": "a"}
    upload["UploadId"] = s3.create_multipart_upload(**upload)["UploadId"]
    part = {"PartNumber": 1, "ETag": s3.upload_part(**upload, PartNumber=1, Body=b"data")["ETag"]}
    s3.complete_multipart_upload(**upload, MultipartUpload={"Parts": [part]})


@behaviour(
    "S3's events",
    "an object is put: type, reason, and what is said of the object",
    BUCKETS,
    (
        "Object Created",
        "PutObject",
        {"key": "in/a.txt", "size": 4, "etag": "8d777f385d3dfec8815d20f7496026dc", "sequencer": "…"},
    ),
)
def _(world: World) -> Any:
    (event,) = _events(world, _put(), 1)
    return event["detail-type"], event["detail"]["reason"], {**event["detail"]["object"], "sequencer": "…"}


@behaviour(
    "S3's events",
    "the fields of the event and of its detail",
    BUCKETS,
    (
        ["account", "detail", "detail-type", "id", "region", "resources", "source", "time", "version"],
        ["bucket", "object", "reason", "request-id", "requester", "source-ip-address", "version"],
    ),
)
def _(world: World) -> Any:
    (event,) = _events(world, _put(), 1)
    return sorted(event), sorted(event["detail"])


@behaviour("S3's events", "each event has an id and a sequencer, which sorts", BUCKETS_DOCS, (2, True))
def _(world: World) -> Any:
    told = _events(world, lambda s3, bucket: [_put()(s3, bucket) for _ in range(2)], 2)
    marks = [event["detail"]["object"]["sequencer"] for event in told]
    return len({event["id"] for event in told}), marks == sorted(set(marks))


@behaviour(
    "S3's events",
    "an object is deleted",
    BUCKETS,
    ("Object Deleted", "DeleteObject", "Permanently Deleted", ["key", "sequencer"]),
)
def _(world: World) -> Any:
    event = _events(world, _put_and_delete, 2)[1]
    detail = event["detail"]
    return event["detail-type"], detail["reason"], detail["deletion-type"], sorted(detail["object"])


@behaviour(
    "S3's events",
    "objects of a versioned bucket name their version",
    BUCKETS,
    ["etag", "key", "sequencer", "size", "version-id"],
)
def _(world: World) -> Any:
    (event,) = _events(world, _put(), 1, versioned=True)
    return sorted(event["detail"]["object"])


@behaviour("S3's events", "a copy", BUCKETS_DOCS, [("PutObject", "a"), ("CopyObject", "b")])
def _(world: World) -> Any:
    told = _events(world, _put_and_copy, 2)
    return [(event["detail"]["reason"], event["detail"]["object"]["key"]) for event in told]


@behaviour("S3's events", "a multipart upload is one event", BUCKETS_DOCS, ["CompleteMultipartUpload"])
def _(world: World) -> Any:
    return [event["detail"]["reason"] for event in _events(world, _upload_in_parts, 1)]


@behaviour(
    "S3's events",
    "a folder of the console is an object of 0 bytes whose key ends in a slash",
    f"{DOCS}AmazonS3/latest/userguide/using-folders.html",
    ("folder/", 0),
)
def _(world: World) -> Any:
    (event,) = _events(world, lambda s3, bucket: s3.put_object(Bucket=bucket, Key="folder/"), 1)
    return event["detail"]["object"]["key"], event["detail"]["object"]["size"]
