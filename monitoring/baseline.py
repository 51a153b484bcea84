"""The drift baseline: features as ``statistics.json`` and ``constraints.json``, in Model Monitor's format, and back.

If the model describes images as well as classifies them, two files beside these let their content be compared: the
model (``content.onnx``), and its features of the baseline's images (``content.npz``). A report shows some of the
baseline's pictures (``pictures.json``).

Formats: https://docs.aws.amazon.com/sagemaker/latest/dg/model-monitor-byoc-statistics.html and
https://docs.aws.amazon.com/sagemaker/latest/dg/model-monitor-byoc-constraints.html
"""

import io
import json
import tempfile
import zipfile
from collections import Counter
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from common import storage
from common.errors import CommandError
from common.page import Thumbnail
from monitoring.content import Rows
from monitoring.drift import LEAST_PSI, SIGNIFICANCE
from monitoring.features import CATEGORICAL, NEITHER, NUMERIC, PASSES, UNSURE, Features, Model
from serving.model import Model as Network

STATISTICS, CONSTRAINTS, VIOLATIONS = "statistics.json", "constraints.json", "constraint_violations.json"
CONTENT_MODEL, CONTENT_ROWS = "content.onnx", "content.npz"
PICTURES = "pictures.json"
#: Version of the files, raised when a check needs something that older baselines lack.
FORMAT = 2
#: Least fraction of a window's captures that must be readable.
COMPLETENESS = 0.95
#: The format's sketch holds up to this many values, before it halves them.
_SKETCH_SIZE = 2048
_BUCKETS = 10
# For additions to the format.
_OWN = "image_classifier"
_CREATE = "python -m monitoring baseline --stack-name STACK, or: --captures ADDRESS --output ADDRESS"


@dataclass(frozen=True)
class Usual:
    """A picture of the baseline: its thumbnail, its numeric features by name, the prediction, and the outcome."""

    thumbnail: Thumbnail
    numeric: dict[str, float]
    answer: str
    outcome: str


@dataclass(frozen=True)
class Baseline:
    """The features that a window is compared with, and the limits of the comparison.

    ``network`` computes features of images' content; ``content`` are those of the baseline's images. Both may be None.
    ``captures`` are the event ids of the captures that it was created from, and ``pictures`` some of their pictures;
    baselines of older versions have none.
    """

    features: Features
    model: Model
    significance: float
    least_psi: float
    completeness: float
    network: Network | None = None
    content: Rows | None = None
    captures: frozenset[str] = frozenset()
    pictures: tuple[Usual, ...] = ()


def baseline_statistics(features: Features, event_ids: list[str]) -> dict[str, Any]:
    """Describe a baseline's features in the format of ``statistics.json``, with the event ids of its captures."""
    return {**statistics(features), _OWN: {"captures": event_ids}}


def statistics(features: Features) -> dict[str, Any]:
    """Describe features in the format of ``statistics.json``."""
    missing = features.unreadable.total()
    common = {"num_present": len(features), "num_missing": missing}
    described: list[dict[str, Any]] = []
    if not len(features):  # a mean of nothing is not a number
        return {"version": 0.0, "dataset": {"item_count": missing}, "features": described}
    for name, column in features.numeric.items():
        values = np.array(column)
        counts, edges = np.histogram(values, _BUCKETS)
        buckets = [
            {"lower_bound": float(lower), "upper_bound": float(upper), "count": float(count)}
            for lower, upper, count in zip(edges[:-1], edges[1:], counts, strict=True)
        ]
        sketch = {"parameters": {"c": 0.64, "k": float(_SKETCH_SIZE)}, "data": _sketch(values)}
        described.append(
            {
                "name": name,
                "inferred_type": "Fractional",
                "numerical_statistics": {
                    "common": common,
                    "mean": float(values.mean()),
                    "sum": float(values.sum()),
                    "std_dev": float(values.std()),
                    "min": float(values.min()),
                    "max": float(values.max()),
                    "distribution": {"kll": {"buckets": buckets, "sketch": sketch}},
                },
            }
        )
    for name, texts in features.categorical.items():
        counted = [{"value": value, "count": count} for value, count in sorted(Counter(texts).items())]
        described.append(
            {
                "name": name,
                "inferred_type": "String",
                "string_statistics": {
                    "common": common,
                    "distinct_count": float(len(counted)),
                    "distribution": {"categorical": {"buckets": counted}},
                },
            }
        )
    return {"version": 0.0, "dataset": {"item_count": len(features) + missing}, "features": described}


def _sketch(values: np.ndarray[Any, Any]) -> list[list[float]]:
    """Return the values, sorted, as a KLL sketch: each value at level n stands for 2**n."""
    # Karnin, Lang and Liberty 2016 (https://arxiv.org/abs/1603.05346). All values are in memory, so a whole level is
    # halved at once: every other value in sorted order is dropped.
    kept, level = np.sort(values), 0
    while len(kept) > _SKETCH_SIZE:
        kept, level = kept[level % 2 :: 2], level + 1
    # Values are not rounded: a constant feature must stay equal to the window's.
    return [*([] for _ in range(level)), kept.tolist()]


