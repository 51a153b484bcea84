"""The report page in a real browser: nothing overflows on a phone, and nothing is fetched."""

import re
import subprocess
from html import escape
from pathlib import Path

import pytest
from PIL import Image

from demo.drawing import bicycle, house, motorcycle
from tests.browser.chromium import CHROMIUM, FLAGS
from training.__main__ import main

REPOSITORY = Path(__file__).parents[2]
# Put into a copy of the page: what a person would notice, written where --dump-dom shows it. The copy stands in a
# frame, because a headless window is never narrower than 500 pixels.
PROBE = """<script>addEventListener("load", () => {
  const wide = [...document.querySelectorAll("body *")].filter(e => !e.closest(".scroll, svg")
    && e.getBoundingClientRect().right > document.documentElement.clientWidth + 1);
  const broken = [...document.images].filter(i => !i.naturalWidth);
  const regions = [...document.querySelectorAll(".scroll")].filter(r => r.tabIndex !== 0);
  const drawn = [...document.querySelectorAll("svg")].filter(s => s.getBoundingClientRect().height > 100);
  const fetched = performance.getEntriesByType("resource").filter(r => !r.name.startsWith("data:"));
  const ink = getComputedStyle(document.body).color, paper = getComputedStyle(document.body).backgroundColor;
  parent.document.body.setAttribute("data-probe", [innerWidth, wide.length, broken.length, regions.length, drawn.length,
    fetched.length, ink, paper].join("|"));
});</script></body>"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder of a report on drawn images, and of its copies with the probe, 390.html and 1280.html."""
    if not CHROMIUM:
        pytest.skip("needs a browser: install chromium")
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
    html = (folder / "report.html").read_text()
    probed = escape(html.replace("</body>", PROBE))
    for width in (390, 1280):
        frame = f'<iframe style="width: {width}px; height: 900px; border: 0" srcdoc="{probed}"></iframe>'
        (folder / f"{width}.html").write_text(f'<!doctype html><meta charset="utf-8"><body>{frame}</body>')
    return folder


def browse(page: Path, profile: Path, width: int, *options: str) -> str:
    assert CHROMIUM
    done = subprocess.run(
        [CHROMIUM, *FLAGS, f"--user-data-dir={profile}", f"--window-size={width},900", *options, page.as_uri()],
        capture_output=True,
        text=True,
        timeout=600,
        check=True,
    )
    return done.stdout


@pytest.mark.parametrize("width", [390, 1280])
def test_page_fits_and_is_complete(folder: Path, tmp_path: Path, width: int) -> None:
    dom = browse(folder / f"{width}.html", tmp_path, 1400, "--dump-dom")
    probe = re.search(r'data-probe="([^"]*)"', dom)
    assert probe, "the page did not load to its end"
    inner, wide, broken, regions, drawn, fetched, ink, paper = probe[1].split("|")
    assert int(inner) == width
    assert (wide, broken, regions, fetched) == ("0", "0", "0", "0")
    assert drawn == "8"
    assert (ink, paper) == ("rgb(27, 29, 33)", "rgb(255, 255, 255)")


def test_page_follows_a_dark_screen(folder: Path, tmp_path: Path) -> None:
    dom = browse(folder / "390.html", tmp_path, 1400, "--dump-dom", "--force-dark-mode")
    assert "rgb(236, 238, 241)|rgb(21, 23, 27)" in dom


def test_screenshot_shows_something(folder: Path, tmp_path: Path) -> None:
    file = tmp_path / "page.png"
    browse(folder / "report.html", tmp_path / "profile", 390, f"--screenshot={file}")
    with Image.open(file) as shot:
        assert shot.size == (390, 900)
        assert len(shot.convert("L").getcolors() or []) > 20
