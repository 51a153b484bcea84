"""Processing jobs run in the rehearsal, workflows wait for them, and schedules start workflows."""

import datetime
import itertools
import json
import sys
import textwrap
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from botocore.exceptions import ClientError

from tests.support.stack import IMAGE_URI, REPOSITORY, ROLE, Rehearsal, wait_for

OTHER_IMAGE = IMAGE_URI.replace("image-classifier", "something-else")
BUCKET = "bucket-of-jobs"


@pytest.fixture(scope="module")
def bucket(rehearsal: Rehearsal) -> str:
    rehearsal.client("s3").create_bucket(Bucket=BUCKET)
    return BUCKET


def create_workflow(rehearsal: Rehearsal, name: str, states: dict[str, Any]) -> str:
    """Create a state machine of states that run in the order given; return its ARN."""
    names = list(states)
    for state, after in itertools.pairwise(names):
        states[state]["Next"] = after
    states[names[-1]]["End"] = True
    definition = json.dumps({"StartAt": names[0], "States": states})
    created = rehearsal.client("stepfunctions").create_state_machine(name=name, definition=definition, roleArn=ROLE)
    return str(created["stateMachineArn"])


def job(script: str, **more: Any) -> dict[str, Any]:
    """Return a request of CreateProcessingJob, with the image of the project."""
    return {
        "ProcessingResources": {
            "ClusterConfig": {"InstanceCount": 1, "InstanceType": "ml.t3.medium", "VolumeSizeInGB": 1}
        },
        "AppSpecification": {
            "ImageUri": IMAGE_URI,
            "ContainerEntrypoint": ["python", "-c", textwrap.dedent(script)],
        },
        "RoleArn": ROLE,
        **more,
    }


def job_state(request: dict[str, Any]) -> dict[str, Any]:
    parameters = {**request, "ProcessingJobName.$": "$$.Execution.Name"}
    return {"Type": "Task", "Resource": "arn:aws:states:::sagemaker:createProcessingJob.sync", "Parameters": parameters}


@pytest.fixture(scope="module")
def endpoint(rehearsal: Rehearsal, bucket: str) -> Iterator[str]:
    name = ("--endpoint-name", "described")
    more = ("--bucket", bucket, "--role-arn", ROLE, "--image-uri", IMAGE_URI)
    rehearsal.run(sys.executable, "-m", "training", "deploy", *name, *more)
    yield "described"
    rehearsal.run(sys.executable, "-m", "training", "remove", *name)


