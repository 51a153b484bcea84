"""Training, on images that the test draws itself. Runs in the training environment."""

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

torch = pytest.importorskip("torch", reason="training needs torch; run in the environment of training/requirements.txt")
onnx = pytest.importorskip("onnx", reason="training needs onnx; run in the environment of training/requirements.txt")

from training.augment import augment  # noqa: E402
from training.errors import CommandError  # noqa: E402
from training.muon import orthogonalise  # noqa: E402
from training.network import Network, ServedModel  # noqa: E402
from training.recipe import Recipe  # noqa: E402
from training.sources import Source  # noqa: E402
from training.staging import stage  # noqa: E402
from training.train import Images, _fit_temperature, _hold_back, _rate, train  # noqa: E402

COLOURS = {"red": (220, 30, 30), "green": (30, 200, 30), "blue": (30, 30, 220)}
SMALL = Recipe(
    name="test",
    epochs=4,
    widths=(8, 16, 16),
    batch_size=16,
    neither_per_epoch=40,
    grey_share=0.0,
    validation_share=0.25,
    averaging_decay=0.8,
)


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
    report = train(staged, tmp_path / "a" / "model.onnx", SMALL, seed=1)
    assert report["labels"] == list(COLOURS)
    assert report["validation"]["n"] == 30
    assert report["test"]["accuracy"] >= 0.9
    assert json.loads((tmp_path / "a/metrics.json").read_text()) == report

    model = onnx.load(str(tmp_path / "a/model.onnx"))
    properties = {item.key: item.value for item in model.metadata_props}
    assert json.loads(properties["labels"]) == list(COLOURS)
    assert (properties["input_size"], properties["seed"], properties["recipe"]) == ("32", "1", "test")
    assert model.opset_import[0].version >= 17

    again = train(staged, tmp_path / "b" / "model.onnx", SMALL, seed=1)
    assert again["model_sha256"] == report["model_sha256"]

    onnxruntime = pytest.importorskip("onnxruntime")
    session = onnxruntime.InferenceSession(tmp_path / "a/model.onnx")
    for batch in (1, 5):
        pixels = np.random.default_rng(2).integers(0, 256, (batch, 32, 32, 3), np.uint8)
        (answer,) = session.run(None, {"images": pixels})
        assert answer.shape == (batch, 3)
        assert (answer >= 0).all()
        assert (answer.sum(axis=1) <= 1 + 1e-6).all()


def test_without_other_images_the_probabilities_sum_to_one(staged: Path, tmp_path: Path) -> None:
    stage([Source(staged.parent / "in")], list(COLOURS), tmp_path / "only", neither_limit=0)
    train(tmp_path / "only", tmp_path / "model.onnx", dataclasses.replace(SMALL, epochs=1), seed=0)
    onnxruntime = pytest.importorskip("onnxruntime")
    session = onnxruntime.InferenceSession(tmp_path / "model.onnx")
    (answer,) = session.run(None, {"images": np.zeros((2, 32, 32, 3), np.uint8)})
    assert answer.sum(axis=1) == pytest.approx([1, 1], abs=1e-5)


def test_a_changed_image_is_noticed(staged: Path, tmp_path: Path) -> None:
    stage([Source(staged.parent / "in")], list(COLOURS), tmp_path / "copy")
    (tmp_path / "copy/train/red/0.png").write_bytes(b"other")
    with pytest.raises(CommandError, match=r"red/0\.png is missing or is not the staged image"):
        train(tmp_path / "copy", tmp_path / "model.onnx", SMALL, seed=0)


def test_the_mirror_image_gets_the_same_answer() -> None:
    torch.manual_seed(0)
    served = ServedModel(Network(3, (8, 16, 16)), 2, 0.7).eval()
    images = torch.randint(0, 256, (4, 32, 32, 3), dtype=torch.uint8)
    assert torch.allclose(served(images), served(images.flip(2)), atol=1e-6)


def test_whitening_makes_patches_uncorrelated() -> None:
    images = torch.rand(50, 3, 32, 32).cumsum(dim=2).cumsum(dim=3) / 400
    network = Network(2, (8, 16, 16))
    network.set_whitening(images)
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
    images = torch.randint(0, 256, (64, 3, 32, 32), dtype=torch.uint8)
    one = augment(images, Recipe(), torch.Generator().manual_seed(5))
    two = augment(images, Recipe(), torch.Generator().manual_seed(5))
    assert torch.equal(one, two)
    assert one.shape == images.shape
    assert 0 <= one.min() <= one.max() <= 1
    assert not torch.allclose(one, images.float() / 255, atol=0.05)


def test_the_split_is_stratified_and_loses_nothing() -> None:
    targets = torch.tensor([0] * 20 + [1] * 40 + [2] * 100)
    images = Images(torch.arange(160).view(-1, 1, 1, 1), targets)
    fit, held = _hold_back(images, 2, 0.15, torch.Generator().manual_seed(0))
    assert torch.bincount(held.targets).tolist() == [3, 6, 15]
    assert sorted([*fit.pixels.flatten().tolist(), *held.pixels.flatten().tolist()]) == list(range(160))


def test_the_temperature_undoes_overconfidence() -> None:
    torch.manual_seed(0)
    logits = torch.randn(4000, 2) * 2
    targets = torch.distributions.Categorical(logits=logits).sample()

    class Boastful:
        labels = 2

        def eval(self) -> "Boastful":
            return self

        def logits(self, pixels: Any) -> Any:
            return pixels * 3

    temperature = _fit_temperature(Boastful(), Images(logits, targets))  # type: ignore[arg-type]
    assert temperature == pytest.approx(3, rel=0.1)


def test_the_rate_rises_then_falls_to_zero() -> None:
    rates = [_rate(step / 100, 0.15) for step in range(101)]
    assert rates[0] == 0
    assert max(rates) == rates[15] == 1
    assert rates[-1] == 0
    assert rates[:16] == sorted(rates[:16])
    assert rates[15:] == sorted(rates[15:], reverse=True)
