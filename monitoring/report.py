"""The report page of a window of captures: one HTML file that needs no network."""

import datetime
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from common.page import Thumbnail, render_template, thumbnail
from common.progress import progress
from monitoring import plots
from monitoring.baseline import Baseline
from monitoring.check import CAPTURE, Check
from monitoring.content import NEIGHBOURS
from monitoring.drift import CONTENT, LEAST_CAPTURES, Finding, categorical_counts, find_beyond
from monitoring.features import NEITHER, NUMERIC, PASSES, UNSURE, decode
from monitoring.plots import OUTCOMES
from monitoring.window import Picture, Record, Window

# Values of features in the files of baselines and checks, in the words of the outcomes.
_VALUES = {PASSES: "accepted", UNSURE: "unsure or neither"}
_SHORT = datetime.timedelta(minutes=10)
_MEANINGS = {
    **NUMERIC,
    "answer": "most probable label, or neither",
    "outcome": "whether the prediction passes the threshold",
    CONTENT: f"fraction of an image's {NEIGHBOURS} most similar images that are in the window",
}
# Where to look first, if a feature drifted.
_CAUSES = {
    "brightness": "lighting, time of day, exposure",
    "shadows": "fog, glare, a dirty lens, exposure",
    "contrast": "fog, glare, a dirty lens, another camera",
    "sharpness": "focus, motion, a dirty lens, enlarged images",
    "saturation": "white balance, night mode, grey images",
    "entropy": "plain backgrounds, detail lost in compression",
    "blockiness": "stronger JPEG compression by the sender",
    "pixels": "another camera, crop, or size chosen by the sender",
    "aspect_ratio": "another camera or crop",
    "confidence": "images unlike the training data, another model",
    "answer": "another mix of subjects, another model",
    "outcome": "images unlike the training data, another model or threshold",
    CONTENT: "new subjects, scenes or senders; many images of one scene",
}
# How many pictures are shown of the window, and beside them of the baseline.
_MULTIPLES = 4
_OUTCOME_MEANINGS = {
    "accepted": "passes the threshold",
    "unsure": "a label, below the threshold",
    "neither": "most probably none of the labels",
}


@dataclass(frozen=True)
class Share:
    """How often a value occurs in the window, and its shares there and in the baseline, None if unknown."""

    name: str
    count: int
    now: float
    before: float | None
    meaning: str = ""


def render(window: Window, baseline: Baseline, result: Check) -> str:
    """Return the page.

    The values that come from captures (names, reasons, labels) are escaped, and the page's content security policy
    blocks everything except its own script.

    Parameters
    ----------
    window : Window
        The captures.
    baseline : Baseline
        The baseline to compare with, and the model's labels and threshold.
    result : Check
        Result of comparing the two.
    """
    values: dict[str, Any] = {
        "verdict": _verdict(result),
        "incomplete": [each["description"] for each in result.violations if each["feature_name"] == CAPTURE],
        "window": window,
        "baseline": baseline,
        "labels": baseline.model.labels,
        "threshold": baseline.model.threshold,
        "least_captures": LEAST_CAPTURES,
        "least_for_median": plots.LEAST_FOR_MEDIAN,
        "drift": _drift(result, baseline, window),
    }
    if window.records:
        values |= _traffic(window, baseline)
        values["unusual"] = _pictures(result.unusual, {label: key for key, label in enumerate(baseline.model.labels)})
    return render_template("monitoring/report.html", **values)


def outcome_of(record: Record) -> str:
    """Return the outcome of a capture, one of `OUTCOMES`: below the threshold, neither if that is most probable."""
    if record.outcome == PASSES:
        return "accepted"
    return "neither" if record.answer == NEITHER else "unsure"


def _verdict(result: Check) -> str:
    unreadable = f"{result.unreadable:,} capture{'' if result.unreadable == 1 else 's'} could not be read"
    if not result.captures:
        return unreadable[0].upper() + unreadable[1:] if result.unreadable else "No captures in this time range"
    if not result.findings:
        return f"Too few captures to compare: need at least {LEAST_CAPTURES}, got {result.captures}"
    drifted = [_title(finding.feature) for finding in _by_drift(result.findings) if finding.drifted]
    incomplete = len(result.violations) > len(drifted)
    if not drifted:
        return f"No drift detected, but {unreadable}" if incomplete else "No drift detected"
    return f"{len(drifted)} of {len(result.findings)} features drifted: {', '.join(drifted)}"


