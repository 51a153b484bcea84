"""A stand-in for SageMaker's built-in image classification, whose own image (MXNet) does not run here.

``train ML`` and ``serve MODEL PORT`` are its two commands. It checks what AWS documents of a training job:
hyper-parameters, channels, lists of images, sizes. It learns no more than the mean thumbnail of each class: enough to
show that lists, classes and answers belong together, and no measure of the algorithm.

https://docs.aws.amazon.com/sagemaker/latest/dg/image-classification.html,
https://docs.aws.amazon.com/sagemaker/latest/dg/IC-Hyperparameter.html
"""

import io
import json
import math
import re
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from PIL import Image

MODEL = "stand-in.json"
CONTENT_TYPES = ("image/png", "image/jpeg", "application/x-image")
CHANNELS = ("train", "validation", "train_lst", "validation_lst")
_INTEGER, _NUMBER, _FRACTION = r"[1-9]\d*", r"\d+(\.\d*)?(e-?\d+)?", r"0|1|0?\.\d+|1\.0+|\d+(\.\d+)?e-\d+"
REQUIRED = {"num_classes": _INTEGER, "num_training_samples": _INTEGER}
OPTIONAL = {
    "augmentation_type": "crop|crop_color|crop_color_transform",
    "beta_1": _FRACTION,
    "beta_2": _FRACTION,
    "checkpoint_frequency": _INTEGER,
    "early_stopping": "True|False",
    "early_stopping_min_epochs": _INTEGER,
    "early_stopping_patience": _INTEGER,
    "early_stopping_tolerance": _FRACTION,
    "epochs": _INTEGER,
    "eps": _FRACTION,
    "gamma": _FRACTION,
    "image_shape": r"\d+, ?\d+, ?\d+",
    "kv_store": "dist_sync|dist_async",
    "learning_rate": _FRACTION,
    "lr_scheduler_factor": _FRACTION,
    "lr_scheduler_step": r"\d+(, ?\d+)*",
    "mini_batch_size": _INTEGER,
    "momentum": _FRACTION,
    "multi_label": "0|1",
    "num_layers": "18|34|50|101|152|200|20|32|44|56|110",
    "optimizer": "sgd|adam|rmsprop|nag",
    "precision_dtype": "float32|float16",
    "resize": _INTEGER,
    "top_k": _INTEGER,
    "use_pretrained_model": "0|1",
    "use_weighted_loss": "0|1",
    "weight_decay": _FRACTION,
}
#: Those of ImageNet, whose weights transfer learning begins with.
PRETRAINED_LAYERS = ("18", "34", "50", "101", "152", "200")
_GPU = re.compile(r"ml\.[gp]\d")
_THUMBNAIL = 8
#: Squared differences of thumbnails, of values from 0 to 1, to logits.
_SHARPNESS = 200.0

Thumbnail = list[float]


class Rejected(Exception):
    """The job's input is not what AWS documents."""


def check_hyperparameters(given: dict[str, str]) -> None:
    """Raise `Rejected` for hyper-parameters that are missing, unknown or have other values than AWS documents."""
    if missing := [name for name in REQUIRED if name not in given]:
        raise Rejected(f"hyperparameters are required: {', '.join(missing)}")
    for name, value in given.items():
        pattern = {**REQUIRED, **OPTIONAL}.get(name)
        if pattern is None:
            raise Rejected(f"additional hyperparameters are not allowed: {name}")
        if not re.fullmatch(pattern, value):
            raise Rejected(f"hyperparameter {name} has the invalid value {value!r}")
    if given.get("use_pretrained_model") == "1" and given.get("num_layers", "152") not in PRETRAINED_LAYERS:
        raise Rejected(f"num_layers must be one of {', '.join(PRETRAINED_LAYERS)} with use_pretrained_model")
    if int(given.get("checkpoint_frequency", 1)) > int(given.get("epochs", 30)):
        raise Rejected("checkpoint_frequency is greater than epochs")


def read_list(folder: Path, classes: int, images: Path, numbers: set[int]) -> list[tuple[int, Path]]:
    """Return the class and the file of each image of the ``.lst`` file in a folder; add its numbers."""
    files = sorted(folder.rglob("*"))
    if [path.suffix for path in files] != [".lst"]:
        raise Rejected(f"channel {folder.name} must hold one .lst file, not {[path.name for path in files]}")
    found = []
    for line in files[0].read_text().splitlines():
        parts = re.fullmatch(r"(\d+)\t(\d+)\t([^\t]+\.(?:png|jpe?g))", line)
        if not parts:
            raise Rejected(f"{files[0].name}: {line!r} is not an index, a class and a path, separated by tabs")
        number, label, path = int(parts[1]), int(parts[2]), images / parts[3]
        if number in numbers or label >= classes or not path.is_file():
            raise Rejected(
                f"{files[0].name}: {line!r}: the index is not unique, the class not below num_classes, or no such file"
            )
        numbers.add(number)
        found.append((label, path))
    return found


