"""Heat maps lie over the part of the image that the map is about, whatever its proportions."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from demo.drawing import encoded
from serving.explanation import explain, heat_map
from serving.model import Model
from tests.support.onnx_model import write_model


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Model:
    """Return a model that sees bicycles where the image is red, and motorcycles where it is green."""
    return Model(write_model(tmp_path_factory.mktemp("model") / "model.onnx", maps=True))


def picture(width: int, height: int, x: float, y: float) -> Image.Image:
    """Draw a red square around a place (0 to 1) on grey, and a green one on the other side of the centre."""
    image = Image.new("RGB", (width, height), (90, 90, 90))
    edge = min(width, height) // 4
    for colour, (across, down) in {(230, 30, 30): (x, y), (30, 230, 30): (1 - x, 1 - y)}.items():
        left, top = round(across * width - edge / 2), round(down * height - edge / 2)
        image.paste(colour, (left, top, left + edge, top + edge))
    return image


@pytest.mark.parametrize("size", [(400, 400), (400, 250), (250, 400), (40, 30)])
@pytest.mark.parametrize("place", [(0.35, 0.35), (0.35, 0.65), (0.65, 0.35)])
def test_the_heat_is_where_the_label_is(model: Model, size: tuple[int, int], place: tuple[float, float]) -> None:
    content = encoded(picture(*size, *place))
    for label, (x, y) in {"bicycle": place, "motorcycle": (1 - place[0], 1 - place[1])}.items():
        heat = heat_map(model, content, label)
        assert heat.mode == "RGBA" and max(heat.size) == 256
        assert heat.width / heat.height == pytest.approx(size[0] / size[1], rel=0.02)
        alpha = np.asarray(heat.getchannel("A"), float)
        down, across = (np.mean(where) for where in np.where(alpha > 0.8 * alpha.max()))
        assert across / heat.width == pytest.approx(x, abs=0.1) and down / heat.height == pytest.approx(y, abs=0.1)
        over = np.asarray(explain(model, content, label, 100), float)
        plain = np.asarray(picture(*size, *place).resize((over.shape[1], over.shape[0])), float)
        changed = np.abs(over - plain).sum(axis=2)
        down, across = (
            np.average(np.arange(n), weights=changed.sum(axis=axis)) / n
            for axis, n in ((1, len(changed)), (0, len(changed[0])))
        )
        assert (across - 0.5) * (x - 0.5) > 0 and (down - 0.5) * (y - 0.5) > 0


def test_what_the_network_does_not_see_stays_clear(model: Model) -> None:
    heat = heat_map(model, encoded(picture(400, 100, 0.5, 0.5)), "bicycle")
    alpha = np.asarray(heat.getchannel("A"))
    # Half of the width is cropped.
    assert alpha[:, :60].max() == alpha[:, -60:].max() == 0 < alpha.max()


def test_a_model_without_maps_says_so(tmp_path: Path) -> None:
    assert not Model(write_model(tmp_path / "model.onnx")).has_map
