"""The images of a batch whose Express execution records nothing itself: the batch does."""

import json
import uuid
from typing import Any

from tests.support.stack import REPOSITORY, ROLE, Rehearsal


def test_an_image_that_times_out_or_does_not_start_reaches_results_and_failure_queue(rehearsal: Rehearsal) -> None:
    states, sqs, name = rehearsal.client("stepfunctions"), rehearsal.client("sqs"), f"items-{uuid.uuid4().hex[:8]}"
    queue = sqs.create_queue(QueueName=name)["QueueUrl"]
    slow = {"StartAt": "Slow", "TimeoutSeconds": 1, "States": {"Slow": {"Type": "Wait", "Seconds": 60, "End": True}}}
    made = states.create_state_machine(name=f"slow-{name}", definition=json.dumps(slow), roleArn=ROLE, type="EXPRESS")
    arn = made["stateMachineArn"]
    batch = json.loads((REPOSITORY / "statemachine" / "batch.asl.json").read_text())["States"]["Classify prefix"]
    found: dict[str, Any] = {}
    for express in (arn, f"{arn}-missing"):
        text = json.dumps({"StartAt": "Each image", "States": batch["ItemProcessor"]["States"]})
        values = {"Partition": "aws", "ExpressWorkflowArn": express, "FailureQueueUrl": queue}
        for key, value in values.items():
            text = text.replace(f"${{{key}}}", value)
        assert "${" not in text
        definition = json.loads(text)
        definition["States"]["Each image"]["ItemProcessor"]["States"]["Classify image"]["Retry"] = []
        machine = states.create_state_machine(
            name=f"{name}-{len(found)}", definition=json.dumps(definition), roleArn=ROLE
        )["stateMachineArn"]
        items = [{"s3_bucket": "images", "s3_key": f"{len(found)}.png"}]
        outcome = rehearsal.outcome(rehearsal.execute(machine, {"Items": items}))
        assert outcome["status"] == "SUCCEEDED", outcome
        ((result,), message) = json.loads(outcome["output"]), sqs.receive_message(QueueUrl=queue)["Messages"][0]
        assert json.loads(message["Body"]) == result
        sqs.delete_message(QueueUrl=queue, ReceiptHandle=message["ReceiptHandle"])
        found[result["error"]] = result
    timed_out, missing = found["States.Timeout"], found["Sfn.StateMachineDoesNotExistException"]
    assert timed_out["execution_id"].startswith(arn.replace(":stateMachine:", ":express:"))
    assert missing == {
        "outcome": "failed",
        "s3_bucket": "images",
        "s3_key": "1.png",
        "error": "Sfn.StateMachineDoesNotExistException",
    }
