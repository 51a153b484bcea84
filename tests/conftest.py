"""What all tests share: where images come from, and an environment that cannot reach AWS."""

import functools
import gc
import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import botocore.session
import pytest
from hypothesis import HealthCheck, settings
from PIL import Image
from xdist.scheduler import LoadFileScheduling

from demo.drawing import encoded
from rehearsal.environment import undisturbed
from rehearsal.lifecycle import down, up
from tests.support.stack import Rehearsal

REPOSITORY = Path(__file__).parents[1]

# Before any module under test is imported: functions make their clients and Powertools objects then.
environment = undisturbed(os.environ)
os.environ.clear()
os.environ.update(
    environment,
    AWS_ACCESS_KEY_ID="testing",
    AWS_SECRET_ACCESS_KEY="testing",
    AWS_DEFAULT_REGION="us-east-1",
    AWS_CONFIG_FILE=os.devnull,
    AWS_SHARED_CREDENTIALS_FILE=os.devnull,
    AWS_EC2_METADATA_DISABLED="true",
    POWERTOOLS_TRACE_DISABLED="true",
    POWERTOOLS_SERVICE_NAME="test",
    POWERTOOLS_METRICS_NAMESPACE="ImageClassifier",
)
# A process that a script starts in the background ignores Ctrl-C, and so does every process that it starts.
signal.signal(signal.SIGINT, signal.default_int_handler)
# Each test of moto has a session of its own, which would read the descriptions of AWS's services again.
botocore.session.create_loader = functools.cache(botocore.session.create_loader)
# How long an example takes depends on the machine.
settings.register_profile("any machine", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("any machine")

#: The files whose tests share one deployed stack, in this order: one test needs an endpoint that has had no traffic,
#: and the last test of the last file deletes the stack.
STACK_FILES = [f"tests/rehearsal/test_{name}.py" for name in ("drift", "batch", "review", "snippets", "stack")]
#: Slow folders go first: a worker that began one of their files last would keep the others waiting.
SLOW_FOLDERS = ["rehearsal", "conformance", "workflow", "browser"]


class FileScheduling(LoadFileScheduling):
    """Give each worker whole files, and all files of the deployed stack to one worker."""

    def _split_scope(self, nodeid: str) -> str:
        file: str = super()._split_scope(nodeid)
        return "stack" if file in STACK_FILES else file


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> FileScheduling | None:
    """Schedule the files of parallel runs."""
    return FileScheduling(config, log) if config.getvalue("dist") == "loadfile" else None


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put the slow folders first, and in them the files of the deployed stack."""
    folders = {name: number for number, name in enumerate(SLOW_FOLDERS)}
    files = {file: number for number, file in enumerate(STACK_FILES)}

    def place(item: pytest.Item) -> tuple[int, int]:
        folder = folders.get(item.path.parent.name, len(folders))
        return folder, files.get(item.nodeid.partition("::")[0], len(files))

    items.sort(key=place)


def pytest_collection_finish() -> None:
    """Spare what is imported from every later search for garbage, which took a third of the time."""
    gc.collect()
    gc.freeze()


@pytest.fixture(scope="session")
def image_data() -> Path:
    """Return the folder of real images; skip where there is none."""
    folder = Path(os.environ.get("IMAGE_DATA_DIR", REPOSITORY.parent / "shared" / "data"))
    if not (folder / "photos").is_dir():
        pytest.skip(f"needs real images: set IMAGE_DATA_DIR to a folder with photos/ (looked in {folder.name}/)")
    return folder


@pytest.fixture
def png() -> Callable[..., bytes]:
    """Return a maker of PNG files with a gradient, in any mode and size."""

    def make(width: int = 32, height: int = 24, mode: str = "RGB", **options: object) -> bytes:
        grey = Image.linear_gradient("L").resize((width, height))
        return encoded(Image.merge("RGB", [grey] * 3).convert(mode), "PNG", **options)

    return make


@pytest.fixture(scope="session")
def rehearsal(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Rehearsal]:
    """Return a rehearsal that lives as long as the test session."""
    folder = tmp_path_factory.mktemp("rehearsal") / "state"
    yield Rehearsal(up(folder, tied=True))
    down(folder)
    assert not folder.exists()
