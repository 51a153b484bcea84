"""Which quota binds first, and what retries make of it: ``python -m benchmarks.scaling`` prints ``docs/scaling.md``.

The first part divides the demand at each rate by AWS's default quotas. The second part simulates a batch and a burst of
uploads with SimPy: starts of executions, Lambda's concurrency and its growth, retries as the workflow's definition
says, and the endpoint. Time is simulated and random numbers have a seed, so the page is the same on every machine.
"""

import contextlib
import json
import math
import random
from collections.abc import Generator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import simpy

from training.deployment.autoscaling import WORKER_RPS, WORKERS

DEFINITIONS = [Path(__file__).parents[1] / "statemachine" / f"{name}.asl.json" for name in ("start", "classify")]
#: Seconds of each function, warm; classify also waits for the endpoint (benchmarks/cost.py rounds them up).
SECONDS = {"Serialize": 0.10, "Classify": 0.05, "Filter": 0.01}
STATES = 6
#: Seconds that a worker of the endpoint takes for an image: as measured for the default target of autoscaling.
ENDPOINT_SECONDS = 1 / WORKER_RPS
#: Images a second on one instance.
INSTANCE_RPS = WORKERS * WORKER_RPS
#: Seconds after which classify gives up (its read time-out).
ENDPOINT_TIMEOUT = 10.0
#: Images in a child of a batch, all at once (`BatchSize` in template.yaml).
BATCH_SIZE = 20


class Quota(NamedTuple):
    """A default quota in us-east-1, and what one image a second needs of it in each way to classify it."""

    name: str
    limit: float
    single: float
    batch: float
    source: str


_DOCS = "https://docs.aws.amazon.com"
_STATES = f"{_DOCS}/step-functions/latest/dg/service-quotas.html"
_LAMBDA = f"{_DOCS}/lambda/latest/dg/lambda-concurrency.html"
_EVENTS = f"{_DOCS}/eventbridge/latest/userguide/eb-quota.html"
IN_LAMBDA = sum(SECONDS.values()) + ENDPOINT_SECONDS
QUOTAS = [
    Quota("Express executions started a second", 6_000, 1, 0, _STATES),
    Quota("Standard executions started a second", 300, 1, 0, _STATES),
    Quota("Standard state transitions a second", 5_000, STATES, 1 / BATCH_SIZE, _STATES),
    Quota("children started a second", 1_000, 0, 1 / BATCH_SIZE, _STATES),
    Quota("children at once", 10_000, 0, IN_LAMBDA / BATCH_SIZE, _STATES),
    Quota("concurrent Lambda executions", 1_000, IN_LAMBDA, IN_LAMBDA, _LAMBDA),
    Quota("Lambda requests a second (10 for each concurrent execution)", 10_000, 3, 3, _LAMBDA),
    Quota("PutEvents entries a second", 10_000, 1, 1, _EVENTS),
    Quota("EventBridge invocations of targets a second", 18_750, 2, 1, _EVENTS),
    Quota("S3 GETs a second and prefix", 5_500, 1, 1, f"{_DOCS}/AmazonS3/latest/userguide/optimizing-performance.html"),
    Quota("images a second on one instance of the endpoint", INSTANCE_RPS, 1, 1, "measured"),
]


@dataclass
class Setting:
    """What is simulated."""

    images: int
    batch_size: int = BATCH_SIZE
    children: int = 1_000
    #: All images are uploaded at the same moment, and each execution is started by the upload starter.
    uploaded: bool = False
    #: Executions that may start at once, and more of them a second.
    starts: tuple[float, float] = (1_000, 1_000)
    concurrency: int = 1_000
    instances: int = 1
    #: Seconds of each function, and of the endpoint.
    seconds: Mapping[str, float] = field(default_factory=lambda: SECONDS)
    endpoint_seconds: float = ENDPOINT_SECONDS
    #: Where everything shares one machine: cores, processes of each function, and seconds of the only process in which
    #: the states of an image run.
    cores: float = math.inf
    processes: float = math.inf
    orchestration: float = 0.0


@dataclass
class Result:
    """What came out: images by their end, attempts, and when the last image was done."""

    ends: dict[str, int] = field(default_factory=lambda: {"done": 0, "failed": 0})
    attempts: int = 0
    throttled: dict[str, int] = field(default_factory=lambda: {"starts": 0, "Lambda": 0, "endpoint": 0})
    seconds: float = 0.0


class Bucket:
    """Tokens that come back at a rate, up to a size."""

    def __init__(self, environment: simpy.Environment, size: float, rate: float) -> None:
        self._environment, self._size, self._rate = environment, size, rate
        self._tokens, self._then = size, 0.0

    def take(self) -> bool:
        """Take a token, if there is one."""
        now = self._environment.now
        self._tokens, self._then = min(self._size, self._tokens + (now - self._then) * self._rate), now
        if self._tokens < 1:
            return False
        self._tokens -= 1
        return True


