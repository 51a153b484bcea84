"""SageMaker: a processing job is a process, for whose end a workflow can wait."""

import contextlib
import json
import logging
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
import uuid
from pathlib import Path
from typing import Any

import boto3
from botocore.exceptions import ClientError
from moto.core.responses import ActionResult
from moto.core.utils import utcnow
from moto.logs.models import logs_backends
from moto.sagemaker.exceptions import ResourceInUseException, ValidationError
from moto.sagemaker.models import SageMakerModelBackend
from moto.sagemaker.responses import SageMakerResponse
from moto.stepfunctions.parser.asl.component.common.error_name.failure_event import (
    FailureEvent,
    FailureEventException,
)
from moto.stepfunctions.parser.asl.component.state.exec.state_task import state_task_factory
from moto.stepfunctions.parser.asl.component.state.exec.state_task.service.resource import ResourceCondition
from moto.stepfunctions.parser.asl.component.state.exec.state_task.service.state_task_service_callback import (
    StateTaskServiceCallback,
)

from rehearsal.lifecycle import MARK
from rehearsal.patches import Difference, patch
from rehearsal.sagemaker_endpoints import resolve_image
from rehearsal.settings import of_this_process
from rehearsal.stepfunctions_tasks import Waiting, failure, plain

log = logging.getLogger("rehearsal")

LOG_GROUP = "/aws/sagemaker/ProcessingJobs"
# https://docs.aws.amazon.com/sagemaker/latest/APIReference/API_DescribeProcessingJob.html
MAX_EXIT_MESSAGE = 1024
#: SageMaker's default limit: one day.
DEFAULT_RUNTIME_SECONDS = 24 * 60 * 60


class Job:
    """One processing job's process."""

    def __init__(self, backend: SageMakerModelBackend, described: Any, argv: list[str]) -> None:
        self._described = described
        self._work = Path(os.environ[MARK]) / "jobs" / uuid.uuid4().hex
        self._work.mkdir(parents=True)
        self._logs = logs_backends[backend.account_id][backend.region_name]
        self._stream = f"{described.processing_job_name}/algo-1-{int(time.time())}"
        self._logs.ensure_log_group(LOG_GROUP)
        self._logs.create_log_stream(LOG_GROUP, self._stream)
        given = {
            **os.environ,
            **described.environment,
            "PYTHONPATH": str(of_this_process().code),
            "PYTHONUNBUFFERED": "1",
        }
        self._process = subprocess.Popen(
            [sys.executable if argv[0] in ("python", "python3") else argv[0], *argv[1:]],
            env={**given, MARK: os.environ[MARK]},
            cwd=self._work,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        threading.Thread(target=self._follow, daemon=True).start()

    def _follow(self) -> None:
        """Send the output to the log as it comes; when the process ends, set the job's status."""
        described, tail = self._described, ""
        seconds = (described.stopping_condition or {}).get("MaxRuntimeInSeconds", DEFAULT_RUNTIME_SECONDS)
        limit = threading.Timer(seconds, self.stop)
        limit.start()
        assert self._process.stdout is not None
        for raw in self._process.stdout:
            line = raw.decode("utf-8", "replace").rstrip()
            tail = f"{tail}{line}\n"[-MAX_EXIT_MESSAGE:]
            if line:
                event = {"timestamp": int(time.time() * 1000), "message": line}
                self._logs.put_log_events(LOG_GROUP, self._stream, [event])
        code = self._process.wait()
        limit.cancel()
        shutil.rmtree(self._work, ignore_errors=True)
        described.exit_message = tail.strip()
        described.processing_end_time = described.last_modified_time = utcnow()
        if described.processing_job_status == "Stopping":
            described.processing_job_status = "Stopped"
        elif code:
            described.failure_reason = f"AlgorithmError: See job logs for more information, exit code: {code}"
            described.processing_job_status = "Failed"
        else:
            described.processing_job_status = "Completed"

    def stop(self) -> None:
        """End the job's processes."""
        self._described.processing_job_status = "Stopping"
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)


PROCESSES = Difference("processing_jobs_run", "processing jobs are completed at once, and nothing runs")


def _jobs(backend: SageMakerModelBackend) -> dict[str, Job]:
    return vars(backend).setdefault("processes_of_jobs", {})


