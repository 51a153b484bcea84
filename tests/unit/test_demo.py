"""The traffic of the demo."""

from pathlib import Path

from demo.drawing import noise
from demo.watch import picture


def test_traffic_shows_every_photo_once_before_it_shows_one_again_in_another_way(tmp_path: Path) -> None:
    files = [tmp_path / f"{number}.png" for number in range(4)]
    for number, file in enumerate(files):
        noise(300, 200, number).save(file)
    first, again = ([picture(files, seed) for seed in seeds] for seeds in (range(4), range(4, 8)))
    assert {image.size for image in first} == {(224, 149)}, "as the workflow sends it to the endpoint"
    whole = {image.tobytes() for image in first}
    assert len(whole) == 4 and whole.isdisjoint(image.tobytes() for image in again)
    assert all(0.8 * 224 < image.width <= 224 and image.height <= 149 for image in again)
    assert first[2].tobytes() == picture(files, 2).tobytes()


def test_without_photos_traffic_is_drawn() -> None:
    drawn = [picture([], seed) for seed in range(4)]
    assert len({image.tobytes() for image in drawn}) == 4
