"""Train SageMaker's built-in image classification on a staged folder, to compare it with our own, and fetch its model.

https://docs.aws.amazon.com/sagemaker/latest/dg/image-classification.html (the algorithm of MXNet)
"""

import datetime
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import boto3
from botocore.exceptions import ClientError

from common.command import explain_aws
from common.errors import CommandError
from common.labels import NEITHER
from common.manifest import MANIFEST, Manifest, read_manifest
from common.storage import read, write
from training.dataset.upload import upload
from training.jobs.start import Job
from training.provenance import commit, data_checksum

#: The last part of its image's address, in an account of AWS that differs by Region.
ALGORITHM = "image-classification"
IMAGE = "application/x-image"
#: It fails for images that are smaller than its input; ``resize`` enlarges the shorter edge.
EDGE, RESIZED = 224, 256
EPOCHS = 15
# Its defaults are 152 layers from random weights, with a learning rate of 0.1.
# https://docs.aws.amazon.com/sagemaker/latest/dg/IC-Hyperparameter.html
HYPERPARAMETERS = {
    "use_pretrained_model": "1",
    "num_layers": "50",
    "image_shape": f"3,{EDGE},{EDGE}",
    "resize": str(RESIZED),
    "augmentation_type": "crop_color_transform",
    "learning_rate": "0.001",
    "optimizer": "sgd",
    "momentum": "0.9",
}
_BATCH = 32
_GPU = re.compile(r"ml\.[gp]\d")
_VOLUME_GB = 50


def listing(manifest: Manifest, split: str) -> str:
    """Return the ``.lst`` file of a split: number, class and path below the split's folder, separated by tabs.

    The classes are the labels in their order, and "neither" as the last.
    """
    classes = [*manifest.labels, NEITHER]
    return "".join(
        f"{number}\t{classes.index(entry.label)}\t{entry.path.removeprefix(f'{split}/')}\n"
        for number, entry in enumerate(manifest.images)
        if entry.split == split
    )


