"""Captured data as SageMaker writes it, made for tests."""

import base64
import datetime
import json
import uuid
from collections.abc import Iterable
from pathlib import Path

#: When the first capture was made; the others follow a second apart.
BEGIN = datetime.datetime(2026, 11, 23, 10, tzinfo=datetime.UTC)


def record(image: bytes, probabilities: list[float], time: datetime.datetime = BEGIN, name: str | None = None) -> str:
    """Return one line of a capture file."""
    metadata = {"eventId": str(uuid.uuid4()), "inferenceTime": time.strftime("%Y-%m-%dT%H:%M:%SZ")}
    if name:
        metadata["inferenceId"] = name
    sent = {"observedContentType": "image/png", "mode": "INPUT", "encoding": "BASE64"}
    answered = {"observedContentType": "application/json", "mode": "OUTPUT", "encoding": "JSON"}
    data = {
        "endpointInput": {**sent, "data": base64.b64encode(image).decode()},
        "endpointOutput": {**answered, "data": json.dumps(probabilities)},
    }
    return json.dumps({"captureData": data, "eventMetadata": metadata, "eventVersion": "0"})


def write_captures(
    folder: Path,
    captured: Iterable[tuple[bytes, list[float]]],
    endpoint: str = "image-classifier",
    begin: datetime.datetime = BEGIN,
    seconds: float = 1,
    variant: str = "AllTraffic",
) -> None:
    """Write images and their probabilities into a folder, in a file an hour, named after their number."""
    hours: dict[str, list[str]] = {}
    for number, (image, probabilities) in enumerate(captured):
        time = begin + datetime.timedelta(seconds=seconds * number)
        hours.setdefault(f"{time:%Y/%m/%d/%H}", []).append(record(image, probabilities, time, f"execution-{number}"))
    for hour, lines in hours.items():
        path = folder / endpoint / variant / hour / "00-00-000-captured.jsonl"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("".join(f"{line}\n" for line in lines))