def thumbnail(content: bytes) -> Thumbnail:
    """Return an image as values from 0 to 1."""
    with Image.open(io.BytesIO(content)) as image:
        small = image.convert("RGB").resize((_THUMBNAIL, _THUMBNAIL), Image.Resampling.BOX)
    return [value / 255 for value in small.tobytes()]


def probabilities(means: list[Thumbnail], seen: Thumbnail) -> list[float]:
    """Return the softmax of how near an image is to each class."""
    logits = [-_SHARPNESS * sum((a - b) ** 2 for a, b in zip(mean, seen, strict=True)) / len(seen) for mean in means]
    weights = [math.exp(logit - max(logits)) for logit in logits]
    return [weight / sum(weights) for weight in weights]


def train(root: Path) -> None:
    """Check the input of a job, and write a model."""
    config = root / "input" / "config"
    given, channels, host = (
        json.loads((config / f"{name}.json").read_text())
        for name in ("hyperparameters", "inputdataconfig", "resourceconfig")
    )
    check_hyperparameters(given)
    if not _GPU.match(host["current_instance_type"]):
        raise Rejected(f"the algorithm trains on GPUs only, and {host['current_instance_type']} has none")
    if sorted(channels) != sorted(CHANNELS):
        raise Rejected(f"the stand-in takes the channels {', '.join(CHANNELS)}, not {', '.join(channels)}")
    for name, channel in channels.items():
        if channel.get("ContentType") != "application/x-image":
            raise Rejected(f"channel {name} must have the content type application/x-image")
    classes, numbers = int(given["num_classes"]), set[int]()
    data = root / "input" / "data"
    splits = {name: read_list(data / f"{name}_lst", classes, data / name, numbers) for name in ("train", "validation")}
    if len(splits["train"]) != int(given["num_training_samples"]):
        raise Rejected(f"num_training_samples is {given['num_training_samples']}, and there are {len(splits['train'])}")
    if {label for label, _ in splits["train"]} != set(range(classes)):
        raise Rejected("the classes are not numbered successively from 0")
    edge = max(map(int, given.get("image_shape", "3,224,224").split(",")[1:]))
    seen: dict[str, list[tuple[int, Thumbnail]]] = {}
    for name, images in splits.items():
        seen[name] = []
        for label, path in images:
            with Image.open(path) as image:
                shortest = int(given["resize"]) if "resize" in given else min(image.size)
            if shortest < edge:
                raise Rejected(f"{path.name} is smaller than image_shape")
            seen[name].append((label, thumbnail(path.read_bytes())))
    means = []
    for wanted in range(classes):
        own = [values for label, values in seen["train"] if label == wanted]
        means.append([sum(column) / len(own) for column in zip(*own, strict=True)])
    print("This stand-in for the built-in algorithm learns the mean thumbnail of each class.")
    for name, images_of in seen.items():
        chosen = [probabilities(means, values) for _, values in images_of]
        right = [each.index(max(each)) == label for each, (label, _) in zip(chosen, images_of, strict=True)]
        print(f"Epoch[0] {name.title()}-accuracy={sum(right) / len(right):.6f}", flush=True)
    (root / "model" / MODEL).write_text(json.dumps(means))


class Handler(BaseHTTPRequestHandler):
    """The answers of an endpoint."""

    protocol_version = "HTTP/1.1"
    means: list[Thumbnail]

    def do_GET(self) -> None:
        """Answer a ping."""
        self._answer(200 if self.path == "/ping" else 404, b"")

    def do_POST(self) -> None:
        """Answer with the probabilities of all classes."""
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        if self.headers.get("Content-Type") not in CONTENT_TYPES:
            self._answer(415, b"Unsupported content-type")
            return
        try:
            found: Any = probabilities(self.means, thumbnail(body))
        except OSError:
            self._answer(400, b"Unable to decode the image")
            return
        lines = self.headers.get("Accept") == "application/jsonlines"
        self._answer(200, json.dumps({"prediction": found} if lines else found).encode())

    def _answer(self, status: int, body: bytes) -> None:
        self.send_response(status)
        self.send_header("Content-Type", "application/json" if status == 200 else "text/plain")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:
        """Log nothing."""


def serve(folder: Path, port: int) -> None:
    """Answer requests until the process ends."""
    Handler.means = json.loads((folder / MODEL).read_text())
    ThreadingHTTPServer(("127.0.0.1", port), Handler).serve_forever()


def main(command: str, folder: str, *port: str) -> int:
    """Run a command; return its exit code."""
    if command == "serve":
        serve(Path(folder), int(port[0]))
        return 0
    try:
        train(Path(folder))
    except Rejected as error:
        # The job's failure reason.
        (Path(folder) / "output" / "failure").write_text(f"Customer error: {error}")
        print(f"Customer error: {error}")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
