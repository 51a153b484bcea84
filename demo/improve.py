"""Few images, what their model is unsure of, and what a review of that is worth."""

import json
import random
import shutil
import sys
from collections import Counter
from dataclasses import asdict, replace
from pathlib import Path
from urllib.parse import urlsplit

import boto3
from rich.table import Table

from common.errors import CommandError
from common.image_sets import find_sets
from common.labels import NEITHER
from common.manifest import MANIFEST, Entry, Manifest, read_manifest
from common.stack import Stack
from demo.steps import ENDPOINT, FOLDER, OUT, STACK, console, deploy, run, step
from operations.review_session import ReviewSession
from rehearsal.lifecycle import down
from serving.model import Model
from training.evaluation.metrics import THRESHOLD, compute_metrics, risk_coverage
from training.evaluation.predictions import Predictions, predict

STAGED = Path("build/staged")
TRAINING_PYTHON = ".venv-training/bin/python"
#: The small network learns enough from few images in a minute or two.
IMPROVE_RECIPE = ("--network", "residual", "--epochs", "100", "--folds", "2")
#: The figures of both models, a sentence and the next command.
IMPROVE_LINES = 7
#: Images of each label, and of other things, with which it begins, and that it sends.
START, START_OTHERS = 100, 1000
SENT, SENT_OTHERS = 250, 100


def demonstrate_improvement(_: Path | None, keep: bool) -> None:
    """Begin with few images, review what the model is unsure of, and improve it."""
    if not shutil.which(TRAINING_PYTHON):
        raise CommandError(f"{TRAINING_PYTHON} does not exist; make test-training makes it")
    manifest, folder = read_manifest(STAGED), OUT / "improve"
    start, sent = divide(manifest)
    shutil.rmtree(folder, ignore_errors=True)
    write_staged(STAGED, manifest, start, folder / "start")
    # The limits of training/gate.toml are for models that were trained on more images.
    (folder / "gate.toml").write_text("[minimum]\n[maximum]\n[comparison]\nsignificance = 0.05\n")
    training = (TRAINING_PYTHON, "-m", "training")
    first = folder / "first" / "model.onnx"
    first.parent.mkdir()
    console.rule("[bold]Begin with few images")
    down(FOLDER)  # what a crash left
    with step(f"train on {count(start, 'train')}"):
        run(*training, "train", "--data", str(folder / "start"), "--out", str(first), *IMPROVE_RECIPE)
    stack = deploy(keep, "--model", str(first))
    console.rule("[bold]Send and review")
    s3 = boto3.client("s3")
    with step(f"send {count(sent, 'train')} through the batch workflow"):
        for entry in sent:
            key = f"traffic/{entry.sha256}.png"
            s3.put_object(Bucket=stack.output("ImageBucketName"), Key=key, Body=(STAGED / entry.path).read_bytes())
        batch = ("operations", "batch", "start", "--prefix", "traffic/", "--name", "improve", "--wait")
        run(sys.executable, "-m", *batch, "--stack-name", STACK)
    with step("label what waits for review; the labels of the data stand for the reviewer"):
        labels = review(stack, sent)
    counts = ", ".join(f"{number} {label}" for label, number in labels.items())
    console.print(f"    {labels.total()} of {len(sent)} were unsure or neither: {counts}")
    console.rule("[bold]Improve")
    place = ("--stack-name", STACK, "--data", str(folder / "start"), "--out", str(folder / "improved"))
    improve = (*training, "improve", *place, "--gate", str(folder / "gate.toml"), "--baking-seconds", "0")
    with step("python -m training improve: stage, train, register"):
        said = run(*improve, *IMPROVE_RECIPE)
    console.print("\n".join(f"    {line}" for line in said.splitlines()[-IMPROVE_LINES:]), markup=False, soft_wrap=True)
    with step(f"python -m training approve {ENDPOINT}/1"):
        run(*training, "approve", f"{ENDPOINT}/1")
    with step("python -m training improve: deploy"):
        run(*improve)
    console.print(compare(folder / "start", first, folder / "improved" / "model" / "model.onnx"))


