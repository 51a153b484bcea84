"""The report page in a real browser: nothing overflows on a phone, and nothing is fetched."""

from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image
from playwright.sync_api import Browser, Page

from demo.drawing import bicycle, house, motorcycle
from training.__main__ import main

REPOSITORY = Path(__file__).parents[2]
#: Elements that stick out of the screen, broken images, tables that no key scrolls, and what was fetched.
PROBE = """[
  [...document.querySelectorAll("body *")].filter(e => !e.closest(".scroll, svg")
    && e.getBoundingClientRect().right > document.documentElement.clientWidth + 1).length,
  [...document.images].filter(i => !i.naturalWidth).length,
  [...document.querySelectorAll(".scroll")].filter(r => r.tabIndex !== 0).length,
  performance.getEntriesByType("resource").filter(r => !r.name.startsWith("data:")).length,
]"""
DRAWN = "[...document.querySelectorAll('svg')].filter(s => s.getBoundingClientRect().height > 100).length"
COLOURS = "[getComputedStyle(document.body).color, getComputedStyle(document.body).backgroundColor]"


@pytest.fixture(scope="module")
def report(browser: Browser, tmp_path_factory: pytest.TempPathFactory) -> str:
    """Return the address of a report on drawn images."""
    folder = tmp_path_factory.mktemp("report")
    for name, draw in {"bicycle": bicycle, "motorcycle": motorcycle, "other": house}.items():
        (folder / "images" / name).mkdir(parents=True)
        for seed in range(4):
            draw(160 if seed % 2 else 32, 120 if seed % 2 else 32, seed).save(
                folder / "images" / name / f"a-rather-long-name-of-a-file-{seed}.png"
            )
    model = REPOSITORY / "training/model/model.onnx"
    data = str(folder / "images")
    assert main(["evaluate", "--model", str(model), "--data", data, "--out", str(folder)]) == 0
    return (folder / "report.html").as_uri()


@pytest.mark.parametrize("width", [390, 1280])
def test_page_fits_and_is_complete(new_page: Callable[..., Page], report: str, width: int) -> None:
    page = new_page(width, 900)
    page.goto(report)
    assert page.evaluate("innerWidth") == width
    assert page.evaluate(PROBE) == [0, 0, 0, 0]
    assert page.evaluate(DRAWN) == 8
    assert page.evaluate(COLOURS) == ["rgb(27, 29, 33)", "rgb(255, 255, 255)"]


def test_page_follows_a_dark_screen(new_page: Callable[..., Page], report: str) -> None:
    page = new_page(390, 900, color_scheme="dark")
    page.goto(report)
    assert page.evaluate(COLOURS) == ["rgb(236, 238, 241)", "rgb(21, 23, 27)"]


def test_screenshot_shows_something(new_page: Callable[..., Page], report: str, tmp_path: Path) -> None:
    page = new_page(390, 900)
    page.goto(report)
    page.screenshot(path=tmp_path / "page.png")
    with Image.open(tmp_path / "page.png") as shot:
        assert shot.size == (390, 900)
        assert len(shot.convert("L").getcolors() or []) > 20
