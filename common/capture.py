"""Read SageMaker's captured data: JSON Lines by endpoint, variant and hour."""

import base64
import datetime
import heapq
import itertools
import json
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from common import storage
from common.errors import CommandError
from common.stack import TEST_REQUEST

#: Names of shadow variants begin with it. Their answers reach no caller, so that nothing reads them unless asked to.
SHADOW_PREFIX = "Shadow-"
_HOUR = datetime.timedelta(hours=1)
_DATE = re.compile(r"\d\d(\d\d)?")
_FOLDER = (
    "give the folder above the endpoints' (in S3: s3://BUCKET/capture), so that ENDPOINT/VARIANT/yyyy/mm/dd/hh lies "
    "below it"
)


@dataclass(frozen=True)
class Capture:
    """One request to the endpoint and its response.

    ``time`` is aware and in UTC. ``inference_id`` is the name of the workflow execution that sent the request.
    ``probabilities`` are in label order, and sum to at most one.
    """

    event_id: str
    time: datetime.datetime
    endpoint: str
    variant: str
    inference_id: str | None
    content_type: str
    image: bytes
    probabilities: list[float]


class UnreadableRecord(Exception):
    """A line is not a complete record of an image and its probabilities; the message names the missing part."""


class CaptureReader:
    """Iterate over captures, oldest hour first within an endpoint's variant, one file at a time.

    Parameters
    ----------
    source : str
        A folder or ``s3://bucket/prefix`` that holds ``{endpoint}/{variant}/yyyy/mm/dd/hh/*.jsonl``.
    start, end : datetime.datetime or None
        Aware times; captures with ``start <= time < end`` are read. None is no limit.
    endpoint : str or None
        None reads the only one that there is.
    newest : int or None
        Read only so many newest captures of the time range; they come in order of time.
    variant : str or None
        None reads every variant except shadows.

    Attributes
    ----------
    read : int
        How many records were read, including some from before and after the time range.
    unreadable : collections.Counter
        How many records could not be read, by reason. A truncated line is one of them.
    nothing : str
        After iterating: the reason why there was no file to read, or empty.

    Raises
    ------
    CommandError
        While iterating: if ``source`` is not a folder of endpoints, or holds several and none was chosen.
    """

    def __init__(
        self,
        source: str,
        start: datetime.datetime | None = None,
        end: datetime.datetime | None = None,
        endpoint: str | None = None,
        newest: int | None = None,
        variant: str | None = None,
    ) -> None:
        self._source, self._start, self._end, self._endpoint, self._newest = source, start, end, endpoint, newest
        self._variant = variant
        self.read = 0
        self.unreadable: Counter[str] = Counter()
        self.nothing = ""

    def __iter__(self) -> Iterator[Capture]:
        if self._newest:
            yield from self._read_newest(self._newest)
            return
        for endpoint, variant, base, names in self._variants():
            for name in names:
                yield from self._read(storage.join(base, name), endpoint, variant)

    def _read_newest(self, count: int) -> list[Capture]:
        """Return the newest captures, reading backwards no further than necessary."""
        kept: list[tuple[datetime.datetime, int, Capture]] = []
        numbers = itertools.count()
        for endpoint, variant, base, names in self._variants():
            for name in reversed(list(names)):
                # A folder holds captures of its hour, and late ones of the hour before: older folders hold older ones.
                if len(kept) == count and name[: len("yyyy/mm/dd/hh")] < f"{kept[0][0]:%Y/%m/%d/%H}":
                    break
                for capture in self._read(storage.join(base, name), endpoint, variant):
                    add = heapq.heappush if len(kept) < count else heapq.heappushpop
                    add(kept, (capture.time, next(numbers), capture))
        return [capture for *_, capture in sorted(kept, key=lambda each: each[:2])]

    @property
    def completeness(self) -> float:
        """Return the fraction of records that could be read."""
        return self.read / (self.read + self.unreadable.total()) if self.unreadable else 1.0

    def _variants(self) -> Iterator[tuple[str, str, str, Iterator[str]]]:
        """Yield each endpoint and variant with its address and the names of its files, the oldest first."""
        found = storage.folders(self._source)
        chosen = [name for name in found if self._endpoint in (None, name)]
        if not chosen:
            if self._too_deep(found):
                raise CommandError(f"{self._source} lies within an endpoint's folder: {_FOLDER}")
            missing = f"captures of endpoint {self._endpoint}" if self._endpoint else "captures"
            there = f"; there are {', '.join(found)}" if found else ""
            self.nothing = f"{self._source} holds no {missing}{there}. Is data capture enabled?"
            return
        if len(chosen) > 1:
            raise CommandError(
                f"{self._source} holds captures of several endpoints: choose one of "
                f"{', '.join(chosen)} with --endpoint-name, or give the folder above them (in S3: s3://BUCKET/capture)"
            )
        # A request belongs to the hour of its response; its file may belong to the next hour.
        after = f"{self._start.astimezone(datetime.UTC) - _HOUR:%Y/%m/%d/%H}" if self._start else ""
        until = f"{self._end.astimezone(datetime.UTC) + 2 * _HOUR:%Y/%m/%d/%H}" if self._end else "\uffff"
        (endpoint,) = chosen
        for variant in storage.folders(storage.join(self._source, endpoint)):
            if variant != self._variant if self._variant else variant.startswith(SHADOW_PREFIX):
                continue
            base = storage.join(self._source, f"{endpoint}/{variant}")
            below = storage.folders(base)
            if below and not any(re.fullmatch(r"\d{4}", name) for name in below):
                raise CommandError(f"{base} holds no years: {_FOLDER}")
            names = (name for name in storage.files(base, after, until) if name.endswith(".jsonl"))
            yield endpoint, variant, base, names

    def _too_deep(self, found: list[str]) -> bool:
        """Return whether these are parts of an endpoint's folder."""
        # By names alone: the drift check's role may not read other folders.
        if not found:
            return next(storage.files(self._source), "").endswith(".jsonl")
        return self._source.rstrip("/").split("/")[-1] == self._endpoint or all(map(_DATE.fullmatch, found))

    def _read(self, address: str, endpoint: str, variant: str) -> Iterator[Capture]:
        for line in storage.lines(address):
            if not line.strip():
                continue
            try:
                capture = parse_record(line, endpoint, variant)
            except UnreadableRecord as error:
                self.unreadable[str(error)] += 1
                continue
            self.read += 1
            if capture.inference_id == TEST_REQUEST:
                continue
            if (self._start is None or self._start <= capture.time) and (self._end is None or capture.time < self._end):
                yield capture