def _by_drift(findings: Sequence[Finding]) -> list[Finding]:
    """Return the drifted ones first, and of them the one that drifted most."""
    return sorted(findings, key=lambda each: (not each.drifted, -each.psi * each.drifted))


def _title(feature: str) -> str:
    return "prediction" if feature == "answer" else feature.replace("_", " ")


def _drift(result: Check, baseline: Baseline, window: Window) -> list[dict[str, Any]]:
    cards = []
    with progress("draw", len(result.findings), "features") as advance:
        for finding in _by_drift(result.findings):
            card = _card(finding, baseline, window, result)
            if finding.drifted:
                card |= _multiples(finding, baseline, window, result)
            cards.append(card)
            advance(1)
    return cards


def _card(finding: Finding, baseline: Baseline, window: Window, result: Check) -> dict[str, Any]:
    feature, key = finding.feature, f"test-{finding.feature}"
    p, exponent = _p_value(finding.p_value)
    card = {"finding": finding, "key": key, "title": _title(feature), "meaning": _MEANINGS[feature]}
    card |= {"p": p, "exponent": exponent, "plot": None}
    if feature in NUMERIC:
        before, now = (np.array(each.features.numeric[feature]) for each in (baseline, window))
        return card | {"plot": plots.distribution(before, now, feature, key)}
    if feature == CONTENT and (content := result.content):
        return card | {"plot": plots.distribution(content.baseline, content.window, feature, key)}
    shares = _category_shares(feature, baseline, window)
    return card | {"shares": [replace(each, name=_VALUES.get(each.name, each.name)) for each in shares]}


def _category_shares(feature: str, baseline: Baseline, window: Window) -> list[Share]:
    names, counts = categorical_counts(*(each.features.categorical[feature] for each in (baseline, window)))
    before, now = (each / each.sum() for each in counts)
    return [Share(*each) for each in zip(names, map(int, counts[1]), now, before, strict=True)]


def _multiples(finding: Finding, baseline: Baseline, window: Window, result: Check) -> dict[str, Any]:
    """Return how a feature drifted, in a sentence, and typical pictures of the drift and of the baseline."""
    feature = finding.feature
    said, usual = finding.summary, list(baseline.pictures)
    if feature in NUMERIC:
        before, now = (np.array(each.features.numeric[feature]) for each in (baseline, window))
        beyond, middle = find_beyond(feature, before, now), float(np.median(before))
        odd = [each for each in window.sample if beyond.holds(each.numeric[feature])]
        typical = float(np.median([each.numeric[feature] for each in odd] or [0.0]))
        odd.sort(key=lambda each: abs(each.numeric[feature] - typical))
        usual.sort(key=lambda each: abs(each.numeric[feature] - middle))
    elif feature == CONTENT:
        said, odd = "Many images resemble each other more than any in the baseline", result.unusual
    else:
        shares = _category_shares(feature, baseline, window)
        grown = max(shares, key=lambda share: share.now - (share.before or 0))
        said = f"{grown.now:.0%} of the predictions are {_VALUES.get(grown.name, grown.name)}, in the baseline "
        said += f"{grown.before or 0:.0%}"
        odd = [each for each in window.sample if getattr(each.record, feature) == grown.name]
        typical = float(np.median([each.record.confidence for each in odd] or [0.0]))
        odd.sort(key=lambda each: abs(each.record.confidence - typical))
        usual = [each for each in usual if getattr(each, feature) != grown.name] or usual
    number = "{:,.0f}" if feature == "pixels" else "{:#.3g}"

    def shown(numeric: dict[str, float], picture: Thumbnail) -> tuple[Thumbnail, str]:
        return picture, number.format(numeric[feature]) if feature in NUMERIC else ""

    return {
        "said": said,
        "causes": _CAUSES[feature],
        "odd": [shown(each.numeric, thumbnail(decode(each.image)[0])) for each in _different(odd, "image")],
        "usual": [shown(each.numeric, each.thumbnail) for each in _different(usual, "thumbnail")],
    }


