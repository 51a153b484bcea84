"""Requests to an endpoint while it changes, and what became of each."""

import itertools
import threading
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from training.deployment.smoke import KnownImage, read_answer


@dataclass(frozen=True)
class Request:
    """One request: its start and duration in seconds, the model that answered, and whether the answer was wrong.

    The model is the first digits of its SHA-256; a failed call has none, but an error.
    """

    at: float
    seconds: float
    model: str = ""
    wrong: bool = False
    error: str = ""


class Traffic:
    """Requests of a few clients, one after the other, from the first to the last line of a ``with``.

    Parameters
    ----------
    runtime : SageMakerRuntimeClient
        It must not repeat requests, for a failed one counts.
    endpoint : str
        Name of the endpoint.
    images : sequence of KnownImage
        Sent in turns, as PNG.
    pause : float
        Seconds that a client waits after each request.
    """

    def __init__(
        self, runtime: Any, endpoint: str, images: Sequence[KnownImage], clients: int = 2, pause: float = 0.02
    ) -> None:
        self._runtime, self._endpoint, self._pause = runtime, endpoint, pause
        self._images = itertools.cycle(images)
        self._over = threading.Event()
        self._threads = [threading.Thread(target=self._send, daemon=True) for _ in range(clients)]
        self._began = 0.0
        #: What was sent so far.
        self.requests: list[Request] = []

    @property
    def answers(self) -> Counter[str]:
        """How many requests each model has answered."""
        return Counter(request.model for request in [*self.requests] if not request.error)

    @property
    def errors(self) -> list[str]:
        """The errors of the failed calls."""
        return [request.error for request in [*self.requests] if request.error]

    def now(self) -> float:
        """Return the seconds since the traffic began."""
        return time.monotonic() - self._began

    def _send(self) -> None:
        while not self._over.wait(self._pause):
            image, at = next(self._images), self.now()
            try:
                answer = self._runtime.invoke_endpoint(
                    EndpointName=self._endpoint, ContentType="image/png", Body=image.content
                )
                found = read_answer(answer)
                taken = self.now() - at
                if not found:
                    raise ValueError("the answer does not announce its model")
                self.requests.append(Request(at, taken, found.model, found.label != image.label))
            except Exception as error:  # all count
                self.requests.append(Request(at, self.now() - at, error=repr(error)))

    def __enter__(self) -> "Traffic":
        self._began = time.monotonic()
        for thread in self._threads:
            thread.start()
        while not self.requests:  # the endpoint answers
            time.sleep(0.01)
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        for thread in self._threads:
            thread.join()
