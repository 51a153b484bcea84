"""Train a classifier on a staged folder and export it as one ONNX file. The only module that needs torch."""

import hashlib
import json
import random
import sys
import time
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from torch.nn import functional

from .augment import augment
from .container.preprocess import preprocess
from .errors import CommandError
from .metrics import THRESHOLD, summarise
from .muon import Muon
from .network import Network, ServedModel
from .progress import progress
from .recipe import Recipe
from .staging import NEITHER, Manifest, read_manifest

OPSET = 17
# The endpoint's container and this repository both carry the file.
MAX_MODEL_BYTES = 2_000_000


@dataclass(frozen=True)
class Images:
    """Pixels (n, edge, edge, 3) of uint8; targets (n,): a label's index, or len(labels) for "neither"."""

    pixels: torch.Tensor
    targets: torch.Tensor

    def take(self, which: torch.Tensor) -> "Images":
        """Pick images by their indices (m,)."""
        return Images(self.pixels[which], self.targets[which])


def train(data: Path, out: Path, recipe: Recipe, seed: int) -> dict[str, Any]:
    """Train, calibrate, export and report.

    Part of the training images, drawn evenly per label, is held back: the temperature is fitted on it, and
    its figures are what recipes are compared by. The test split is looked at once, at the end.

    Parameters
    ----------
    data : pathlib.Path
        A folder written by ``python -m training stage``.
    out : pathlib.Path
        The ONNX file; ``metrics.json`` is written beside it.
    recipe : Recipe
        Hyper-parameters.
    seed : int
        Of every random number.

    Returns
    -------
    dict
        What ``metrics.json`` holds.

    Raises
    ------
    CommandError
        The folder is not staged, an image is missing or has changed, or a label has fewer than two images.
    """
    started = time.monotonic()
    random.seed(seed)
    np.random.seed(seed)
    torch.manual_seed(seed)
    torch.use_deterministic_algorithms(True)
    generator = torch.Generator().manual_seed(seed)

    manifest = read_manifest(data)
    labels = manifest.labels
    whole = _load(data, manifest, "train", recipe.input_size)
    fit, held = _hold_back(whole, len(labels), recipe.validation_share, generator)
    outputs = len(labels) + int(bool((whole.targets == len(labels)).any()))
    print(f"{len(fit.targets)} images to train on, {len(held.targets)} held back; {outputs} outputs", flush=True)

    network = _fit(fit, outputs, len(labels), recipe, generator)
    temperature = _fit_temperature(ServedModel(network, len(labels), 1.0), held)
    served = ServedModel(network, len(labels), temperature).eval()

    test = _load(data, manifest, "test", recipe.input_size)
    _export(served, out, labels, recipe, seed)
    report = {
        "model_sha256": hashlib.sha256(out.read_bytes()).hexdigest(),
        "labels": labels,
        "recipe": recipe.name,
        "epochs": recipe.epochs,
        "seed": seed,
        "temperature": round(temperature, 4),
        "threshold": THRESHOLD,
        "validation": summarise(_predict(served, held.pixels), held.targets.numpy()),
        "test": summarise(_predict(served, test.pixels), test.targets.numpy()),
        "training_seconds": round(time.monotonic() - started),
    }
    (out.parent / "metrics.json").write_text(json.dumps(report, indent=2) + "\n")
    return report


def _load(data: Path, manifest: Manifest, split: str, edge: int) -> Images:
    index = {label: i for i, label in enumerate([*manifest.labels, NEITHER])}
    entries = [entry for entry in manifest.images if entry.split == split]
    pixels = np.empty((len(entries), edge, edge, 3), np.uint8)
    with progress(f"read {split} images", len(entries), "images") as advance:
        for i, entry in enumerate(entries):
            path = data / entry.path
            content = path.read_bytes() if path.is_file() else b""
            if hashlib.sha256(content).hexdigest() != entry.sha256:
                raise CommandError(f"{path} is missing or is not the staged image any more; stage again")
            pixels[i] = preprocess(content, edge)
            advance(1)
    targets = torch.tensor([index[entry.label] for entry in entries], dtype=torch.long)
    return Images(torch.from_numpy(pixels), targets)


def _hold_back(images: Images, labels: int, share: float, generator: torch.Generator) -> tuple[Images, Images]:
    """Split off a share of each label's images, and the same share of the others."""
    fit, held = [], []
    for target in range(labels + 1):
        members = (images.targets == target).nonzero().flatten()
        if target < labels and len(members) < 2:
            raise CommandError("every label needs at least two training images, one of them to validate on")
        order = members[torch.randperm(len(members), generator=generator)]
        size = max(1, round(share * len(members)))
        held.append(order[:size])
        fit.append(order[size:])
    return images.take(torch.cat(fit)), images.take(torch.cat(held))


