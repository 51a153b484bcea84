"""From an unsure answer to the next training set: review, labels, staging; and the ways back: replay and trace."""

import http.client
import json
import re
import signal
import subprocess
import sys
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from PIL import Image

from demo import drawing
from tests.support.stack import HANG_SECONDS, REPOSITORY, STACK, Stack, wait_for

#: The program as it is, but for how long a crash hides its message.
QUICK = """
import sys
from operations import review_session
from operations.__main__ import main
review_session.VISIBILITY_SECONDS, review_session.HEARTBEAT_SECONDS = 2, 0.5
sys.exit(main(sys.argv[1:]))
"""


class Page:
    """What a browser does with the page of a running review."""

    def __init__(self, process: "subprocess.Popen[str]") -> None:
        self.process = process
        assert process.stdout
        self.address = urlsplit(process.stdout.readline().split()[-1])

    def request(self, method: str, path: str, body: Any = None, **headers: str) -> tuple[int, bytes]:
        """Ask for a path below the secret one, or for a whole one that begins with a slash."""
        connection = http.client.HTTPConnection("127.0.0.1", self.address.port or 0, timeout=HANG_SECONDS)
        sent = {"Content-Type": "application/json", **{name.replace("_", "-"): text for name, text in headers.items()}}
        whole = path if path.startswith("/") else self.address.path + path
        connection.request(method, whole, None if body is None else json.dumps(body), sent)
        response = connection.getresponse()
        status, content = response.status, response.read()
        connection.close()
        return status, content

    def act(self, path: str, **body: str) -> dict[str, Any]:
        """Do what a key does; return the state after it."""
        status, content = self.request("POST", path, body)
        assert status == 200, content
        return dict(json.loads(content))

    def state(self) -> dict[str, Any]:
        return dict(json.loads(self.request("GET", "state")[1]))