def _different(pictures: Sequence[Any], attribute: str) -> list[Any]:
    """Return the first few pictures, of several with the same value of an attribute only one."""
    first: dict[Any, Any] = {}
    for each in pictures:
        first.setdefault(getattr(each, attribute), each)
    return list(first.values())[:_MULTIPLES]


def _p_value(p: float) -> tuple[str, str]:
    """Return a p-value, or its mantissa and exponent."""
    if p >= 0.001:
        return f"{p:.3f}", ""
    # The least that floating-point numbers can tell from 0.
    mantissa, exponent = f"{p:.1e}".split("e") if p else ("less than 1.0", "-300")
    return mantissa, str(int(exponent)).replace("-", "−")


def _traffic(window: Window, baseline: Baseline) -> dict[str, Any]:
    """Return the endpoints, the outcomes, and what the filters select: confidence over time, and images."""
    records, labels = window.records, baseline.model.labels
    first, last = records[0].time, records[-1].time
    seconds = np.array([record.time.timestamp() for record in records])
    confidence = np.array([record.confidence for record in records])
    outcomes = np.array([outcome_of(record) for record in records])
    predicted = np.array([record.label for record in records])
    edges = plots.time_edges(seconds)
    panels = []
    for key, label in enumerate(labels):
        its = predicted == label
        if not its.any():
            continue
        plot = plots.confidence_over_time(
            seconds[its],
            confidence[its],
            outcomes[its],
            edges,
            baseline.model.threshold,
            f"Confidence over time: {label}",
        )
        shares = [(name, (outcomes[its] == name).mean()) for name in OUTCOMES]
        panel = {"key": key, "label": label, "plot": plot, "count": int(its.sum()), "shares": shares}
        panels.append(panel | {"median": np.median(confidence[its])})
    numbers = {label: key for key, label in enumerate(labels)}
    compared = _outcomes(outcomes.tolist(), baseline)
    # Minutes say nothing of a range that is hardly longer.
    clock = "%H:%M:%S" if last - first < _SHORT else "%H:%M"
    return {
        "first": f"{first:%Y-%m-%d {clock}}",
        "last": f"{last:{clock}}" if first.date() == last.date() else f"{last:%Y-%m-%d {clock}}",
        "served": sorted({(record.endpoint, record.variant) for record in records}),
        "outcomes": {
            "shares": compared,
            "plot": plots.shares_over_time(seconds, outcomes, edges, compared[0].before or 0.0, "shares"),
        },
        "panels": panels,
        "least_confident": _pictures(window.least_confident, numbers),
        "newest": _pictures(window.newest, numbers),
    }


def _outcomes(outcomes: list[str], baseline: Baseline) -> list[Share]:
    before = baseline.features.categorical
    accepted = before["outcome"].count(PASSES) / len(before["outcome"])
    neither = before["answer"].count(NEITHER) / len(before["answer"])
    was: dict[str, float | None] = {
        "accepted": accepted,
        "unsure": max(0.0, 1 - accepted - neither),
        "neither": neither,
    }
    if baseline.model.threshold < 0.5:
        # A label may pass although "neither" is more probable, and the baseline does not say how often.
        was |= {"unsure": None, "neither": None}
    counts = Counter(outcomes)
    return [
        Share(name, counts[name], counts[name] / len(outcomes), was[name], _OUTCOME_MEANINGS[name]) for name in OUTCOMES
    ]


def _pictures(pictures: Sequence[Picture], numbers: dict[str, int]) -> list[dict[str, Any]]:
    return [
        {
            "record": picture.record,
            "key": numbers[picture.record.label],
            "outcome": outcome_of(picture.record),
            "neither": max(0.0, 1 - sum(picture.probabilities)),
            "thumbnail": thumbnail(decode(picture.image)[0]),
        }
        for picture in pictures
    ]