def _epoch(images: Images, labels: int, recipe: Recipe, generator: torch.Generator) -> Iterator[Images]:
    """Yield the batches of one epoch: every image of a label, and a fresh draw of the others."""
    known = (images.targets < labels).nonzero().flatten()
    others = (images.targets == labels).nonzero().flatten()
    drawn = others[torch.randperm(len(others), generator=generator)[: recipe.neither_per_epoch]]
    both = torch.cat([known, drawn])
    order = both[torch.randperm(len(both), generator=generator)]
    for batch in order.split(recipe.batch_size):
        if len(batch) > 1:  # batch normalisation needs a variance
            yield images.take(batch)


def _fit(images: Images, outputs: int, labels: int, recipe: Recipe, generator: torch.Generator) -> Network:
    """Train a network from random weights and return the running average of its weights."""
    network = Network(outputs, recipe.widths).to(memory_format=torch.channels_last)
    some = torch.randperm(len(images.targets), generator=generator)[: recipe.whitening_images]
    network.set_whitening(images.pixels[some].permute(0, 3, 1, 2).float() / 255)
    averaged = torch.optim.swa_utils.AveragedModel(
        network,
        multi_avg_fn=torch.optim.swa_utils.get_ema_multi_avg_fn(recipe.averaging_decay),
        use_buffers=True,
    )
    filters = network.filters()
    taken = {id(parameter) for parameter in filters}
    rest = [p for p in network.parameters() if p.requires_grad and id(p) not in taken]
    optimisers: list[torch.optim.Optimizer] = [
        Muon(filters, recipe.muon_rate, recipe.muon_momentum),
        torch.optim.SGD(rest, recipe.sgd_rate, recipe.sgd_momentum, weight_decay=recipe.weight_decay, nesterov=True),
    ]
    steps = recipe.epochs * sum(1 for _ in _epoch(images, labels, recipe, torch.Generator()))
    schedules = [
        torch.optim.lr_scheduler.LambdaLR(optimiser, lambda step: _rate(step / max(steps, 1), recipe.warm_up_share))
        for optimiser in optimisers
    ]
    weights = torch.ones(outputs)
    weights[labels:] = recipe.neither_weight

    for epoch in range(recipe.epochs):
        network.train()
        begun, total, seen = time.monotonic(), 0.0, 0
        for batch in _epoch(images, labels, recipe, generator):
            x = augment(batch.pixels.permute(0, 3, 1, 2), recipe, generator)
            logits = network(x.contiguous(memory_format=torch.channels_last))
            loss = functional.cross_entropy(logits, batch.targets, weights, label_smoothing=recipe.label_smoothing)
            network.zero_grad()
            loss.backward()
            for optimiser, schedule in zip(optimisers, schedules, strict=True):
                optimiser.step()
                schedule.step()
            averaged.update_parameters(network)
            total += loss.item() * len(batch.targets)
            seen += len(batch.targets)
        seconds = time.monotonic() - begun
        print(
            f"epoch {epoch + 1}/{recipe.epochs}  loss {total / seen:.4f}  {seconds:.1f} s  "
            f"about {seconds * (recipe.epochs - epoch - 1):.0f} s left",
            flush=True,
        )
        if not np.isfinite(total):
            raise CommandError(f"the loss is not finite after epoch {epoch + 1}; lower the rates in recipe.py")
    result: Network = averaged.module
    return result.eval()


def _rate(share: float, warm_up: float) -> float:
    """Return the factor on the learning rate: up in a line, then down in a line to zero."""
    return share / warm_up if share < warm_up else (1 - share) / (1 - warm_up)


def _predict(served: ServedModel, pixels: torch.Tensor, logits: bool = False) -> Any:
    run = served.logits if logits else served
    # Batches of one size are what the endpoint never sees; the result does not depend on it in eval mode.
    with torch.inference_mode():
        parts = [run(batch) for batch in pixels.split(256)]
    result = torch.cat(parts) if parts else torch.zeros(0, served.labels)
    return result if logits else result.numpy()


def _fit_temperature(served: ServedModel, held: Images) -> float:
    """Find the temperature of least negative log-likelihood on the held-back images.

    Each class weighs the same, however many images of other things there are.
    """
    logits = _predict(served.eval(), held.pixels, logits=True)
    weights = 1.0 / torch.bincount(held.targets, minlength=logits.shape[1]).clamp(min=1)
    candidates = torch.logspace(-1.5, 1, 500)
    losses = torch.stack([functional.cross_entropy(logits / t, held.targets, weights) for t in candidates])
    return float(candidates[losses.argmin()])


def _export(served: ServedModel, out: Path, labels: list[str], recipe: Recipe, seed: int) -> None:
    out.parent.mkdir(parents=True, exist_ok=True)
    example = torch.zeros(2, recipe.input_size, recipe.input_size, 3, dtype=torch.uint8)
    with warnings.catch_warnings():
        # The newer exporter needs onnxscript beside onnx, for a network that the older one exports exactly.
        warnings.simplefilter("ignore", DeprecationWarning)
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
    if out.stat().st_size > MAX_MODEL_BYTES:
        print(f"warning: {out} has {out.stat().st_size:,} bytes, over {MAX_MODEL_BYTES:,}", file=sys.stderr)
