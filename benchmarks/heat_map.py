"""Measure how often a heat map falls on a small vehicle: ``python -m benchmarks.heat_map DIR --model FILE``.

DIR has class folders. Each photograph of a label is shrunk and pasted into a photograph of another class, at a random
place: there the vehicle is, whatever the rest shows. Counted is how often the maximum of the label's heat map lies in
the pasted rectangle; and, for chance, in the rectangle of another composition with as large a picture, which is what a
map would reach that only knows where pictures are likely to be.
"""

import argparse
import io
import random
from pathlib import Path

import numpy as np
from PIL import Image

from common.image_sets import find_sets
from common.outcomes import outcome_of
from serving.explanation import heat_map
from serving.model import Model
from serving.preprocess import preprocess
from src.serialize.decoder import decode
from training.evaluation.intervals import wilson

#: Edge of the compositions, in pixels, and the longer side of the pasted picture as a fraction of it.
EDGE, FRACTIONS = 352, (0.25, 0.35, 0.5)

Box = tuple[int, int, int, int]


def compose(vehicle: Path, background: Path, fraction: float, drawn: random.Random) -> tuple[Image.Image, Box]:
    """Paste a shrunk photograph into another one; return the composition and the rectangle."""
    picture = decode(background.read_bytes(), at_least=EDGE).image.resize((EDGE, EDGE), Image.Resampling.LANCZOS)
    pasted = decode(vehicle.read_bytes(), at_least=EDGE).image
    pasted.thumbnail((round(fraction * EDGE), round(fraction * EDGE)), Image.Resampling.LANCZOS)
    x, y = drawn.randrange(EDGE - pasted.width + 1), drawn.randrange(EDGE - pasted.height + 1)
    picture.paste(pasted, (x, y))
    return picture, (x, y, x + pasted.width, y + pasted.height)


def main() -> None:
    """Measure, and print one line per size."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("folder", metavar="DIR", help="folder of class folders, with photographs")
    parser.add_argument("--model", type=Path, default=Path("training/model/model.onnx"), help="default: %(default)s")
    arguments = parser.parse_args()
    model = Model(arguments.model)
    if not model.has_map:
        parser.error(f"{arguments.model} has no class activation maps")
    (found,) = find_sets([arguments.folder], model.labels).values()
    others = [image.path for image in found.images if image.class_name not in model.labels]
    print("size of the vehicle's picture: maximum on it (95% interval), by chance; where its label is accepted")
    for fraction in FRACTIONS:
        drawn = random.Random(0)
        peaks, boxes, accepted = [], [], []
        for image in found.images:
            if image.class_name not in model.labels:
                continue
            picture, box = compose(image.path, drawn.choice(others), fraction, drawn)
            file = io.BytesIO()
            picture.save(file, "PNG")
            probabilities = model.probabilities(preprocess(file.getvalue(), model.input_size))
            confidence = probabilities[model.labels.index(image.class_name)]
            accepted.append(outcome_of(confidence, 1 - sum(probabilities), 0.7) == "accepted")
            heat = np.asarray(heat_map(model, file.getvalue(), image.class_name).getchannel("A"))
            row, column = np.unravel_index(heat.argmax(), heat.shape)
            peaks.append((column / heat.shape[1] * EDGE, row / heat.shape[0] * EDGE))
            boxes.append(box)
        hits = np.array([_inside(peak, box) for peak, box in zip(peaks, boxes, strict=True)])
        chance = np.mean([_inside(peak, box) for i, peak in enumerate(peaks) for j, box in enumerate(boxes) if i != j])
        low, high = wilson(int(hits.sum()), len(hits)) or (0.0, 1.0)
        sure = hits[np.array(accepted)]
        print(
            f"{fraction:.0%} of the edge: {hits.mean():.2f} ({low:.2f} to {high:.2f}) of {len(hits)}, "
            f"by chance {chance:.2f}; accepted {sure.sum()} of {len(sure)}"
        )


def _inside(peak: tuple[float, float], box: Box) -> bool:
    return box[0] <= peak[0] < box[2] and box[1] <= peak[1] < box[3]


if __name__ == "__main__":
    main()
