"""Train a classifier on a staged folder, export it as one ONNX file, and report its metrics."""

import hashlib
import json
import math
import sys
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from common.errors import CommandError
from common.labels import NEITHER
from common.manifest import read_manifest
from training.evaluation.metrics import THRESHOLD, calibration_error_by_chance, compute_metrics, risk_coverage
from training.evaluation.threshold import recommend_threshold
from training.fit.calibration import Calibration, cross_fit, fit_calibration, fit_gate
from training.fit.data import Images, assign_folds, enlarge, load_folder, load_images
from training.fit.folds import fit_all
from training.fit.quantise import quantise, quantise_weights
from training.fit.recipe import Recipe
from training.fit.served import ServedModel, export, predict, predict_exported
from training.provenance import commit, data_checksum

# The endpoint's container and this repository both carry the file.
MAX_MODEL_BYTES = 6_000_000
# Images with a label, and as many of background, that set the ranges of 8-bit activations.
RANGE_IMAGES = 256
# Points of the risk-coverage curve in the report; more would not show in a plot.
CURVE_POINTS = 50


def train(
    data: Path,
    out: Path,
    recipe: Recipe,
    seed: int,
    target_accuracy: float,
    confidence_level: float,
    checkpoints: Path | None = None,
    calibrate_on: Path | None = None,
) -> dict[str, Any]:
    """Train, calibrate, export and report.

    The exported network is trained on all training images. Calibration and validation metrics need images that a
    network has not seen, so the training images are split into `recipe.folds` folds, and another network is trained
    without each fold. The calibration is fitted on their out-of-fold predictions; for the metrics, it is fitted
    without the fold in question too. The test split is only reported.

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
    target_accuracy, confidence_level : float
        As for `training.evaluation.threshold.recommend_threshold`.
    checkpoints : pathlib.Path or None
        As for `training.fit.folds.fit_all`.
    calibrate_on : pathlib.Path or None
        A folder of class folders with images like those that the endpoint will get. The gate (`Calibration`) is fitted
        on them instead of taken from the recipe.

    Returns
    -------
    dict
        The content of ``metrics.json``.

    Raises
    ------
    CommandError
        The folder is not staged or has no test images, an image is missing or has changed, a label has fewer than two
        images, a training process was ended from outside, or ``calibrate_on`` lacks images with or without a label,
        holds one that cannot be read, or is given for images without background.
    """
    started = time.monotonic()
    processes = torch.get_num_threads()
    # Sums would depend on how many threads share them.
    torch.set_num_threads(1)
    manifest = read_manifest(data)
    labels = manifest.labels
    if not any(entry.split == "test" for entry in manifest.images):
        raise CommandError(f"{data} has no test images; see --source in: python -m training stage --help")
    images = load_images(data, manifest, "train", recipe)
    generator = torch.Generator().manual_seed(seed)
    kinds = images.background_classes if recipe.folds_by_class else None
    fold = assign_folds(images.targets, len(labels), recipe.folds, generator, kinds)
    if calibrate_on and (images.targets < len(labels)).all():
        raise CommandError(f"{data} has no '{NEITHER}' images: a model without '{NEITHER}' has nothing to calibrate")
    photographs = load_folder(calibrate_on, labels, recipe) if calibrate_on else None
    network, logits = fit_all(images, fold, len(labels), recipe, seed, processes, checkpoints)
    served = ServedModel(network, len(labels), Calibration(), recipe.mirrored).eval()
    gate = None if recipe.gate_shift is None else (1.0, recipe.gate_shift)
    prior = recipe.background_prior
    if photographs:
        pixels, targets = photographs
        gate = fit_gate(predict(served.logits, pixels, recipe), targets, len(labels), 1.0)
    calibration = fit_calibration(logits, images.targets, len(labels), prior, gate)
    served.calibration = calibration

    export(served, out, labels, recipe, seed)
    if recipe.quantised_activations:
        quantise(out, enlarge(_sample(images, len(labels), generator).pixels, recipe.input_size).numpy())
    else:
        quantise_weights(out)
    if out.stat().st_size > MAX_MODEL_BYTES:
        print(f"warning: {out} has {out.stat().st_size:,} bytes, over {MAX_MODEL_BYTES:,}", file=sys.stderr)
    test = load_images(data, manifest, "test", recipe)
    before = predict(lambda batch: served(batch)[0], test.pixels, recipe).numpy()
    after = predict_exported(out, test.pixels, recipe)
    unseen = cross_fit(logits, images.targets, fold, len(labels), prior, gate).numpy()
    known = images.targets.numpy() < len(labels)
    confidence, prediction = unseen[known].max(axis=1), unseen[known].argmax(axis=1)
    correct = prediction == images.targets.numpy()[known]
    curve = risk_coverage(confidence, correct)
    report = {
        "model_sha256": hashlib.sha256(out.read_bytes()).hexdigest(),
        "data_sha256": data_checksum(data),
        "commit": commit(),
        "labels": labels,
        "network": recipe.network,
        "recipe": recipe.name,
        "epochs": recipe.epochs,
        "folds": recipe.folds,
        # Whether the validation shows background of classes that the network was not trained on.
        "folds_by_class": recipe.folds_by_class,
        "seed": seed,
        "calibration": {name: round(value, 4) for name, value in asdict(calibration).items()},
        "threshold": THRESHOLD,
        "validation": compute_metrics(unseen, images.targets.numpy())
        | {"ece_by_chance": round(calibration_error_by_chance(confidence), 4)},
        "wanted": target_accuracy,
        "confidence": confidence_level,
        "advice": asdict(recommend_threshold(confidence, correct, target_accuracy, confidence_level)),
        # Threshold, coverage and selective accuracy, from the strictest threshold to the one that all images pass.
        "risk_coverage": [
            [round(value, 4) for value in point] for point in curve[:: -math.ceil(len(curve) / CURVE_POINTS)][::-1]
        ],
        "test": compute_metrics(after, test.targets.numpy()),
        # By 8-bit arithmetic, over the test images.
        "decisions_changed": round(float((_decisions(before) != _decisions(after)).mean()), 4),
        "training_seconds": round(time.monotonic() - started),
    }
    (out.parent / "metrics.json").write_text(json.dumps(report, indent=2) + "\n")
    return report


def _sample(images: Images, labels: int, generator: torch.Generator) -> Images:
    picked = [
        members[torch.randperm(len(members), generator=generator)[:RANGE_IMAGES]]
        for members in images.partition(labels)
    ]
    return images.take(torch.cat(picked))


def _decisions(probabilities: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Return the label of each row (n, labels) that passes the threshold, and -1 for the others."""
    return np.where(probabilities.max(axis=1) >= THRESHOLD, probabilities.argmax(axis=1), -1)
