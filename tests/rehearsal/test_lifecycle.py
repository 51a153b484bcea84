"""The rehearsal leaves nothing behind, however it ends, and never pretends."""

import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest

from rehearsal.__main__ import _print_status
from rehearsal.lifecycle import Running, down, find, processes, up
from rehearsal.patches import PATCHES, RehearsalError, extend, load, replace
from tests.support.stack import REPOSITORY, Rehearsal, create_function, wait_for

PROGRAMS = str(Path(sys.executable).parent)
#: The environment of a shell in which this Python's virtual environment is not activated.
SHELL = os.environ | {"PATH": os.pathsep.join(p for p in os.environ["PATH"].split(os.pathsep) if p != PROGRAMS)}


def command(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    argv = [sys.executable, "-m", "rehearsal", "--folder", str(folder), *arguments]
    return subprocess.run(argv, cwd=REPOSITORY, env=SHELL, capture_output=True, text=True, check=False)


def end_of_pipe(folder: Path, *arguments: str) -> tuple[int, str]:
    """Run a command whose output nobody reads any more; return its exit code and what it says about that."""
    read, write = os.pipe()
    os.close(read)
    argv = [sys.executable, "-m", "rehearsal", "--folder", str(folder), *arguments]
    done = subprocess.run(argv, cwd=REPOSITORY, stdout=write, stderr=subprocess.PIPE, text=True, check=False)
    os.close(write)
    return done.returncode, done.stderr


def test_up_status_exec_down_and_hints(tmp_path: Path) -> None:
    folder = tmp_path / "state"
    started = command(folder, "up")
    assert started.returncode == 0 and "http://localhost:" in started.stdout
    running = find(folder)
    assert running is not None
    assert command(folder, "up").stdout == started.stdout, "up is idempotent"
    assert "up at" in command(folder, "status").stdout
    described = json.loads(command(folder, "status", "--json").stdout)
    assert described["rehearsal"]["endpoint_url"] == running.endpoint_url and described["alarms"] == []
    shown = command(folder, "exec", "--", sys.executable, "-c", "import os; print(os.environ['AWS_ENDPOINT_URL'])")
    assert shown.stdout.strip() == running.endpoint_url
    environment = command(folder, "env").stdout
    assert f"export AWS_ENDPOINT_URL={running.endpoint_url}\n" in environment
    missing = command(folder, "exec", "--", "no-such-program")
    assert (missing.returncode, missing.stderr) == (
        1,
        "rehearsal: cannot run no-such-program: No such file or directory\n",
    )
    for arguments in (["status"], ["env"], ["patches"], ["--help"]):
        assert end_of_pipe(folder, *arguments) == (128 + signal.SIGPIPE, "")
    assert command(folder, "down").returncode == 0
    assert not folder.exists() and not processes(folder)
    assert command(folder, "down").stdout == "Nothing to stop.\n"
    assert_hint_works(folder, command(folder, "status").stderr)
    assert find(folder) is not None, "the printed command started it"
    assert_hint_works(folder, command(folder, "exec").stderr.replace(" --stack-name STACK", " --help"))
    assert_hint_works(folder, command(folder, "up").stdout)
    assert down(folder)


def test_status_shortens_names_and_reasons_and_keeps_states(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    described: dict[str, Any] = {
        "rehearsal": {"endpoint_url": "http://localhost:1", "process": 2, "log": "x"},
        "stacks": [{"name": "a-stack-with-a-long-name" * 2, "status": "CREATE_COMPLETE"}],
        "functions": [{"name": "f" * 60, "memory": 512, "timeout": 30}],
        "endpoints": [{"name": "image-classifier", "status": "InService"}],
        "alarms": [{"name": "alarm-" * 9, "status": "INSUFFICIENT_DATA", "reason": "Unchecked: " + "no data " * 20}],
    }
    for columns in ("60", "120"):
        monkeypatch.setenv("COLUMNS", columns)
        _print_status(described)
        lines = capsys.readouterr().out.splitlines()
        assert len(lines) == 5 and all(len(line) <= int(columns) for line in lines)
        states = ("CREATE_COMPLETE", "512 MB, 30 s", "InService", "INSUFFICIENT_DATA")
        assert all(state in line for state, line in zip(states, lines[1:], strict=True)), lines


def assert_hint_works(folder: Path, printed: str) -> None:
    """Run the command in a message."""
    (hint,) = re.findall(r"(?:with: |as in: |^    )(.* -m rehearsal .*)", printed, re.MULTILINE)
    done = subprocess.run(["sh", "-c", hint], cwd=REPOSITORY, env=SHELL, capture_output=True, text=True, check=False)
    assert done.returncode == 0 and str(folder) in hint, f"{hint}: {done.stdout}{done.stderr}"


def test_a_rehearsal_whose_folder_was_removed_ends(tmp_path: Path) -> None:
    folder = tmp_path / "state"
    start_busy_function(up(folder), tmp_path)
    shutil.rmtree(folder)
    wait_for(lambda: not processes(folder))
    assert not folder.exists()

    running = up(folder)
    members = processes(folder)
    for pid in members:
        os.kill(pid, signal.SIGSTOP)  # none can notice
    assert running.supervisor in members
    shutil.rmtree(folder)
    assert command(folder, "down").stdout == "The rehearsal is down.\n"
    assert not processes(folder)


def test_what_replaced_a_folder_is_left_alone(tmp_path: Path) -> None:
    folder = tmp_path / "state"
    up(folder)
    shutil.rmtree(folder)
    folder.mkdir()
    (folder / "precious").write_text("mine")
    wait_for(lambda: not processes(folder))
    assert (folder / "precious").read_text() == "mine"


def test_a_start_that_is_interrupted_leaves_nothing_behind(tmp_path: Path) -> None:
    folder = tmp_path / "state"
    argv = [sys.executable, "-m", "rehearsal", "--folder", str(folder), "up"]
    with subprocess.Popen(argv, cwd=REPOSITORY, stderr=subprocess.PIPE, text=True) as starting:
        wait_for((folder / "state.json").exists)
        starting.send_signal(signal.SIGINT)
        _, said = starting.communicate()
    assert (starting.returncode, said) == (128 + signal.SIGINT, "")
    assert not folder.exists() and not processes(folder)


def test_a_tied_rehearsal_ends_with_the_process_that_started_it(tmp_path: Path) -> None:
    folder = tmp_path / "state"
    script = "import pathlib, sys, time; from rehearsal.lifecycle import up; up(pathlib.Path(sys.argv[1]), tied=True)"
    argv = [sys.executable, "-c", f"{script}; print('up', flush=True); time.sleep(3600)", str(folder)]
    with subprocess.Popen(argv, cwd=REPOSITORY, stdout=subprocess.PIPE, text=True) as starter:
        assert starter.stdout is not None and starter.stdout.readline() == "up\n"
        running = find(folder)
        assert running is not None
        start_busy_function(running, tmp_path)
        starter.kill()
    wait_for(lambda: not processes(folder) and not folder.exists())


def start_busy_function(running: Running, folder: Path) -> None:
    """Deploy a function that sleeps, and leave it running."""
    rehearsal, begun = Rehearsal(running), folder / "begun"
    source = f"import time\ndef lambda_handler(event, context):\n    open({str(begun)!r}, 'w')\n    time.sleep(3600)\n"
    create_function(rehearsal, "busy", source)
    rehearsal.client("lambda").invoke(FunctionName="busy", InvocationType="Event", Payload=b"{}")
    wait_for(begun.exists)


def kill(pids: list[int]) -> None:
    """Kill processes in one moment: none of them sees another one end."""
    for pid in pids:
        os.kill(pid, signal.SIGSTOP)
    wait_for(lambda: all("\nState:\tT" in Path(f"/proc/{pid}/status").read_text() for pid in pids))
    for pid in pids:
        os.kill(pid, signal.SIGKILL)


@pytest.mark.parametrize("victim", ["supervisor", "server", "all"])
def test_a_crash_leaves_nothing_behind(tmp_path: Path, victim: str) -> None:
    folder = tmp_path / "state"
    running = up(folder)
    start_busy_function(running, tmp_path)
    members = processes(folder)
    assert len(members) >= 4, "supervisor, server, emulator, and the function itself"
    server = next(pid for pid in members if "rehearsal.server" in Path(f"/proc/{pid}/cmdline").read_text())
    victims = {"supervisor": [running.supervisor], "server": [server], "all": [running.supervisor, server]}
    kill(victims[victim])
    if victim == "all":
        wait_for(lambda: find(folder) is None)
        assert processes(folder), "nobody is left to clean up but the next command"
        assert down(folder)
    wait_for(lambda: not folder.exists())
    wait_for(lambda: not processes(folder))
    assert find(folder) is None


def test_a_folder_of_something_else_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "precious").write_text("mine")
    for start_or_end in (up, down):
        with pytest.raises(RehearsalError, match="not a rehearsal's folder"):
            start_or_end(tmp_path)
    assert (tmp_path / "precious").read_text() == "mine"


def test_another_process_under_a_remembered_id_is_left_alone(tmp_path: Path) -> None:
    with subprocess.Popen(["sleep", "3600"]) as other:
        try:
            remembered = asdict(Running(port=1, supervisor=other.pid, region="us-east-1"))
            (tmp_path / "state.json").write_text(json.dumps(remembered))
            assert find(tmp_path) is None
            assert down(tmp_path)
            assert other.poll() is None
        finally:
            other.kill()


def test_a_rehearsal_that_cannot_start_says_why(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        monkeypatch.setattr("rehearsal.lifecycle.free_port", lambda: taken.getsockname()[1])
        with pytest.raises(RehearsalError, match="did not start"):
            up(tmp_path / "state")
    assert not (tmp_path / "state").exists()


def test_a_stale_state_file_is_no_rehearsal(tmp_path: Path) -> None:
    (tmp_path / "state.json").write_text("{")
    assert find(tmp_path) is None


def test_patches_are_listed_with_their_reason() -> None:
    listed = command(Path("unused"), "patches").stdout
    load()
    differences = {difference for difference, _ in PATCHES}
    assert len({difference.name for difference in differences}) == len(differences) > 12
    for difference in differences:
        assert len(difference.reason) > 20 and f"    {difference.reason}\n" in listed


def test_loading_the_patches_changes_nothing_of_moto() -> None:
    script = """
import sys
from rehearsal.patches import PATCHES, apply, load
load()
def rehearsed():
    classes = [kind for name, module in [*sys.modules.items()] if name.startswith("moto.")
        for kind in [*vars(module).values(), module] if isinstance(kind, type | type(sys))]
    return {name for kind in classes for name, value in [*vars(kind).items()]
        if str(getattr(getattr(value, "__func__", value), "__module__", "")).startswith("rehearsal.")}
assert not rehearsed(), rehearsed()
apply()
assert {"invoke", "start_message_move_task", "create_from_cloudformation_json"} <= rehearsed()
"""
    subprocess.run([sys.executable, "-c", script], cwd=REPOSITORY, check=True)


class Owner:
    """Something with each kind of attribute that a patch may replace."""

    factor = 2

    def method(self, value: int) -> int:
        return self.factor * value

    @classmethod
    def of_class(cls, value: int) -> int:
        return cls.factor * value

    @staticmethod
    def static(value: int) -> int:
        return 2 * value

    @property
    def size(self) -> int:
        return self.factor


def test_a_patch_gets_the_original(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("method", "of_class", "static", "size"):
        monkeypatch.setattr(Owner, name, vars(Owner)[name])
    for _ in range(2):  # the second one gets the first
        replace(Owner, "method", lambda original, self, value: original(self, value) + self.factor)
        replace(Owner, "of_class", lambda original, value: original(value) + 2)
        replace(Owner, "static", lambda original, value: original(value) + 2)
        replace(Owner, "size", lambda original, self: original(self) + self.factor)
    assert (Owner().method(1), Owner.of_class(1), Owner().of_class(value=1), Owner.static(1), Owner().size) == (6,) * 5


def test_a_patch_that_misses_its_target_fails() -> None:
    with pytest.raises(AttributeError):
        replace(Owner, "no_such_method", lambda original: original)
    with pytest.raises(RehearsalError, match=r"moto now has Owner\.method"):
        extend(Owner, "method", lambda self: self)


def template(resources: dict[str, Any]) -> str:
    return json.dumps({"AWSTemplateFormatVersion": "2010-09-09", "Resources": resources})


def deploy(rehearsal: Rehearsal, name: str, resources: dict[str, Any]) -> dict[str, Any]:
    client = rehearsal.client("cloudformation")
    client.create_change_set(
        StackName=name, ChangeSetName=f"{name}-1", ChangeSetType="CREATE", TemplateBody=template(resources)
    )
    client.execute_change_set(StackName=name, ChangeSetName=f"{name}-1")
    (stack,) = client.describe_stacks(StackName=name)["Stacks"]
    reasons = [e.get("ResourceStatusReason", "") for e in client.describe_stack_events(StackName=name)["StackEvents"]]
    return {"status": stack["StackStatus"], "reasons": " ".join(reasons)}


def test_a_type_that_cannot_be_created_fails_the_stack_and_says_so(rehearsal: Rehearsal) -> None:
    outcome = deploy(
        rehearsal,
        "unknown",
        {
            "Queue": {"Type": "AWS::SQS::Queue", "Properties": {"QueueName": "of-unknown"}},
            "Unknown": {"Type": "AWS::Braket::Qubit", "Properties": {"Of": {"Ref": "Queue"}}},
        },
    )
    assert outcome["status"] == "ROLLBACK_COMPLETE" and "AWS::Braket::Qubit" in outcome["reasons"]
    assert "of-unknown" not in str(rehearsal.client("sqs").list_queues()), "what was created is gone again"


def test_a_workflow_that_would_not_run_fails_the_stack(rehearsal: Rehearsal) -> None:
    resource = {
        "Type": "AWS::StepFunctions::StateMachine",
        "Properties": {"RoleArn": "arn:aws:iam::1:role/r", "DefinitionString": '{"StartAt": "${Missing}"}'},
    }
    outcome = deploy(rehearsal, "workflow", {"Machine": resource})
    assert outcome["status"] == "ROLLBACK_COMPLETE" and "no value for" in outcome["reasons"]


def test_numbers_keep_their_fraction(rehearsal: Rehearsal) -> None:
    client = rehearsal.client("cloudformation")
    body = {
        "Parameters": {"Threshold": {"Type": "Number", "Default": 0.7}},
        "Resources": {"Queue": {"Type": "AWS::SQS::Queue"}},
        "Outputs": {"Threshold": {"Value": {"Ref": "Threshold"}}},
    }
    client.create_stack(StackName="fraction", TemplateBody=json.dumps(body))
    (stack,) = client.describe_stacks(StackName="fraction")["Stacks"]
    assert stack["Outputs"][0]["OutputValue"] == "0.7"
