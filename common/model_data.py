"""The ``model.tar.gz`` of a SageMaker model."""

import io
import tarfile
from pathlib import Path
from typing import Any

from common.errors import CommandError
from common.storage import read


def unpack(url: str, folder: Path) -> Path:
    """Unpack a ``model.tar.gz`` into a folder; return the path of its ONNX file.

    Raises
    ------
    CommandError
        There is no such archive, or no ``model.onnx`` in it.
    """
    with tarfile.open(fileobj=io.BytesIO(read(url))) as archive:
        archive.extractall(folder, filter="data")
    if not (folder / "model.onnx").is_file():
        raise CommandError(f"{url} has no model.onnx; it was not made by deploy or register")
    return folder / "model.onnx"


def model_data_url(sagemaker: Any, model_name: str) -> str:
    """Return the address of a model's ``model.tar.gz``, which may be named by its model package.

    Raises
    ------
    CommandError
        The model has none.
    """
    model = sagemaker.describe_model(ModelName=model_name)
    container = model.get("PrimaryContainer") or model["Containers"][0]
    if arn := container.get("ModelPackageName"):
        (container,) = sagemaker.describe_model_package(ModelPackageName=arn)["InferenceSpecification"]["Containers"]
    if "ModelDataUrl" not in container:
        raise CommandError(f"model {model_name} has no model.tar.gz; it was not made by deploy")
    return str(container["ModelDataUrl"])
