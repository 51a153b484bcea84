"""The mixed set of images that the demo sends through the workflow."""

import io
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from PIL import Image, ImageFilter

from common.errors import CommandError
from common.folders import find_in_folder
from demo import drawing

STAGED = Path("build/staged")
#: Where ``python -m training stage`` keeps what it has downloaded.
CACHE = Path(os.path.expanduser(os.environ.get("XDG_CACHE_HOME") or "~/.cache")) / "image-classifier"
ARCHIVE = CACHE / "cifar-100-binary.tar.gz"
#: Twelve megapixels, a common size of phone photos.
LARGE = (4000, 3000)


@dataclass(frozen=True)
class Sample:
    """One object to upload; ``data`` is None for a key without an object."""

    key: str
    what: str
    data: bytes | None


@dataclass(frozen=True)
class Samples:
    """The images of the demo: where they come from, the files beside them for more traffic, and the samples."""

    source: str
    files: list[Path]
    samples: list[Sample]


def collect() -> Samples:
    """Return the images, and where they come from.

    Photos in ``IMAGE_DATA_DIR`` if it is set; otherwise the staged images in ``build/staged`` (staged first, if
    only the archive has been downloaded); otherwise drawings.

    Raises
    ------
    CommandError
        If ``IMAGE_DATA_DIR`` has no class folders, or some whose names are almost a label.
    """
    if folder := os.environ.get("IMAGE_DATA_DIR"):
        photos = Path(folder) / "photos"
        if not (photos / "bicycle").is_dir():
            raise CommandError(f"IMAGE_DATA_DIR={folder} must hold photos/bicycle, photos/motorcycle and photos/other")
        return _of_files(f"photos in {photos}", photos)
    if ARCHIVE.is_file() and not STAGED.is_dir():
        subprocess.run([sys.executable, "-m", "training", "stage", "--source", str(ARCHIVE)], check=True)
    if (STAGED / "test").is_dir():
        return _of_files(f"the archive's test images in {STAGED / 'test'}", STAGED / "test")
    return draw()


def _of_files(source: str, root: Path) -> Samples:
    samples = []
    images = find_in_folder(root, ["bicycle", "motorcycle"]).images
    for name in sorted({image.class_name for image in images}):
        files = [root / image.name for image in images if image.class_name == name]
        what = "neither" if name in ("other", "neither") else f"a {name}"
        for path in files[:: max(1, len(files) // 3)][:3]:
            samples.append(Sample(f"incoming/{name}-{path.name}", what, path.read_bytes()))
    first = Image.open(io.BytesIO(samples[0].data or b"")).convert("RGB")
    blurred = first.filter(ImageFilter.GaussianBlur(min(first.size) / 10))
    samples += _of_any(blurred, first.resize(LARGE, Image.Resampling.BICUBIC))
    return Samples(source, [root / image.name for image in images], samples)


def draw() -> Samples:
    """Return the set of drawings."""
    makers = {"bicycle": drawing.bicycle, "motorcycle": drawing.motorcycle, "neither": drawing.house}
    samples = []
    for name, maker in makers.items():
        for seed, size in ((0, (320, 240)), (4, (240, 240)), (5, (32, 32))):
            what = name if name == "neither" else f"a {name}"
            samples.append(Sample(f"incoming/{name}-{seed}.png", what, drawing.encoded(maker(*size, seed))))
    return Samples("drawings", [], [*samples, *_of_any(drawing.blurred(320, 240), drawing.motorcycle(*LARGE))])


def _of_any(blurred: Image.Image, large: Image.Image) -> list[Sample]:
    """Return the samples that every set has: blurred, large and rotated, damaged, not an image, missing."""
    turned = Image.Exif()
    turned[0x0112] = 6  # a camera held upright: rotate clockwise to display it
    upright = drawing.encoded(large.transpose(Image.Transpose.ROTATE_90), "JPEG", exif=turned)
    return [
        Sample("incoming/out-of-focus.jpg", "out of focus", drawing.encoded(blurred, "JPEG")),
        Sample("incoming/12-megapixels.jpg", "12 megapixels, rotated", upright),
        Sample("incoming/damaged.jpg", "half a file", upright[: len(upright) // 2]),
        Sample("incoming/notes.png", "not an image", b"A text file with the name of an image.\n"),
        Sample("incoming/never-uploaded.png", "missing", None),
    ]
