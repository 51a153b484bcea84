"""Functions in the rehearsal fail as they do in Lambda."""

import base64
import json
import re
import textwrap
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from botocore.exceptions import ClientError

from tests.support.stack import Rehearsal, create_function, wait_for

MEGABYTE = 1024 * 1024
SOURCE = textwrap.dedent(
    """
    import os, time

    class Refused(Exception):
        pass

    def lambda_handler(event, context):
        print("asked to", event["do"], event.get("mark", ""))
        match event["do"]:
            case "answer":
                return {"name": context.function_name, "memory": context.memory_limit_in_mb, "pid": os.getpid()}
            case "raise":
                raise Refused("no")
            case "sleep":
                time.sleep(3600)
            case "meet":
                open(os.path.join(event["folder"], str(os.getpid())), "w").close()
                while not os.path.exists(os.path.join(event["folder"], "go")):
                    time.sleep(0.01)
                return os.getpid()
            case "exit":
                os._exit(3)
            case "allocate":
                return len(bytearray(event["megabytes"] * 1024 * 1024))
            case "large":
                return "x" * event["bytes"]
            case "import":
                import moto
    """
)


@pytest.fixture(scope="module")
def invoke(rehearsal: Rehearsal) -> Callable[..., Any]:
    client = rehearsal.client("lambda")
    create_function(rehearsal, "sandbox", SOURCE, MemorySize=128)
    create_function(rehearsal, "impatient", SOURCE, MemorySize=128, Timeout=2)

    def run(
        do: str, kind: str = "RequestResponse", function: str = "sandbox", **event: Any
    ) -> tuple[Any, str | None, str]:
        answer = client.invoke(
            FunctionName=function,
            InvocationType=kind,
            LogType="Tail",
            Payload=json.dumps({"do": do, **event}).encode(),
        )
        payload = answer["Payload"].read()
        log = base64.b64decode(answer.get("LogResult", "")).decode()
        return (json.loads(payload) if payload else None), answer.get("FunctionError"), log

    return run


def test_an_answer_with_its_log(invoke: Callable[..., Any]) -> None:
    answer, error, log = invoke("answer")
    assert error is None and (answer["name"], answer["memory"]) == ("sandbox", "128")
    assert "asked to answer" in log and "REPORT RequestId" in log
    used = int(log.split("Max Memory Used: ")[1].split()[0])
    assert 10 < used < 128


def test_a_warm_sandbox_is_used_again_and_simultaneous_requests_get_four(
    invoke: Callable[..., Any], tmp_path: Path
) -> None:
    assert invoke("answer")[0]["pid"] == invoke("answer")[0]["pid"]
    with ThreadPoolExecutor(6) as pool:
        requests = [pool.submit(invoke, "meet", folder=str(tmp_path)) for _ in range(6)]
        try:
            wait_for(lambda: len(list(tmp_path.iterdir())) == 4)
        finally:
            (tmp_path / "go").touch()
    assert len({request.result()[0] for request in requests}) == 4


def test_a_raised_error_keeps_its_name(invoke: Callable[..., Any]) -> None:
    answer, error, _ = invoke("raise")
    assert error == "Unhandled"
    assert (answer["errorType"], answer["errorMessage"]) == ("Refused", "no") and answer["stackTrace"]


def test_a_time_out_is_an_error(invoke: Callable[..., Any]) -> None:
    answer, error, _ = invoke("sleep", function="impatient")
    assert (error, answer["errorType"]) == ("Unhandled", "Sandbox.Timedout")
    assert "Task timed out after 2.00 seconds" in answer["errorMessage"]
    # The next request gets a working sandbox, which may itself be too slow for the limit where the machine is busy.
    wait_for(lambda: invoke("answer", function="impatient")[1] is None)


def test_an_exit_is_an_error(invoke: Callable[..., Any]) -> None:
    answer, error, _ = invoke("exit")
    assert (error, answer["errorType"]) == ("Unhandled", "Runtime.ExitError")
    assert invoke("answer")[1] is None


@pytest.mark.parametrize(
    ("source", "reason"),
    [
        ("import sys; print('loading', flush=True); sys.exit(3)", "Runtime exited with error: exit status 3"),
        ("import os; print('loading', flush=True); os._exit(0)", "Runtime exited without providing a reason"),
        (
            "import os; print('loading', flush=True); os.kill(os.getpid(), 11)",
            "Runtime exited with error: signal: segmentation fault",
        ),
    ],
)
def test_an_exit_while_loading_is_an_error(rehearsal: Rehearsal, source: str, reason: str) -> None:
    name = f"loading-{abs(hash(source))}"
    create_function(rehearsal, name, source)
    for _ in range(2):  # a sandbox of its own, and the same one again
        answer = rehearsal.client("lambda").invoke(FunctionName=name, LogType="Tail", Payload=b"{}")
        payload, log = json.loads(answer["Payload"].read()), base64.b64decode(answer["LogResult"]).decode()
        assert (answer["StatusCode"], answer["FunctionError"]) == (200, "Unhandled")
        assert payload["errorType"] == "Runtime.ExitError"
        assert re.fullmatch(rf"RequestId: [0-9a-f-]{{36}} Error: {reason}", payload["errorMessage"])
        assert "loading" in log and payload["errorMessage"] in log


def test_the_memory_setting_is_a_limit(invoke: Callable[..., Any]) -> None:
    assert invoke("allocate", megabytes=32)[0] == 32 * MEGABYTE
    answer, error, _ = invoke("allocate", megabytes=300)
    assert (error, answer["errorType"]) == ("Unhandled", "Runtime.OutOfMemory")
    assert invoke("answer")[1] is None


def test_payloads_have_limits(invoke: Callable[..., Any]) -> None:
    assert len(invoke("large", bytes=6 * MEGABYTE - 1000)[0]) == 6 * MEGABYTE - 1000
    answer, error, _ = invoke("large", bytes=6 * MEGABYTE + 1000)
    assert (error, answer["errorType"]) == ("Unhandled", "Function.ResponseSizeTooLarge")
    with pytest.raises(ClientError) as caught:
        invoke("answer", padding="x" * 6 * MEGABYTE)
    assert caught.value.response["Error"]["Code"] == "RequestTooLargeException"
    assert caught.value.response["ResponseMetadata"]["HTTPStatusCode"] == 413


def test_a_function_sees_only_what_lambda_would_give_it(invoke: Callable[..., Any]) -> None:
    answer, error, _ = invoke("import")
    assert (error, answer["errorType"]) == ("Unhandled", "ModuleNotFoundError")


def test_an_event_is_run_later_and_logged(rehearsal: Rehearsal, invoke: Callable[..., Any]) -> None:
    assert invoke("answer", kind="Event", mark="later-7")[0] is None
    assert invoke("raise", kind="DryRun")[0] is None
    logs = rehearsal.client("logs")
    wait_for(lambda: "later-7" in str(logs.filter_log_events(logGroupName="/aws/lambda/sandbox")["events"]))


def test_reserved_concurrency_throttles(rehearsal: Rehearsal, invoke: Callable[..., Any]) -> None:
    client = rehearsal.client("lambda")
    client.put_function_concurrency(FunctionName="sandbox", ReservedConcurrentExecutions=0)
    try:
        with pytest.raises(client.exceptions.TooManyRequestsException):
            invoke("answer")
    finally:
        client.delete_function_concurrency(FunctionName="sandbox")
    assert invoke("answer")[1] is None