def pack(content: Rows) -> bytes:
    """Return the content of ``content.npz``."""
    file = io.BytesIO()
    np.savez_compressed(file, features=content)
    return file.getvalue()


def constraints(
    model: Model,
    significance: float = SIGNIFICANCE,
    least_psi: float = LEAST_PSI,
    content: int = 0,
    pictures: int = 0,
) -> dict[str, Any]:
    """Describe the constraints on a window, in the format of ``constraints.json``.

    ``comparison_threshold`` is the least population stability index that counts as drift. Significance, labels, the
    threshold, of how many images the content is compared, and how many pictures are kept are additions to the format.
    """
    domains = {"answer": [*model.labels, NEITHER], "outcome": [PASSES, UNSURE]}
    features: list[dict[str, Any]] = [
        {
            "name": name,
            "inferred_type": "Fractional",
            "completeness": COMPLETENESS,
            "num_constraints": {"is_non_negative": name not in ("sharpness", "blockiness")},  # logarithms
        }
        for name in NUMERIC
    ]
    features += [
        {
            "name": name,
            "inferred_type": "String",
            "completeness": COMPLETENESS,
            "string_constraints": {"domains": domains[name]},
        }
        for name in CATEGORICAL
    ]
    own = {"format": FORMAT, **asdict(model), "significance": significance, "content": content, "pictures": pictures}
    return {
        "version": 0.0,
        "features": features,
        "monitoring_config": {
            "evaluate_constraints": "Enabled",
            "emit_metrics": "Enabled",
            "datatype_check_threshold": 1.0,
            "domain_content_threshold": 1.0,
            "distribution_constraints": {
                "perform_comparison": "Enabled",
                "comparison_threshold": least_psi,
                "comparison_method": "Robust",
            },
        },
        _OWN: own,
    }


def load_baseline(address: str) -> Baseline:
    """Read a baseline from a folder or ``s3://`` prefix that holds its files.

    Raises
    ------
    CommandError
        A file is missing, is not valid, or has another format.
    """
    try:
        described, limits = (json.loads(_read(address, name)) for name in (STATISTICS, CONSTRAINTS))
    except ValueError as error:
        raise CommandError(f"the baseline in {address} is not JSON: {error}") from error
    try:
        own = limits[_OWN]
        if (found := own.get("format", 1)) != FORMAT:
            raise CommandError(
                f"the baseline in {address} has format {found}, and this version needs format {FORMAT}; create it "
                f"again with: {_CREATE}"
            )
        features = Features()
        for each in described["features"]:
            _restore(features, each)
        missing = [name for name, column in (features.numeric | features.categorical).items() if not column]
        if missing:
            raise KeyError(f"features {', '.join(missing)}")
        least_psi = float(limits["monitoring_config"]["distribution_constraints"]["comparison_threshold"])
        network, content = _content(address) if own["content"] else (None, None)
        return Baseline(
            features,
            Model([str(label) for label in own["labels"]], _fraction(own, "threshold")),
            _fraction(own, "significance"),
            least_psi,
            min(_fraction(each, "completeness") for each in limits["features"]),
            network,
            content,
            frozenset(map(str, described.get(_OWN, {}).get("captures", []))),
            _pictures(address) if own.get("pictures") else (),
        )
    except KeyError as error:
        raise CommandError(f"the baseline in {address} lacks {error}; create it again with: {_CREATE}") from error
    except (AttributeError, TypeError, ValueError, zipfile.BadZipFile) as error:
        raise CommandError(
            f"the baseline in {address} is not valid ({error}); create it again with: {_CREATE}"
        ) from error


def _read(address: str, name: str) -> bytes:
    try:
        return storage.read(storage.join(address, name))
    except CommandError as error:
        raise CommandError(f"{error}; create the drift baseline with: {_CREATE}") from error


def _content(address: str) -> tuple[Network, Rows]:
    rows = np.load(io.BytesIO(_read(address, CONTENT_ROWS)))["features"]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / CONTENT_MODEL
        path.write_bytes(_read(address, CONTENT_MODEL))
        try:
            return Network(path), rows
        except CommandError as error:
            raise ValueError(str(error).replace(str(path), CONTENT_MODEL)) from error


def _pictures(address: str) -> tuple[Usual, ...]:
    return tuple(
        Usual(Thumbnail(*each["thumbnail"]), each["numeric"], each["answer"], each["outcome"])
        for each in json.loads(_read(address, PICTURES))
    )


def _fraction(part: dict[str, Any], name: str) -> float:
    """Return a number from 0 to 1; people may have edited it."""
    value = float(part[name])
    if not 0 <= value <= 1:
        raise ValueError(f"{name} must be a number from 0 to 1, got {value:g}")
    return value


def _restore(features: Features, described: dict[str, Any]) -> None:
    name = described["name"]
    if name in features.numeric:
        levels = described["numerical_statistics"]["distribution"]["kll"]["sketch"]["data"]
        for level, values in enumerate(levels):
            features.numeric[name] += [float(value) for value in values for _ in range(2**level)]
    elif name in features.categorical:
        for bucket in described["string_statistics"]["distribution"]["categorical"]["buckets"]:
            features.categorical[name] += [str(bucket["value"])] * int(bucket["count"])
