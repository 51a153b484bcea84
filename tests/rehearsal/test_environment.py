"""Whatever the user's shell has set, commands reach the rehearsal, and it does not change."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import boto3
import pytest

from rehearsal.environment import credentials, inherited, redirected, undisturbed
from rehearsal.lifecycle import Running, down, find, processes
from tests.support.stack import IMAGE_URI, REPOSITORY, ROLE, wait_for

NOWHERE = "http://127.0.0.1:9"
#: Each of these has broken commands, sent them elsewhere, or changed how the rehearsal works.
HOSTILE = {
    "AWS_PROFILE": "",
    "AWS_DEFAULT_PROFILE": "nobody",
    "AWS_ENDPOINT_URL": NOWHERE,
    "AWS_ENDPOINT_URL_S3": NOWHERE,
    "AWS_ENDPOINT_URL_STEP_FUNCTIONS": NOWHERE,
    "AWS_IGNORE_CONFIGURED_ENDPOINT_URLS": "true",
    "AWS_CA_BUNDLE": "/nowhere/ca.pem",
    "AWS_USE_FIPS_ENDPOINT": "true",
    "AWS_USE_DUALSTACK_ENDPOINT": "true",
    "AWS_STS_REGIONAL_ENDPOINTS": "sideways",
    "AWS_ROLE_ARN": "arn:aws:iam::999999999999:role/other",
    "AWS_WEB_IDENTITY_TOKEN_FILE": "/nowhere/token",
    "AWS_CONTAINER_CREDENTIALS_FULL_URI": f"{NOWHERE}/credentials",
    "AWS_REQUEST_CHECKSUM_CALCULATION": "sometimes",
    "AWS_RETRY_MODE": "never",
    "AWS_MAX_ATTEMPTS": "many",
    "AWS_LAMBDA_LOG_LEVEL": "FATAL",
    "AWS_REGION": "mars-north-1",
    "HTTP_PROXY": NOWHERE,
    "HTTPS_PROXY": NOWHERE,
    "ALL_PROXY": NOWHERE,
    "NO_PROXY": "example.com",
    "REQUESTS_CA_BUNDLE": "/nowhere/ca.pem",
    "LANG": "C",
    "LC_ALL": "POSIX",
    "COLUMNS": "12",
    "FORCE_COLOR": "1",
    "NO_COLOR": "1",
    "TMPDIR": "/nowhere",
    "LD_LIBRARY_PATH": os.pathsep.join(filter(None, ["/marked/lib", os.environ.get("LD_LIBRARY_PATH")])),
    "MOTO_ACCOUNT_ID": "999999999999",
    "INITIAL_NO_AUTH_ACTION_COUNT": "0",
    "POWERTOOLS_DEV": "1",
    "MAKEFLAGS": "n",
    "PIP_TARGET": "/nowhere",
    "PIP_USER": "1",
    "PIP_REQUIRE_VIRTUALENV": "1",
}
TEMPLATE = """
Transform: AWS::Serverless-2016-10-31
Resources:
  Bucket:
    Type: AWS::S3::Bucket
  Function:
    Type: AWS::Serverless::Function
    Properties:
      Runtime: python3.13
      Handler: index.lambda_handler
      Policies: []
      InlineCode: |
        import os, boto3
        def lambda_handler(event, context):
            return {"environment": dict(os.environ), "buckets": boto3.client("s3").list_buckets()["Buckets"][0]["Name"]}
