"""Train a classifier on a staged folder and export it as one ONNX file. The only module that needs torch."""

import hashlib
import json
import math
import multiprocessing
import os
import random
import re
import signal
import sys
import tempfile
import threading
import time
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import onnxruntime
import torch
from torch.nn import functional

from common.errors import CommandError
from common.folders import JPEG_SUFFIXES
from common.labels import NEITHER
from common.manifest import Entry, Manifest, read_manifest
from common.progress import progress
from serving.preprocess import preprocess
from training.evaluation.advice import advise
from training.evaluation.metrics import THRESHOLD, calibration_error_by_chance, risk_coverage, summarise
from training.fit.augment import augment, compress, textures
from training.fit.muon import Muon
from training.fit.network import Calibration, Network, ServedModel, collapse, lead, probabilities
from training.fit.quantise import quantise
from training.fit.recipe import Recipe

OPSET = 17
# The endpoint's container and this repository both carry the file.
MAX_MODEL_BYTES = 2_000_000
# Of labels and of other things each; they set the ranges of 8-bit activations.
RANGE_IMAGES = 256
# Points of the risk-coverage curve in the report; more are not seen in a plot.
CURVE_POINTS = 50


@dataclass(frozen=True)
class Images:
    """Pixels (n, edge, edge, 3) of uint8 and what is known about them.

    Targets (n,) are a label's index, or len(labels) for "neither"; kinds (n,) tell images of other things apart,
    from 0; compressed (n,) tells whether the pixels came out of a JPEG file as they are.
    """

    pixels: torch.Tensor
    targets: torch.Tensor
    kinds: torch.Tensor
    compressed: torch.Tensor

    def take(self, which: torch.Tensor) -> "Images":
        """Pick images by their indices (m,)."""
        return Images(self.pixels[which], self.targets[which], self.kinds[which], self.compressed[which])


def train(data: Path, out: Path, recipe: Recipe, seed: int, wanted: float, certainty: float) -> dict[str, Any]:
    """Train, calibrate, export and report.

    The network is trained on all training images. So that its calibration and its figures come from images that a
    network has not seen, the training images are dealt into `recipe.folds` parts, and for each part another
    network is trained without it. What these say about the parts left out is pooled: the calibration is fitted on
    it, and recipes are compared by its figures, for which the calibration is fitted without the part in question
    too. The test split is looked at once, at the end.

    As many networks are trained at a time as torch has threads, one thread each; the result does not depend on it.

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
    wanted, certainty : float
        For the advised threshold, as `training.evaluation.advice.advise`.

    Returns
    -------
    dict
        What ``metrics.json`` holds.

    Raises
    ------
    CommandError
        The folder is not staged, an image is missing or has changed, a label has fewer than two images, or a
        process that trained was ended from outside.
    """
    started = time.monotonic()
    processes = torch.get_num_threads()
    # Sums would depend on how many threads share them.
    torch.set_num_threads(1)
    manifest = read_manifest(data)
    labels = manifest.labels
    images = _load(data, manifest, "train", recipe)
    generator = torch.Generator().manual_seed(seed)
    part = _deal(images.targets, len(labels), recipe.folds, generator)
    network, logits = _fit_all(images, part, len(labels), recipe, seed, processes)
    calibration = _calibrate(logits, images.targets, len(labels), recipe.other_prior)
    served = ServedModel(network, len(labels), calibration).eval()

    _export(served, out, labels, recipe, seed)
    quantise(out, _sample(images, len(labels), generator).pixels.numpy())
    if out.stat().st_size > MAX_MODEL_BYTES:
        print(f"warning: {out} has {out.stat().st_size:,} bytes, over {MAX_MODEL_BYTES:,}", file=sys.stderr)
    test = _load(data, manifest, "test", recipe)
    before, after = _ask(served, test.pixels).numpy(), _ask_file(out, test.pixels)
    unseen = _cross_fitted(logits, images.targets, part, len(labels), recipe.other_prior).numpy()
    known = images.targets.numpy() < len(labels)
    confidence, answer = unseen[known].max(axis=1), unseen[known].argmax(axis=1)
    correct = answer == images.targets.numpy()[known]
    curve = risk_coverage(confidence, correct)
    report = {
        "model_sha256": hashlib.sha256(out.read_bytes()).hexdigest(),
        "labels": labels,
        "recipe": recipe.name,
        "epochs": recipe.epochs,
        "folds": recipe.folds,
        "seed": seed,
        "calibration": {name: round(value, 4) for name, value in asdict(calibration).items()},
        "threshold": THRESHOLD,
        "validation": summarise(unseen, images.targets.numpy())
        | {"ece_by_chance": round(calibration_error_by_chance(confidence), 4)},
        "wanted": wanted,
        "confidence": certainty,
        "advice": asdict(advise(confidence, correct, wanted, certainty)),
        # Threshold, coverage and selective accuracy, from the strictest threshold to the one that all pass.
        "risk_coverage": [
            [round(value, 4) for value in point] for point in curve[:: -math.ceil(len(curve) / CURVE_POINTS)][::-1]
        ],
        "test": summarise(after, test.targets.numpy()),
        # What 8-bit arithmetic changes, over the test images.
        "decisions_changed": round(float((_decisions(before) != _decisions(after)).mean()), 4),
        "training_seconds": round(time.monotonic() - started),
    }
    (out.parent / "metrics.json").write_text(json.dumps(report, indent=2) + "\n")
    return report


