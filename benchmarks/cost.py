"""Estimate the cost per image: ``python -m benchmarks.cost``. Without options it prints ``docs/cost.md``.

List prices of us-east-1 in US dollars, without free tiers. Steps are counted in the workflow's definition, alarms and
dashboards in the template. Durations are those of a warm x86 function of the same size, rounded up: the processor times
of ``python -m benchmarks.cold_start``, at the share of a vCPU that Lambda gives for its memory, and the time of waiting
for S3 and the endpoint.
"""

import argparse
import json
import math
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from samtranslator.yaml_helper import yaml_parse

from common.command import fraction, positive_int, quietly
from monitoring.features import CATEGORICAL, NUMERIC
from training.registry.prices import INSTANCE_HOURS, READ_ON

ROOT = Path(__file__).parents[1]
DEFINITION, STARTER = (ROOT / "statemachine" / f"{name}.asl.json" for name in ("classify", "start"))
PAGES = "https://aws.amazon.com"
#: Price in dollars, unit, and AWS's page.
PRICES = {
    "Step Functions, Standard": (25.00 / 1e6, "state transition", "/step-functions/pricing/"),
    "Step Functions, Express": (1.00 / 1e6, "request", "/step-functions/pricing/"),
    "Step Functions, Express duration": (0.06 / 3600, "GB-second", "/step-functions/pricing/"),
    "Lambda": (0.20 / 1e6, "request", "/lambda/pricing/"),
    "Lambda duration, x86_64": (0.0000166667, "GB-second", "/lambda/pricing/"),
    "Lambda duration, arm64": (0.0000133334, "GB-second", "/lambda/pricing/"),
    "EventBridge": (1.00 / 1e6, "event", "/eventbridge/pricing/"),
    "SQS": (0.40 / 1e6, "request", "/sqs/pricing/"),
    "S3 PUT, LIST": (0.005 / 1e3, "request", "/s3/pricing/"),
    "S3 GET": (0.0004 / 1e3, "request", "/s3/pricing/"),
    "CloudWatch Logs": (0.50, "GB", "/cloudwatch/pricing/"),
    "CloudWatch metric": (0.30, "month", "/cloudwatch/pricing/"),
    "CloudWatch metric in an alarm": (0.10, "month", "/cloudwatch/pricing/"),
    "CloudWatch dashboard": (3.00, "month", "/cloudwatch/pricing/"),
    "Endpoint, ml.m5.xlarge": (INSTANCE_HOURS["ml.m5.xlarge"], "hour", "/sagemaker/ai/pricing/"),
    "Drift check, ml.t3.medium": (INSTANCE_HOURS["ml.t3.medium"], "hour", "/sagemaker/ai/pricing/"),
}
PRICE = {name: price for name, (price, _, _) in PRICES.items()}
HOURS = 24 * 30
#: Memory in GB (template.yaml) and seconds of each function.
FUNCTIONS = {"serialize": (1.0, 0.10), "classify": (0.5, 0.10), "filter": (0.25, 0.01)}
#: The same three steps with 1 GB each. Decoding 12 megapixels without reducing them takes 0.2 s longer.
NAIVE_FUNCTIONS = {"serialize": (1.0, 0.30), "classify": (1.0, 0.10), "filter": (1.0, 0.01)}
#: Seconds that Step Functions takes between two states: an assumption.
STEP_SECONDS = 0.02
#: Seconds of the starter of an upload: three states and a request, an assumption.
STARTER_SECONDS = 3 * STEP_SECONDS + 0.05
#: Express bills memory in steps of 64 MB and time in steps of 0.1 s; 50 MB are used by any execution.
MEMORY_STEP, TIME_STEP, BASE_MB = 64, 0.1, 50
#: MB that an image takes in a state: the largest that one carries.
STATE_MB = 0.25
#: Keys per LIST request, and results per file of the batch.
KEYS_PER_REQUEST = 1000
#: Bytes of logs that the three functions write per image, as benchmarks/workflow.py counts them.
LOG_BYTES = 7_400
#: What benchmarks/workflow.py measured with images of 32 to 64 pixels: ms of each function (p50), KB of the largest
#: input of a state, and states by the histories, of an accepted and of an unsure image.
MEASURED_MS, MEASURED_KB, MEASURED_STATES = {"serialize": 10, "classify": 18, "filter": 2}, 11, (6, 7)
#: Metrics of the functions (8, and five by label) and of the drift check (3, and one by feature), with two labels.
METRICS = 8 + 5 * 2 + 3 + len(NUMERIC) + len(CATEGORICAL) + len(["content"])
#: Hours per month in which the instance of an hourly drift check runs.
CHECK_HOURS = HOURS * 5 / 60