"""
CALL = "import boto3; print(boto3.client('sts').get_caller_identity()['Account'])"


@dataclass
class Shell:
    """A user's shell, with a rehearsal that was started from it."""

    folder: Path
    environment: dict[str, str]

    def __call__(self, *command: str, **settings: str) -> str:
        done = subprocess.run(
            command, cwd=REPOSITORY, env=self.environment | settings, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
        return done.stdout

    def rehearsal(self, *arguments: str, **settings: str) -> str:
        return self(sys.executable, "-m", "rehearsal", "--folder", str(self.folder), *arguments, **settings)


@pytest.fixture(scope="module")
def shell(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shell]:
    folder = tmp_path_factory.mktemp("hostile")
    shadow = folder / "shadow"
    shadow.mkdir()
    (shadow / "moto.py").write_text("raise SystemExit('this is another moto')")
    kept = {name: value for name, value in os.environ.items() if name not in ("HOME", "PYTHONUTF8")}
    shell = Shell(folder / "state", kept | HOSTILE | {"PYTHONPATH": str(shadow)})
    before = os.umask(0o077)
    try:
        shell.rehearsal("up", PYTHONWARNINGS="error", PYTHONIOENCODING="ascii", PYTHONOPTIMIZE="2")
        yield shell
        assert "The rehearsal is down." in shell.rehearsal("down")
        assert not processes(shell.folder)
    finally:
        os.umask(before)
        down(shell.folder)


@pytest.mark.parametrize("program", ["bash", "zsh"])
def test_a_shell_is_sent_to_the_rehearsal(shell: Shell, program: str) -> None:
    if not shutil.which(program):
        pytest.skip(f"needs {program}")
    script = f"""
        set -eu
        eval "$({sys.executable} -m rehearsal --folder {shell.folder} env)"
        eval "$({sys.executable} -m rehearsal --folder {shell.folder} env)"
        {sys.executable} -c "{CALL}"
        {sys.executable} -c "import json, os; print(json.dumps(dict(os.environ)))"
    """
    account, printed = shell(program, "-c", script).splitlines()
    assert account == "123456789012"
    found, running = json.loads(printed), find(shell.folder)
    assert running is not None
    aws = {name: value for name, value in found.items() if name.startswith("AWS_")}
    own = credentials(running.port, running.region)
    assert aws == {name: value for name, value in own.items() if name.startswith("AWS_")}
    assert found["NO_PROXY"] == found["no_proxy"] == "example.com,localhost,127.0.0.1"
    untouched = ("HTTP_PROXY", "PYTHONPATH", "LD_LIBRARY_PATH", "PIP_TARGET", "COLUMNS")
    assert all(found[name] == shell.environment[name] for name in untouched)


def test_a_command_is_sent_to_the_rehearsal(shell: Shell) -> None:
    assert shell.rehearsal("exec", "--", sys.executable, "-c", CALL) == "123456789012\n"
    assert "up at" in shell.rehearsal("status")


def test_a_stack_is_deployed_and_its_function_runs_as_from_any_shell(shell: Shell, tmp_path: Path) -> None:
    (tmp_path / "template.yaml").write_text(TEMPLATE)
    sam = str(Path(sys.executable).with_name("sam"))
    names = ("--stack-name", "hostile", "--template-file", str(tmp_path / "template.yaml"))
    shell.rehearsal("exec", "--", sam, "deploy", *names, "--capabilities", "CAPABILITY_IAM", "--resolve-s3")
    said = shell.rehearsal("exec", "--", sam, "remote", "invoke", "Function", "--stack-name", "hostile")
    answer = json.loads(said)
    assert answer["buckets"].startswith(("hostile", "aws-sam-cli"))
    found, running = answer["environment"], find(shell.folder)
    assert running is not None and found["AWS_ENDPOINT_URL"] == running.endpoint_url
    assert found["LD_LIBRARY_PATH"].split(":")[0] == "/marked/lib"
    mine = set(credentials(running.port, running.region)) | {"LD_LIBRARY_PATH", "TMPDIR", "LANG"}
    assert not (set(found) & set(HOSTILE)) - mine and found["AWS_REGION"] == "us-east-1"


def test_a_job_gets_nothing_of_the_shell(shell: Shell) -> None:
    running = find(shell.folder)
    assert running is not None
    sagemaker = boto3.client("sagemaker", endpoint_url=running.endpoint_url)
    program = f"import os, json; {CALL}; print(json.dumps(dict(os.environ)))"
    cluster = {"InstanceCount": 1, "InstanceType": "ml.t3.medium", "VolumeSizeInGB": 1}
    sagemaker.create_processing_job(
        ProcessingJobName="hostile",
        RoleArn=ROLE,
        AppSpecification={"ImageUri": IMAGE_URI, "ContainerEntrypoint": ["python", "-c", program]},
        ProcessingResources={"ClusterConfig": cluster},
    )
    described = wait_for(
        lambda: (
            (job := sagemaker.describe_processing_job(ProcessingJobName="hostile"))["ProcessingJobStatus"]
            != "InProgress"
            and job
        )
    )
    assert described["ProcessingJobStatus"] == "Completed"
    logs = boto3.client("logs", endpoint_url=running.endpoint_url)
    events = logs.filter_log_events(logGroupName="/aws/sagemaker/ProcessingJobs")["events"]
    account, printed = [event["message"] for event in events]
    assert account == "123456789012"
    taken = dict(HOSTILE.items() & json.loads(printed).items())
    assert set(taken) == {"LD_LIBRARY_PATH", "TMPDIR"}


def test_the_environment_reaches_no_other_account() -> None:
    environment = credentials(4000, "us-east-1")
    assert environment["AWS_ENDPOINT_URL"] == Running(4000, 1, "us-east-1").endpoint_url
    assert environment["AWS_CONFIG_FILE"] == environment["AWS_SHARED_CREDENTIALS_FILE"] == os.devnull
    assert {environment[name] for name in environment if "KEY" in name or "TOKEN" in name} == {"rehearsal"}


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({}, "localhost,127.0.0.1"),
        ({"no_proxy": "a, b"}, "a,b,localhost,127.0.0.1"),
        ({"NO_PROXY": "a,localhost", "no_proxy": "b"}, "a,localhost,b,127.0.0.1"),
        ({"NO_PROXY": "*"}, "*"),
    ],
)
def test_hosts_without_a_proxy_are_added(given: dict[str, str], expected: str) -> None:
    environment = redirected(given, 4000, "us-east-1")
    assert environment["NO_PROXY"] == environment["no_proxy"] == expected


def test_tools_keep_where_packages_come_from_and_nothing_else_of_pip() -> None:
    given = {"PIP_INDEX_URL": "http://index", "UV_CACHE_DIR": "/cache", "TERM": "xterm", "PATH": "/bin"}
    environment = undisturbed(given | HOSTILE)
    assert environment.items() >= (given | {"PATH": f"{Path(sys.executable).parent}:/bin"}).items()
    dropped = ("PIP_TARGET", "MAKEFLAGS", "COLUMNS", "AWS_PROFILE", "SAM_TEMPLATE_FILE")
    assert not set(dropped) & set(environment)


def test_own_processes_start_without_any_variable() -> None:
    assert set(inherited({})) == {"PATH", "PYTHONUTF8"}
