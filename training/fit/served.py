"""The model as the endpoint runs it: network and calibration in one graph, exported to ONNX."""

import json
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnx
import onnxruntime
import torch
from torch import nn

from training.fit.calibration import Calibration, probabilities
from training.fit.network import Network, merge_background
from training.fit.recipe import Recipe

OPSET = 17
_BATCH = 256


class ServedModel(nn.Module):
    """Maps stored pixels to one probability per label.

    The network sees the image and its mirror image. If it was trained with background, the probabilities sum to less
    than one: the rest is "neither".

    Parameters
    ----------
    network : Network
        Trained.
    labels : int
        How many outputs are labels.
    calibration : Calibration
        Fitted on images that the network was not trained on.
    """

    def __init__(self, network: Network, labels: int, calibration: Calibration) -> None:
        super().__init__()
        self.network = network
        self.labels = labels
        self.calibration = calibration

    def logits(self, images: torch.Tensor) -> torch.Tensor:
        """Map uint8 (batch, edge, edge, 3) to the mean logits of both views, the background classes merged."""
        x = images.permute(0, 3, 1, 2).float() / 255
        # One pass over a double batch keeps a single copy of the weights in the exported graph.
        plain, mirrored = merge_background(self.network(torch.cat([x, x.flip(3)])), self.labels).chunk(2)
        return (plain + mirrored) / 2

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Map uint8 (batch, edge, edge, 3) to probabilities (batch, labels)."""
        return probabilities(self.logits(images), self.labels, self.calibration)


def predict(model: Callable[[torch.Tensor], torch.Tensor], pixels: torch.Tensor) -> torch.Tensor:
    """Run a model in eval mode on all images (n, edge, edge, 3), in batches."""
    with torch.inference_mode():
        return torch.cat([model(batch) for batch in pixels.split(_BATCH)])


def predict_exported(model: Path, pixels: torch.Tensor) -> npt.NDArray[np.float32]:
    """Return the probabilities (n, labels) of the exported file, run as the endpoint does."""
    session = onnxruntime.InferenceSession(str(model), providers=["CPUExecutionProvider"])
    return np.concatenate([session.run(None, {"images": batch.numpy()})[0] for batch in pixels.split(_BATCH)])


def export(served: ServedModel, out: Path, labels: list[str], recipe: Recipe, seed: int) -> None:
    """Write the model as ONNX, with its labels, input size, recipe and seed as metadata."""
    out.parent.mkdir(parents=True, exist_ok=True)
    example = torch.zeros(2, recipe.input_size, recipe.input_size, 3, dtype=torch.uint8)
    with warnings.catch_warnings():
        # The newer exporter also needs onnxscript, for a network that the older one exports exactly.
        warnings.simplefilter("ignore", DeprecationWarning)
        # The number of outputs, which decides whether there is background, is the same for every batch.
        warnings.simplefilter("ignore", torch.jit.TracerWarning)
        torch.onnx.export(
            served,
            (example,),
            str(out),
            dynamo=False,
            opset_version=OPSET,
            input_names=["images"],
            output_names=["probabilities"],
            dynamic_axes={"images": {0: "batch"}, "probabilities": {0: "batch"}},
        )
    model = onnx.load(str(out))
    metadata = {
        "labels": json.dumps(labels),
        "input_size": str(recipe.input_size),
        "recipe": recipe.name,
        "epochs": str(recipe.epochs),
        "seed": str(seed),
        "version": "1",
    }
    onnx.helper.set_model_props(model, metadata)
    onnx.checker.check_model(model, full_check=True)
    onnx.save(model, str(out))
