"""The training loop of one network."""

import time
from collections.abc import Iterator

import numpy as np
import torch
from torch.nn import functional

from common.errors import CommandError
from training.fit.augment import augment, compress, synthetic_negatives
from training.fit.data import Images
from training.fit.network import Network, create_network, merge_background
from training.fit.recipe import Recipe


def fit(name: str, images: Images, outputs: int, labels: int, recipe: Recipe, generator: torch.Generator) -> Network:
    """Train a network.

    Parameters
    ----------
    name : str
        Printed with the progress.
    images : Images
        To train on.
    outputs, labels : int
        As for `training.fit.network.create_network`.
    recipe : Recipe
        Hyper-parameters.
    generator : torch.Generator
        Source of the order of the images and of their augmentation.

    Raises
    ------
    CommandError
        The loss is not finite.
    """
    network = create_network(outputs, labels, recipe).to(memory_format=torch.channels_last)
    network.prepare(images, generator)
    averaged = torch.optim.swa_utils.AveragedModel(
        network,
        multi_avg_fn=torch.optim.swa_utils.get_ema_multi_avg_fn(recipe.ema_decay),
        use_buffers=True,
    )
    optimisers = network.optimisers()
    steps = recipe.epochs * sum(1 for _ in _epoch(images, labels, recipe, torch.Generator()))
    schedules = [
        torch.optim.lr_scheduler.LambdaLR(
            optimiser, lambda step: lr_factor(step / max(steps, 1), recipe.warmup_fraction)
        )
        for optimiser in optimisers
    ]
    # Processors that multiply bfloat16 matrices in hardware are at least twice as fast with them.
    fast = torch.cpu._is_amx_tile_supported() or torch.cpu._is_avx512_bf16_supported()

    started, said = time.monotonic(), 0.0
    for epoch in range(recipe.epochs):
        network.train()
        total, seen = 0.0, 0
        for which in _epoch(images, labels, recipe, generator):
            batch = images.take(which)
            x, original = _inputs(batch, labels, recipe, generator)
            with torch.autocast("cpu", torch.bfloat16, enabled=fast):
                x = x.contiguous(memory_format=torch.channels_last)
                features = network.features(x)
                penalty = network.penalty(x, features, batch.targets == labels)
                logits = network.logits(features)
            loss = _loss(logits.float(), batch, original, labels, recipe) + penalty
            network.zero_grad()
            loss.backward()
            for optimiser, schedule in zip(optimisers, schedules, strict=True):
                optimiser.step()
                schedule.step()
            averaged.update_parameters(network)
            total += loss.item() * len(which)
            seen += len(which)
        if not np.isfinite(total):
            raise CommandError(f"the loss is not finite after epoch {epoch + 1}; lower the learning rates in recipe.py")
        seconds = time.monotonic() - started
        # At most one line every 10 seconds, and the last one.
        if seconds - said > 10 or epoch + 1 == recipe.epochs:
            said = seconds
            print(
                f"{name}: epoch {epoch + 1}/{recipe.epochs}  loss {total / seen:.4f}  {seconds:.0f} s  "
                f"about {seconds / (epoch + 1) * (recipe.epochs - epoch - 1):.0f} s left",
                flush=True,
            )
    result: Network = averaged.module
    result.finish(images)
    return result.eval()


def lr_factor(progress: float, warmup: float) -> float:
    """Return the factor on the learning rate: linearly up to 1 during warm-up, then linearly down to 0."""
    return progress / warmup if progress < warmup else (1 - progress) / (1 - warmup)


def _epoch(images: Images, labels: int, recipe: Recipe, generator: torch.Generator) -> Iterator[torch.Tensor]:
    """Yield the indices of each batch: every image with a label once, then randomly drawn background."""
    known, background = images.partition(labels)
    batches = max(1, round(len(known) / recipe.batch_size))
    order = torch.randperm(len(background), generator=generator)
    drawn = background[order[: batches * recipe.background_per_batch]]
    shuffled = known[torch.randperm(len(known), generator=generator)]
    for batch in zip(shuffled.tensor_split(batches), drawn.tensor_split(batches), strict=True):
        yield torch.cat(batch)


def _inputs(
    batch: Images, labels: int, recipe: Recipe, generator: torch.Generator
) -> tuple[torch.Tensor, torch.Tensor]:
    """Augment a batch to (n, 3, edge, edge); also return which images (n,) still show their class."""
    x = compress(batch.pixels, batch.compressed, recipe, generator)
    _, background = batch.partition(labels)
    scenery = x[background] if len(background) else x
    replaced = background[: recipe.synthetic_per_batch]
    original = torch.ones(len(x), dtype=torch.bool)
    original[replaced] = False
    x = x.index_copy(0, replaced, synthetic_negatives(x[replaced], generator))
    return augment(x, scenery, recipe, generator), original


def _loss(logits: torch.Tensor, batch: Images, original: torch.Tensor, labels: int, recipe: Recipe) -> torch.Tensor:
    """Cross-entropy over the labels and all background together, plus that over the background classes."""
    background = batch.targets == labels
    weights = torch.where(background, recipe.background_weight, 1.0)
    merged = merge_background(logits, labels)
    each = functional.cross_entropy(merged, batch.targets, label_smoothing=recipe.label_smoothing, reduction="none")
    total = (each * weights).sum()
    if recipe.background_class_weight and background.any():
        classes = batch.background_classes.where(background, 0)
        among = functional.cross_entropy(logits[:, labels:], classes, reduction="none")
        total = total + recipe.background_class_weight * (among * weights)[background & original].sum()
    return total / weights.sum()
