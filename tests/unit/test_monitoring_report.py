"""What the report page says of known windows."""

import datetime
import io
import re
from collections import Counter
from collections.abc import Iterable
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from common.page import thumbnail
from demo.drawing import encoded
from monitoring.baseline import Baseline, Usual
from monitoring.check import check
from monitoring.drift import medians
from monitoring.features import CATEGORICAL, NEITHER, NUMERIC, PASSES, UNSURE, Features, Model, Observation
from monitoring.plots import confidence_over_time, time_edges
from monitoring.report import outcome_of, render
from monitoring.window import Picture, Record, Window
from tests.support.pages import Page, assert_self_contained

BEGIN = datetime.datetime(2026, 11, 23, 10, tzinfo=datetime.UTC)
HOSTILE = '"><script>alert(1)</script><img src=x onerror=alert(2)>$\\frac{'


def features(number: int, shift: float = 0.0, unsure_every: int = 10, label: str = "bicycle") -> Features:
    made = Features()
    for i in range(number):
        numeric = dict.fromkeys(NUMERIC, 100 + (i * 37 % number) / number)
        numeric["sharpness"] += shift
        numeric["confidence"] = 0.5 if i % unsure_every == 0 else 0.9
        made.add(Observation(numeric, label, UNSURE if i % unsure_every == 0 else PASSES))
    return made


def baseline(model: Model | None = None) -> Baseline:
    return Baseline(features(500), model or Model(["bicycle", "motorcycle"], 0.7), 0.001, 0.2, 0.95)


def window(measured: Features, label: str = "bicycle", name: str | None = "execution") -> Window:
    content = encoded(Image.new("RGB", (32, 32), "red"))
    columns = zip(measured.numeric["confidence"], measured.categorical["outcome"], strict=True)
    records = [
        Record(name and f"{name}-{i}", BEGIN + i * datetime.timedelta(minutes=7), "endpoint", "variant",
               label, label, outcome, confidence)
        for i, (confidence, outcome) in enumerate(columns)
    ]  # fmt: skip
    pictures = [
        Picture(record, content, [record.confidence, 0.0], {name: measured.numeric[name][i] for name in NUMERIC})
        for i, record in enumerate(records[:24])
    ]
    return Window(measured, Counter(measured.unreadable), records, pictures, pictures[:3])


def show(shown: Window, beside: Baseline | None = None) -> Page:
    beside = beside or baseline()
    return Page(render(shown, beside, check(shown, beside)))


def test_a_window_like_the_baseline() -> None:
    page = show(window(features(200)))
    assert "No drift detected" in page.text
    assert "violation" not in page.text
    assert len(page.of("article", **{"class": "card"})) == len(NUMERIC) + len(CATEGORICAL)
    assert "2026-11-23 10:00 to 2026-11-24 09:13 UTC" in page.text
    assert "200 captures, median 0.900: 90.0% accepted, 10.0% unsure, 0.0% neither" in page.text
    assert [part["data-count"] for part in page.of("path", data_outcome="unsure")] == ["20"]


def test_what_drifted_most_comes_first() -> None:
    page = show(window(features(200, shift=0.4, unsure_every=2)))
    drifted = page.of("article", **{"class": "card drifted"})
    assert drifted[0]["aria-labelledby"] == "test-sharpness"
    assert f"3 of {len(NUMERIC) + len(CATEGORICAL)} features drifted: sharpness, outcome, confidence" in page.text
    assert page.text.index("3 violations") < page.text.index("Drift tests")
    assert [each["href"] for each in page.of("a")][:3] == ["#test-sharpness", "#test-outcome", "#test-confidence"]
    assert re.search(r"window\s*median 101\s*baseline\s*median 100", page.text)