@dataclass(frozen=True)
class Cost:
    """Dollars per image: for the orchestration, for functions, and for storage, logs and messages."""

    orchestration: float
    functions: float
    rest: float

    @property
    def machinery(self) -> float:
        """Orchestration and functions."""
        return self.orchestration + self.functions

    @property
    def total(self) -> float:
        """Everything."""
        return self.machinery + self.rest


def transitions(states: dict[str, dict[str, Any]], start: str, review: bool) -> int:
    """Count the states that one image passes."""
    count, name = 0, start
    while True:
        count += 1
        state = states[name]
        catchers = [catcher for catcher in state.get("Catch", []) if "ThresholdNotMet" in catcher["ErrorEquals"]]
        if review and catchers:
            name = str(catchers[0]["Next"])
        elif "Next" in state or "Default" in state:
            name = str(state.get("Next") or state["Default"])
        else:
            return count


def average_transitions(arguments: argparse.Namespace) -> float:
    """Return the states that an image passes, on average."""
    definition = json.loads(DEFINITION.read_text())
    accepted, unsure = (transitions(definition["States"], definition["StartAt"], review) for review in (False, True))
    return float((1 - arguments.unsure) * accepted + arguments.unsure * unsure)


def seconds_of_an_image(arguments: argparse.Namespace) -> float:
    """Return how long the workflow takes for an image."""
    return sum(seconds for _, seconds in FUNCTIONS.values()) + average_transitions(arguments) * STEP_SECONDS


def express(seconds: float, memory: float) -> float:
    """Return the price of one Express execution of this duration, with this much memory in MB."""
    billed = math.ceil(round(seconds / TIME_STEP, 6)) * TIME_STEP * math.ceil(memory / MEMORY_STEP) * MEMORY_STEP / 1024
    return PRICE["Step Functions, Express"] + billed * PRICE["Step Functions, Express duration"]


def chains(arguments: argparse.Namespace) -> dict[str, Cost]:
    """Return the cost of an image, by the way in which it is classified."""
    definition_mb, steps = DEFINITION.stat().st_size / 1e6, average_transitions(arguments)
    gb_second = PRICE[f"Lambda duration, {arguments.architecture}"]

    def functions(each: dict[str, tuple[float, float]]) -> float:
        return sum(PRICE["Lambda"] + memory * seconds * gb_second for memory, seconds in each.values())

    seconds = seconds_of_an_image(arguments)
    handed_on = (1 - arguments.unsure) * PRICE["EventBridge"] + arguments.unsure * PRICE["SQS"]
    read = PRICE["S3 GET"] + LOG_BYTES / 1e9 * PRICE["CloudWatch Logs"]
    # An upload's own event is charged like any other, and another state machine starts the execution.
    uploaded = PRICE["S3 PUT, LIST"] + PRICE["EventBridge"] + read
    size = arguments.batch_size
    child = express(seconds, BASE_MB + definition_mb + STATE_MB * size)
    # AWS's page does not say whether the start of an Express child counts as a transition of the parent: assume so.
    batch = (child + PRICE["Step Functions, Standard"]) / size
    listed = PRICE["S3 PUT, LIST"] * (1 / KEYS_PER_REQUEST + 1 / size)
    nested = express(seconds, BASE_MB + definition_mb + STATE_MB)
    standard, ours = PRICE["Step Functions, Standard"], functions(FUNCTIONS)
    return {
        "Standard": Cost(steps * standard + starting(), ours, uploaded + handed_on),
        "synchronous Express": Cost(nested, ours, read + handed_on),
        "batch": Cost(batch + nested, ours, read + listed + handed_on),
        "batch, if its children had the chain's states": Cost(batch, ours, read + listed + handed_on),
        "naive chain": Cost(len(NAIVE_FUNCTIONS) * standard, functions(NAIVE_FUNCTIONS), uploaded),
    }


