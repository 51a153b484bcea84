"""Create a baseline, and check a window of captures against it."""

import datetime
import json
import random
import sys
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import boto3

from common import storage
from common.capture import Capture
from common.errors import CommandError
from common.folders import skipped_lines
from common.image_sets import find_sets
from common.images import as_sent
from common.page import thumbnail
from common.progress import progress
from monitoring.baseline import (
    CONSTRAINTS,
    CONTENT_MODEL,
    CONTENT_ROWS,
    PICTURES,
    STATISTICS,
    VIOLATIONS,
    Baseline,
    Usual,
    baseline_statistics,
    constraints,
    pack,
    statistics,
)
from monitoring.content import Content, compare_content, describe
from monitoring.drift import LEAST_CAPTURES, Finding, compare
from monitoring.features import Model, decode
from monitoring.window import PICTURES as MOST_PICTURES
from monitoring.window import Picture, Window
from serving.model import Model as Network
from serving.preprocess import preprocess
from src.serialize.decoder import ImageError

#: Media type of a report.
PAGE_TYPE = "text/html; charset=utf-8"
#: What a violation names in place of a feature if too few captures could be read.
CAPTURE = "capture"


@dataclass(frozen=True)
class Check:
    """The result of a check; ``findings`` is empty if there were too few captures to compare.

    ``content`` is None unless content was compared; ``unusual`` are the images that are least like the baseline's, the
    least like them first.
    """

    findings: list[Finding]
    violations: list[dict[str, str]]
    captures: int
    unreadable: int
    content: Content | None = None
    unusual: list[Picture] = field(default_factory=list)


def captures_of_images(folder: Path, model_path: Path) -> tuple[list[Capture], list[str]]:
    """Classify images as the endpoint would; return them as captures, and the model's labels.

    Parameters
    ----------
    folder : pathlib.Path
        Class folders, at least one of them named after a label; of a staged folder the test images are used. The
        model must not have been trained on them: it is more confident of training images.
    model_path : pathlib.Path
        The ONNX file.

    Raises
    ------
    CommandError
        As `serving.model.Model` and `common.image_sets.find_sets`.
    """
    network = Network(model_path)
    (found,) = find_sets([str(folder)], network.labels).values()
    for line in skipped_lines(found.skipped):
        print(line, file=sys.stderr)
    now = datetime.datetime.now(datetime.UTC)
    captures = []
    with progress("classify", len(found.images), "images") as advance:
        for image in found.images:
            advance(1)
            try:
                content = as_sent(image.path.read_bytes())
                probabilities = network.probabilities(preprocess(content, network.input_size))
            except ImageError as error:
                print(f"skipped {image.name}: {error}", file=sys.stderr)
                continue
            captures.append(Capture(image.name, now, "", "", None, "image/png", content, probabilities))
    return captures, network.labels


def write_baseline(window: Window, model: Model, address: str, content_model: Path | None = None) -> int:
    """Write ``statistics.json``, ``constraints.json``, some pictures, and what content needs if the model has features.

    Parameters
    ----------
    window : Window
        The captures.
    model : Model
        Labels and threshold of the captured model.
    address : str
        A folder or ``s3://`` prefix.
    content_model : pathlib.Path or None
        An ONNX file, not necessarily of the captured model.

    Returns
    -------
    int
        How many images a window's content will be compared with; 0 if the model has no features.

    Raises
    ------
    CommandError
        If there are fewer than `LEAST_CAPTURES` observations; as `serving.model.Model`.
    """
    features, images = window.features, 0
    if len(features) < LEAST_CAPTURES:
        raise CommandError(
            f"Need at least {LEAST_CAPTURES} captures for a baseline, got {len(features)}; some hundreds are better"
        )
    network = Network(content_model) if content_model else None
    if content_model and network and network.has_features:
        rows = describe((picture.image for picture in window.sample), network)
        storage.write(storage.join(address, CONTENT_ROWS), pack(rows), "application/octet-stream")
        storage.write(storage.join(address, CONTENT_MODEL), content_model.read_bytes(), "application/octet-stream")
        images = len(rows)
    pictures = [
        asdict(Usual(thumbnail(decode(each.image)[0]), each.numeric, each.record.answer, each.record.outcome))
        for each in random.Random(0).sample(window.sample, min(MOST_PICTURES, len(window.sample)))
    ]
    _write_json(address, PICTURES, pictures)
    _write_json(address, STATISTICS, baseline_statistics(features, window.event_ids))
    # Last: the drift workflow looks for this file.
    _write_json(address, CONSTRAINTS, constraints(model, content=images, pictures=len(pictures)))
    return images


