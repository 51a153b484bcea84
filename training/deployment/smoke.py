"""Test requests with known images while a new fleet is tried out."""

import contextlib
import hashlib
import io
import itertools
import json
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import boto3
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError
from PIL import Image

from common.errors import CommandError
from common.folders import find_in_folder
from common.images import as_sent
from common.labels import NEITHER
from common.stack import TEST_REQUEST
from serving.model import Model
from training.deployment.guard import NAMESPACE, fleet

#: Enough that in a minute a canary of a tenth gets some for certain.
PAUSE_SECONDS = 0.2
MOST_IMAGES = 50
_PNG = b"\x89PNG"


@dataclass(frozen=True)
class KnownImage:
    """An image as the workflow sends it, and its class."""

    name: str
    label: str
    content: bytes


@dataclass(frozen=True)
class Answer:
    """The first digits of a model's SHA-256, and its most probable label, or none of them, with the probability."""

    model: str
    label: str
    confidence: float


def read_known_images(folder: Path, model: Path) -> list[KnownImage]:
    """Read the images of class folders; those that are not named after a label of the model are background.

    Raises
    ------
    CommandError
        There are none, or more than `MOST_IMAGES`.
    """
    labels = Model(model).labels
    found = find_in_folder(folder, labels).images
    if not 0 < len(found) <= MOST_IMAGES:
        raise CommandError(
            f"--known-images {folder} has {len(found)} images in class folders; expected 1 to {MOST_IMAGES}"
        )
    return [
        KnownImage(
            image.name,
            image.class_name if image.class_name in labels else NEITHER,
            as_sent((folder / image.name).read_bytes()),
        )
        for image in found
    ]


class Smoke:
    """Sends known images to an endpoint, and reports wrong answers of the new fleet to the alarm on them.

    Parameters
    ----------
    endpoint, config : str
        The endpoint, and the configuration that is tried out.
    model : pathlib.Path
        Its model; answers of another one are not judged.
    images : list of KnownImage
        Without any, an image that shows nothing is sent, and no answer is judged.
    """

    def __init__(self, endpoint: str, config: str, model: Path, images: list[KnownImage]) -> None:
        self._endpoint, self._config = endpoint, config
        self._sha256 = hashlib.sha256(model.read_bytes()).hexdigest()
        self._images = images
        self._stream = itertools.cycle(images or [KnownImage("blank", "", _blank())])
        # A request that fails must count as one.
        self._runtime: Any = boto3.client("sagemaker-runtime", config=Config(retries={"total_max_attempts": 1}))
        self._cloudwatch: Any = boto3.client("cloudwatch")
        self._unreported: Counter[str] = Counter()
        #: Wrong answers so far, each as a sentence.
        self.wrong: list[str] = []

    def send(self, seconds: float, current: dict[str, Any]) -> None:
        """Send requests for some time, if a new fleet of the described endpoint gets traffic."""
        variants = current.get("PendingDeploymentSummary", {}).get("ProductionVariants", [])
        statuses = {status["Status"] for variant in variants for status in variant.get("VariantStatus", [])}
        if not statuses & {"ActivatingTraffic", "Baking"}:
            time.sleep(seconds)
            return
        first, end = True, time.monotonic() + seconds
        while first or time.monotonic() < end:
            first = False
            self._send_one(next(self._stream))
            self._unreported["TestRequests"] += 1
            if self._unreported["WrongAnswers"]:
                self._report()
            time.sleep(PAUSE_SECONDS)
        self._report()

    def _report(self) -> None:
        if not self._unreported:
            return
        dimensions = fleet(self._endpoint, self._config)
        data = [
            {"MetricName": name, "Dimensions": dimensions, "Value": count, "Unit": "Count"}
            for name, count in self._unreported.items()
        ]
        with contextlib.suppress(ClientError, BotoCoreError):  # they are reported the next time, and `wrong` has them
            self._cloudwatch.put_metric_data(Namespace=NAMESPACE, MetricData=data)
            self._unreported.clear()

    def check(self) -> None:
        """Send every known image once."""
        for image in self._images:
            self._send_one(image, only_new_fleet=True)

    def _send_one(self, image: KnownImage, only_new_fleet: bool = False) -> None:
        try:
            answer = self._runtime.invoke_endpoint(
                EndpointName=self._endpoint,
                ContentType="image/png" if image.content.startswith(_PNG) else "image/jpeg",
                Body=image.content,
                InferenceId=TEST_REQUEST,
            )
        except (ClientError, BotoCoreError) as error:
            # The alarm on errors counts those of the server. As long as the old fleet gets requests too, a refusal does
            # not say whose it is.
            answered: Any = error.response if isinstance(error, ClientError) else {}
            if only_new_fleet and image.label and 400 <= answered.get("OriginalStatusCode", 500) < 500:
                self._note(f"{image.name} is refused: {answered.get('OriginalMessage', 'no reason given')}")
            return
        found = read_answer(answer)
        if image.label and found and self._sha256.startswith(found.model) and found.label != image.label:
            self._note(f"{image.name} is {found.label} ({found.confidence:.2f}), not {image.label}")

    def _note(self, wrong: str) -> None:
        self._unreported["WrongAnswers"] += 1
        self.wrong.append(wrong)


def read_answer(answer: Any) -> Answer | None:
    """Read an answer of ``InvokeEndpoint``; return None if it does not announce its labels and model."""
    # As serving/model.py writes them.
    labels, _, model = answer.get("CustomAttributes", "").removeprefix("labels=").rpartition(";model=")
    if not labels:
        return None
    probabilities: list[float] = json.loads(answer["Body"].read())
    pairs = zip([*probabilities, 1 - sum(probabilities)], [*json.loads(labels), NEITHER], strict=True)
    confidence, label = max(pairs)
    return Answer(model, label, confidence)


def _blank() -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (64, 64), (128, 128, 128)).save(file, "PNG")
    return file.getvalue()