def test_a_workflow_checks_an_endpoint_by_a_job_and_publishes_what_it_found(
    rehearsal: Rehearsal, bucket: str, endpoint: str
) -> None:
    """The image comes from the endpoint, as that of the monitor does."""
    script = """
        import json, os, sys, time
        import boto3
        from common.errors import CommandError
        print("checking", sys.argv[1])
        metric = {"Namespace": "Test/Job", "Dimensions": [[]], "Metrics": [{"Name": "Read"}]}
        print(json.dumps({"_aws": {"Timestamp": int(time.time() * 1000), "CloudWatchMetrics": [metric]}, "Read": 7}))
        found = {"address": sys.argv[1], "color": os.environ["COLOR"], "files": os.listdir()}
        boto3.client("s3").put_object(Bucket=os.environ["BUCKET"], Key="found.json", Body=json.dumps(found))
        print("done")
    """
    sns, sqs = rehearsal.client("sns"), rehearsal.client("sqs")
    topic = sns.create_topic(Name="of-jobs")["TopicArn"]
    queue = sqs.create_queue(QueueName="of-jobs")["QueueUrl"]
    sns.subscribe(TopicArn=topic, Protocol="sqs", Endpoint="arn:aws:sqs:us-east-1:123456789012:of-jobs")
    request = job(script, Environment={"COLOR": "green", "BUCKET": bucket})
    request["AppSpecification"]["ImageUri.$"] = "$.endpoint.ProductionVariants[0].DeployedImages[0].ResolvedImage"
    request["AppSpecification"]["ContainerArguments.$"] = "States.Array($.endpoint.DataCaptureConfig.DestinationS3Uri)"
    del request["AppSpecification"]["ImageUri"]
    workflow = create_workflow(
        rehearsal,
        "checking",
        {
            "Describe": {
                "Type": "Task",
                "Resource": "arn:aws:states:::aws-sdk:sagemaker:describeEndpoint",
                "Parameters": {"EndpointName.$": "$.name"},
                "ResultPath": "$.endpoint",
            },
            "Check": {**job_state(request), "ResultPath": "$.job"},
            "Read": {
                "Type": "Task",
                "Resource": "arn:aws:states:::aws-sdk:s3:getObject",
                "Parameters": {"Bucket": bucket, "Key": "found.json"},
                "ResultSelector": {"found.$": "States.StringToJson($.Body)", "modified.$": "$.LastModified"},
                "ResultPath": "$.read",
            },
            "Say": {
                "Type": "Task",
                "Resource": "arn:aws:states:::sns:publish",
                "Parameters": {"TopicArn": topic, "Subject": "Drift", "Message.$": "States.JsonToString($)"},
                "ResultPath": "$.said",
            },
        },
    )
    execution = rehearsal.execute(workflow, {"name": endpoint})
    outcome = rehearsal.outcome(execution)
    assert outcome["status"] == "SUCCEEDED", outcome["cause"]
    output = json.loads(outcome["output"])
    capture = output["endpoint"]["DataCaptureConfig"]
    assert capture["EnableCapture"] is True and capture["CaptureStatus"] == "Started"
    assert output["read"]["found"] == {"address": f"s3://{bucket}/capture", "color": "green", "files": []}
    datetime.datetime.fromisoformat(output["read"]["modified"])
    assert output["job"]["ProcessingJobStatus"] == "Completed" and output["job"]["ExitMessage"].endswith("done")
    assert output["job"]["ProcessingEndTime"] >= output["job"]["CreationTime"] > 1e12
    (message,) = sqs.receive_message(QueueUrl=queue)["Messages"]
    envelope = json.loads(message["Body"])
    assert envelope["Subject"] == "Drift" and "green" in envelope["Message"]

    name = execution.rsplit(":", 1)[-1]
    events = rehearsal.client("logs").filter_log_events(
        logGroupName="/aws/sagemaker/ProcessingJobs", logStreamNamePrefix=f"{name}/algo-1-"
    )["events"]
    assert f"checking s3://{bucket}/capture" in [event["message"] for event in events]
    assert rehearsal.client("cloudwatch").list_metrics(Namespace="Test/Job")["Metrics"][0]["MetricName"] == "Read"


def test_a_job_that_fails_fails_the_workflow_with_its_description(rehearsal: Rehearsal) -> None:
    workflow = create_workflow(rehearsal, "failing", {"Check": job_state(job("raise SystemExit('no captures')"))})
    outcome = rehearsal.outcome(rehearsal.execute(workflow, {}))
    assert (outcome["status"], outcome["error"]) == ("FAILED", "States.TaskFailed"), outcome["cause"]
    described = json.loads(outcome["cause"])
    assert described["ProcessingJobStatus"] == "Failed" and described["ExitMessage"] == "no captures"
    assert "exit code: 1" in described["FailureReason"]


