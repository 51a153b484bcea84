"""The traffic of the demo."""

from pathlib import Path

import pytest
from PIL import Image, ImageStat

from demo.drawing import noise
from demo.watch import picture


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
