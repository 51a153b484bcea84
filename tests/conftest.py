"""What all tests share: where images come from, and an environment that cannot reach AWS."""

import io
import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from PIL import Image

from rehearsal.environment import undisturbed
from rehearsal.lifecycle import down, up
from tests.stack import Rehearsal

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
        image = Image.merge("RGB", [Image.linear_gradient("L").resize((width, height))] * 3).convert(mode)
        buffer = io.BytesIO()
        image.save(buffer, "PNG", **options)
        return buffer.getvalue()

    return make


@pytest.fixture(scope="session")
def rehearsal(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Rehearsal]:
    """Return a rehearsal that lives as long as the test session."""
    folder = tmp_path_factory.mktemp("rehearsal") / "state"
    yield Rehearsal(up(folder))
    down(folder)
    assert not folder.exists()