def _load(data: Path, manifest: Manifest, split: str, recipe: Recipe) -> Images:
    edge = recipe.input_size
    index = {label: i for i, label in enumerate([*manifest.labels, NEITHER])}
    entries = [entry for entry in manifest.images if entry.split == split]
    kinds = _kinds(entries, recipe)
    pixels = np.empty((len(entries), edge, edge, 3), np.uint8)
    compressed = torch.zeros(len(entries), dtype=torch.bool)
    with progress(f"read {split} images", len(entries), "images") as advance:
        for i, entry in enumerate(entries):
            path = data / entry.path
            content = path.read_bytes() if path.is_file() else b""
            if hashlib.sha256(content).hexdigest() != entry.sha256:
                raise CommandError(f"{path} is missing or is not the staged image any more; stage again")
            pixels[i] = preprocess(content, edge)
            # Shrinking averages the marks of compression away.
            width = int.from_bytes(content[16:20], "big")  # PNG's header, IHDR
            compressed[i] = width <= edge and entry.source.lower().endswith(JPEG_SUFFIXES)
            advance(1)
    targets = torch.tensor([index[entry.label] for entry in entries], dtype=torch.long)
    return Images(torch.from_numpy(pixels), targets, kinds, compressed)


def _kinds(entries: list[Entry], recipe: Recipe) -> torch.Tensor:
    """Number the classes that images of other things had in their source; 0 is for those that are few.

    `training.dataset.staging` names such an image after its class and its name there.
    """
    names = [
        re.sub(r"(_train|_test)?_[^_]*$", "", Path(entry.path).stem) if entry.label == NEITHER else ""
        for entry in entries
    ]
    counts = Counter(name for name in names if name)
    common = [name for name, count in counts.most_common(recipe.most_kinds) if count >= recipe.least_of_a_kind]
    few = int(len(common) < len(counts))
    numbers = {name: few + i for i, name in enumerate(sorted(common))}
    return torch.tensor([numbers.get(name, 0) for name in names], dtype=torch.long)


def _deal(targets: torch.Tensor, labels: int, folds: int, generator: torch.Generator) -> torch.Tensor:
    """Deal the images of each label, and the others, evenly into parts; return each image's part (n,)."""
    part = torch.empty_like(targets)
    for target in range(labels + 1):
        members = (targets == target).nonzero().flatten()
        if target < labels and len(members) < 2:
            raise CommandError("every label needs at least two training images, one of them to validate on")
        part[members[torch.randperm(len(members), generator=generator)]] = torch.arange(len(members)) % folds
    return part


