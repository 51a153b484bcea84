"""The report page of a window of captures: one HTML file that needs no network."""

import base64
import hashlib
from collections import Counter
from collections.abc import Sequence
from html import escape
from pathlib import Path

import numpy as np

from common.page import STYLE, scrolling, thumbnail
from common.progress import progress
from monitoring import plots
from monitoring.baseline import Baseline
from monitoring.check import Check
from monitoring.drift import LEAST_CAPTURES, Finding, categorical_counts
from monitoring.features import NEITHER, NUMERIC, PASSES, Features, decode
from monitoring.plots import OUTCOMES
from monitoring.window import Picture, Record, Window

_MEANINGS = {
    **NUMERIC,
    "answer": "most probable answer",
    "outcome": "whether it passes the threshold; what is neither does not",
}
# Beside colours, so that nobody must tell by those.
_MARKS = {"accepted": "●", "unsure": "▲", "neither": "✕"}


def render(window: Window, baseline: Baseline, result: Check) -> str:
    """Return the page.

    Whatever comes from captures (names, reasons, labels) is escaped, and the page's own policy forbids it to load
    or to run anything but its one script.

    Parameters
    ----------
    window : Window
        What is shown.
    baseline : Baseline
        What it is shown beside, with the model's labels and threshold.
    result : Check
        Of comparing the two.
    """
    here = Path(__file__)
    style = STYLE + here.with_suffix(".css").read_text()
    script = here.with_suffix(".js").read_text()
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    policy = (
        f"default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src 'sha256-{digest}'; "
        "base-uri 'none'; form-action 'none'"
    )
    verdict = _verdict(window, result)
    drift = _drift(result.findings, baseline, window.features) if result.findings else ""
    traffic = _outcomes(window, baseline) + _look(window, baseline) if window.records else ""
    return f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="{policy}">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="referrer" content="no-referrer">
<title>{escape(verdict)}</title>
<link rel="icon" href="data:,">
<style>
{style}</style>
</head>
<body>
<header>
<p class="soft">What the endpoint saw and said, beside its baseline</p>
<h1>{escape(verdict)}</h1>
{_violations(window, result)}
{_facts(window, baseline)}
{_navigation(drift, traffic)}
</header>
<main>
{drift}
{traffic}
</main>
<script>{script}</script>
</body>
</html>
"""


def what_became(record: Record) -> str:
    """Return which of `OUTCOMES` a capture came to: what does not pass is neither if that is the likeliest answer."""
    if record.outcome == PASSES:
        return "accepted"
    return "neither" if record.answer == NEITHER else "unsure"


def _verdict(window: Window, result: Check) -> str:
    unreadable = f"{result.unreadable:,} captures could not be read"
    if not result.captures:
        return unreadable[0].upper() + unreadable[1:] if result.unreadable else "No captures in this time range"
    if not result.findings:
        return f"Too few captures to compare: {result.captures} of at least {LEAST_CAPTURES}"
    drifted = [_title(finding.feature) for finding in _by_drift(result.findings) if finding.drifted]
    incomplete = len(result.violations) > len(drifted)
    if not drifted:
        return f"Nothing drifted, but {unreadable}" if incomplete else "Nothing drifted"
    return f"{len(drifted)} of {len(result.findings)} features drifted: {', '.join(drifted)}"


def _by_drift(findings: Sequence[Finding]) -> list[Finding]:
    """Return the drifted ones first, and of them the one that drifted most."""
    return sorted(findings, key=lambda each: (not each.drifted, -each.psi * each.drifted))


def _title(feature: str) -> str:
    return feature.replace("_", " ")


def _violations(window: Window, result: Check) -> str:
    if result.violations:
        items = "".join(
            f"<li><strong>{escape(_title(each['feature_name']))}</strong>: "
            f"{escape(each['description'].removeprefix(each['feature_name'] + ': '))}</li>"
            for each in result.violations
        )
        return f"""<section class="verdict bad" aria-labelledby="violations">