@contextmanager
def reviewing(stack: Stack, *start: str, browser: str | None = None) -> Iterator[Page]:
    """Run the review as a user would, until the block ends."""
    command = [sys.executable, *(start or ("-m", "operations")), "review", "--stack-name", STACK]
    process = subprocess.Popen(
        [*command, "--reviewer", "ada", *([] if browser else ["--no-browser"])],
        cwd=REPOSITORY,
        env={**stack.rehearsal.environment, **({"BROWSER": browser} if browser else {})},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        yield Page(process)
    finally:
        process.terminate()
        process.communicate(timeout=HANG_SECONDS)


def queue(stack: Stack, name: str = "ReviewQueueUrl") -> tuple[int, int]:
    """Count a queue's messages: visible ones, and held ones."""
    url = stack.outputs[name]
    got = stack.rehearsal.client("sqs").get_queue_attributes(QueueUrl=url, AttributeNames=["All"])["Attributes"]
    return int(got["ApproximateNumberOfMessages"]), int(got["ApproximateNumberOfMessagesNotVisible"])


def empty(stack: Stack, name: str) -> None:
    """Delete a queue's messages one by one; purging is allowed once a minute."""
    sqs, url = stack.rehearsal.client("sqs"), stack.outputs[name]
    while messages := sqs.receive_message(QueueUrl=url, MaxNumberOfMessages=10).get("Messages", []):
        for message in messages:
            sqs.delete_message(QueueUrl=url, ReceiptHandle=message["ReceiptHandle"])


@pytest.fixture
def unsure(stack: Stack) -> dict[str, Any]:
    """Have one unsure image, and nothing else, wait for review; return its execution."""
    empty(stack, "ReviewQueueUrl")
    outcome = stack.classify(stack.put("a/unsure.jpg", drawing.blurred(640, 480, 5), "JPEG"))
    assert outcome["error"] == "ThresholdNotMet"
    wait_for(lambda: queue(stack) == (1, 0))
    return outcome


def test_a_reviewed_image_arrives_in_the_next_training_set(
    stack: Stack, unsure: dict[str, Any], tmp_path: Path
) -> None:
    s3 = stack.rehearsal.client("s3")
    original = s3.get_object(Bucket=stack.bucket, Key="a/unsure.jpg")["Body"].read()
    with reviewing(stack) as page:
        item = page.state()["item"]
        assert item["facts"]["Execution"] == unsure["executionArn"] and queue(stack) == (0, 1)
        assert page.request("GET", f"image/{item['id']}") == (200, original)
        assert page.act("save", id=item["id"], label="motorcycle")["left"] == 0
        page.act("end")
        said, _ = page.process.communicate(timeout=HANG_SECONDS)
    assert page.process.returncode == 0 and "saved 1 label (1 motorcycle)" in said
    assert queue(stack) == (0, 0)

    labels = f"s3://{stack.bucket}/labels"
    for name, draw in {"bicycle": drawing.bicycle, "motorcycle": drawing.motorcycle}.items():
        (tmp_path / "set" / name).mkdir(parents=True)
        draw(32, 32).save(tmp_path / "set" / name / "a.png")
    stage = (sys.executable, "-m", "training", "stage", "--source", str(tmp_path / "set"), "--labels", labels)
    assert "1 bicycle, 2 motorcycle" in stack.rehearsal.run(*stage, "--out", str(tmp_path / "out")).stdout
    manifest = json.loads((tmp_path / "out" / "manifest.json").read_text())
    (staged,) = [image for image in manifest["images"] if image["source"].startswith(labels)]
    assert (staged["label"], staged["split"], staged["source"][-4:]) == ("motorcycle", "train", ".jpg")
    with Image.open(tmp_path / "out" / staged["path"]) as image:
        assert max(image.size) == 256

    assert trace(stack, unsure["name"])["review"]["label"] == "motorcycle"


def test_a_killed_review_loses_nothing(stack: Stack, unsure: dict[str, Any]) -> None:
    with reviewing(stack, "-c", QUICK) as page:
        first = page.state()["item"]["facts"]["Execution"]
        page.process.kill()
        page.process.wait()
    wait_for(lambda: queue(stack) == (1, 0))
    with reviewing(stack) as page:
        assert page.state()["item"]["facts"]["Execution"] == first == unsure["executionArn"]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_stopped_review_gives_back_what_it_holds(
    stack: Stack, unsure: dict[str, Any], number: signal.Signals
) -> None:
    with reviewing(stack) as page:
        assert page.state()["item"] and queue(stack) == (0, 1)
        page.process.send_signal(number)
        said, error = page.process.communicate(timeout=HANG_SECONDS)
    assert page.process.returncode == 0 and "saved 0 labels" in said and error.strip() == ""
    assert queue(stack) == (1, 0)


def test_nobody_else_can_see_or_act(stack: Stack, unsure: dict[str, Any]) -> None:
    with reviewing(stack) as page:
        item = page.state()["item"]["id"]
        save, host = {"id": item, "label": "bicycle"}, page.address.netloc
        for path in ("/", "/state", "/guess/state", f"/guess/image/{item}", page.address.path.rstrip("/")):
            assert page.request("GET", path)[0] == 403
        assert page.request("POST", "/guess/save", save)[0] == 403
        # A foreign name that leads here, a script of another page, a form of another page.
        assert page.request("GET", "state", Host=f"evil.example:{page.address.port}")[0] == 403
        assert page.request("POST", "save", save, Origin="http://evil.example")[0] == 403
        assert page.request("POST", "save", save, Content_Type="text/plain")[0] == 403
        assert page.request("POST", "save", {"id": "x" * 5000})[0] == 413
        assert page.request("POST", "nothing", save)[0] == 404 and page.request("GET", "nothing")[0] == 404
        assert page.request("POST", "save", {"id": "old", "label": "bicycle"})[0] == 409
        assert page.request("POST", "save", {"id": item, "label": "boat"})[0] == 422
        assert queue(stack) == (0, 1) and page.state()["saved"] == 0
        status, content = page.request("GET", "")
        assert status == 200 and b"evil" not in content
        assert page.request("POST", "save", save, Origin=f"http://{host}")[0] == 200
    assert queue(stack) == (0, 0)


def test_the_browser_is_opened_without_telling_the_address_to_the_list_of_processes(
    stack: Stack, tmp_path: Path
) -> None:
    script, told = tmp_path / "browser", tmp_path / "told"
    script.write_text(f'#!/bin/sh\necho "$@" > {told}.part && mv {told}.part {told}\n')
    script.chmod(0o700)
    with reviewing(stack, browser=str(script)) as page:
        argument = wait_for(lambda: told.exists() and told.read_text().strip())
        file = Path(urlsplit(argument).path)
        assert page.address.path not in argument and f'url={page.address.geturl()}"' in file.read_text()
        assert file.parent.stat().st_mode & 0o077 == 0
    assert not file.parent.exists()


def replay(stack: Stack, *options: str) -> tuple[int, str]:
    done = stack.rehearsal.run(
        sys.executable, "-m", "operations", "replay", "--stack-name", STACK, *options, check=False
    )
    return done.returncode, done.stdout + done.stderr


def test_a_corrected_image_goes_through_the_workflow_again(
    stack: Stack, unsure: dict[str, Any], tmp_path: Path
) -> None:
    code, said = replay(stack, unsure["executionArn"])
    assert code == 3 and "ThresholdNotMet: " in said
    drawing.bicycle(64, 64, 4).save(tmp_path / "better.png")
    code, said = replay(stack, unsure["name"], "--image", str(tmp_path / "better.png"))
    assert code == 0 and "accepted: bicycle, confidence " in said
    assert f"s3://{stack.bucket}/corrected/{unsure['name']}/better.png" in said
    code, said = replay(stack, "nobody")
    assert code == 1 and said.startswith("error: ") and said.count("\n") == 1


def test_faults_go_through_the_workflow_again(stack: Stack) -> None:
    empty(stack, "FailureQueueUrl")
    outcome = stack.classify({"s3_bucket": stack.bucket, "s3_key": "a/late.png"})
    assert (outcome["status"], outcome["error"]) == ("FAILED", "ObjectNotFound")
    stack.put("a/late.png", drawing.bicycle(64, 64))
    code, said = replay(stack, "--faults")
    started = re.search(r"started (arn:\S+-replay-[0-9a-f]{8}) \(had failed: ObjectNotFound\)", said)
    assert code == 0 and started, said
    again = stack.rehearsal.outcome(started[1])
    assert again["status"] == "SUCCEEDED" and json.loads(again["input"]) == json.loads(outcome["input"])
    assert queue(stack, "FailureQueueUrl") == (0, 0)


def captured(stack: Stack, is_wanted: Callable[[str], bool]) -> dict[str, Any]:
    """Wait for a captured record by its inference id; return what identifies it."""
    s3 = stack.rehearsal.client("s3")

    def record() -> dict[str, Any] | None:
        for item in s3.list_objects_v2(Bucket=stack.bucket, Prefix="capture/image-classifier/").get("Contents", []):
            for line in s3.get_object(Bucket=stack.bucket, Key=item["Key"])["Body"].read().splitlines():
                metadata: dict[str, Any] = json.loads(line)["eventMetadata"]
                if is_wanted(metadata.get("inferenceId", "")):
                    return metadata
        return None

    return dict(wait_for(record))


def trace(stack: Stack, execution: str) -> dict[str, Any]:
    """Run the command; return its JSON object."""
    told = stack.rehearsal.run(
        sys.executable, "-m", "operations", "trace", execution, "--stack-name", STACK, "--json"
    ).stdout
    return dict(json.loads(told))


def test_an_upload_is_traced_by_the_inference_id_of_its_captured_record(stack: Stack) -> None:
    key = "incoming/traced.png"
    stack.put(key, drawing.bicycle(40, 40, 3))
    metadata = captured(stack, lambda name: re.fullmatch(r"[0-9a-f]{64}", name) is not None)
    told = trace(stack, metadata["inferenceId"])
    assert told["execution"]["arn"].endswith(f":{metadata['inferenceId']}")
    assert told["execution"]["input"]["object"]["key"] == key and told["capture"]["event_id"] == metadata["eventId"]


def test_an_execution_with_a_long_name_is_traced_by_the_end_of_it(stack: Stack) -> None:
    name = f"{uuid.uuid4()}_{uuid.uuid4()}"
    event = stack.put("a/long-name.png", drawing.bicycle(40, 40, 3))
    stack.rehearsal.client("stepfunctions").start_execution(
        stateMachineArn=stack.outputs["WorkflowArn"], name=name, input=json.dumps(event)
    )
    metadata = captured(stack, lambda inference: len(inference) == 64 and name.endswith(inference))
    assert trace(stack, metadata["inferenceId"])["execution"]["arn"].endswith(f":{name}")


def test_a_trace_tells_the_whole_story(stack: Stack) -> None:
    outcome = stack.classify(stack.put("a/traced.png", drawing.bicycle(48, 48, 9)))
    # What arrives late is waited for here: a command takes seconds to start where others compute.
    captured(stack, lambda name: name == outcome["name"])
    logs = stack.rehearsal.client("logs")

    def said(function: str) -> Any:
        group, pattern = f"/aws/lambda/{STACK}-{function}", f'"{outcome["executionArn"]}"'
        return logs.filter_log_events(logGroupName=group, filterPattern=pattern)["events"]

    wait_for(lambda: all(map(said, ("serialize", "classify", "filter"))))
    told = trace(stack, outcome["name"])
    output = json.loads(outcome["output"])
    assert told["capture"]["probabilities"] == output["inferences"]
    assert told["object"]["as_serialized"] is True
    assert {line["function"]: line["message"] for line in told["logs"]} == {
        "serialize": "Serialized",
        "classify": "Classified",
        "filter": "Accepted",
    }
    states = [state["name"] for state in told["states"]]
    assert [name for name in states if name in ("Serialize", "Classify", "Filter", "Accepted")] == [
        "Serialize",
        "Classify",
        "Filter",
        "Accepted",
    ]
    assert all(state["seconds"] is not None and not state["failures"] for state in told["states"])
    assert told["missing"] == ["review: not requested"]
    shown = stack.rehearsal.run(
        sys.executable, "-m", "operations", "trace", outcome["name"], "--stack-name", STACK
    ).stdout
    assert f"accepted: bicycle, confidence {output['confidence']:.3f}" in shown and "INFO Classified" in shown