def parse_record(line: bytes, endpoint: str, variant: str) -> Capture:
    """Turn one line of a capture file into a capture.

    Layout: https://docs.aws.amazon.com/sagemaker/latest/dg/model-monitor-data-capture-endpoint.html

    Raises
    ------
    UnreadableRecord
        The line is cut off or lacks a part.
    """
    try:
        record = json.loads(line)
    except (ValueError, RecursionError) as error:  # a wrong encoding is a ValueError
        raise UnreadableRecord("not JSON, perhaps truncated") from error
    try:
        data, metadata = record["captureData"], record["eventMetadata"]
        event_id, inference_id = str(metadata["eventId"]), metadata.get("inferenceId")
        time = datetime.datetime.fromisoformat(metadata["inferenceTime"])
        if time.tzinfo is None:
            raise UnreadableRecord("a time without a zone")
        time = time.astimezone(datetime.UTC)
    except (KeyError, TypeError, AttributeError, ValueError, OverflowError) as error:
        raise UnreadableRecord("no captured data, event id or time") from error
    if not isinstance(inference_id, str | None):
        raise UnreadableRecord("an inference id that is not a string")
    image = _body(data, "endpointInput")
    try:
        probabilities = json.loads(_body(data, "endpointOutput"))
    except (ValueError, RecursionError) as error:
        raise UnreadableRecord("predictions that are not JSON") from error
    if not isinstance(probabilities, list) or not all(_is_probability(value) for value in probabilities):
        raise UnreadableRecord("predictions that are not a list of probabilities")
    return Capture(
        event_id,
        time,
        endpoint,
        variant,
        inference_id,
        str(data["endpointInput"].get("observedContentType", "")),
        image,
        [float(value) for value in probabilities],
    )


def _is_probability(value: Any) -> bool:
    # A comparison with NaN is false; bool is a subclass of int.
    return isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value <= 1


def _body(data: Any, part: str) -> bytes:
    """Return the captured bytes of one part of a record."""
    try:
        text, encoding = data[part]["data"], data[part]["encoding"]
        return base64.b64decode(text, validate=True) if encoding == "BASE64" else text.encode()
    except (KeyError, TypeError, AttributeError) as error:
        raise UnreadableRecord(f"no {part}") from error
    except ValueError as error:  # binascii.Error is one
        raise UnreadableRecord(f"{part} that is not base64") from error
