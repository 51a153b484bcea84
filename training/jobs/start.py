"""Start a training job with the SageMaker Python SDK, which training/requirements-sagemaker.txt installs."""

import hashlib
import json
import logging
import os
import re
import shutil
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import boto3

from common.errors import CommandError
from training.dataset.upload import upload
from training.provenance import commit, data_checksum

ROOT = Path(__file__).parents[2]
#: What the job needs of this repository.
PACKAGES = ("common", "serving", "training", "src/serialize")
#: The job's image has it, built for its processor.
PROVIDED = "torch"
# AWS's image (sagemaker.core.image_uris knows its address in every Region).
FRAMEWORK_VERSION, PYTHON_VERSION = "2.10", "py313"
#: Of the lines that train prints.
METRICS = {
    "loss": r"all images: epoch \d+/\d+ +loss ([0-9.]+)",
    **{
        f"{split}:{name}": rf"{split}: .*\b{name} ([0-9.]+)"
        for split in ("validation", "test")
        for name in ("coverage", "selective_accuracy", "ece", "other_passing")
    },
    "validation:accuracy": r"validation: .*, accuracy ([0-9.]+)",
    "test:accuracy": r"test: .*, accuracy ([0-9.]+)",
}


@dataclass(frozen=True)
class Job:
    """The settings of a training job.

    Attributes
    ----------
    name : str
        The job's name begins with it.
    bucket : str
        Everything is below ``training/`` in it.
    role_arn : str
        Role of the job.
    data : pathlib.Path
        A staged folder.
    hyperparameters : dict
        Options of ``python -m training train``, without hyphens before them.
    instance_type : str
        One instance of it.
    spot : bool
        Spare capacity: cheaper, may be interrupted, and then continues from its checkpoints.
    max_hours : float
        Longest training time; a spot job may wait as long again for capacity.
    image_uri : str or None
        None takes AWS's image of PyTorch.
    """

    name: str
    bucket: str
    role_arn: str
    data: Path
    hyperparameters: dict[str, str]
    instance_type: str = "ml.m5.2xlarge"
    spot: bool = False
    max_hours: float = 6.0
    image_uri: str | None = None


def copy_source(folder: Path) -> None:
    """Copy what the job runs: packages, entry point (``train.py``) and the requirements that its image lacks."""
    for package in PACKAGES:
        shutil.copytree(
            ROOT / package, folder / package, ignore=shutil.ignore_patterns("__pycache__", "*.onnx", "*.md", "*.yaml")
        )
    shutil.copy(ROOT / "training" / "jobs" / "entry.py", folder / "train.py")
    lines = (ROOT / "training" / "requirements.txt").read_text().splitlines()
    kept = [line for line in lines if re.split("[=<>!~; ]", line)[0] != PROVIDED]
    (folder / "requirements.txt").write_text("\n".join(kept) + "\n")


def start(job: Job, report: Callable[[str], None] = print) -> str:
    """Upload data and code, and start the job; return its name without waiting for it.

    Raises
    ------
    CommandError
        The SDK is not installed, or the data is not staged.
    """
    try:
        from sagemaker.core import image_uris
        from sagemaker.core.helper.session_helper import Session
        from sagemaker.core.training.configs import (
            CheckpointConfig,
            Compute,
            InputData,
            MetricDefinition,
            OutputDataConfig,
            SourceCode,
            StoppingCondition,
            Tag,
        )
        from sagemaker.train import ModelTrainer
    except ModuleNotFoundError as error:
        raise CommandError(
            f"train --on sagemaker needs {error.name}; use an environment with: "
            "pip install -r training/requirements-sagemaker.txt"
        ) from error
    session = boto3.Session()
    if not session.region_name:
        raise CommandError("train --on sagemaker needs a Region: set AWS_DEFAULT_REGION")
    checksum, code = data_checksum(job.data), commit()
    place = f"training/data/{checksum[:12]}"
    copied = upload(job.data, job.bucket, place)
    report(f"copied {copied.sent} objects to s3://{job.bucket}/{place}; {copied.unchanged} were unchanged")

    # preflight checks the role, and names what it lacks.
    os.environ.setdefault("SAGEMAKER_VALIDATE_ROLE", "false")
    logging.getLogger("sagemaker").setLevel(logging.WARNING)
    image = job.image_uri or image_uris.retrieve(
        "pytorch",
        session.region_name,
        version=FRAMEWORK_VERSION,
        py_version=PYTHON_VERSION,
        instance_type=job.instance_type,
        image_scope="training",
    )
    seconds = round(job.max_hours * 3600)
    # The same data, numbers and code continue where an earlier job was interrupted.
    begun = hashlib.sha256(json.dumps([checksum, job.hyperparameters, code], sort_keys=True).encode()).hexdigest()
    with tempfile.TemporaryDirectory() as folder:
        copy_source(Path(folder))
        trainer = ModelTrainer(
            sagemaker_session=Session(
                session,
                default_bucket=job.bucket,
                default_bucket_prefix="training/code",
                sagemaker_config={
                    "SchemaVersion": "1.0",
                    "SageMaker": {"PythonSDK": {"Modules": {"TelemetryOptOut": True}}},
                },
            ),
            role=job.role_arn,
            base_job_name=job.name,
            training_image=image,
            source_code=SourceCode(source_dir=folder, entry_script="train.py", requirements="requirements.txt"),
            compute=Compute(instance_type=job.instance_type, instance_count=1, enable_managed_spot_training=job.spot),
            stopping_condition=StoppingCondition(
                max_runtime_in_seconds=seconds, **({"max_wait_time_in_seconds": 2 * seconds} if job.spot else {})
            ),
            checkpoint_config=CheckpointConfig(s3_uri=f"s3://{job.bucket}/training/checkpoints/{begun[:12]}"),
            output_data_config=OutputDataConfig(s3_output_path=f"s3://{job.bucket}/training/output"),
            hyperparameters=job.hyperparameters,
            environment={"TRAINING_COMMIT": code or "unknown"},
            tags=[Tag(key="data-sha256", value=checksum), Tag(key="commit", value=code or "unknown")],
        ).with_metric_definitions([MetricDefinition(name=name, regex=regex) for name, regex in METRICS.items()])
        trainer.train(
            [InputData(channel_name="staged", data_source=f"s3://{job.bucket}/{place}")], wait=False, logs=False
        )
    name = str(_started(trainer).training_job_name)
    report(f"started training job {name} on {job.instance_type}{' spot' if job.spot else ''}")
    return name


def _started(trainer: Any) -> Any:
    """Return the job: the SDK keeps it in a private attribute, which its own examples read."""
    return trainer._latest_training_job
