"""Train several networks in parallel: one on all images, and one without each fold."""

import hashlib
import multiprocessing
import os
import random
import signal
import tempfile
import threading
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from common.errors import CommandError
from training.fit.calibration import Calibration
from training.fit.data import Images
from training.fit.loop import fit
from training.fit.network import Network, create_network
from training.fit.recipe import Recipe
from training.fit.served import ServedModel, predict


def fit_all(
    images: Images,
    fold: torch.Tensor,
    labels: int,
    recipe: Recipe,
    seed: int,
    processes: int,
    checkpoints: Path | None = None,
) -> tuple[Network, torch.Tensor]:
    """Train a network on all images, and one without each fold.

    Parameters
    ----------
    images : Images
        All training images.
    fold : torch.Tensor
        Shape (n,): the fold of each image, 0 to `recipe.folds` - 1.
    labels : int
        How many labels there are.
    recipe : Recipe
        Hyper-parameters.
    seed : int
        Of every random number.
    processes : int
        How many networks are trained at a time.
    checkpoints : pathlib.Path or None
        Folder in which each finished network is kept; one of the same images, recipe and seed is not trained again.

    Returns
    -------
    tuple
        The network trained on all images, or the mean of all networks if the recipe says so; and the out-of-fold logits
        of the others: (n, labels + 1), or (n, labels) without background.

    Raises
    ------
    CommandError
        A training process was ended from outside.
    """
    background_classes = images.background_classes[images.targets == labels]
    outputs = labels + (int(background_classes.max()) + 1 if len(background_classes) else 0)
    processes = min(processes, recipe.folds + 1)
    print(
        f"{len(fold)} images, {outputs} outputs; {recipe.folds + 1} networks, one on all images and one without each "
        f"of {recipe.folds} folds, {processes} at a time",
        flush=True,
    )
    with tempfile.TemporaryDirectory() as folder:
        # A file, because a pipe to a process that was ended blocks, and /dev/shm is small in containers.
        shared = Path(folder) / "images.pt"
        torch.save({"fold": fold} | {field.name: getattr(images, field.name) for field in fields(images)}, shared)
        # The longest first.
        tasks = [
            (kept, shared, held_out, outputs, labels, recipe, seed)
            for held_out, kept in _kept(checkpoints, images, fold, labels, recipe, seed).items()
        ]
        results = [_fit_or_load(*task) for task in tasks] if processes == 1 else _in_processes(processes, tasks)
    network = create_network(outputs, labels, recipe)
    state = results[0][0]
    if recipe.averaged:
        for name, _ in network.named_parameters():
            state[name] = np.mean([other[name] for other, _ in results], axis=0)
    network.load_state_dict({name: torch.from_numpy(values) for name, values in state.items()})
    logits = torch.empty(len(fold), min(outputs, labels + 1))
    for held_out, (_, unseen) in enumerate(results[1:]):
        logits[fold == held_out] = torch.from_numpy(unseen)
    return network.eval(), logits


def _in_processes(processes: int, tasks: list[tuple[Any, ...]]) -> list[Any]:
    with ProcessPoolExecutor(processes, multiprocessing.get_context("spawn"), _begin_process) as pool:
        try:
            futures = [pool.submit(_fit_or_load, *task) for task in tasks]
            for future in as_completed(futures):
                future.result()
        except BrokenProcessPool as error:
            raise CommandError(
                "a training process was ended, possibly out of memory; OMP_NUM_THREADS=1 trains in one process"
            ) from error
        finally:
            # After an error or Ctrl-C the other results are not needed.
            for process in multiprocessing.active_children():
                process.terminate()
    return [future.result() for future in futures]


def _begin_process() -> None:
    torch.set_num_threads(1)
    # The parent process handles Ctrl-C; if it dies, this one ends too.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)


def _kept(
    checkpoints: Path | None, images: Images, fold: torch.Tensor, labels: int, recipe: Recipe, seed: int
) -> dict[int, Path | None]:
    """Return the checkpoint of each network by its held-out fold, named after all that decides its weights."""
    which = (-1, *range(recipe.folds))
    if checkpoints is None:
        return dict.fromkeys(which)
    digest = hashlib.sha256(repr((recipe, labels, seed)).encode())
    for file in sorted(Path(__file__).parent.rglob("*.py")):
        digest.update(file.read_bytes())
    for tensor in (fold, images.targets, images.background_classes, images.compressed, *images.pixels):
        digest.update(f"{tuple(tensor.shape)}".encode())
        digest.update(tensor.numpy().tobytes())
    checkpoints.mkdir(parents=True, exist_ok=True)
    return {held_out: checkpoints / f"{digest.hexdigest()[:16]}-{held_out + 1}.npz" for held_out in which}


def _fit_or_load(kept: Path | None, *task: Any) -> tuple[dict[str, npt.NDArray[Any]], npt.NDArray[np.floating]]:
    """Return a network of an earlier run that was interrupted, or train it and keep it."""
    if kept and kept.is_file():
        print(f"continue with {kept}", flush=True)
        with np.load(kept) as saved:
            weights = {name.removeprefix("weights/"): saved[name] for name in saved.files if name != "logits"}
            return weights, saved["logits"]
    weights, logits = _fit_one(*task)
    if kept:
        # Renamed when it is complete, because a job may be interrupted at any time. A name with a suffix is kept as is.
        unfinished = kept.with_suffix(".tmp.npz")
        named: dict[str, Any] = {f"weights/{name}": values for name, values in weights.items()}
        np.savez(unfinished, logits=logits, **named)
        unfinished.replace(kept)
    return weights, logits


def _fit_one(
    shared: Path, held_out: int, outputs: int, labels: int, recipe: Recipe, seed: int
) -> tuple[dict[str, npt.NDArray[Any]], npt.NDArray[np.floating]]:
    """Train without one fold (-1: on all images); return the weights, and the logits of that fold, if any."""
    random.seed(seed)
    np.random.seed(seed)
    torch.manual_seed(seed)
    torch.use_deterministic_algorithms(True)
    # Every tensor is written before it is read; filling them all first takes a twentieth of the time.
    torch.utils.deterministic.fill_uninitialized_memory = False
    saved = torch.load(shared, weights_only=True)
    fold = saved.pop("fold")
    images = Images(**saved)
    name = "all images" if held_out < 0 else f"without fold {held_out + 1} of {recipe.folds}"
    within = (fold != held_out).nonzero().flatten()
    network = fit(name, images.take(within), outputs, labels, recipe, torch.Generator().manual_seed(seed))
    weights = {key: values.numpy() for key, values in network.state_dict().items()}
    if held_out < 0:
        return weights, np.empty(0, np.float32)
    unseen = images.take((fold == held_out).nonzero().flatten()).pixels
    logits = predict(ServedModel(network, labels, Calibration(), recipe.mirrored).logits, unseen, recipe)
    return weights, logits.numpy()