@patch(SageMakerResponse, "create_processing_job", PROCESSES)
def _create_processing_job(original: Any, self: SageMakerResponse) -> ActionResult:
    backend, application = self.sagemaker_backend, self._get_param("AppSpecification")
    name = self._get_param("ProcessingJobName")
    if name in backend.processing_jobs:
        arn = backend.processing_jobs[name].arn
        raise ResourceInUseException(f"Job name must be unique within an AWS account and region: {arn}")
    resolve_image(application["ImageUri"], of_this_process().images)
    outputs = (self._get_param("ProcessingOutputConfig") or {}).get("Outputs")
    if outputs or self._get_param("ProcessingInputs"):
        raise ValidationError("The rehearsal's jobs read and write S3 themselves, without inputs and outputs")
    argv = [*application.get("ContainerEntrypoint", []), *application.get("ContainerArguments", [])]
    if not application.get("ContainerEntrypoint"):
        raise ValidationError("The rehearsal needs a ContainerEntrypoint: the image's own one is the server")
    answer: ActionResult = original(self)
    job: Any = backend.processing_jobs[name]
    job.environment = self._get_param("Environment") or {}
    job.processing_resources = self._get_param("ProcessingResources")
    job.processing_job_status, job.processing_end_time = "InProgress", None
    job.processing_start_time = utcnow()
    try:
        _jobs(backend)[name] = Job(backend, job, argv)
    except OSError as error:
        job.failure_reason = f"AlgorithmError: {error}"
        job.processing_job_status, job.processing_end_time = "Failed", utcnow()
    return answer


@patch(SageMakerModelBackend, "stop_processing_job", PROCESSES)
def _stop_processing_job(original: Any, self: SageMakerModelBackend, processing_job_name: str) -> None:
    self.describe_processing_job(processing_job_name)
    status = self.processing_jobs[processing_job_name].processing_job_status
    if status != "InProgress":
        raise ValidationError(f"The request was rejected because the job is in status {status}")
    _jobs(self)[processing_job_name].stop()


class SageMakerTask(StateTaskServiceCallback):
    """The workflow state ``sagemaker:createProcessingJob``, with or without ``.sync``."""

    def __init__(self) -> None:
        # moto's waiting breaks without a token's endpoint; _get_supported_parameters refuses waitForTaskToken.
        super().__init__({ResourceCondition("sync"), ResourceCondition("waitForTaskToken")})

    def _get_supported_parameters(self) -> set[str] | None:
        # None refuses the state. With names, moto would drop others silently; without, the client checks them.
        known = self.resource.api_action.lower() == "createprocessingjob"
        return set() if known and self.resource.condition in (None, ResourceCondition.Sync) else None

    def _from_error(self, env: Any, ex: Exception) -> FailureEvent:
        if isinstance(ex, ClientError):
            code = ex.response["Error"]["Code"]
            name = "AmazonSageMakerException" if code == "ValidationException" else f"{code}Exception"
            return failure(self, env, f"SageMaker.{name}", ex.response["Error"]["Message"])
        return super()._from_error(env, ex)

    def _eval_service_task(
        self, env: Any, resource_runtime_part: Any, normalised_parameters: Any, state_credentials: Any
    ) -> None:
        # moto's own clients do not check parameters; a misspelt one must not be dropped silently.
        client = boto3.client("sagemaker", region_name=resource_runtime_part.region)
        answer = client.create_processing_job(**normalised_parameters)
        env.stack.append({"ProcessingJobArn": answer["ProcessingJobArn"]})

    def _build_sync_resolver(
        self, env: Any, resource_runtime_part: Any, normalised_parameters: Any, state_credentials: Any
    ) -> Waiting:
        env.stack.pop()
        client = boto3.client("sagemaker", region_name=resource_runtime_part.region)
        name = normalised_parameters["ProcessingJobName"]

        def look() -> dict[str, Any] | None:
            job = dict(client.describe_processing_job(ProcessingJobName=name))
            if job["ProcessingJobStatus"] in ("InProgress", "Stopping"):
                return None
            job.pop("ResponseMetadata")
            # This integration gives times in milliseconds, unlike those of the SDK.
            result: dict[str, Any] = plain(job, lambda moment: int(moment.timestamp() * 1000))
            if job["ProcessingJobStatus"] != "Completed":
                raise FailureEventException(failure(self, env, "States.TaskFailed", json.dumps(result)))
            return result

        return Waiting(look, lambda: client.stop_processing_job(ProcessingJobName=name))


@patch(
    state_task_factory,
    "state_task_service_for",
    Difference("workflows_wait_for_jobs", "workflows have no SageMaker tasks"),
)
def _state_task_service_for(original: Any, service_name: str) -> Any:
    return SageMakerTask() if service_name == "sagemaker" else original(service_name)
