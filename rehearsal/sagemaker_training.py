"""SageMaker: a training job is a process, whose files are in a folder that stands for ``/opt/ml``."""

import contextlib
import io
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tarfile
import threading
import time
import uuid
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import boto3
from moto.core.responses import ActionResult, EmptyResult
from moto.core.utils import utcnow
from moto.logs.models import logs_backends
from moto.sagemaker.exceptions import ResourceInUseException, ValidationError
from moto.sagemaker.models import FakeTrainingJob, SageMakerModelBackend
from moto.sagemaker.responses import SageMakerResponse

from rehearsal.lifecycle import MARK
from rehearsal.patches import Difference, add, patch
from rehearsal.sagemaker_jobs import DEFAULT_RUNTIME_SECONDS
from rehearsal.settings import ALGORITHM_PROGRAM, is_algorithm, of_this_process

LOG_GROUP = "/aws/sagemaker/TrainingJobs"
CONTAINER = "/opt/ml"
# https://docs.aws.amazon.com/sagemaker/latest/APIReference/API_DescribeTrainingJob.html
MAX_REASON = 1024
#: Of the lines that the stand-in for the built-in algorithm prints, as the algorithm does.
METRICS = [
    {"Name": "train:accuracy", "Regex": r"Train-accuracy=([0-9.]+)"},
    {"Name": "validation:accuracy", "Regex": r"Validation-accuracy=([0-9.]+)"},
]
TRAINED = Difference("training_jobs_run", "training jobs are completed at once, and nothing runs")