def _fit_all(
    images: Images, part: torch.Tensor, labels: int, recipe: Recipe, seed: int, processes: int
) -> tuple[Network, torch.Tensor]:
    """Train a network on all images, and one without each part.

    Returns
    -------
    tuple
        The first network, and what the others say about the images that they were not trained on: logits
        (n, labels + 1), or (n, labels) where there are no other things.
    """
    others = images.kinds[images.targets == labels]
    outputs = labels + (int(others.max()) + 1 if len(others) else 0)
    processes = min(processes, recipe.folds + 1)
    print(
        f"{len(part)} images, {outputs} outputs; {recipe.folds + 1} networks, one of all images and one without each "
        f"of {recipe.folds} parts, {processes} at a time",
        flush=True,
    )
    with tempfile.TemporaryDirectory() as folder:
        # A file, because a pipe to a process that was ended blocks, and /dev/shm is small in containers.
        shared = Path(folder) / "images.npz"
        np.savez(shared, part=part, **{field.name: getattr(images, field.name) for field in fields(images)})
        # The longest first.
        tasks = [(shared, left_out, outputs, labels, recipe, seed) for left_out in (-1, *range(recipe.folds))]
        results = [_fit_one(*task) for task in tasks] if processes == 1 else _in_processes(processes, tasks)
    network = Network(outputs, recipe.widths)
    network.load_state_dict({name: torch.from_numpy(values) for name, values in results[0][0].items()})
    logits = torch.empty(len(part), min(outputs, labels + 1))
    for left_out, (_, unseen) in enumerate(results[1:]):
        logits[part == left_out] = torch.from_numpy(unseen)
    return network.eval(), logits


def _in_processes(processes: int, tasks: list[tuple[Any, ...]]) -> list[Any]:
    with ProcessPoolExecutor(processes, multiprocessing.get_context("spawn"), _begin_process) as pool:
        try:
            futures = [pool.submit(_fit_one, *task) for task in tasks]
            for future in as_completed(futures):
                future.result()
        except BrokenProcessPool as error:
            raise CommandError(
                "a process that trained was ended, perhaps for want of memory; OMP_NUM_THREADS=1 trains in one"
            ) from error
        finally:
            # After an error or an interruption nobody waits for the others.
            for process in multiprocessing.active_children():
                process.terminate()
    return [future.result() for future in futures]


def _begin_process() -> None:
    torch.set_num_threads(1)
    # An interruption is for the parent to handle, and without it there is nobody to train for.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)


def _fit_one(
    shared: Path, left_out: int, outputs: int, labels: int, recipe: Recipe, seed: int
) -> tuple[dict[str, npt.NDArray[Any]], npt.NDArray[np.floating]]:
    """Train without one part (-1 is none); return the weights, and the logits of the images left out."""
    random.seed(seed)
    np.random.seed(seed)
    torch.manual_seed(seed)
    torch.use_deterministic_algorithms(True)
    # Every tensor is written before it is read; filling them all first takes a twentieth of the time.
    torch.utils.deterministic.fill_uninitialized_memory = False
    arrays = dict(np.load(shared))
    part = arrays.pop("part")
    images = Images(**{name: torch.from_numpy(values) for name, values in arrays.items()})
    name = "all images" if left_out < 0 else f"without part {left_out + 1} of {recipe.folds}"
    within = torch.from_numpy(part != left_out).nonzero().flatten()
    network = _fit(name, images.take(within), outputs, labels, recipe, torch.Generator().manual_seed(seed))
    unseen = images.pixels[torch.from_numpy(part == left_out)]
    logits = _ask(ServedModel(network, labels, Calibration()).logits, unseen)
    return {key: values.numpy() for key, values in network.state_dict().items()}, logits.numpy()


def _epoch(images: Images, labels: int, recipe: Recipe, generator: torch.Generator) -> Iterator[torch.Tensor]:
    """Yield the indices of one epoch's batches: every image of a label, each batch followed by drawn others."""
    known = (images.targets < labels).nonzero().flatten()
    others = (images.targets == labels).nonzero().flatten()
    batches = max(1, round(len(known) / recipe.batch_size))
    drawn = others[torch.randperm(len(others), generator=generator)[: batches * recipe.others_per_batch]]
    order = known[torch.randperm(len(known), generator=generator)]
    for batch in zip(order.tensor_split(batches), drawn.tensor_split(batches), strict=True):
        yield torch.cat(batch)


