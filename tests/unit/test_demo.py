"""The traffic of the demo, and its measurement of what a review is worth."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageStat

from common.image_sets import ImageFile, find_sets
from common.labels import NEITHER
from common.manifest import read_manifest
from demo import improve
from demo.drawing import noise
from demo.watch import picture
from training.dataset.sources import Source
from training.dataset.staging import stage
from training.evaluation.predictions import Predictions


def test_traffic_shows_every_photo_once_before_it_shows_one_again_in_another_way(tmp_path: Path) -> None:
    files = [tmp_path / f"{number}.png" for number in range(4)]
    for number, file in enumerate(files):
        Image.blend(noise(300, 200, number), Image.new("RGB", (300, 200), (50 * number,) * 3), 0.5).save(file)
    first, again = ([picture(files, seed) for seed in seeds] for seeds in (range(4), range(4, 8)))
    assert {image.size for image in [*first, *again]} == {(206, 137)}, "of 224x149, as the endpoint gets it"
    assert len({image.tobytes() for image in [*first, *again]}) == 8
    for one, other in zip(first, again, strict=True):
        assert ImageStat.Stat(one).mean == pytest.approx(ImageStat.Stat(other).mean, abs=4), "the same photo"
    assert first[2].tobytes() == picture(files, 2).tobytes()


def test_without_photos_traffic_is_drawn() -> None:
    drawn = [picture([], seed) for seed in range(4)]
    assert len({image.tobytes() for image in drawn}) == 4


def test_what_judges_a_review_was_neither_trained_on_nor_sent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for number in range(60):
        split, name = ("train" if number < 45 else "test"), ("bicycle", "motorcycle", "ship_x")[number % 3]
        path = tmp_path / "in" / split / name / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        noise(4, 4, number).save(path)
    manifest = stage([Source(tmp_path / "in")], ["bicycle", "motorcycle"], tmp_path / "staged")
    for name, value in {"START": 3, "SENT": 5, "START_OTHERS": 4, "SENT_OTHERS": 6}.items():
        monkeypatch.setattr(improve, name, value)
    start, sent = improve.divide(manifest)
    assert improve.count(start, "train") == "3 bicycle, 3 motorcycle, 4 neither"
    assert improve.count(sent, "train") == "5 bicycle, 5 motorcycle, 6 neither"
    # The other 7 training images of each label judge, too; of other things only test images do.
    assert improve.count(start, "test") == "12 bicycle, 12 motorcycle, 5 neither"
    hashes = [entry.sha256 for entry in [*start, *sent]]
    assert len(set(hashes)) == len(hashes)

    improve.write_staged(tmp_path / "staged", manifest, start, tmp_path / "out")
    written, before = read_manifest(tmp_path / "out"), {entry.sha256: entry for entry in manifest.images}
    assert written.counts["test"] == {"bicycle": 12, "motorcycle": 12, NEITHER: 5}
    assert all(entry.source == before[entry.sha256].source for entry in written.images)
    assert all(Path(entry.path).name.startswith("ship_x_") for entry in written.images if entry.label == NEITHER)
    assert len(find_sets([str(tmp_path / "out")], manifest.labels)["out"].images) == 29


def test_the_threshold_for_equal_accuracy_lets_as_many_pass_as_it_can() -> None:
    confidence, right = [0.9, 0.8, 0.7, 0.6, 0.5, 0.99], [True, True, False, True, True, False]
    probabilities = np.array([[c, 0.0] if ok else [0.0, c] for c, ok in zip(confidence, right, strict=True)])
    images = [ImageFile(Path(f"{i}.png"), "x") for i in range(6)]
    targets = np.array([0, 0, 0, 0, 0, 2])  # the last one is background, and does not count
    got = Predictions(images, targets, probabilities, np.array([], int), np.zeros((0, 0, 2)), [], [])
    assert improve.threshold_for(got, 0.8) == 0.5
    assert improve.threshold_for(got, 0.81) == 0.8
    assert improve.threshold_for(got, 1.0) == 0.8