class TrainingJob:
    """One training job's process."""

    def __init__(
        self,
        backend: SageMakerModelBackend,
        described: Any,
        command: list[str],
        programs: Path,
        environment: dict[str, str],
    ) -> None:
        self._described, self._command = described, command
        self._root = Path(os.environ[MARK]) / "training" / uuid.uuid4().hex
        self._programs, self._environment = programs, environment
        self._stopped = ""
        self._process: subprocess.Popen[bytes] | None = None
        self._logs = logs_backends[backend.account_id][backend.region_name]
        self._stream = f"{described.training_job_name}/algo-1-{int(time.time())}"
        described.training_job_status, described.secondary_status_transitions = "InProgress", []
        described.training_end_time = None
        described.model_artifacts = {}
        described.final_metric_data_list = []
        self._change("Starting", "Preparing the instances for training")
        threading.Thread(target=self._run, daemon=True).start()

    def stop(self, status: str = "Stopped") -> None:
        """End the job's processes; what it has written is kept."""
        self._stopped = self._stopped or status
        self._described.training_job_status = "Stopping"
        if self._process:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGTERM)

    def _run(self) -> None:
        described = self._described
        try:
            self._change("Downloading", "Downloading input data")
            self._prepare()
            code = self._train()
            self._change("Uploading", "Uploading generated training model")
            self._keep()
        except Exception as error:  # whatever a request asks for that is not there
            described.failure_reason = f"ClientError: {error}"[:MAX_REASON]
            self._end("Failed", "Failed")
        else:
            if self._stopped:
                self._end("Stopped", self._stopped)
            elif code:
                failure = self._root / "output" / "failure"
                reason = failure.read_text(errors="replace") if failure.is_file() else f"exit code: {code}"
                described.failure_reason = f"AlgorithmError: {reason}"[:MAX_REASON]
                self._end("Failed", "Failed")
            else:
                self._end("Completed", "Completed")
        shutil.rmtree(self._root, ignore_errors=True)

    def _prepare(self) -> None:
        described, config = self._described, self._root / "input" / "config"
        for name in ("model", "output/data", "checkpoints", "input/config", "input/data"):
            (self._root / name).mkdir(parents=True)
        channels = described.input_data_config or []
        for channel in channels:
            source = channel["DataSource"]["S3DataSource"]
            if source["S3DataType"] != "S3Prefix" or channel.get("CompressionType", "None") != "None":
                raise ValueError("The rehearsal's training jobs take channels of type S3Prefix, not compressed")
            folder = self._root / "input" / "data" / channel["ChannelName"]
            if not _download(source["S3Uri"], folder):
                raise ValueError(f"No S3 objects found under prefix {source['S3Uri']}")
            if channel["ChannelName"] == "sm_drivers":  # the SDK's own scripts name the folder
                for path in folder.rglob("*"):
                    if path.suffix in (".py", ".sh"):
                        path.write_text(self._here(path.read_text()))
                installer = folder / "scripts" / "install_requirements.py"
                if installer.is_file():  # the folder of programs has them, and is not to be changed
                    installer.write_text('print("The rehearsal installs no requirements.")\n')
        if described.checkpoint_config:
            _download(described.checkpoint_config["S3Uri"], self._root / "checkpoints")
        instance = described.resource_config["InstanceType"]
        host = {"current_host": "algo-1", "current_instance_type": instance, "hosts": ["algo-1"]}
        inputs = {
            each["ChannelName"]: {
                "TrainingInputMode": "File",
                "S3DistributionType": each["DataSource"]["S3DataSource"].get(
                    "S3DataDistributionType", "FullyReplicated"
                ),
                "RecordWrapperType": each.get("RecordWrapperType", "None"),
                **({"ContentType": each["ContentType"]} if each.get("ContentType") else {}),
            }
            for each in channels
        }
        for name, content in (
            ("hyperparameters", described.hyper_parameters or {}),
            ("resourceconfig", {**host, "network_interface_name": "lo"}),
            ("inputdataconfig", inputs),
        ):
            (config / f"{name}.json").write_text(json.dumps(content))

    def _here(self, text: str) -> str:
        return text.replace(CONTAINER, str(self._root))

    def _train(self) -> int:
        """Run the container's command, with its output in the log; return its exit code."""
        described = self._described
        argv = [self._here(part) for part in self._command]
        self._logs.ensure_log_group(LOG_GROUP)
        self._logs.create_log_stream(LOG_GROUP, self._stream)
        self._change("Training", "Training image download completed. Training in progress.")
        if self._stopped:
            return 0
        programs = self._programs
        if not programs.is_dir():
            programs = Path(sys.executable).parent
            self._write(f"The rehearsal trains with {programs}, because {self._programs} does not exist.")
        path = f"{programs}:{os.environ['PATH']}"
        names = {"TRAINING_JOB_NAME": described.training_job_name, "PYTHONUNBUFFERED": "1", "PATH": path}
        self._process = subprocess.Popen(
            argv,
            env={**os.environ, **self._environment, **names},
            cwd=self._root,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        if self._stopped:  # while it was started
            self.stop(self._stopped)
        limit = described.stopping_condition.get("MaxRuntimeInSeconds", DEFAULT_RUNTIME_SECONDS)
        timer = threading.Timer(limit, self.stop, ["MaxRuntimeExceeded"])
        timer.start()
        assert self._process.stdout is not None
        try:
            for raw in self._process.stdout:
                if line := raw.decode("utf-8", "replace").rstrip():
                    self._write(line)
                    self._measure(line)
        except Exception:
            self.stop()
            raise
        finally:
            timer.cancel()
        return self._process.wait()

    def _write(self, line: str) -> None:
        event = {"timestamp": int(time.time() * 1000), "message": line}
        self._logs.put_log_events(LOG_GROUP, self._stream, [event])

    def _measure(self, line: str) -> None:
        """Keep the last value of each metric that a line has."""
        metrics = self._described.final_metric_data_list
        for definition in self._described.algorithm_specification.get("MetricDefinitions", []):
            if found := re.search(definition["Regex"], line):
                metrics[:] = [each for each in metrics if each["MetricName"] != definition["Name"]]
                metrics.append({"MetricName": definition["Name"], "Value": float(found[1]), "Timestamp": utcnow()})

    def _keep(self) -> None:
        """Upload checkpoints and model."""
        described = self._described
        if described.checkpoint_config:
            for path in (self._root / "checkpoints").rglob("*"):
                if path.is_file():
                    name = path.relative_to(self._root / "checkpoints").as_posix()
                    _upload(f"{described.checkpoint_config['S3Uri'].rstrip('/')}/{name}", path.read_bytes())
        if any((self._root / "model").iterdir()):
            archive = io.BytesIO()
            with tarfile.open(fileobj=archive, mode="w:gz") as tar:
                for path in sorted((self._root / "model").iterdir()):
                    tar.add(path, path.name)
            base = described.output_data_config["S3OutputPath"].rstrip("/")
            address = f"{base}/{described.training_job_name}/output/model.tar.gz"
            _upload(address, archive.getvalue())
            described.model_artifacts = {"S3ModelArtifacts": address}

    def _change(self, status: str, message: str = "") -> None:
        described, now = self._described, utcnow()
        if described.secondary_status_transitions:
            described.secondary_status_transitions[-1]["EndTime"] = now
        described.secondary_status_transitions.append({"Status": status, "StartTime": now, "StatusMessage": message})
        described.secondary_status, described.last_modified_time = status, now

    def _end(self, status: str, secondary: str) -> None:
        described = self._described
        described.training_end_time = utcnow()
        seconds = int((described.training_end_time - described.training_start_time).total_seconds())
        described.training_time_in_seconds = described.billable_time_in_seconds = max(seconds, 1)
        self._change(secondary, f"Training job {status.lower()}")
        described.training_job_status = status


def _download(address: str, folder: Path) -> int:
    """Write the objects below an address into a folder; return how many."""
    parts = urlsplit(address)
    bucket, prefix, count = parts.netloc, parts.path.lstrip("/"), 0
    s3 = boto3.client("s3")
    folder.mkdir(parents=True, exist_ok=True)
    for page in s3.get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=prefix):
        for item in page.get("Contents", []):
            name = item["Key"].removeprefix(prefix).lstrip("/") or Path(prefix).name
            path = folder / name
            if path.resolve().is_relative_to(folder.resolve()) and not name.endswith("/"):
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(s3.get_object(Bucket=bucket, Key=item["Key"])["Body"].read())
                count += 1
    return count