<h2 id="violations">{_plural(len(result.violations), "violation")}</h2><ul>{items}</ul></section>"""
    if result.findings:
        said = "The window is like the baseline in all that is measured."
    elif window.records:
        said = f"Fewer than {LEAST_CAPTURES} captures tell nothing about drift. What there is is shown below."
    else:
        said = "There is nothing to show. Choose another range, or see whether data capture is on."
    return f'<p class="verdict">{said}</p>'


def _plural(number: int, noun: str) -> str:
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def _facts(window: Window, baseline: Baseline) -> str:
    facts = [("Captures", f"{len(window.records):,}")]
    if window.records:
        first, last = window.records[0].time, window.records[-1].time
        until = f"{last:%H:%M}" if first.date() == last.date() else f"{last:%Y-%m-%d %H:%M}"
        facts.append(("Time range", f"{first:%Y-%m-%d %H:%M} to {until} UTC"))
        served = sorted({(record.endpoint, record.variant) for record in window.records})
        facts.append(("Endpoint, variant", "<br>".join(escape(f"{name}, {variant}") for name, variant in served)))
    facts.append(("Labels", escape(", ".join(baseline.model.labels))))
    facts.append(("Threshold", f"{baseline.model.threshold:g}"))
    facts.append(("Baseline", _plural(len(baseline.features), "capture")))
    reasons = "".join(f"<br><small>{count:,}: {escape(why)}</small>" for why, count in window.unreadable.most_common())
    facts.append(("Unreadable", f"{sum(window.unreadable.values()):,}{reasons}"))
    return f'<dl class="facts">{"".join(f"<div><dt>{name}</dt><dd>{value}</dd></div>" for name, value in facts)}</dl>'


def _navigation(drift: str, traffic: str) -> str:
    links = [("drift", "Drift tests")] if drift else []
    if traffic:
        links += [("outcomes", "Outcomes"), ("confidence", "Confidence"), ("unsure", "Least confident")]
        links += [("newest", "Newest")]
    items = "".join(f'<li><a href="#{key}">{text}</a></li>' for key, text in links)
    return f'<nav aria-label="Parts of the page"><ul>{items}</ul></nav>' if items else ""


def _drift(findings: Sequence[Finding], baseline: Baseline, window: Features) -> str:
    cards = []
    with progress("draw", len(findings), "features") as advance:
        for finding in _by_drift(findings):
            cards.append(_card(finding, baseline.features, window))
            advance(1)
    return f"""<section aria-labelledby="drift">
<h2 id="drift">Drift tests</h2>
<p>A feature has drifted where the difference is both certain, p below {baseline.significance:g} after Holm's correction
for testing {len(findings)} at once, and large, a population stability index (PSI) of at least
{baseline.least_psi:g}.</p>
<p class="key"><span><i class="swatch window"></i>this window</span>
<span><i class="swatch baseline"></i>baseline</span></p>
<div class="cards">{"".join(cards)}</div>
</section>"""


def _card(finding: Finding, baseline: Features, window: Features) -> str:
    name, key = _title(finding.feature), f"test-{finding.feature}"
    figures = [(finding.test, f"{finding.statistic:.3f}"), ("corrected p", _p_value(finding.p_value))]
    figures.append(("PSI", f"{finding.psi:.2f}"))
    if finding.feature in NUMERIC:
        before, now = (np.array(each.numeric[finding.feature]) for each in (baseline, window))
        shown = plots.distribution(before, now, finding.feature, key)
        figures = [("window", finding.window), ("baseline", finding.baseline), *figures]
    else:
        names, counts = categorical_counts(baseline.categorical[finding.feature], window.categorical[finding.feature])
        rows = [
            (escape(name), int(n), n / counts[1].sum(), was / counts[0].sum())
            for name, was, n in zip(names, *counts, strict=True)
        ]
        shown = _bars(f"{name}: window and baseline", rows)
    drifted = '<strong class="mark"><span aria-hidden="true">▲ </span>drifted</strong>'
    said = drifted if finding.drifted else '<span class="mark soft">no drift</span>'
    pairs = "".join(f"<div><dt>{term}</dt><dd>{value}</dd></div>" for term, value in figures)
    return f"""<article class="card{" drifted" * finding.drifted}" aria-labelledby="{key}">
<h3 id="{key}">{name} {said}</h3>
<p class="soft">{_MEANINGS[finding.feature]}</p>
{shown}
<dl>{pairs}</dl></article>"""


def _p_value(p: float) -> str:
    if p >= 0.001:
        return f"{p:.3f}"
    # The least that floating-point numbers can tell from 0.
    mantissa, exponent = f"{p:.1e}".split("e") if p else ("less than 1.0", "-300")
    return f"{mantissa} × 10<sup>{int(exponent)}</sup>".replace("-", "−")


def _bars(caption: str, rows: Sequence[tuple[str, int, float, float | None]]) -> str:
    """Return a table of shares: rows of a name (HTML), the window's count and share, and the baseline's share."""
    body = "".join(
        f'<tr><th scope="row">{name}</th><td>{_bar("window", share)}<small>{count:,}</small></td>'
        f"<td>{_bar('baseline', before)}</td></tr>"
        for name, count, share, before in rows
    )
    head = '<thead><tr><td></td><th scope="col">Window</th><th scope="col">Baseline</th></tr></thead>'
    return f'<div class="bars">{scrolling(caption, f"{head}<tbody>{body}</tbody>")}</div>'


def _bar(kind: str, share: float | None) -> str:
    return "not known" if share is None else f'{share:.1%}<i class="bar {kind}" style="--share: {share:.4f}"></i>'


def _columns(window: Window) -> tuple[plots.Numbers, plots.Numbers, "np.ndarray[tuple[int], np.dtype[np.str_]]"]:
    """Return of every record its time in seconds, its confidence, and what became of it."""
    return (
        np.array([record.time.timestamp() for record in window.records]),
        np.array([record.confidence for record in window.records]),
        np.array([what_became(record) for record in window.records]),
    )


def _outcomes(window: Window, baseline: Baseline) -> str:
    seconds, _, outcomes = _columns(window)
    counts = Counter(outcomes.tolist())
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
    meanings = {
        "accepted": "passes the threshold",
        "unsure": "a label, below the threshold",
        "neither": "most probably none of the labels",
    }
    rows = [
        (f"{_mark(name)}<small>{meanings[name]}</small>", counts[name], counts[name] / len(outcomes), was[name])
        for name in OUTCOMES
    ]
    drawn = plots.shares_over_time(seconds, outcomes, plots.time_edges(seconds), accepted, "shares")
    return f"""<section aria-labelledby="outcomes">
