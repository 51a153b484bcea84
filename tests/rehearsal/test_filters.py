"""Log filter patterns find what CloudWatch Logs documents, by the API and by ``sam logs``."""

import json
import time
from collections.abc import Callable

import pytest
from botocore.exceptions import ClientError

from tests.support.stack import Rehearsal

LINES = {
    "error": json.dumps({"level": "ERROR", "key": "incoming/a.png", "ms": 12, "tags": [{"id": 1}], "gone": None}),
    "warning": json.dumps({"level": "WARNING", "key": "incoming/b c.png", "ms": 250.5, "cold": True}),
    "text": "[ERROR] incoming/a.png: no such key",
    "start": "START RequestId: 1",
}


@pytest.fixture(scope="module")
def find(rehearsal: Rehearsal) -> Callable[[str], set[str]]:
    """Return a search of the lines above by a pattern, which returns their names."""
    logs = rehearsal.client("logs")
    logs.create_log_group(logGroupName="filtered")
    logs.create_log_stream(logGroupName="filtered", logStreamName="s")
    now = int(time.time() * 1000)
    logs.put_log_events(
        logGroupName="filtered",
        logStreamName="s",
        logEvents=[{"timestamp": now, "message": line} for line in LINES.values()],
    )
    names = {line: name for name, line in LINES.items()}
    return lambda pattern: {
        names[event["message"]]
        for event in logs.filter_log_events(logGroupName="filtered", filterPattern=pattern)["events"]
    }


@pytest.mark.parametrize(
    ("pattern", "found"),
    [
        ("", set(LINES)),
        ("ERROR", {"error", "text"}),
        ("error", set()),
        ("ERROR incoming", {"error", "text"}),
        ("ERROR -level", {"text"}),
        ("-level", {"text", "start"}),
        ("?WARNING ?START", {"warning", "start"}),
        ('"incoming/a.png"', {"error", "text"}),
        ('"incoming/a.png" ERROR -"no such"', {"error"}),
        ('?"b c.png" ?"no such key"', {"warning", "text"}),
        (r'"\"level\": \"ERROR\""', {"error"}),
        ("%START [A-Z]equest%", {"start"}),
        ('{ $.level = "ERROR" }', {"error"}),
        ("{$.level=ERROR}", {"error"}),
        ('{ $.level != "ERROR" }', {"warning"}),
        ('{ $.key = "incoming/*" && $.ms > 100 }', {"warning"}),
        ("{ ($.ms <= 12) || ($.cold IS TRUE) }", {"error", "warning"}),
        ("{ $.ms = 250.5 }", {"warning"}),
        ("{ $.tags[0].id = 1 }", {"error"}),
        ("{ $.tags[*].id >= 1 }", {"error"}),
        ("{ $.gone IS NULL }", {"error"}),
        ("{ $.cold NOT EXISTS }", {"error"}),
        ("{ $.['level'] = %^WARN% }", {"warning"}),
    ],
)
def test_a_pattern_finds(find: Callable[[str], set[str]], pattern: str, found: set[str]) -> None:
    assert find(pattern) == found


@pytest.mark.parametrize(
    ("pattern", "reason"),
    [
        ("incoming/a.png", "Invalid character(s) in term 'incoming/a.png'"),
        ("ERROR a.png", "Invalid character(s) in term 'a.png'"),
        ("a-b", "Invalid character(s) in term 'a-b'"),
        ('{ $.level = "ERROR"', "must end with '}'"),
        ("{ level = 1 }", "level"),
        ("{ $.level }", "Expected"),
        ("{ $.ms > many }", "many"),
        ("[ip, user]", "The rehearsal does not know"),
    ],
)
def test_an_invalid_pattern_is_refused(find: Callable[[str], set[str]], pattern: str, reason: str) -> None:
    with pytest.raises(ClientError) as caught:
        find(pattern)
    assert caught.value.response["Error"]["Code"] == "InvalidParameterException"
    assert caught.value.response["Error"]["Message"].startswith("Invalid filter pattern: ")
    assert reason in caught.value.response["Error"]["Message"]


def test_sam_logs_takes_the_same_patterns(rehearsal: Rehearsal, find: Callable[[str], set[str]]) -> None:
    assert find("") == set(LINES)
    command = ("sam", "logs", "--cw-log-group", "filtered", "--filter")
    said = rehearsal.run(*command, '"incoming/a.png"').stdout
    assert "no such key" in said and "WARNING" not in said
    refused = rehearsal.run(*command, "incoming/a.png", check=False)
    assert "InvalidParameterException" in refused.stderr + refused.stdout