def _examples(
    batch: Images, labels: int, recipe: Recipe, generator: torch.Generator
) -> tuple[torch.Tensor, torch.Tensor]:
    """Make a batch's images for one step (n, 3, edge, edge), and tell for each (n,) if it still shows its kind."""
    x = compress(batch.pixels, batch.compressed, recipe, generator)
    others = (batch.targets == labels).nonzero().flatten()
    scenery = x[others] if len(others) else x
    replaced = others[: recipe.textures_per_batch]
    shows = torch.ones(len(x), dtype=torch.bool)
    shows[replaced] = False
    x = x.index_copy(0, replaced, textures(x[replaced], generator))
    return augment(x, scenery, recipe, generator), shows


def _loss(logits: torch.Tensor, batch: Images, shows: torch.Tensor, labels: int, recipe: Recipe) -> torch.Tensor:
    """Cross-entropy over the labels and all other things together, and over the kinds of other things."""
    other = batch.targets == labels
    weights = torch.where(other, recipe.other_weight, 1.0)
    merged = collapse(logits, labels)
    each = functional.cross_entropy(merged, batch.targets, label_smoothing=recipe.label_smoothing, reduction="none")
    total = (each * weights).sum()
    if other.any():
        kinds = functional.cross_entropy(logits[:, labels:], batch.kinds.where(other, 0), reduction="none")
        total = total + recipe.kind_weight * (kinds * weights)[other & shows].sum()
    return total / weights.sum()


