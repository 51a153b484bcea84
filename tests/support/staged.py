"""A staged folder whose classes differ by colour alone, so that whatever learns at all can tell them apart."""

from pathlib import Path

from PIL import Image

from training.dataset.sources import open_source
from training.dataset.staging import stage

COLOURS = {"bicycle": (200, 30, 30), "motorcycle": (30, 30, 200), "tree": (30, 200, 30)}


def coloured(name: str, shade: int = 0, size: tuple[int, int] = (40, 32)) -> Image.Image:
    """Return an image of a class."""
    red, green, blue = COLOURS[name]
    return Image.new("RGB", size, (red + shade, green + shade, blue + shade))


def stage_coloured(folder: Path) -> Path:
    """Stage three training images and one test image of each class; trees are neither."""
    for name in COLOURS:
        for number in range(4):
            path = folder / "images" / ("test" if number == 3 else "train") / name / f"{number}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            coloured(name, number).save(path)
    stage([open_source(str(folder / "images"), folder)], ["bicycle", "motorcycle"], folder / "staged")
    return folder / "staged"