def divide(manifest: Manifest) -> tuple[list[Entry], list[Entry]]:
    """Choose images to begin with, and images to send.

    The first are training images and test images; the latter are the staged test images, and all images with a label
    that are left.
    """
    chosen, traffic = [], []
    generator = random.Random(0)
    for label in (*manifest.labels, NEITHER):
        own = [entry for entry in manifest.images if entry.split == "train" and entry.label == label]
        generator.shuffle(own)
        some, more = (START_OTHERS, SENT_OTHERS) if label == NEITHER else (START, SENT)
        chosen += own[:some]
        traffic += own[some : some + more]
        rest = own[some + more :] if label != NEITHER else []
        rest += [entry for entry in manifest.images if entry.split == "test" and entry.label == label]
        chosen += [replace(entry, split="test") for entry in rest]
    return chosen, traffic


def count(entries: list[Entry], split: str) -> str:
    """Return the numbers of images of a split, in words."""
    counts = Counter(entry.label for entry in entries if entry.split == split)
    return ", ".join(f"{number} {label}" for label, number in counts.items())


def write_staged(source: Path, manifest: Manifest, entries: list[Entry], out: Path) -> None:
    """Write some images of a staged folder as another one, which keeps their origins."""
    written = []
    for entry in entries:
        # Images that were training images must not take the name of a test image.
        path = entry.path if entry.path.startswith(entry.split) else f"test/{entry.label}/{entry.sha256[:16]}.png"
        (out / path).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(source / entry.path, out / path)
        written.append(replace(entry, path=path))
    counts = Counter((entry.split, entry.label) for entry in written)
    labels = (*manifest.labels, NEITHER)
    table = {split: {label: counts[split, label] for label in labels} for split in ("train", "test")}
    subset = Manifest(manifest.labels, None, [], table, 0, [], written)
    (out / MANIFEST).write_text(json.dumps(asdict(subset)))


def review(stack: Stack, entries: list[Entry]) -> Counter[str]:
    """Label every image in the review queue; return the numbers of labels."""
    truth = {entry.sha256: entry.label for entry in entries}
    session = ReviewSession(stack.output("ReviewQueueUrl"), stack.labels, stack.labels_uri, "labels of the data")
    try:
        state = session.state()
        while item := state["item"]:
            key = Path(urlsplit(item["facts"]["S3"]).path)
            state = session.save(item["id"], truth[key.stem])
    finally:
        session.end()
    return session.saved


def compare(staged: Path, first: Path, second: Path) -> Table:
    """Return a table of what both models do on the test images of a staged folder."""
    models = {"before": Model(first), "after": Model(second)}
    ((_, found),) = find_sets([str(staged)], models["before"].labels).items()
    got = {name: predict(name, found.images, model, corrupted=False) for name, model in models.items()}
    before = figures(got["before"], THRESHOLD)
    equal = threshold_for(got["after"], float(before["selective_accuracy"] or 0))
    rows = [("before", before), ("after", figures(got["after"], THRESHOLD))]
    if equal is not None:
        rows.append(("after, as accurate as before", figures(got["after"], equal)))
    title = f"{before['n']} images with a label and {before['other_n']} of other things, in neither training nor review"
    table = Table("model", box=None, pad_edge=False, title=title, title_justify="left")
    for heading in ("threshold", "coverage", "selective accuracy", "others passing"):
        table.add_column(heading, justify="right")
    for name, each in rows:
        values = [each[key] for key in ("threshold", "coverage", "selective_accuracy", "other_passing")]
        table.add_row(name, *("–" if value is None else f"{value:.3f}" for value in values))
    return table


def figures(got: Predictions, threshold: float) -> dict[str, float | int | None]:
    """Compute the metrics at a threshold."""
    return compute_metrics(got.probabilities, got.targets, threshold) | {"threshold": threshold}


def threshold_for(got: Predictions, accuracy: float) -> float | None:
    """Return the lowest threshold at which the predictions that pass are at least this accurate."""
    known = got.targets < got.probabilities.shape[1]
    confidence, correct = got.probabilities.max(axis=1), got.probabilities.argmax(axis=1) == got.targets
    points = risk_coverage(confidence[known], correct[known])
    return min((threshold for threshold, _, reached in points if reached >= accuracy), default=None)