<h2 id="outcomes">Outcomes</h2>
<div class="plots">
<div>{_bars("All captures of the window", rows)}</div>
<figure>{drawn}<figcaption>Shares over time, in UTC, and below the number of captures.</figcaption></figure>
</div>
</section>"""


def _mark(outcome: str) -> str:
    return f'<span class="{outcome}"><span aria-hidden="true">{_MARKS[outcome]} </span>{outcome}</span>'


def _look(window: Window, baseline: Baseline) -> str:
    """Return what the filters choose from: confidence over time, and pictures."""
    labels, threshold = baseline.model.labels, baseline.model.threshold
    seconds, confidence, outcomes = _columns(window)
    taken_for = np.array([record.label for record in window.records])
    counts, edges = Counter(taken_for.tolist()), plots.time_edges(seconds)
    present = [(key, label) for key, label in enumerate(labels) if counts[label]]
    panels = []
    for key, label in present:
        its = taken_for == label
        drawn = plots.confidence_over_time(
            seconds[its], confidence[its], outcomes[its], edges, threshold, f"Confidence over time: {label}"
        )
        became = Counter(outcomes[its].tolist())
        shares = ", ".join(f"{became[name] / counts[label]:.1%} {name}" for name in OUTCOMES)
        panels.append(
            f'<figure data-label="{key}"><h4>{escape(label)}</h4>{drawn}<figcaption>'
            f"{_plural(counts[label], 'capture')}, median {np.median(confidence[its]):.3f}: {shares}"
            "</figcaption></figure>"
        )
    became = Counter(outcomes.tolist())
    choices = _choices("label", "Most probable label", [(str(k), escape(name), counts[name]) for k, name in present])
    choices += _choices("outcome", "Outcome", [(name, _mark(name), became[name]) for name in OUTCOMES])
    number = {label: key for key, label in enumerate(labels)}
    return f"""<section aria-labelledby="look">
<h2 id="look">A closer look</h2>
<form id="filter" autocomplete="off" hidden>{choices}<p id="shown" role="status"></p></form>
<h3 id="confidence">Confidence over time, against the threshold</h3>
<p class="key">{"".join(f"<span>{_mark(name)}</span>" for name in OUTCOMES)}
<span><i class="line threshold"></i>threshold, {threshold:g}</span>
<span><i class="line median"></i>median of {plots.LEAST_FOR_MEDIAN} or more</span></p>
<p class="none" hidden>No capture matches.</p>
<div class="plots">{"".join(panels)}</div>
<h3 id="unsure">The least confident</h3>
{_pictures(window.least_confident, number)}
<h3 id="newest">The newest</h3>
{_pictures(window.newest, number)}
<p>The line below a picture is the name of the execution that sent it, selected as a whole by a click;
<code>python -m operations trace NAME</code> tells its story.</p>
</section>"""


def _choices(name: str, legend: str, choices: Sequence[tuple[str, str, int]]) -> str:
    """Return a group of boxes to tick: value, text (HTML) and number of captures of each."""
    boxes = "".join(
        f'<label><input type="checkbox" name="{name}" value="{value}" checked>{text} <small>{count:,}</small></label>'
        for value, text, count in choices
    )
    return f"<fieldset><legend>{legend}</legend>{boxes}</fieldset>"


def _pictures(pictures: Sequence[Picture], number: dict[str, int]) -> str:
    if not pictures:
        return "<p>There are none: no answer was a label.</p>"
    items = []
    for picture in pictures:
        record, became = picture.record, what_became(picture.record)
        uri, kind = thumbnail(decode(picture.image)[0])
        identity = (
            f"<code>{escape(record.inference_id)}</code>" if record.inference_id else "<small>of no execution</small>"
        )
        items.append(
            f'<li data-label="{number[record.label]}" data-outcome="{became}"><figure>'
            f'<img src="{uri}" class="{kind}" alt="Captured picture, most probably {escape(record.label)}"><figcaption>'
            f"<strong>{escape(record.label)} {record.confidence:.3f}</strong><br>{_mark(became)}<br>"
            f'<time datetime="{record.time.isoformat()}">{record.time:%Y-%m-%d %H:%M:%S}</time><br>{identity}'
            f"</figcaption></figure></li>"
        )
    return f'<p class="none" hidden>No picture matches.</p><ul class="faces">{"".join(items)}</ul>'
