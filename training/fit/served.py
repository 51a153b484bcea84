"""The model as the endpoint runs it: network and calibration in one graph, exported to ONNX."""

import json
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnx
import onnxruntime
import torch
from torch import nn

from training.fit.calibration import Calibration, probabilities
from training.fit.data import enlarge
from training.fit.network import Network, merge_background
from training.fit.recipe import Recipe

OPSET = 17
#: Of the exported file; the endpoint asks for the first only, and not every network has the last.
OUTPUTS = ["probabilities", "features", "map"]
_BATCH = 64


class ServedModel(nn.Module):
    """Maps stored pixels to one probability per label, the network's features, and its activation maps if it has them.

    If the network was trained with background, the probabilities sum to less than one: the rest is "neither".

    Parameters
    ----------
    network : Network
        Trained.
    labels : int
        How many outputs are labels.
    calibration : Calibration
        Fitted on images that the network was not trained on.
    mirrored : bool
        Whether the network also sees the mirror image; all outputs are then the means of both views.
    """

    def __init__(self, network: Network, labels: int, calibration: Calibration, mirrored: bool) -> None:
        super().__init__()
        self.network = network
        self.labels = labels
        self.calibration = calibration
        self.mirrored = mirrored

    def logits(self, images: torch.Tensor) -> torch.Tensor:
        """Map uint8 (batch, edge, edge, 3) to logits, the background classes merged."""
        return self._run(images)[0]

    def forward(self, images: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """Map uint8 (batch, edge, edge, 3) to probabilities (batch, labels), features (batch, width), and activation
        maps (batch, labels, rows, columns) if the network has them.
        """
        logits, *others = self._run(images)
        return probabilities(logits, self.labels, self.calibration), *others

    def _run(self, images: torch.Tensor) -> list[torch.Tensor]:
        x = images.permute(0, 3, 1, 2).float() / 255
        # One pass over a double batch keeps a single copy of the weights in the exported graph.
        activations = self.network.activations(torch.cat([x, x.flip(3)]) if self.mirrored else x)
        features = self.network.pool(activations)
        logits = merge_background(self.network.logits(features), self.labels)
        maps = self.network.activation_maps(activations, features)
        outputs = [logits, features] if maps is None else [logits, features, maps]
        return [_mean_of_views(each) for each in outputs] if self.mirrored else outputs


def _mean_of_views(values: torch.Tensor) -> torch.Tensor:
    plain, mirrored = values.chunk(2)
    return (plain + (mirrored.flip(3) if mirrored.ndim == 4 else mirrored)) / 2


def predict(model: Callable[[torch.Tensor], torch.Tensor], pixels: list[torch.Tensor], recipe: Recipe) -> torch.Tensor:
    """Run a model in eval mode on all images, in batches."""
    with torch.inference_mode():
        return torch.cat([model(batch) for batch in _batches(pixels, recipe)])


def predict_exported(model: Path, pixels: list[torch.Tensor], recipe: Recipe) -> npt.NDArray[np.float32]:
    """Return the probabilities (n, labels) of the exported file, run as the endpoint does."""
    session = onnxruntime.InferenceSession(str(model), providers=["CPUExecutionProvider"])
    batches = _batches(pixels, recipe)
    return np.concatenate([session.run(["probabilities"], {"images": batch.numpy()})[0] for batch in batches])


def _batches(pixels: list[torch.Tensor], recipe: Recipe) -> Iterator[torch.Tensor]:
    return (enlarge(pixels[i : i + _BATCH], recipe.input_size) for i in range(0, len(pixels), _BATCH))


def export(served: ServedModel, out: Path, labels: list[str], recipe: Recipe, seed: int) -> None:
    """Write the model as ONNX, with its labels, input size, recipe and seed as metadata."""
    out.parent.mkdir(parents=True, exist_ok=True)
    example = torch.zeros(2, recipe.input_size, recipe.input_size, 3, dtype=torch.uint8)
    with torch.inference_mode():
        outputs = OUTPUTS[: len(served(example))]
    with warnings.catch_warnings():
        # The newer exporter also needs onnxscript, for a network that the older one exports exactly.
        warnings.simplefilter("ignore", DeprecationWarning)
        # The number of outputs, which decides whether there is background, is the same for every batch.
        warnings.simplefilter("ignore", torch.jit.TracerWarning)
        # Sizes of padding are reversed in the graph; ONNX Runtime folds that when it loads the file.
        warnings.filterwarnings("ignore", "Constant folding")
        torch.onnx.export(
            served,
            (example,),
            str(out),
            dynamo=False,
            opset_version=OPSET,
            input_names=["images"],
            output_names=outputs,
            dynamic_axes={name: {0: "batch"} for name in ["images", *outputs]},
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