def test_a_drifted_feature_is_shown_by_the_most_typical_pictures_beside_usual_ones() -> None:
    def picture(level: int) -> bytes:
        return encoded(Image.new("RGB", (32, 32), (level, level, level)))

    def thumbnails(levels: Iterable[int]) -> list[str]:
        return [thumbnail(Image.open(io.BytesIO(picture(level)))).uri for level in levels]

    shown, beside = window(features(200, shift=0.4)), baseline()
    values = shown.features.numeric["sharpness"]
    # Each twice: a picture is shown once.
    shown.sample = [
        Picture(shown.records[i], picture(i), [0.9, 0.0], dict.fromkeys(NUMERIC, values[i]))
        for i in [*range(200), *range(200)]
    ]
    usual = [
        Usual(thumbnail(Image.open(io.BytesIO(picture(i)))), dict.fromkeys(NUMERIC, 100 + i / 24), "bicycle", PASSES)
        for i in range(24)
    ]
    beside = replace(beside, pictures=tuple(usual))
    html = render(shown, beside, check(shown, beside))
    (card,) = re.findall(r'<article[^>]*"test-sharpness">.*?</article>', html, re.DOTALL)
    (folded,) = re.findall("<details>.*?</details>", html, re.DOTALL)
    share = sum(value > max(beside.features.numeric["sharpness"]) for value in values) / 200
    assert f"{share:.0%} of the images are sharper than any in the baseline." in Page(card).text
    odd = sorted((i for i in range(200) if values[i] > 100.998), key=lambda i: values[i])
    quarter = len(odd) // 4
    sources = [str(each["src"]) for each in Page(card).of("img")]
    assert len(sources) == 8 and set(sources[:4]) <= set(thumbnails(odd[quarter:-quarter]))
    assert set(sources[4:]) == set(thumbnails([11, 12, 13, 10])), "those nearest to the baseline's median"
    assert Page(card).of("a", href="#what-to-do") and Page(html).of("h3", id="what-to-do")
    steady = len(NUMERIC) + len(CATEGORICAL) - 1
    assert f"{steady} features did not drift" in Page(folded).text and len(Page(folded).of("article")) == steady


def test_shares_of_outcomes_stand_beside_the_baseline() -> None:
    page = show(window(features(200, unsure_every=4)))
    rows = page.text[page.text.index("Outcomes", page.text.index("Drift tests")) :]
    assert re.search(r"accepted\s*passes the threshold\s*75\.0%\s*150\s*90\.0%", rows)
    assert re.search(r"unsure\s*a label, below the threshold\s*25\.0%\s*50\s*10\.0%", rows)


def test_shares_that_the_baseline_cannot_tell_are_not_made_up() -> None:
    """Below one half a label may pass although "neither" is more probable."""
    page = show(window(features(20)), baseline(Model(["bicycle", "motorcycle"], 0.3)))
    assert page.text.count("unknown") == 2


@pytest.mark.parametrize(
    ("answer", "outcome", "expected"),
    [
        ("bicycle", PASSES, "accepted"),
        ("bicycle", UNSURE, "unsure"),
        (NEITHER, UNSURE, "neither"),
        (NEITHER, PASSES, "accepted"),  # as the workflow does, which compares with the threshold alone
    ],
)
def test_outcome_of_of_a_capture(answer: str, outcome: str, expected: str) -> None:
    record = Record(None, BEGIN, "endpoint", "variant", "bicycle", answer, outcome, 0.5)
    assert outcome_of(record) == expected


def test_no_captures() -> None:
    page = show(Window())
    assert "No captures in this time range" in page.text
    assert not page.of("svg")
    assert not page.of("form")


def test_nothing_readable() -> None:
    page = show(Window(unreadable=Counter({"not JSON, perhaps cut off": 40})))
    assert "40 captures could not be read" in page.text
    assert "40: not JSON, perhaps cut off" in page.text


def test_too_few_to_compare_are_shown_all_the_same() -> None:
    page = show(window(features(12)))
    assert "Too few captures to compare: need at least 30, got 12" in page.text
    assert not page.of("article")
    assert len(page.of("li", data_label="0")) == 15


def test_a_window_that_lacks_captures_is_no_clean_one() -> None:
    shown = window(features(200))
    shown.unreadable["an answer that is not JSON"] = 50
    shown.completeness = 0.8
    page = show(shown)
    assert "No drift detected, but 50 captures could not be read" in page.text
    assert "1 violation" in page.text
    shown.unreadable.clear()
    shown.unreadable["no endpointInput"] = 1
    assert "No drift detected, but 1 capture could not be read" in show(shown).text