class Simulation:
    """A run of one setting."""

    def __init__(self, setting: Setting, seed: int = 0) -> None:
        self.setting, self.result = setting, Result()
        self.environment = simpy.Environment()
        self._random = random.Random(seed)
        self._states: dict[str, Any] = {}
        for definition in DEFINITIONS:
            self._states |= json.loads(definition.read_text())["States"]
        self._starts = Bucket(self.environment, *setting.starts)
        # A function gets 1,000 environments every ten seconds, in addition to those that it has.
        self._growth = {name: Bucket(self.environment, 1_000, 100) for name in SECONDS}
        self._cores, self._orchestration = self._resource(setting.cores), self._resource(1)
        self._processes = {name: self._resource(setting.processes) for name in SECONDS}
        self._warm, self._busy = dict.fromkeys(SECONDS, 0), dict.fromkeys(SECONDS, 0)
        self._endpoint = simpy.Resource(self.environment, setting.instances * WORKERS)

    def _resource(self, capacity: float) -> simpy.Resource:
        return simpy.Resource(self.environment, capacity)  # type: ignore[arg-type]

    def run(self) -> Result:
        """Simulate until all images have ended."""
        if self.setting.uploaded:
            for _ in range(self.setting.images):
                self.environment.process(self._upload())
        else:
            self.environment.process(self._parent())
        self.environment.run()
        return self.result

    def _parent(self) -> Generator[Any, Any, None]:
        slots = simpy.Resource(self.environment, self.setting.children)
        for first in range(0, self.setting.images, self.setting.batch_size):
            slot = slots.request()
            yield slot
            while not self._starts.take():
                yield self.environment.timeout(0.05)
            size = min(self.setting.batch_size, self.setting.images - first)
            self.environment.process(self._child(size, slot))

    def _child(self, size: int, place: Any) -> Generator[Any, Any, None]:
        with place:
            yield self.environment.all_of([self.environment.process(self._image()) for _ in range(size)])

    def _upload(self) -> Generator[Any, Any, None]:
        if (yield from self._task("Start workflow")):
            yield from self._image()
        else:
            self.result.ends["failed"] += 1

    def _image(self) -> Generator[Any, Any, None]:
        end = "done"
        for state in SECONDS:
            if not (yield from self._task(state)):
                end = "failed"
                break
        self.result.ends[end] += 1
        self.result.seconds = float(self.environment.now)

    def _task(self, state: str) -> Generator[Any, Any, bool]:
        """Run a state with its retries; return whether it succeeded."""
        tried: dict[int, int] = {}
        while True:
            self.result.attempts += state in SECONDS
            error = yield from self._call(state)
            if not error:
                return True
            policies = enumerate(self._states[state]["Retry"])
            number, policy = next((number, each) for number, each in policies if error in each["ErrorEquals"])
            tries = tried[number] = tried.get(number, 0) + 1
            if tries > policy["MaxAttempts"]:
                return False
            delay = policy["IntervalSeconds"] * policy["BackoffRate"] ** (tries - 1)
            # JitterStrategy FULL
            yield self.environment.timeout(self._random.uniform(0, min(delay, policy["MaxDelaySeconds"])))

    def _call(self, state: str) -> Generator[Any, Any, str]:
        """Invoke a function, or start an execution; return the error's name, or an empty string."""
        if state not in SECONDS:
            if self._starts.take():
                return ""
            self.result.throttled["starts"] += 1
            return "States.TaskFailed"
        if self.setting.orchestration:
            yield from self._work(self.setting.orchestration / len(SECONDS), self._orchestration)
        full = sum(self._busy.values()) >= self.setting.concurrency
        cold = self._busy[state] >= self._warm[state]
        if full or (cold and not self._growth[state].take()):
            self.result.throttled["Lambda"] += 1
            return "Lambda.TooManyRequestsException"
        self._warm[state] += cold
        self._busy[state] += 1
        with self._processes[state].request() as process:
            yield process
            yield from self._work(self.setting.seconds[state])
            error = (yield from self._predict()) if state == "Classify" else ""
        self._busy[state] -= 1
        return error

    def _work(self, seconds: float, *resources: simpy.Resource) -> Generator[Any, Any, None]:
        """Use a core for some time, and before it what else the work needs."""
        with contextlib.ExitStack() as held:
            for resource in (*resources, self._cores):
                yield held.enter_context(resource.request())
            yield self.environment.timeout(seconds)

    def _predict(self) -> Generator[Any, Any, str]:
        with self._endpoint.request() as turn:
            waited = yield turn | self.environment.timeout(ENDPOINT_TIMEOUT)
            if turn not in waited:
                self.result.throttled["endpoint"] += 1
                return "EndpointUnavailable"
            yield from self._work(self.setting.endpoint_seconds)
        return ""


#: What the page simulates, by its name.
SETTINGS = {
    "batch of 10,000, one instance, 5 children": Setting(10_000, children=5),
    "the same, 1,000 children": Setting(10_000),
    "the same, 1,000 children, 20 instances": Setting(10_000, instances=20),
    "the same, 1,000 children, 20 instances, 5,000 concurrent": Setting(10_000, instances=20, concurrency=5_000),
    "burst of 10,000 uploads, one instance": Setting(10_000, uploaded=True, starts=(1_300, 300)),
    "the same, 4 instances": Setting(10_000, uploaded=True, starts=(1_300, 300), instances=4),
    "the same, half the quota of starts, as in smaller Regions": Setting(
        10_000, uploaded=True, starts=(800, 150), instances=4
    ),
    "burst of 50,000 uploads, 4 instances": Setting(50_000, uploaded=True, starts=(1_300, 300), instances=4),
}