def test_a_second_attempt_of_the_drift_check_does_not_meet_the_job_of_the_first(
    rehearsal: Rehearsal, bucket: str
) -> None:
    script = """
        import os, boto3
        s3, bucket = boto3.client("s3"), os.environ["BUCKET"]
        if "Contents" not in s3.list_objects_v2(Bucket=bucket, Prefix="tried"):
            s3.put_object(Bucket=bucket, Key="tried")
            raise SystemExit("the first attempt")
    """
    text = (REPOSITORY / "statemachine" / "monitor.asl.json").read_text().replace("${EndpointName}", "e")
    states = json.loads(text)["States"]
    name = {"ProcessingJobName.$": states["Run drift check"]["Parameters"]["ProcessingJobName.$"]}
    attempts = {"Retry": [{"ErrorEquals": ["States.TaskFailed"], "IntervalSeconds": 1, "MaxAttempts": 1}]}
    check = {
        **{key: states["Run drift check"][key] for key in ("Type", "Resource")},
        **attempts,
        "Parameters": {**job(script, Environment={"BUCKET": bucket}), **name},
    }
    before = {each: states[each] for each in ("Split start time", "Choose output folder")}
    workflow = create_workflow(rehearsal, "twice", {**before, "Check": check})
    outcome = rehearsal.outcome(rehearsal.execute(workflow, {}))
    assert outcome["status"] == "SUCCEEDED", outcome
    listed = rehearsal.client("sagemaker").list_processing_jobs(NameContains="drift-check-")["ProcessingJobSummaries"]
    assert sorted(each["ProcessingJobStatus"] for each in listed if each["CreationTime"] >= outcome["startDate"]) == [
        "Completed",
        "Failed",
    ]


@pytest.mark.parametrize(
    ("change", "error", "cause"),
    [
        ({"AppSpecification": {"ImageUri": OTHER_IMAGE}}, "SageMaker.AmazonSageMakerException", "something-else"),
        ({"AppSpecification": {"ImageUri": IMAGE_URI}}, "SageMaker.AmazonSageMakerException", "ContainerEntrypoint"),
        ({"Enviroment": {}}, "States.Runtime", "Enviroment"),
    ],
)
def test_a_job_that_would_not_run_is_refused(
    rehearsal: Rehearsal, change: dict[str, Any], error: str, cause: str
) -> None:
    state = job_state({**job("print(1)"), **change})
    workflow = create_workflow(rehearsal, f"refused-{cause.lower()}", {"Check": state})
    outcome = rehearsal.outcome(rehearsal.execute(workflow, {}))
    assert outcome["error"] == error and cause in outcome["cause"]


def read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError:  # the process ended in between
        return b""


def test_a_job_is_stopped_with_all_its_processes_and_another_by_its_time_limit(rehearsal: Rehearsal) -> None:
    client = rehearsal.client("sagemaker")

    def status(name: str) -> str:
        return str(client.describe_processing_job(ProcessingJobName=name)["ProcessingJobStatus"])

    # A length that no other process of this machine sleeps, in seconds.
    length = f"{uuid.uuid4().int % 10**9 + 10**4}"
    sleeping = f"import subprocess; print('asleep', flush=True); subprocess.run(['sleep', '{length}'])"
    client.create_processing_job(ProcessingJobName="stopped", **job(sleeping))
    client.create_processing_job(
        ProcessingJobName="limited", **job(sleeping), StoppingCondition={"MaxRuntimeInSeconds": 1}
    )
    assert status("stopped") == "InProgress"
    with pytest.raises(ClientError, match="unique"):
        client.create_processing_job(ProcessingJobName="stopped", **job(sleeping))
    client.stop_processing_job(ProcessingJobName="stopped")
    wait_for(lambda: (status("stopped"), status("limited")) == ("Stopped", "Stopped"))
    assert not [path for path in Path("/proc").glob("[0-9]*/cmdline") if f"sleep\0{length}\0".encode() in read(path)]
    with pytest.raises(ClientError, match="in status Stopped"):
        client.stop_processing_job(ProcessingJobName="stopped")


