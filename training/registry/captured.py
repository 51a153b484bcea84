"""Compare a shadow with the model in service, by what both answered to the same requests.

AWS does not document an id that the two captures of a request share. Both hold the image, so answers are paired by its
bytes; an image that was sent several times counts once.
"""

import datetime
import hashlib
import sys
from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import boto3
import numpy as np
import numpy.typing as npt
from rich.table import Table
from rich.text import Text

from common.capture import Capture, CaptureReader
from common.command import console
from common.errors import CommandError
from common.image_sets import ImageFile
from common.model_data import model_data_url
from common.progress import progress
from common.stack import data_capture, inference_id
from training.dataset.reviewed import ReviewedSource
from training.deployment.endpoint import describe_endpoint
from training.evaluation.comparison import (
    UNLABELLED,
    answer_of,
    changed_answers,
    compare_hits,
    compare_set,
    print_comparison,
    write_comparison,
)
from training.evaluation.predictions import Predictions
from training.registry.gate import Paired, compare
from training.registry.packages import load_model
from training.registry.status import package_of

#: Files of images with different answers that are kept for the page; one has about 30 KB.
_MOST_FILES = 1000
#: Name of the set in the page.
_SET = "captured images"
_ROLES = ("in service", "shadow")


@dataclass
class _Answers:
    """What one variant answered, by the SHA-256 of the image; and the image of each request that has an id."""

    requests: int = 0
    by_image: dict[str, list[tuple[datetime.datetime, list[float]]]] = field(default_factory=dict)
    images: dict[str, str] = field(default_factory=dict)

    def read(self, reader: CaptureReader, order: list[int]) -> Iterator[tuple[str, Capture, list[float]]]:
        """Keep the reader's captures; yield each with its image's SHA-256 and its probabilities in another order."""
        with progress("read captures", None, "captures") as advance:
            for capture in reader:
                advance(1)
                if len(capture.probabilities) != len(order):
                    reader.unreadable["another number of probabilities"] += 1
                    continue
                image = hashlib.sha256(capture.image).hexdigest()
                probabilities = [capture.probabilities[i] for i in order]
                self.requests += 1
                self.by_image.setdefault(image, []).append((capture.time, probabilities))
                if capture.inference_id:
                    self.images[capture.inference_id] = image
                yield image, capture, probabilities
        for reason, count in reader.unreadable.most_common():
            print(f"skipped {count}: {reason}", file=sys.stderr)

    def nearest(self, image: str, time: datetime.datetime) -> list[float]:
        """Return the answer to an image that is nearest to a time."""
        return min(self.by_image[image], key=lambda each: abs(each[0] - time))[1]


def compare_captured(
    endpoint_name: str, hours: float | None, labels_place: str | None, threshold: float, out: Path
) -> dict[str, Any]:
    """Compare the captured answers of an endpoint's shadow with those of the model in service.

    Parameters
    ----------
    endpoint_name : str
        The endpoint, with a shadow.
    hours : float or None
        Read only the captures of so many last hours; None reads all since the shadow's configuration was created.
    labels_place : str or None
        A folder or ``s3://bucket/prefix`` of reviews, which are matched to requests by their executions.
    threshold : float
        A prediction passes if its confidence is at least this.
    out : pathlib.Path
        Folder for ``comparison.json`` and ``comparison.html``; created when missing.

    Returns
    -------
    dict
        The content of ``comparison.json``. Of two values, the first is of the model in service.

    Raises
    ------
    CommandError
        There is no such endpoint, it has no shadow or captures nothing, or no image has both answers; the models have
        different labels, or there are no reviews at that place.
    """
    sagemaker: Any = boto3.client("sagemaker")
    place = data_capture(endpoint_name)["DestinationS3Uri"]
    reviews = ReviewedSource(labels_place).labels_by_execution() if labels_place else {}
    endpoint = describe_endpoint(sagemaker, endpoint_name)
    config = sagemaker.describe_endpoint_config(EndpointConfigName=endpoint["EndpointConfigName"])
    variants = [*config["ProductionVariants"], *config.get("ShadowProductionVariants", [])]
    if len(variants) != len(_ROLES):
        raise CommandError(f"endpoint {endpoint_name} has no shadow; start it with: python -m training deploy --shadow")
    models = [load_model(model_data_url(sagemaker, variant["ModelName"])) for variant in variants]
    labels = models[0].labels
    if set(labels) != set(models[1].labels):
        raise CommandError(f"the models have different labels: {', '.join(labels)} and {', '.join(models[1].labels)}")

    since = config["CreationTime"]
    if hours:
        since = max(since, datetime.datetime.now(datetime.UTC) - datetime.timedelta(hours=hours))
    orders = [[model.labels.index(label) for label in labels] for model in models]
    readers = [
        CaptureReader(place, since, endpoint=endpoint_name, variant=variant["VariantName"]) for variant in variants
    ]
    served, copied = _Answers(), _Answers()
    for _ in served.read(readers[0], orders[0]):
        pass
    # The shadow's last answer to each image, and the other model's answer of that time.
    pairs: dict[str, tuple[list[float], list[float]]] = {}
    files: dict[str, bytes] = {}
    for image, capture, probabilities in copied.read(readers[1], orders[1]):
        if image in served.by_image:
            pairs[image] = served.nearest(image, capture.time), probabilities
            given = {answer_of(np.array(each), labels, threshold)["answer"] for each in pairs[image]}
            if len(files) < _MOST_FILES and len(given) > 1:
                files[image] = capture.image
    if not pairs:
        raise CommandError(
            f"no image since {since:%Y-%m-%d %H:%M} has captured answers of both variants ({served.requests} of the "
            f"model in service, {copied.requests} of the shadow); captures arrive after minutes"
        )

    classes = _classes(reviews, served, copied)
    images = [ImageFile(Path(image[:16]), classes.get(image, UNLABELLED)) for image in pairs]
    before, after = (np.array(rows) for rows in zip(*pairs.values(), strict=True))
    comparison: dict[str, Any] = {
        "endpoint": endpoint_name,
        "since": since.isoformat(timespec="seconds"),
        "threshold": threshold,
        "labels": labels,
        "models": [
            {
                "file": f"{variant['VariantName']} ({role})",
                "sha256": model.sha256,
                "package": (package_of(sagemaker, endpoint_name, variant["ModelName"]) or {}).get("name"),
                "requests": answers.requests,
                "mean_confidence": round(float(rows.max(axis=1).mean()), 4),
            }
            for variant, role, model, answers, rows in zip(
                variants, _ROLES, models, (served, copied), (before, after), strict=True
            )
        ],
        "reviews": len(reviews),
        **_compare(images, before, after, labels, threshold),
    }
    keys = list(pairs)
    write_comparison(comparison, out, lambda picture: files.get(keys[int(picture.rpartition(":")[2])]))
    return comparison