def starting() -> float:
    """Return the dollars for the Express execution that starts the workflow for an upload."""
    return express(STARTER_SECONDS, BASE_MB + STARTER.stat().st_size / 1e6)


def monitoring() -> tuple[float, int, int]:
    """Return the dollars per month for metrics, alarms and dashboards, and how many of the last two there are."""
    template = yaml_parse((ROOT / "template.yaml").read_text())
    resources = [body for body in template["Resources"].values() if body.get("Condition") != "HasCanary"]
    alarms = [each["Properties"] for each in resources if each["Type"] == "AWS::CloudWatch::Alarm"]
    alarm_metrics = sum(sum("MetricStat" in query for query in alarm.get("Metrics", [])) or 1 for alarm in alarms)
    dashboards = sum(each["Type"] == "AWS::CloudWatch::Dashboard" for each in resources)
    dollars = METRICS * PRICE["CloudWatch metric"] + alarm_metrics * PRICE["CloudWatch metric in an alarm"]
    return dollars + dashboards * PRICE["CloudWatch dashboard"], len(alarms), dashboards


def read_arguments() -> argparse.Namespace:
    """Return the options."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("--images", type=float, default=1e6, help="images a month (default: a million)")
    parser.add_argument("--unsure", type=fraction, default=0.1, help="fraction that goes to review (default: 0.1)")
    parser.add_argument("--instances", type=float, default=1, help="instances of the endpoint, on average (default: 1)")
    parser.add_argument("--floor", type=float, default=1, help="instances that always run (default: 1)")
    parser.add_argument("--discount", type=fraction, default=0, help="of a savings plan for the floor (default: 0)")
    parser.add_argument("--architecture", choices=["x86_64", "arm64"], default="x86_64")
    parser.add_argument(
        "--batch-size", type=positive_int, default=20, help="images in a child of a batch (default: 20)"
    )
    return parser.parse_args()


def main() -> None:
    """Print everything as a page in Markdown."""
    arguments = read_arguments()
    costs = chains(arguments)
    single = costs["Standard"].machinery
    print("# Cost\n")
    print("`python -m benchmarks.cost` prints this page; its options put your volume in. Estimates, not a bill.\n")
    print(f"## Per image\n\nAt {arguments.unsure:.0%} unsure, on {arguments.architecture}, in US dollars:\n")
    columns = ("", "per million", "orchestration", "functions", "storage, logs, messages", "per thousand")
    print_row(*columns, "orchestration and functions, of Standard's")
    print("|---|---|---|---|---|---|---|")
    for name, cost in costs.items():
        parts = (f"{each * 1e6:.2f}" for each in (cost.total, cost.orchestration, cost.functions, cost.rest))
        print_row(name, *parts, f"{cost.total * 1e3:.4f}", f"1/{single / cost.machinery:.1f}")
    arm = chains(argparse.Namespace(**{**vars(arguments), "architecture": "arm64"}))["Standard"].functions
    child = PRICE["Step Functions, Standard"] / arguments.batch_size
    print(f"""
- A batch has {arguments.batch_size} images in each Express child, all at once, and an Express execution for each image.
  The start of a child is counted as a transition of the parent, which AWS's page does not settle; without it the batch
  costs ${child * 1e6:.2f} less per million.
- The naive chain has three functions of 1 GB in a Standard workflow, and nothing else: no record of results, unsure
  images and failures. It has half the states of this workflow, and is cheaper than a single execution for that reason.
