"""What a training job gets: its code, requirements and metrics. tests/rehearsal/test_sagemaker_jobs.py runs jobs."""

import ast
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import botocore.session
import pytest

from tests.support.stack import HANG_SECONDS
from training.__main__ import main
from training.jobs.start import METRICS, copy_source

REPOSITORY = Path(__file__).parents[2]


def test_the_job_gets_every_module_that_training_imports(tmp_path: Path) -> None:
    copy_source(tmp_path)
    code = "import training.__main__, training.evaluation.evaluate, training.dataset.staging, training.provenance"
    subprocess.run([sys.executable, "-c", code], cwd=tmp_path, check=True, timeout=HANG_SECONDS)
    assert not list(tmp_path.rglob("*.onnx")), "a model takes megabytes, and the job makes its own"
    assert ast.parse((tmp_path / "train.py").read_text())
    kept, every = (
        re.findall(r"^([\w-]+)==", (folder / "requirements.txt").read_text(), re.MULTILINE)
        for folder in (tmp_path, REPOSITORY / "training")
    )
    assert set(every) - set(kept) == {"torch"}, "the image has torch; all else is installed as it is here"


def test_metrics_are_found_in_what_train_prints() -> None:
    shown = (REPOSITORY / "training" / "README.md").read_text()
    lines = shown.splitlines()
    found = {name: [match[1] for line in lines if (match := re.search(regex, line))] for name, regex in METRICS.items()}
    assert [name for name, values in found.items() if not values] == []
    (validation,) = (line for line in lines if line.startswith("validation: "))
    values = dict(part.rsplit(" ", 1) for part in validation.removeprefix("validation: ").split(", "))
    for name in ("accuracy", "coverage", "selective_accuracy", "ece", "other_passing"):
        assert found[f"validation:{name}"] == [values[name]]
    model = botocore.session.get_session().get_service_model("sagemaker")
    limits: Any = model.shape_for("MetricDefinition").members  # type: ignore[attr-defined]
    assert all(len(regex) <= limits["Regex"].metadata["max"] for regex in METRICS.values())
    assert all(len(name) <= limits["Name"].metadata["max"] for name in METRICS)


@pytest.mark.parametrize("given", [[], ["--bucket", "b"], ["--role-arn", "r"]])
def test_a_job_needs_a_place_and_a_role(given: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["train", "--on", "sagemaker", *given]) == 1
    assert "needs --bucket and --role-arn, or --job" in capsys.readouterr().err


def test_without_the_sdk_it_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["train", "--on", "sagemaker", "--bucket", "b", "--role-arn", "r"]) == 1
    assert "pip install -r training/requirements-sagemaker.txt" in capsys.readouterr().err
