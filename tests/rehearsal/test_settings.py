"""The rehearsal knows a project only by the table in its pyproject.toml."""

import io
import os
import re
import subprocess
import sys
import tarfile
import tomllib
from pathlib import Path
from typing import Any

import pytest

from rehearsal.lifecycle import down, find
from rehearsal.patches import RehearsalError
from rehearsal.settings import read_settings
from tests.support.stack import REPOSITORY, Rehearsal, wait_for

TABLE = """
[tool.rehearsal]
region = "eu-west-1"
account = "210987654321"
code = "code"
[tool.rehearsal.images."parrots/grey"]
command = ["python", "-m", "parrot", "{port}"]
environment = { FOLDER = "{model}" }
"""
#: Answers each request with the model and the request.
SERVER = """
import os, sys
from http.server import BaseHTTPRequestHandler, HTTPServer

class Parrot(BaseHTTPRequestHandler):
    def do_GET(self):
        self.reply(b"")

    def do_POST(self):
        with open(os.path.join(os.environ["FOLDER"], "word")) as word:
            self.reply(word.read().encode() + self.rfile.read(int(self.headers["Content-Length"])))

    def reply(self, body):
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

HTTPServer(("127.0.0.1", int(sys.argv[1])), Parrot).serve_forever()
"""


def project(folder: Path, table: str) -> Path:
    (folder / "code").mkdir(exist_ok=True)
    (folder / "pyproject.toml").write_text(table)
    return folder


def test_the_package_names_nothing_of_this_project() -> None:
    table = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["tool"]["rehearsal"]
    packages = "|".join(
        path.parent.name for path in REPOSITORY.glob("*/__init__.py") if path.parent.name != "rehearsal"
    )
    (image,) = table["images"].values()
    names = "|".join(
        [*table["images"], table["region"], table["account"], *(f'"{name}"' for name in image["environment"])]
    )
    ours = re.compile(rf"{names}|(?<![.\w])({packages}|src)[./]\w|-m ({packages})\b|`make |this project")
    for path in sorted((REPOSITORY / "rehearsal").glob("*.py")):
        text = re.sub(r"https://\S+", "", path.read_text())
        assert not [line for line in text.splitlines() if ours.search(line)], path.name


def test_another_project_is_rehearsed_by_its_own_table(tmp_path: Path) -> None:
    (project(tmp_path, TABLE) / "code" / "parrot.py").write_text(SERVER)
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY)}

    def command(*arguments: str) -> str:
        argv = [sys.executable, "-m", "rehearsal", *arguments]
        done = subprocess.run(argv, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        return done.stdout

    try:
        command("up")
        call = "import boto3; print(boto3.client('sts').get_caller_identity()['Arn'], boto3.Session().region_name)"
        assert re.search(r":210987654321:.* eu-west-1$", command("exec", "--", sys.executable, "-c", call))
        running = find(tmp_path / ".rehearsal")
        assert running is not None
        assert invoke(Rehearsal(running), "parrots/grey", b"world") == b"hello world"
        command("down")
    finally:
        down(tmp_path / ".rehearsal")


def invoke(rehearsal: Rehearsal, image: str, body: bytes) -> bytes:
    """Put an endpoint of an image into service, and send it a request."""
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w:gz") as archive:
        member = tarfile.TarInfo("word")
        member.size = 6
        archive.addfile(member, io.BytesIO(b"hello "))
    s3, sagemaker = rehearsal.client("s3"), rehearsal.client("sagemaker")
    s3.create_bucket(Bucket="models", CreateBucketConfiguration={"LocationConstraint": "eu-west-1"})
    s3.put_object(Bucket="models", Key="model.tar.gz", Body=packed.getvalue())
    container = {
        "Image": f"210987654321.dkr.ecr.eu-west-1.amazonaws.com/{image}:latest",
        "ModelDataUrl": "s3://models/model.tar.gz",
    }
    role = "arn:aws:iam::210987654321:role/parrot"
    sagemaker.create_model(ModelName="parrot", PrimaryContainer=container, ExecutionRoleArn=role)
    variant = {"VariantName": "all", "ModelName": "parrot", "InstanceType": "ml.t2.medium", "InitialInstanceCount": 1}
    sagemaker.create_endpoint_config(EndpointConfigName="parrot", ProductionVariants=[variant])
    sagemaker.create_endpoint(EndpointName="parrot", EndpointConfigName="parrot")

    def described() -> Any:
        endpoint = sagemaker.describe_endpoint(EndpointName="parrot")
        return endpoint["EndpointStatus"] != "Creating" and endpoint

    assert wait_for(described)["EndpointStatus"] == "InService"
    answer = rehearsal.client("sagemaker-runtime").invoke_endpoint(EndpointName="parrot", Body=body)
    return bytes(answer["Body"].read())


def test_a_missing_table_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(RehearsalError, match=r"pyproject\.toml has no \[tool\.rehearsal\] table"):
        read_settings(tmp_path)
    done = subprocess.run(
        [sys.executable, "-m", "rehearsal", "up"],
        cwd=project(tmp_path, "[project]\n"),
        env={**os.environ, "PYTHONPATH": str(REPOSITORY)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1 and "has no [tool.rehearsal] table" in done.stderr
    assert not (tmp_path / ".rehearsal").exists()


@pytest.mark.parametrize(
    ("right", "wrong", "message"),
    [
        ('region = "eu-west-1"', "", "needs a region"),
        ('region = "eu-west-1"', 'region = "Ireland"', "needs a region"),
        ('"210987654321"', "210987654321", "needs an account"),
        ('"210987654321"', '"1234"', "needs an account"),
        ("code =", "cod =", "unknown keys: cod"),
        ('"code"', '"nowhere"', "folder not found"),
        ('["python", "-m", "parrot", "{port}"]', '"python -m parrot"', "parrots/grey.command must be a list"),
        ("command =", "comand =", "parrots/grey takes command and environment"),
        ("environment =", "enviroment =", "parrots/grey takes command and environment"),
        ('FOLDER = "{model}"', "FOLDER = 1", "parrots/grey.environment must be a table"),
        ("account", "= account", r"pyproject\.toml: "),
    ],
)
def test_a_wrong_table_is_an_error(tmp_path: Path, right: str, wrong: str, message: str) -> None:
    assert right in TABLE
    read_settings(project(tmp_path, TABLE))
    with pytest.raises(RehearsalError, match=message):
        read_settings(project(tmp_path, TABLE.replace(right, wrong)))