def _upload(address: str, content: bytes) -> None:
    parts = urlsplit(address)
    boto3.client("s3").put_object(Bucket=parts.netloc, Key=parts.path.lstrip("/"), Body=content)


def _jobs(backend: SageMakerModelBackend) -> dict[str, TrainingJob]:
    return vars(backend).setdefault("processes_of_training_jobs", {})


@patch(SageMakerResponse, "create_training_job", TRAINED)
def _create_training_job(original: Any, self: SageMakerResponse) -> ActionResult:
    backend, name = self.sagemaker_backend, self._get_param("TrainingJobName")
    algorithm = self._get_param("AlgorithmSpecification")
    if name in backend.training_jobs:
        arn = backend.training_jobs[name].arn
        raise ResourceInUseException(f"Job name must be unique within an AWS account and region: {arn}")
    known = of_this_process().training
    repository = algorithm.get("TrainingImage", "").partition("/")[2].partition(":")[0].partition("@")[0]
    built_in = is_algorithm(algorithm.get("TrainingImage", ""))
    if not built_in and repository not in known:
        raise ValidationError(
            f"The rehearsal trains only with the images in [tool.rehearsal.training] ({', '.join(known)}), "
            f"not {repository or 'an algorithm'}"
        )
    if built_in and algorithm.get("MetricDefinitions"):
        raise ValidationError("You can't override the metric definitions for Amazon SageMaker algorithms.")
    if not built_in and not algorithm.get("ContainerEntrypoint"):
        raise ValidationError("The rehearsal needs a ContainerEntrypoint, as the SageMaker Python SDK sets it")
    stopping = self._get_param("StoppingCondition")
    if self._get_param("EnableManagedSpotTraining") and not stopping.get("MaxWaitTimeInSeconds"):
        raise ValidationError("MaxWaitTimeInSeconds must be provided for managed spot training")
    if stopping.get("MaxWaitTimeInSeconds", 10**9) < stopping.get("MaxRuntimeInSeconds", 0):
        raise ValidationError("MaxWaitTimeInSeconds must be equal to or greater than MaxRuntimeInSeconds")
    definitions = METRICS if built_in else algorithm.get("MetricDefinitions", [])
    answer: ActionResult = original(self)
    job: Any = backend.training_jobs[name]
    job.algorithm_specification = {"ContainerArguments": [], **algorithm, "MetricDefinitions": definitions}
    job.environment = self._get_param("Environment") or {}
    command = [*algorithm.get("ContainerEntrypoint", []), *algorithm.get("ContainerArguments", [])]
    programs = known.get(repository, Path(sys.executable).parent)
    if built_in:
        command, programs = [*ALGORITHM_PROGRAM, "train", CONTAINER], Path(sys.executable).parent
    _jobs(backend)[name] = TrainingJob(backend, job, command, programs, job.environment)
    return answer


@patch(FakeTrainingJob, "response_object", TRAINED)
def _response_object(original: Any, self: FakeTrainingJob) -> dict[str, Any]:
    described: dict[str, Any] = original(self)
    # AWS omits what is not set, and the SDK's models fail on empty objects.
    return {name: value for name, value in described.items() if value not in ({}, [], "")}


@add(SageMakerResponse, "stop_training_job", TRAINED)
def _stop_training_job(self: SageMakerResponse) -> EmptyResult:
    backend, name = self.sagemaker_backend, self._get_param("TrainingJobName")
    status = backend.describe_training_job(name)["TrainingJobStatus"]
    if status != "InProgress":
        raise ValidationError(f"The request was rejected because the training job is in status {status}")
    _jobs(backend)[name].stop()
    return EmptyResult()