def hyperparameters(manifest: Manifest, epochs: int | None) -> dict[str, str]:
    """Return the hyper-parameters for the images of a staged folder."""
    images = sum(entry.split == "train" for entry in manifest.images)
    count = epochs or EPOCHS
    return {
        **HYPERPARAMETERS,
        "num_classes": str(len(manifest.labels) + 1),
        "num_training_samples": str(images),
        "mini_batch_size": str(min(_BATCH, images)),
        "epochs": str(count),
        "lr_scheduler_step": str(max(1, count * 2 // 3)),
        "lr_scheduler_factor": "0.1",
        # Without it, the epoch that is best on the validation images would be kept; those are the test images here.
        "checkpoint_frequency": str(count),
    }


def start(job: Job, epochs: int | None, report: Callable[[str], None] = print) -> str:
    """Upload data and lists, and start the job; return its name without waiting for it.

    The validation channel has the test images: they are measured after each epoch, and choose nothing.

    Raises
    ------
    CommandError
        The data is not staged, or has no test images or no background; the instance type has no GPU; or the SageMaker
        Python SDK, which knows the image's address, is not installed, and no image is given.
    """
    if not _GPU.match(job.instance_type):
        raise CommandError(
            f"--instance-type {job.instance_type}: the built-in algorithm trains on GPUs only (ml.g4dn.xlarge)"
        )
    manifest = read_manifest(job.data)
    for split in ("train", "test"):
        present = {entry.label for entry in manifest.images if entry.split == split}
        if missing := [name for name in [*manifest.labels, NEITHER] if name not in present]:
            raise CommandError(
                f"{job.data} has no {split} images of {', '.join(missing)}, which the algorithm needs; stage some"
            )
    sagemaker: Any = boto3.client("sagemaker")
    image = job.image_uri or _image(sagemaker.meta.region_name)
    checksum, code = data_checksum(job.data), commit() or "unknown"
    place = f"training/data/{checksum[:12]}"
    copied = upload(job.data, job.bucket, place)
    report(f"copied {copied.sent} objects to s3://{job.bucket}/{place}; {copied.unchanged} were unchanged")
    base, lists = f"s3://{job.bucket}/{place}", f"s3://{job.bucket}/training/lists/{checksum[:12]}"
    for split in ("train", "test"):
        write(f"{lists}/{split}/{split}.lst", listing(manifest, split).encode(), "text/plain")

    seconds = round(job.max_hours * 3600)
    now = datetime.datetime.now(datetime.UTC)
    name = f"{job.name}-built-in-{now:%Y%m%d%H%M%S}"
    # With the slash: "train" would also be the beginning of other names.
    channels = {
        "train": f"{base}/train/",
        "validation": f"{base}/test/",
        "train_lst": f"{lists}/train/",
        "validation_lst": f"{lists}/test/",
    }
    sagemaker.create_training_job(
        TrainingJobName=name,
        RoleArn=job.role_arn,
        AlgorithmSpecification={"TrainingImage": image, "TrainingInputMode": "File"},
        HyperParameters=hyperparameters(manifest, epochs),
        InputDataConfig=[
            {
                "ChannelName": channel,
                "ContentType": IMAGE,
                "InputMode": "File",
                "DataSource": {
                    "S3DataSource": {
                        "S3DataType": "S3Prefix",
                        "S3Uri": address,
                        "S3DataDistributionType": "FullyReplicated",
                    }
                },
            }
            for channel, address in channels.items()
        ],
        OutputDataConfig={"S3OutputPath": f"s3://{job.bucket}/training/output"},
        ResourceConfig={"InstanceType": job.instance_type, "InstanceCount": 1, "VolumeSizeInGB": _VOLUME_GB},
        StoppingCondition={
            "MaxRuntimeInSeconds": seconds,
            **({"MaxWaitTimeInSeconds": 2 * seconds} if job.spot else {}),
        },
        EnableManagedSpotTraining=job.spot,
        # AWS documents that this algorithm continues from its own checkpoints.
        **({"CheckpointConfig": {"S3Uri": f"s3://{job.bucket}/training/checkpoints/{name}"}} if job.spot else {}),
        Tags=[{"Key": "data-sha256", "Value": checksum}, {"Key": "commit", "Value": code}],
    )
    report(f"started training job {name} on {job.instance_type}{' spot' if job.spot else ''}")
    return name


def _image(region: str) -> str:
    try:
        from sagemaker.core import image_uris
    except ModuleNotFoundError as error:
        raise CommandError(
            "train --algorithm built-in needs the SageMaker Python SDK, which knows the algorithm's image "
            "(pip install -r training/requirements-sagemaker.txt), or its address as --training-image"
        ) from error
    return str(image_uris.retrieve(ALGORITHM, region, version="1"))


def is_built_in(described: dict[str, Any]) -> bool:
    """Return whether a training job's description is one of the built-in algorithm."""
    return is_algorithm(str(described["AlgorithmSpecification"].get("TrainingImage", "")))


def is_algorithm(image: str) -> bool:
    """Return whether an image is that of the built-in algorithm."""
    return re.search(rf"/{ALGORITHM}(?=[:@]|$)", image) is not None


def describe_result(described: dict[str, Any]) -> str:
    """Return what to do with the model of a finished job."""
    name, address = described["TrainingJobName"], described["ModelArtifacts"]["S3ModelArtifacts"]
    return f"model {address}; put it behind an endpoint with: python -m training deploy --training-job {name}"


def fetch(job: str, folder: Path, report: Callable[[str], None] = print) -> tuple[Path, str]:
    """Write the ``model.tar.gz`` of a finished job of the built-in algorithm into a folder.

    Returns
    -------
    tuple
        The file, and the URI of the algorithm's image, which also serves the model.

    Raises
    ------
    CommandError
        There is no such job, it is not one of the built-in algorithm, or it has not completed.
    """
    sagemaker: Any = boto3.client("sagemaker")
    try:
        described = dict(sagemaker.describe_training_job(TrainingJobName=job))
    except ClientError as error:
        raise CommandError(f"training job {job}: AWS: {explain_aws(error)}") from error
    if not is_built_in(described):
        raise CommandError(
            f"training job {job} is not one of the built-in algorithm; fetch its model with: "
            f"python -m training train --on sagemaker --job {job}"
        )
    if described["TrainingJobStatus"] != "Completed":
        raise CommandError(f"training job {job} is {described['TrainingJobStatus']}, not Completed")
    channels = {
        each["ChannelName"]: each["DataSource"]["S3DataSource"]["S3Uri"] for each in described["InputDataConfig"]
    }
    (folder / MANIFEST).write_bytes(read(f"{channels['train'].removesuffix('train/')}{MANIFEST}"))
    classes = ",".join([*read_manifest(folder).labels, NEITHER])
    path = folder / "model.tar.gz"
    path.write_bytes(read(described["ModelArtifacts"]["S3ModelArtifacts"]))
    report(f"{job} has the classes {classes}; the stack needs the parameter Labels={classes}")
    return path, str(described["AlgorithmSpecification"]["TrainingImage"])
