"""Show where the model looked in a photo, with the model that made the prediction."""

import hashlib
import tempfile
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import boto3
from botocore.exceptions import ClientError

from common.command import printable
from common.errors import CommandError
from common.model_data import model_data_url, unpack
from operations.trace import states_and_event
from serving.explanation import explain
from serving.model import Model

if TYPE_CHECKING:
    from mypy_boto3_stepfunctions.type_defs import DescribeExecutionOutputTypeDef

#: Folder of the pictures.
PICTURES = Path("build/heat-maps")


def write_heat_map(photo: Path, described: "DescribeExecutionOutputTypeDef", local: Path) -> str:
    """Write a photo with a heat map of its most probable label over it.

    Parameters
    ----------
    photo : pathlib.Path
        The image file that was classified.
    described : dict
        Step Functions' description of the execution that classified it.
    local : pathlib.Path
        A model file. It is used if it made the prediction, otherwise the one that the endpoint serves.

    Returns
    -------
    str
        A line that names the picture's file and the model, or the reason why there is no picture.
    """
    _, event = states_and_event(described)
    if "label" not in event:
        return "no heat map: there is no prediction"
    made_by = event.get("model", "")
    try:
        model, place = _find_model(made_by, event["endpoint"], event["variant"], local)
    except (CommandError, ClientError) as error:
        return f"no heat map: {error}"
    if not model.has_map:
        return f"no heat map: model {made_by} has no output for it ({place})"
    content = photo.read_bytes()
    PICTURES.mkdir(parents=True, exist_ok=True)
    path = PICTURES / f"{printable(photo.stem)}-{hashlib.sha256(content).hexdigest()[:8]}.png"
    explain(model, content, event["label"]).save(path, "PNG")
    return f"heat map of {event['label']}: {path} (model {made_by}, {place})"


@cache
def _find_model(wanted: str, endpoint: str, variant: str, local: Path) -> tuple[Model, str]:
    """Return the model with this hash, and where it was found: a local file, or the endpoint's archive."""
    if local.is_file() and (model := Model(local)).sha256.startswith(wanted or "-"):
        here = Path.cwd()
        return model, str(local.relative_to(here) if local.is_relative_to(here) else local)
    sagemaker: Any = boto3.client("sagemaker")
    config = sagemaker.describe_endpoint(EndpointName=endpoint)["EndpointConfigName"]
    variants = sagemaker.describe_endpoint_config(EndpointConfigName=config)["ProductionVariants"]
    names = [each["ModelName"] for each in variants if each["VariantName"] == variant]
    if not wanted or not names:
        raise CommandError(f"endpoint {endpoint} does not say which model made the prediction")
    url = model_data_url(sagemaker, names[0])
    with tempfile.TemporaryDirectory() as folder:
        model = Model(unpack(url, Path(folder)))
    if not model.sha256.startswith(wanted):
        raise CommandError(f"endpoint {endpoint} no longer serves model {wanted}, which made the prediction")
    return model, url
