"""The captures of a time range: their features, their outcomes, and the images to show in a report."""

import datetime
import heapq
import random
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

from common.capture import Capture, CaptureReader
from common.progress import progress
from monitoring.content import MOST_IMAGES
from monitoring.features import NEITHER, Features, Model, Observation, observe_all

#: How many images a window keeps of the newest, and of the least confident.
PICTURES = 24


@dataclass(frozen=True)
class Record:
    """The outcome of one capture; ``answer`` is a label or "neither", ``label`` the most probable label."""

    inference_id: str | None
    time: datetime.datetime
    endpoint: str
    variant: str
    label: str
    answer: str
    outcome: str
    confidence: float


@dataclass(frozen=True)
class Picture:
    """A record with its image, the probability of every label, and its numeric features by name."""

    record: Record
    image: bytes
    probabilities: list[float]
    numeric: dict[str, float]


@dataclass
class Window:
    """All readable captures of a time range.

    ``unreadable`` counts, by reason, the records that could not be read or measured; ``completeness`` is the fraction
    that could be read, or the fraction that could be measured, whichever is lower. ``nothing`` is the reason why there
    was no file to read, or empty. ``records`` are sorted by time, ``newest`` start with the newest;
    ``least_confident`` are those for which a label is predicted, the least confident first. ``sample`` are up to
    `MOST_IMAGES` captures, drawn at random if there are more, whose content can be compared. ``event_ids`` are those of
    the readable captures; ``in_baseline`` counts the captures that were left out.
    """

    features: Features = field(default_factory=Features)
    unreadable: Counter[str] = field(default_factory=Counter)
    records: list[Record] = field(default_factory=list)
    newest: list[Picture] = field(default_factory=list)
    least_confident: list[Picture] = field(default_factory=list)
    sample: list[Picture] = field(default_factory=list)
    completeness: float = 1.0
    nothing: str = ""
    event_ids: list[str] = field(default_factory=list)
    in_baseline: int = 0


def read_window(captures: Iterable[Capture], model: Model, in_baseline: frozenset[str] = frozenset()) -> Window:
    """Read and measure captures, showing progress; memory holds their features and `MOST_IMAGES` images.

    Parameters
    ----------
    captures : iterable of Capture
        In any order. The records that a `CaptureReader` could not read count as unreadable.
    model : Model
        Labels and threshold.
    in_baseline : frozenset of str
        Event ids of captures to leave out: those that the baseline was created from.
    """
    window = Window()
    newest: list[tuple[datetime.datetime, int, Picture]] = []
    unsure: list[tuple[float, int, Picture]] = []
    drawn = random.Random(0)
    with progress("read captures", None, "captures") as advance:
        others = _without(captures, in_baseline, window)
        for number, (capture, observed) in enumerate(observe_all(others, model, advance)):
            window.features.add(observed)
            if isinstance(observed, str):
                continue
            window.event_ids.append(capture.event_id)
            record = _record(capture, observed, model)
            window.records.append(record)
            picture = Picture(record, capture.image, capture.probabilities, observed.numeric)
            # Reservoir sampling: each capture replaces one of the sample with the probability that it belongs there.
            if len(window.sample) < MOST_IMAGES:
                window.sample.append(picture)
            elif (place := drawn.randrange(len(window.records))) < MOST_IMAGES:
                window.sample[place] = picture
            _keep(newest, (capture.time, number, picture))
            if observed.answer != NEITHER:
                _keep(unsure, (-record.confidence, -number, picture))
    unmeasured = window.features.unreadable
    window.unreadable += unmeasured
    if unmeasured:
        window.completeness = len(window.features) / (len(window.features) + unmeasured.total())
    if isinstance(captures, CaptureReader):
        window.unreadable += captures.unreadable
        window.completeness = min(window.completeness, captures.completeness)
        window.nothing = captures.nothing
    window.records.sort(key=lambda record: record.time)
    window.newest = [picture for *_, picture in sorted(newest, reverse=True, key=lambda each: each[:2])]
    window.least_confident = [picture for *_, picture in sorted(unsure, reverse=True, key=lambda each: each[:2])]
    return window


def _without(captures: Iterable[Capture], event_ids: frozenset[str], window: Window) -> Iterator[Capture]:
    """Yield the captures with other event ids, and count those that are left out."""
    for capture in captures:
        if capture.event_id in event_ids:
            window.in_baseline += 1
        else:
            yield capture


def _keep(heap: list[Any], item: tuple[Any, int, Picture]) -> None:
    """Add an item to a heap that keeps the `PICTURES` largest; the number in it breaks ties."""
    if len(heap) < PICTURES:
        heapq.heappush(heap, item)
    else:
        heapq.heappushpop(heap, item)


def _record(capture: Capture, observed: Observation, model: Model) -> Record:
    confidence = observed.numeric["confidence"]
    return Record(
        capture.inference_id,
        capture.time,
        capture.endpoint,
        capture.variant,
        model.labels[capture.probabilities.index(confidence)],
        observed.answer,
        observed.outcome,
        confidence,
    )
