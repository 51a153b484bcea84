"""Compare the decoder with libvips over folders of image files: ``python -m benchmarks.decoders DIR …``.

Every file in the folders is decoded by both. Where both return an image, it must have the same size, and the same
pixels within a tolerance; where one of them rejects a file, the reason must be among the known ones below. Otherwise it
exits with 1.

libvips shares no code with Pillow above the codecs: it has its own orientation, transparency, 16 bits and palettes. It
reads all formats of the decoder except BMP, and has an option to fail on damage. OpenCV does not combine transparency
with orientation, and cannot fail on damage.
"""

import argparse
import re
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import numpy.typing as npt

from common.command import quietly
from src.serialize.decoder import ImageError, decode

#: Over all values of all pixels, of 255. Both use libjpeg-turbo, but round colours and transparency differently.
MEAN_TOLERANCE = 1.0
#: A pixel this far off in one colour is wrong; this fraction may be, at edges of transparency.
PIXEL_TOLERANCE, WRONG_FRACTION = 24, 0.002

Pixels = npt.NDArray[np.uint8]

#: Reasons, by its message, why only the decoder rejects a file.
REJECTED = {
    r"The format (AVIF|HEIC) is not supported": "not among the formats of the decoder",
    r"no known range": "signed, 32-bit and floating-point pixels: the value of white is not specified",
    r"TIFF .* \(unknown pixel mode\)": "bits and channels that Pillow does not combine",
}
#: Reasons, by its message, why only libvips rejects a file: all of these are TIFFs that Pillow can read.
ACCEPTED = {
    r"samples_per_pixel not a whole number of bytes": "12 bits",
    r"bad labq format": "CIELab of 8 bits",
    r"(LZMA|Old-style JPEG) compression support is not configured": "compression that this build of libvips lacks",
    r"tiled separate planes not supported": "tiles of separate planes",
    r"Bad code word at line": "fax codes without a checksum, which libtiff ignores without reporting to Pillow",
}
#: Known differences that are correct, by the end of the path.
KNOWN = {
    "Tests/images/hopper_webp.tif": "Pillow's libtiff has no WebP",
    "exif-samples/jpg/corrupted.jpg": "JPEG has no checksum, and Pillow does not pass libjpeg's warnings on",
}


def main() -> int:
    """Compare, print the differences, and return the exit code."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("folders", nargs="+", type=Path, metavar="DIR", help="image files, at any depth")
    parser.add_argument("--quiet", action="store_true", help="print only unjustified differences, and the totals")
    arguments = parser.parse_args()
    outcomes: Counter[str] = Counter()
    unjustified = 0
    for path in _files(arguments.folders):
        outcome, detail, justified = compare(path)
        outcomes[outcome] += 1
        unjustified += not justified
        if not justified or (detail and not arguments.quiet):
            print(f"{'' if justified else 'NOT JUSTIFIED: '}{outcome}: {path}: {detail}")
    for outcome, count in outcomes.most_common():
        print(f"{count:6} {outcome}")
    return 1 if unjustified or not outcomes else 0


def _files(folders: list[Path]) -> Iterator[Path]:
    for folder in folders:
        yield from sorted(path for path in folder.rglob("*") if path.is_file() and ".git" not in path.parts)


def compare(path: Path) -> tuple[str, str, bool]:
    """Decode one file twice; return the outcome, its details, and whether it is justified."""
    data = path.read_bytes()
    known = next((reason for name, reason in KNOWN.items() if path.as_posix().endswith(name)), None)
    reference, complaint = _decode_by_vips(data)
    try:
        ours = decode(data)
    except ImageError as error:
        if reference is None:
            kind = "of an unknown format" if str(error).startswith("Not a readable image") else "rejected by both"
            return kind, "" if kind == "of an unknown format" else f"{error} — {complaint}", True
        reason = known or _reason(REJECTED, str(error))
        return "rejected by the decoder", f"{error} ({reason or 'no reason known'})", reason is not None
    pixels = np.asarray(ours.image)
    if reference is None:
        if ours.format == "BMP":
            return "BMP, which libvips does not read", "", True
        reason = known or _reason(ACCEPTED, complaint)
        return "rejected by libvips", f"{complaint} ({reason or 'no reason known'})", reason is not None
    if reference.shape != pixels.shape:
        return "differs", f"{pixels.shape} against {reference.shape} ({known})", known is not None
    difference = np.abs(reference.astype(int) - pixels)
    mean, wrong = difference.mean(), (difference.max(axis=2) > PIXEL_TOLERANCE).mean()
    if mean <= MEAN_TOLERANCE and wrong <= WRONG_FRACTION:
        return f"agrees ({ours.format})", "", True
    return "differs", f"by {mean:.2f} on average, {wrong:.2%} of the pixels ({known})", known is not None


def _reason(reasons: dict[str, str], said: str) -> str | None:
    return next((reason for pattern, reason in reasons.items() if re.search(pattern, said)), None)


def _decode_by_vips(data: bytes) -> tuple[Pixels | None, str]:
    """Return upright RGB over white, or None and libvips' message."""
    import pyvips

    try:
        image = pyvips.Image.new_from_buffer(data, "", fail_on="error").autorot()
        if image.hasalpha():
            most = 65535 if image.format == "ushort" else 255
            image = image.flatten(background=[most] * (image.bands - 1))
        if image.interpretation == "cmyk":
            # Without profiles, like the decoder; libvips would use a default one.
            inks = image.numpy().astype(float) / (257 if image.format == "ushort" else 1)
            return np.round((255 - inks[..., :3]) * (255 - inks[..., 3:4]) / 255).astype(np.uint8), ""
        pixels = image.colourspace("srgb").cast("uchar").numpy()
    except pyvips.Error as error:
        return None, " ".join(str(error).split())
    pixels = pixels.reshape(*pixels.shape[:2], -1)
    return np.repeat(pixels, 3, axis=2) if pixels.shape[2] == 1 else pixels[..., :3], ""


if __name__ == "__main__":
    sys.exit(quietly(main))
