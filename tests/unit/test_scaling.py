"""The simulation of batches: it loses nothing, keeps its limits, and takes as long as can be computed by hand."""

import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.scaling import ENDPOINT_SECONDS, SECONDS, Setting, Simulation
from training.deployment.autoscaling import DEFAULT_TARGET, WORKER_RPS, WORKERS

REPOSITORY = Path(__file__).parents[2]


def test_the_page_is_what_its_command_prints() -> None:
    command = [sys.executable, "-m", "benchmarks.scaling"]
    done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=True)
    assert (REPOSITORY / "docs" / "scaling.md").read_text() == done.stdout, (
        "python -m benchmarks.scaling > docs/scaling.md"
    )


def test_without_contention_the_time_is_the_sum_of_the_steps() -> None:
    # Twice as many images as the endpoint takes at once: the second half waits for the first one.
    images = 2 * WORKERS
    result = Simulation(Setting(images, batch_size=images)).run()
    assert result.ends == {"done": images, "failed": 0} and result.attempts == len(SECONDS) * images
    assert result.seconds == pytest.approx(sum(SECONDS.values()) + 2 * ENDPOINT_SECONDS)


@pytest.mark.parametrize("instances", [1, 3])
def test_the_endpoint_limits_the_rate(instances: int) -> None:
    setting = Setting(2_000, children=20, instances=instances)
    rate = setting.images / Simulation(setting).run().seconds
    capacity = instances * WORKERS * WORKER_RPS
    assert capacity / 2 < rate <= capacity


def test_every_image_ends_once_with_too_little_concurrency() -> None:
    setting = Setting(400, concurrency=20)
    result = Simulation(setting).run()
    assert sum(result.ends.values()) == setting.images and result.throttled["Lambda"] > 0
    # At most 20 functions at once: their time is a lower limit.
    busy = (sum(SECONDS.values()) + ENDPOINT_SECONDS) * result.ends["done"]
    assert result.seconds >= busy / setting.concurrency


def test_a_burst_of_uploads_is_started_by_retries_or_recorded() -> None:
    absorbed = Simulation(Setting(1_000, uploaded=True, starts=(100, 50), instances=10)).run()
    assert absorbed.ends == {"done": 1_000, "failed": 0} and absorbed.throttled["starts"] > 900
    assert absorbed.seconds >= 900 / 50, "the quota is a lower limit"
    never = Simulation(Setting(3, uploaded=True, starts=(0, 0))).run()
    assert never.ends == {"done": 0, "failed": 3} and never.attempts == 0
    assert never.throttled["starts"] == 3 * 18, "one attempt and the 17 retries of the starter's definition"


def test_an_image_fails_when_its_retries_are_used_up() -> None:
    result = Simulation(Setting(3, concurrency=0)).run()
    assert result.ends == {"done": 0, "failed": 3}
    assert result.attempts == 3 * 16, "one attempt and the 15 retries of the workflow's definition"


def test_on_one_machine_the_busiest_part_limits_the_rate() -> None:
    seconds, orchestration = dict.fromkeys(SECONDS, 0.005), 0.03
    machine = Setting(
        400, children=5, seconds=seconds, endpoint_seconds=0.005, cores=2, processes=4, orchestration=orchestration
    )
    rate = machine.images / Simulation(machine).run().seconds
    assert 0.9 / orchestration < rate <= 1 / orchestration, "the process of the states"
    busy = sum(seconds.values()) + orchestration + 0.005
    alone = Setting(**{**vars(machine), "cores": 1})
    rate = alone.images / Simulation(alone).run().seconds
    assert 0.9 / busy < rate <= 1 / busy, "the core"


def test_the_default_target_is_the_documented_one() -> None:
    # What one instance answers in a minute, times AWS's factor of one half.
    assert 0.5 * 60 * WORKERS * WORKER_RPS == DEFAULT_TARGET
    for page in ("training/__main__.py", "training/README.md", "docs/decisions.md"):
        text = (REPOSITORY / page).read_text()
        assert f"{DEFAULT_TARGET}" in text.replace(",", ""), page