def _fit(name: str, images: Images, outputs: int, labels: int, recipe: Recipe, generator: torch.Generator) -> Network:
    """Train a network from random weights and return the running average of its weights."""
    network = Network(outputs, recipe.widths).to(memory_format=torch.channels_last)
    some = torch.cat(
        [
            members[torch.randperm(len(members), generator=generator)[: recipe.whitening_images // 2]]
            for members in (
                (images.targets < labels).nonzero().flatten(),
                (images.targets == labels).nonzero().flatten(),
            )
        ]
    )
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
    # Where the processor multiplies bfloat16 matrices itself, it is at least twice as fast.
    fast = torch.cpu._is_amx_tile_supported()

    begun = time.monotonic()
    for epoch in range(recipe.epochs):
        network.train()
        total, seen = 0.0, 0
        for which in _epoch(images, labels, recipe, generator):
            batch = images.take(which)
            x, shows = _examples(batch, labels, recipe, generator)
            with torch.autocast("cpu", torch.bfloat16, enabled=fast):
                logits = network(x.contiguous(memory_format=torch.channels_last))
            loss = _loss(logits.float(), batch, shows, labels, recipe)
            network.zero_grad()
            loss.backward()
            for optimiser, schedule in zip(optimisers, schedules, strict=True):
                optimiser.step()
                schedule.step()
            averaged.update_parameters(network)
            total += loss.item() * len(which)
            seen += len(which)
        if not np.isfinite(total):
            raise CommandError(f"the loss is not finite after epoch {epoch + 1}; lower the rates in recipe.py")
        if (epoch + 1) % 25 == 0 or epoch + 1 == recipe.epochs:
            seconds = time.monotonic() - begun
            print(
                f"{name}: epoch {epoch + 1}/{recipe.epochs}  loss {total / seen:.4f}  {seconds:.0f} s  "
                f"about {seconds / (epoch + 1) * (recipe.epochs - epoch - 1):.0f} s left",
                flush=True,
            )
    result: Network = averaged.module
    return result.eval()


def _rate(share: float, warm_up: float) -> float:
    """Return the factor on the learning rate: up in a line, then down in a line to zero."""
    return share / warm_up if share < warm_up else (1 - share) / (1 - warm_up)


def _ask(model: Callable[[torch.Tensor], torch.Tensor], pixels: torch.Tensor) -> torch.Tensor:
    # Batches of one size are what the endpoint never sees; the result does not depend on it in eval mode.
    with torch.inference_mode():
        return torch.cat([model(batch) for batch in pixels.split(256)])


def _calibrate(logits: torch.Tensor, targets: torch.Tensor, labels: int, other_prior: float) -> Calibration:
    """Fit the calibration of least negative log-likelihood.

    Parameters
    ----------
    logits : torch.Tensor
        Shape (n, labels + 1), or (n, labels) where there are no other things.
    targets : torch.Tensor
        Shape (n,), at least one of them a label.
    labels : int
        How many outputs are labels.
    other_prior : float
        What all images of other things together weigh, beside 1 for all images of labels.

    Returns
    -------
    Calibration
        For `training.fit.network.probabilities`.
    """
    known = targets < labels
    z, answers = logits[known][:, :labels], targets[known]
    candidates = torch.logspace(-1.5, 1, 500)
    losses = torch.stack([functional.cross_entropy(z / t, answers) for t in candidates])
    temperature = float(candidates[losses.argmin()])
    if known.all() or logits.shape[1] == labels:
        return Calibration(temperature)
    near, far = (lead(logits[which], labels).double() for which in (known, ~known))
    # Platt's targets, a little short of 0 and 1, keep the fit finite where the two kinds do not overlap.
    yes, no = (len(near) + 1) / (len(near) + 2), 1 / (len(far) + 2)
    fitted = torch.tensor([1.0, 0.0], dtype=torch.double, requires_grad=True)
    optimiser = torch.optim.LBFGS([fitted], max_iter=200, line_search_fn="strong_wolfe")

    def loss() -> torch.Tensor:
        optimiser.zero_grad()
        near_logits, far_logits = (leads * fitted[0] + fitted[1] for leads in (near, far))
        value = functional.binary_cross_entropy_with_logits(near_logits, torch.full_like(near, yes))
        value = value + other_prior * functional.binary_cross_entropy_with_logits(far_logits, torch.full_like(far, no))
        value.backward()
        return value

    optimiser.step(loss)
    return Calibration(temperature, *fitted.tolist())


def _cross_fitted(
    logits: torch.Tensor, targets: torch.Tensor, part: torch.Tensor, labels: int, other_prior: float
) -> torch.Tensor:
    """Return probabilities (n, labels) by calibrations that were fitted without the image's part (n,)."""
    result = torch.empty(len(targets), labels)
    for left_out in part.unique():
        inside = part != left_out
        calibration = _calibrate(logits[inside], targets[inside], labels, other_prior)
        result[~inside] = probabilities(logits[~inside], labels, calibration)
    return result


def _export(served: ServedModel, out: Path, labels: list[str], recipe: Recipe, seed: int) -> None:
    out.parent.mkdir(parents=True, exist_ok=True)
    example = torch.zeros(2, recipe.input_size, recipe.input_size, 3, dtype=torch.uint8)
    with warnings.catch_warnings():
        # The newer exporter needs onnxscript beside onnx, for a network that the older one exports exactly.
        warnings.simplefilter("ignore", DeprecationWarning)
        # The number of outputs, which decides whether there are other things, is the same for every batch.
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


def _sample(images: Images, labels: int, generator: torch.Generator) -> Images:
    """Pick images from which the ranges of 8-bit activations are read: as many of labels as of other things."""
    known = (images.targets < labels).nonzero().flatten()
    others = (images.targets == labels).nonzero().flatten()
    picked = [part[torch.randperm(len(part), generator=generator)[:RANGE_IMAGES]] for part in (known, others)]
    return images.take(torch.cat(picked))


def _ask_file(model: Path, pixels: torch.Tensor) -> npt.NDArray[np.float32]:
    """Return the probabilities (n, labels) that the exported file gives, as the endpoint runs it."""
    session = onnxruntime.InferenceSession(str(model), providers=["CPUExecutionProvider"])
    parts = [session.run(None, {"images": batch.numpy()})[0] for batch in pixels.split(256)]
    return np.concatenate(parts)


def _decisions(probabilities: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Return the label of each row (n, labels) that passes the threshold, and -1 for the others."""
    return np.where(probabilities.max(axis=1) >= THRESHOLD, probabilities.argmax(axis=1), -1)