def check(window: Window, baseline: Baseline) -> Check:
    """Compare a window with a baseline, and list the violations."""
    read, unreadable = len(window.features), window.unreadable.total()
    findings: list[Finding] = []
    violations = []
    content, unusual = None, []
    if window.completeness < baseline.completeness:
        reasons = ", ".join(f"{reason} ({count} times)" for reason, count in window.unreadable.most_common(3))
        violations.append(
            _violation(
                CAPTURE,
                "completeness_check",
                f"only {window.completeness:.1%} of the captures could be read, less than "
                f"{baseline.completeness:.0%}; skipped: {reasons}",
            )
        )
    if read >= LEAST_CAPTURES:
        if baseline.network and baseline.content is not None:
            rows = describe((picture.image for picture in window.sample), baseline.network)
            content = compare_content(baseline.content, rows)
        if content:
            unusual = [window.sample[row] for row in content.most_unusual()[:MOST_PICTURES]]
        findings = compare(baseline.features, window.features, baseline.significance, baseline.least_psi, content)
        violations += [
            _violation(finding.feature, "baseline_drift_check", finding.description)
            for finding in findings
            if finding.drifted
        ]
    return Check(findings, violations, read, unreadable, content, unusual)


def _violation(feature: str, check_type: str, description: str) -> dict[str, str]:
    # https://docs.aws.amazon.com/sagemaker/latest/dg/model-monitor-byoc-constraint-violations.html
    return {"feature_name": feature, "constraint_check_type": check_type, "description": description}


def write_check(result: Check, window: Window, page: str, address: str) -> None:
    """Write ``statistics.json``, ``constraint_violations.json`` and ``report.html``."""
    _write_json(address, STATISTICS, statistics(window.features))
    _write_json(address, VIOLATIONS, {"violations": result.violations})
    storage.write(storage.join(address, "report.html"), page.encode(), PAGE_TYPE)


def _write_json(address: str, name: str, content: Any) -> None:
    text = json.dumps(content, indent=1, allow_nan=False) + "\n"
    storage.write(storage.join(address, name), text.encode(), "application/json")


def put_metrics(result: Check, namespace: str, endpoint: str) -> None:
    """Put CloudWatch metrics: the number of violations, and how far each feature is from its baseline.

    If there were too few captures to compare, there is no metric of violations: an alarm must not end for lack of data.
    """
    of_endpoint = {"Name": "Endpoint", "Value": endpoint}
    counts = {"CapturesRead": result.captures, "CapturesUnreadable": result.unreadable}
    if result.findings or result.violations:
        counts["DriftViolations"] = len(result.violations)
    data: list[Any] = [
        {"MetricName": name, "Dimensions": [of_endpoint], "Unit": "Count", "Value": value}
        for name, value in counts.items()
    ]
    data += [
        {
            "MetricName": "DriftPSI",
            "Dimensions": [of_endpoint, {"Name": "Feature", "Value": finding.feature}],
            "Unit": "None",
            "Value": finding.psi,
        }
        for finding in result.findings
    ]
    boto3.client("cloudwatch").put_metric_data(Namespace=namespace, MetricData=data)