def test_what_captures_say_stays_text() -> None:
    """Names, labels and reasons come from outside."""
    beside = baseline(Model(["bicycle", HOSTILE], 0.7))
    shown = window(features(200, label=HOSTILE), HOSTILE, HOSTILE)
    shown.unreadable[HOSTILE] = 50
    shown.records = [
        Record(each.inference_id, each.time, HOSTILE, HOSTILE, each.label, each.answer, each.outcome, 0.9)
        for each in shown.records
    ]
    page = show(shown, beside)
    assert len(page.of("script")) == 1
    assert not [found for tag, found in page.elements if "onerror" in found or found.get("src") == "x"]
    for where in (f"{HOSTILE}-0", f"{HOSTILE}, {HOSTILE}", f"50: {HOSTILE}", f"{HOSTILE} 0.900"):
        assert where in page.text
    assert page.of("svg", aria_label=f"Confidence over time: {HOSTILE}")


def test_a_short_time_range_has_seconds() -> None:
    shown = window(features(50))
    shown.records[:] = [
        replace(each, time=BEGIN + i * datetime.timedelta(seconds=7)) for i, each in enumerate(shown.records)
    ]
    assert "2026-11-23 10:00:00 to 10:05:43 UTC" in show(shown).text


def test_the_axis_of_confidence_spreads_what_is_near_1() -> None:
    confidence = np.array([0.0, 0.7, 0.9, 0.99, 0.999, 1.0])
    outcomes = np.array(["accepted"] * len(confidence))
    seconds = np.full(len(confidence), BEGIN.timestamp())
    svg = confidence_over_time(seconds, confidence, outcomes, time_edges(seconds), 0.7, "title")
    (glyphs,) = Page(f"<p>{svg}</p>").of("path", data_outcome="accepted")
    heights = [float(place.split("h0")[0].split()[1]) for place in str(glyphs["d"]).split("M")[1:]]
    steps = -np.diff(heights)
    # From the top of the SVG: from .9 to .99 is as far as from 0 to .9, and all are inside.
    assert (steps > 0).all() and steps[2] == pytest.approx(steps[0] + steps[1], rel=0.2)
    assert steps[3] > steps[2] / 3 and min(heights) > 0 and max(heights) < 2.7 * 72
    assert all(f">{tick}<" in svg for tick in ("0.7", "0.9", "0.99", "1"))


@pytest.mark.parametrize(
    ("before", "now", "texts"),
    [
        (0.94, 0.99942, ("median 0.94", "median 0.999")),
        (0.9991, 0.9994, ("median 0.9991", "median 0.9994")),
        (50176.0, 60000.0, ("median 50,200", "median 60,000")),
        (0.101961, 0.101961, ("median 0.102", "median 0.102")),
    ],
)
def test_medians_have_three_digits_or_as_many_as_tell_them_apart(
    before: float, now: float, texts: tuple[str, str]
) -> None:
    assert medians(np.array([before]), np.array([now])) == texts


def test_a_page_calls_a_prediction_so() -> None:
    page = show(window(features(200, label="motorcycle")))
    assert "features drifted: prediction" in page.text
    assert "answer" not in page.text


def test_a_capture_of_no_execution_says_so() -> None:
    page = show(window(features(20), name=None))
    assert "no execution (sent directly to the endpoint)" in page.text
    assert "None" not in page.text


def test_a_page_loads_nothing() -> None:
    shown, beside = window(features(20)), baseline()
    assert_self_contained(render(shown, beside, check(shown, beside)))


def test_many_captures_make_a_light_page() -> None:
    shown, beside = window(features(5000)), baseline()
    page = Page(render(shown, beside, check(shown, beside)))
    glyphs = [part for part in page.of("path") if part.get("data-outcome")]
    assert len(glyphs) == 2
    # What falls on one place is drawn once: there are fewer places than captures.
    assert sum(str(part["d"]).count("M") for part in glyphs) < 2000
    assert sum(int(str(part["data-count"])) for part in glyphs) == 5000


@pytest.mark.parametrize("span", [0.0, 30.0, 3600.0, 86400.0, 40 * 86400.0, 900 * 86400.0])
def test_bars_hold_every_time(span: float) -> None:
    begin = BEGIN.timestamp() + 1.5
    edges = time_edges(np.array([begin, begin + span]))
    assert edges[0] <= begin
    assert begin + span < edges[-1]
    assert 2 <= len(edges) <= 38
    assert len(set(np.diff(edges))) == 1