TEXT = f"""
An upload is an execution, which the upload starter starts: it tries again while starts are throttled. What it could
not start after all its attempts counts as failed, and waits in the failure queue for `python -m operations replay
--faults`. Not simulated: starts of the starter, which EventBridge repeats for 24 hours; throttled state transitions,
which only delay; and failures of a service.

Too much concurrency does harm: what the endpoint cannot take waits inside classify, which uses up Lambda's concurrency,
and with the retries a batch takes several times as long. `MaxConcurrency` of a batch belongs to the endpoint's
capacity: images a second times seconds an image, divided by the images in a child (here
{INSTANCE_RPS} x {IN_LAMBDA:.2f} / {BATCH_SIZE}, about {INSTANCE_RPS * IN_LAMBDA / BATCH_SIZE:.0f} children, and some
more as time passes between states).

A burst of 10,000 uploads is absorbed by the retries. The starter waits 112 seconds on average, in which about 30,000
executions start. If more are uploaded at once, ask for a higher quota of `StartExecution`, or classify them as a
batch.

## Compared with the rehearsal

`python -m benchmarks.workflow` measures the processor time that an image takes in the server, the functions and the
endpoint of a rehearsal, simulates a batch of 200 images with these times on one machine, and runs the batch. Simulated
were 21.7 images a second, measured 15.2, that is 0.70 times as many, on two cores shared with other work (load 12; at a
load of 28, 0.30 times). Both are limited by the server, 46 ms an image; the simulation has the cores for itself, and no
run on an idle machine was made.

## What to change at each step

- **10 images a second.** Nothing: every quota has room, and one instance is enough. Two instances keep the endpoint
  available when one of them fails.
- **1,000 a second.** One instance and single Standard executions no longer suffice. The endpoint needs
  {math.ceil(1_000 / INSTANCE_RPS)} instances at least (Service Quotas, "ml.m5.xlarge for endpoint usage"; a new account
  may have none) and autoscaling; images go in batches, or through the Express workflow. Lambda has room while its
  functions are fast.
- **100,000 a second.** Nearly every default is exceeded. In batches it is most of all the endpoint: smaller images or a
  faster instance type save more than any quota. Lambda's concurrency, EventBridge (one event for each accepted image; a
  batch's results are in S3 already) and S3 (more prefixes) need increases that AWS must agree to. Divide the images
  over several accounts or Regions, each with its own bucket, stack and endpoint: each of ten carries 10,000 a second.
"""


def main() -> None:
    """Print the page."""
    print("# Scaling\n")
    print("`python -m benchmarks.scaling` prints this page. On paper: nothing of this was run on AWS.\n")
    print(
        f"Assumed: an image takes {IN_LAMBDA:.2f} s in functions, of which {1e3 * ENDPOINT_SECONDS:.0f} ms on the "
        f"endpoint, where\nan instance takes {WORKERS} at once, as for the default target of "
        "[autoscaling](../training/README.md#autoscaling);\n"
        f"a batch has {BATCH_SIZE} images in a child, all at once.\n"
    )
    for kind, title in (("single", "Single Standard executions"), ("batch", "Batches")):
        print(f"## {title}: demand, in multiples of the default quota\n")
        print("| quota in us-east-1 | limit | 10 images a second | 1,000 | 100,000 |\n|---|---|---|---|---|")
        needed = [quota for quota in QUOTAS if getattr(quota, kind)]
        for quota in sorted(needed, key=lambda quota: -getattr(quota, kind) / quota.limit):
            cells = [f"{getattr(quota, kind) * rate / quota.limit:.2g}" for rate in (10, 1_000, 100_000)]
            print(f"| {quota.name} | {quota.limit:,g} | {' | '.join(cells)} |")
        print("\nThe first row binds first.\n")
    print("## Simulated: retries included\n")
    columns = ("case", "done", "failed", "seconds", "images a second", "attempts an image")
    print(f"| {' | '.join(columns)} | starts throttled | throttled by Lambda | timed out |")
    print("|---|---|---|---|---|---|---|---|---|")
    for name, setting in SETTINGS.items():
        result = Simulation(setting).run()
        row = [f"{result.ends['done']:,}", f"{result.ends['failed']:,}", f"{result.seconds:.0f}"]
        row += [f"{setting.images / result.seconds:.0f}", f"{result.attempts / setting.images:.1f}"]
        row += [f"{count:,}" for count in result.throttled.values()]
        print(f"| {name} | {' | '.join(row)} |")
    print(TEXT)
    print("Quotas as AWS documents them:\n")
    for source in dict.fromkeys(quota.source for quota in QUOTAS if quota.source.startswith("http")):
        print(f"- {source}")


if __name__ == "__main__":
    main()
