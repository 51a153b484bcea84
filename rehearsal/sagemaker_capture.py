"""SageMaker: data capture of endpoints, written to S3 as JSON Lines."""

import base64
import datetime
import functools
import json
import logging
import random
import threading
import time
import uuid
from collections import defaultdict
from typing import Any
from urllib.parse import urlsplit

import boto3

log = logging.getLogger("rehearsal")

#: SageMaker also collects captured requests for a while before it writes a file.
CAPTURE_FLUSH_SECONDS = 1.0


class Capture:
    """Data capture of endpoints, as configured by their DataCaptureConfig."""

    def __init__(self) -> None:
        self._waiting: dict[str, list[dict[str, Any]]] = defaultdict(list)
        self._lock, self._flushing = threading.Lock(), threading.Lock()
        threading.Thread(target=self._flush_for_ever, daemon=True).start()

    @functools.cached_property
    def _s3(self) -> Any:
        return boto3.client("s3")

    def record(
        self,
        endpoint: str,
        variant: str,
        config: dict[str, Any],
        request: tuple[str, bytes],
        answer: tuple[str, bytes],
        inference_id: str | None,
    ) -> None:
        """Keep one request and its answer, each as (content type, body), if the configuration asks for it."""
        if not config.get("EnableCapture") or random.uniform(0, 100) >= config["InitialSamplingPercentage"]:
            return
        modes = {option["CaptureMode"] for option in config["CaptureOptions"]}
        headers = config.get("CaptureContentTypeHeader", {})
        data = {}
        if modes & {"Input", "InputAndOutput"}:
            data["endpointInput"] = self._part("INPUT", *request, headers)
        if modes & {"Output", "InputAndOutput"}:
            data["endpointOutput"] = self._part("OUTPUT", *answer, headers)
        now = datetime.datetime.now(datetime.UTC)
        metadata = {"eventId": str(uuid.uuid4()), "inferenceTime": now.strftime("%Y-%m-%dT%H:%M:%SZ")}
        if inference_id:
            metadata["inferenceId"] = inference_id
        line = {"captureData": data, "eventMetadata": metadata, "eventVersion": "0"}
        folder = f"{config['DestinationS3Uri'].rstrip('/')}/{endpoint}/{variant}/{now:%Y/%m/%d/%H}"
        with self._lock:
            self._waiting[folder].append(line)

    @staticmethod
    def _part(mode: str, content_type: str, body: bytes, headers: dict[str, Any]) -> dict[str, str]:
        part = {"observedContentType": content_type, "mode": mode}
        if content_type in headers.get("JsonContentTypes", []):
            return {**part, "data": body.decode(), "encoding": "JSON"}
        if content_type in headers.get("CsvContentTypes", []):
            return {**part, "data": body.decode(), "encoding": "CSV"}
        return {**part, "data": base64.b64encode(body).decode(), "encoding": "BASE64"}

    def _flush_for_ever(self) -> None:
        while True:
            time.sleep(CAPTURE_FLUSH_SECONDS)
            self.flush()

    def flush(self) -> None:
        """Write everything that was recorded before this call."""
        with self._flushing:
            with self._lock:
                waiting, self._waiting = self._waiting, defaultdict(list)
            for folder, lines in waiting.items():
                location = urlsplit(folder)
                now = datetime.datetime.now(datetime.UTC)
                key = f"{location.path.lstrip('/')}/{now:%M-%S-%f}-{uuid.uuid4()}.jsonl"
                body = "".join(json.dumps(line) + "\n" for line in lines)
                try:
                    self._s3.put_object(Bucket=location.netloc, Key=key, Body=body.encode())
                except Exception:  # capture must not fail the endpoint
                    log.exception("Data capture to %s failed", folder)