- On arm64 the functions cost ${arm * 1e6:.2f} per million images.
- Standard and the naive chain include the upload and its event. Standard also includes the Express execution that
  starts it: ${starting() * 1e6:.2f} per million. Callers that start the workflow themselves save that.
- Express is billed for {seconds_of_an_image(arguments):.2f} s an image: the functions' seconds below, and an assumed
  {STEP_SECONDS} s for each state.
- X-Ray's samples (about $0.25 per million images) are not included.
""")
    print_month(arguments, costs)
    print("\n## What is counted\n")
    print("| function | memory | seconds, warm | p50 in the rehearsal, images of 32 to 64 px |\n|---|---|---|---|")
    for name, (memory, seconds) in FUNCTIONS.items():
        print_row(name, f"{memory * 1024:.0f} MB", f"{seconds:.2f}", f"{MEASURED_MS[name]} ms")
    accepted, unsure = MEASURED_STATES
    print(f"""
The seconds are rounded up, from processor times (serialize of a JPEG of 12 megapixels: 33 ms of a whole vCPU, of
which Lambda gives 1,024 MB 0.58) and the waiting for S3 and the endpoint. The rehearsal gives a function a whole core.

The workflow's states are counted in `statemachine/classify.asl.json`. In a rehearsal, `python -m benchmarks.workflow`
measures that

- an accepted image enters {accepted} states and an unsure one {unsure}, by the executions' histories;
- the functions write {LOG_BYTES:,} bytes of logs for an image;
- the largest input of a state has {MEASURED_KB} KB, with small images. Counted are {STATE_MB} MB, the most that a state
  may carry.

Assumed, because a rehearsal cannot measure it: {STEP_SECONDS} s for each state, {BASE_MB} MB for any Express execution,
and that the start of a child is a transition.""")
    print("\nPrices of us-east-1 without free tiers:\n\n| service | dollars | per | source |\n|---|---|---|---|")
    for name, (price, unit, page) in PRICES.items():
        print_row(name, f"{price:.10f}".rstrip("0").rstrip("."), unit, f"{PAGES}{page}, {READ_ON}")


def print_row(*cells: str) -> None:
    """Print a row of a table."""
    print(f"| {' | '.join(cells)} |")


def print_month(arguments: argparse.Namespace, costs: dict[str, Cost]) -> None:
    """Print what a month costs, images apart from what runs without them."""
    instance = PRICE["Endpoint, ml.m5.xlarge"]
    scaled = max(0.0, arguments.instances - arguments.floor)
    endpoint = (arguments.floor * (1 - arguments.discount) + scaled) * instance * HOURS
    watching, alarms, dashboards = monitoring()
    checks = CHECK_HOURS * PRICE["Drift check, ml.t3.medium"]
    print("## Per month\n\n| | dollars |\n|---|---|")
    what = f"endpoint: {arguments.floor:g} reserved and {scaled:g} scaled `ml.m5.xlarge`, on average"
    print_row(what, f"{endpoint:.0f}")
    print_row(f"monitoring: {METRICS} metrics, {alarms} alarms, {dashboards} dashboards", f"{watching:.0f}")
    print_row("hourly drift check", f"{checks:.0f}")
    for name, cost in costs.items():
        print_row(f"{arguments.images:,.0f} images, {name}", f"{cost.total * arguments.images:.0f}")
    idle = endpoint + watching + checks
    shares = [idle / (idle + costs[name].total * arguments.images) for name in ("batch", "Standard")]
    print(f"""
- The endpoint costs ${instance:.2f} an hour for each instance, with or without images: ${instance * HOURS:.0f} a month.
  Instances that autoscaling adds are billed while they run (`--instances`); for those that always run (`--floor`) AWS
  sells SageMaker Savings Plans, which it describes as up to 64% cheaper (`--discount`).
- At {arguments.images:,.0f} images a month, what runs without images is {shares[0]:.0%} of the bill with batches, and
  {shares[1]:.0%} with single executions.""")


if __name__ == "__main__":
    sys.exit(quietly(main))
