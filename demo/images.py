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
#: Download folder of ``python -m training stage``.
CACHE = Path(os.path.expanduser(os.environ.get("XDG_CACHE_HOME") or "~/.cache")) / "image-classifier"
ARCHIVE = CACHE / "cifar-100-binary.tar.gz"
#: Twelve megapixels, like many phone cameras.
LARGE = (4000, 3000)


@dataclass(frozen=True)
class Sample:
    """One object to upload; ``data`` is None for a key without an object."""

    key: str
    content: str
    data: bytes | None


class ImageSetError(Exception):
    """The requested images do not exist."""


def collect() -> tuple[str, list[Sample]]:
    """Return the source of the images, for display, and the images.

    The source is ``IMAGE_DATA_DIR`` if it is set; or else ``build/staged``, which is staged first if only the archive
    has been downloaded; or else generated drawings.

    Raises
    ------
    ImageSetError
        If ``IMAGE_DATA_DIR`` has no class folders, or one whose name is nearly a label.
    """
    if folder := os.environ.get("IMAGE_DATA_DIR"):
        photos = Path(folder) / "photos"
        if not (photos / "bicycle").is_dir():
            raise ImageSetError(f"IMAGE_DATA_DIR={folder} must hold photos/bicycle, photos/motorcycle and photos/other")
        try:
            return f"photos in {photos}", _of_files(photos)
        except CommandError as error:
            raise ImageSetError(f"IMAGE_DATA_DIR={folder}: {error}") from error
    if ARCHIVE.is_file() and not STAGED.is_dir():
        subprocess.run([sys.executable, "-m", "training", "stage", "--source", str(ARCHIVE)], check=True)
    if (STAGED / "test").is_dir():
        return f"the archive's test images in {STAGED / 'test'}", _of_files(STAGED / "test")
    return "generated drawings", _drawn()


def _of_files(root: Path) -> list[Sample]:
    samples = []
    images = find_in_folder(root, ["bicycle", "motorcycle"]).images
    for name in sorted({image.class_name for image in images}):
        files = [root / image.name for image in images if image.class_name == name]
        content = "neither" if name in ("other", "neither") else f"a {name}"
        for path in files[:: max(1, len(files) // 3)][:3]:
            samples.append(Sample(f"incoming/{name}-{path.name}", content, path.read_bytes()))
    first = Image.open(io.BytesIO(samples[0].data or b"")).convert("RGB")
    blurred = first.filter(ImageFilter.GaussianBlur(min(first.size) / 10))
    return [*samples, *_of_any(blurred, first.resize(LARGE, Image.Resampling.BICUBIC))]


def _drawn() -> list[Sample]:
    makers = {"bicycle": drawing.bicycle, "motorcycle": drawing.motorcycle, "neither": drawing.house}
    samples = []
    for name, draw in makers.items():
        for seed, size in ((0, (320, 240)), (4, (240, 240)), (5, (32, 32))):
            content = name if name == "neither" else f"a {name}"
            samples.append(Sample(f"incoming/{name}-{seed}.png", content, _encoded(draw(*size, seed), "PNG")))
    return [*samples, *_of_any(drawing.blurred(320, 240), drawing.motorcycle(*LARGE))]


def _of_any(blurred: Image.Image, large: Image.Image) -> list[Sample]:
    """Return the samples of every set: out of focus, large and rotated, damaged, not an image, missing."""
    turned = Image.Exif()
    turned[0x0112] = 6  # a camera held upright: rotate clockwise to display
    upright = _encoded(large.transpose(Image.Transpose.ROTATE_90), "JPEG", exif=turned)
    return [
        Sample("incoming/out-of-focus.jpg", "out of focus", _encoded(blurred, "JPEG")),
        Sample("incoming/12-megapixels.jpg", "12 megapixels, rotated", upright),
        Sample("incoming/damaged.jpg", "half a file", upright[: len(upright) // 2]),
        Sample("incoming/notes.png", "not an image", b"A text file with the name of an image.\n"),
        Sample("incoming/never-uploaded.png", "missing", None),
    ]


def _encoded(image: Image.Image, file_format: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, file_format, **options)
    return buffer.getvalue()