def _classes(reviews: dict[str, str], *answers: _Answers) -> dict[str, str]:
    """Return the label of each image whose request belongs to a reviewed execution."""
    classes: dict[str, str] = {}
    for execution, label in reviews.items():
        request = inference_id(execution.rpartition(":")[2])
        classes |= {each.images[request]: label for each in answers if request in each.images}
    return classes


def _compare(
    images: list[ImageFile],
    before: npt.NDArray[np.floating],
    after: npt.NDArray[np.floating],
    labels: list[str],
    threshold: float,
) -> dict[str, Any]:
    """Return how far the answers to all images agree, and what the changes are worth on those with a label."""
    changed = changed_answers(images, before, after, labels, threshold)
    changes = Counter(tuple(answer["answer"] for answer in each["answers"]) for each in changed)
    one, two = (rows.max(axis=1) >= threshold for rows in (before, after))
    passing = compare_hits(one, two)
    known = np.array([image.class_name != UNLABELLED for image in images])
    reviewed = [image for image in images if image.class_name != UNLABELLED]
    targets = np.array(
        [labels.index(image.class_name) if image.class_name in labels else len(labels) for image in reviewed]
    )
    none = np.empty(0, int), np.empty((0, 0, len(labels)))
    new, old = (Predictions(reviewed, targets, rows[known], *none, [], []) for rows in (after, before))
    figures = compare_set(reviewed, before[known], after[known], labels, threshold)["figures"]
    return {
        "same_label": round(float((before.argmax(axis=1) == after.argmax(axis=1)).mean()), 4),
        "same_answer": round(1 - len(changed) / len(images), 4),
        "changes": [{"from": first, "to": second, "images": n} for (first, second), n in changes.most_common()],
        "reviewed": len(reviewed),
        "tests": [asdict(each) for each in compare(new, old, len(labels), threshold)] if reviewed else [],
        "sets": {_SET: {"n": len(images), "figures": {"passing": passing, **figures}, "changed": changed}},
    }


def print_captured(comparison: dict[str, Any]) -> None:
    """Print a comparison of captured answers."""
    models = comparison["models"]
    table = Table("", *(model["file"] for model in models))
    table.add_row("model package", *(Text(model["package"] or "not registered") for model in models))
    table.add_row("captured requests", *(f"{model['requests']:,}" for model in models))
    table.add_row("mean confidence", *(f"{model['mean_confidence']:.3f}" for model in models))
    console().print(table)
    print(
        f"on {comparison['sets'][_SET]['n']:,} images since {comparison['since']} both have the same label in "
        f"{comparison['same_label']:.1%}, and the same answer in {comparison['same_answer']:.1%}"
    )
    for change in comparison["changes"]:
        print(f"  {change['images']}: {change['from']} became {change['to']}")
    if comparison["reviews"]:
        print(f"{comparison['reviewed']} of {comparison['reviews']} reviewed images are among them; below, all figures")
        print("but passing are of these")
    print_comparison(comparison)
    for test in comparison["tests"]:
        print(f"  {Paired(**test)}")
    if comparison["tests"]:
        # Its confident mistakes are not reviewed.
        print("  people mostly review what the model in service was unsure of, which favours the shadow")