def test_schedules_start_workflows(rehearsal: Rehearsal) -> None:
    states, client = rehearsal.client("stepfunctions"), rehearsal.client("scheduler")
    workflow = create_workflow(rehearsal, "scheduled", {"Pass": {"Type": "Pass"}})
    now = datetime.datetime.now(datetime.UTC)
    expressions = {
        "once": f"at({now:%Y-%m-%dT%H:%M:%S})",
        "often": "rate(1 minute)",  # begins at once
        "later": f"at({now + datetime.timedelta(hours=1):%Y-%m-%dT%H:%M:%S})",
        "off": "rate(1 minute)",
    }
    marks = {"time": "<aws.scheduler.scheduled-time>", "id": "<aws.scheduler.execution-id>"}
    for name, expression in expressions.items():
        client.create_schedule(
            Name=name,
            ScheduleExpression=expression,
            FlexibleTimeWindow={"Mode": "OFF"},
            State="DISABLED" if name == "off" else "ENABLED",
            Target={"Arn": workflow, "RoleArn": ROLE, "Input": json.dumps({"by": name, **marks})},
            ActionAfterCompletion="DELETE",
        )

    def inputs() -> dict[str, dict[str, str]]:
        listed = states.list_executions(stateMachineArn=workflow)["executions"]
        described = [states.describe_execution(executionArn=execution["executionArn"]) for execution in listed]
        found = [{**json.loads(d["input"]), "name": d["name"]} for d in described]
        return {given["by"]: given for given in found}

    started = wait_for(lambda: len(found := inputs()) >= 2 and found)
    assert set(started) == {"once", "often"}
    assert started["once"]["id"] == started["once"]["name"]
    assert datetime.datetime.fromisoformat(started["once"]["time"]) == now.replace(microsecond=0)

    def listed() -> set[str]:
        return {schedule["Name"] for schedule in client.list_schedules()["Schedules"]}

    wait_for(lambda: "once" not in listed())
    assert {"often", "later", "off"} <= listed()
    for name in ("often", "later", "off"):
        client.delete_schedule(Name=name)


def test_a_job_whose_command_does_not_exist_fails(rehearsal: Rehearsal) -> None:
    request = job("")
    request["AppSpecification"]["ContainerEntrypoint"] = ["no-such-command"]
    client = rehearsal.client("sagemaker")
    client.create_processing_job(ProcessingJobName="nothing", **request)
    described = client.describe_processing_job(ProcessingJobName="nothing")
    assert described["ProcessingJobStatus"] == "Failed" and "no-such-command" in described["FailureReason"]


@pytest.mark.parametrize(
    ("expression", "target", "reason"),
    [
        ("cron(0 * * * ? *)", "arn:aws:states:us-east-1:123456789012:stateMachine:m", "not cron"),
        ("rate(30 seconds)", "arn:aws:states:us-east-1:123456789012:stateMachine:m", "not rate"),
        ("rate(1 hour)", "arn:aws:lambda:us-east-1:123456789012:function:f", "state machines only"),
    ],
)
def test_a_schedule_that_would_not_fire_is_refused(
    rehearsal: Rehearsal, expression: str, target: str, reason: str
) -> None:
    with pytest.raises(ClientError, match=reason):
        rehearsal.client("scheduler").create_schedule(
            Name="refused",
            ScheduleExpression=expression,
            FlexibleTimeWindow={"Mode": "OFF"},
            Target={"Arn": target, "RoleArn": ROLE},
        )


def test_a_rule_on_a_schedule_is_refused(rehearsal: Rehearsal) -> None:
    with pytest.raises(ClientError, match="EventBridge Scheduler"):
        rehearsal.client("events").put_rule(Name="hourly", ScheduleExpression="rate(1 hour)")


@pytest.mark.parametrize("ends", ["stopped", "out of time"])
def test_a_job_ends_with_the_state_that_waits_for_it(rehearsal: Rehearsal, ends: str) -> None:
    state = job_state(job("import time; time.sleep(600)"))
    if ends == "out of time":
        state["TimeoutSeconds"] = 2
    execution = rehearsal.execute(create_workflow(rehearsal, f"ends-{ends.split()[0]}", {"Check": state}), {})
    name, sagemaker = execution.rsplit(":", 1)[-1], rehearsal.client("sagemaker")

    def status() -> str:
        found = sagemaker.list_processing_jobs()["ProcessingJobSummaries"]
        return next((item["ProcessingJobStatus"] for item in found if item["ProcessingJobName"] == name), "")

    wait_for(lambda: status() == "InProgress")
    if ends == "stopped":
        rehearsal.client("stepfunctions").stop_execution(executionArn=execution)
    wait_for(lambda: status() == "Stopped")
    assert rehearsal.outcome(execution)["status"] == ("ABORTED" if ends == "stopped" else "FAILED")
