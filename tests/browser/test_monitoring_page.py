"""The report of captures in a real browser: it fits, its filters work by keyboard, and nothing is fetched."""

import io
from collections.abc import Iterator
from pathlib import Path

import pytest

from demo.drawing import bicycle, motorcycle
from monitoring.__main__ import main
from tests.browser.chromium import CHROMIUM, Chromium
from tests.captures import write_captures
from tests.stack import wait_for

#: What is captured, again and again: for each picture the probabilities of bicycle and motorcycle. The last two are
#: unsure, and neither.
ANSWERS = ([0.95, 0.03], [0.02, 0.96], [0.9, 0.05], [0.6, 0.1], [0.1, 0.2])
CAPTURES = 200
VISIBLE = "[...document.querySelectorAll('.faces li')].filter(item => item.checkVisibility()).length"


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a report page of drawn images, every other one small."""
    if not CHROMIUM:
        pytest.skip("needs a browser: install chromium")
    folder = tmp_path_factory.mktemp("report")
    captured = []
    for i in range(CAPTURES):
        file = io.BytesIO()
        edge = 160 if i % 2 else 32
        (motorcycle if i % len(ANSWERS) == 1 else bicycle)(edge, edge, i % 20).save(file, "PNG")
        captured.append((file.getvalue(), ANSWERS[i % len(ANSWERS)]))
    write_captures(folder / "captures", captured, seconds=90)
    write_captures(folder / "usual", captured[:100])
    usual, captures, baseline = str(folder / "usual"), str(folder / "captures"), str(folder / "baseline")
    output = folder / "report.html"
    assert main(["baseline", "--captures", usual, "--output", baseline]) == 0
    when = ["--end", "2026-11-25T00:00:00+00:00", "--hours", "48"]
    assert main(["report", "--captures", captures, "--baseline", baseline, "--output", str(output), *when]) == 0
    return output


@pytest.fixture(scope="module")
def chromium(page: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Chromium]:
    with Chromium(tmp_path_factory.mktemp("profile")) as chromium:
        for domain in ("Network", "Log", "Runtime"):
            chromium.send(f"{domain}.enable")
        yield chromium


def requests(chromium: Chromium) -> list[str]:
    """Return the addresses that were asked for since the page was opened, but for what the page itself holds."""
    sent = [event["params"] for event in chromium.events if event["method"] == "Network.requestWillBeSent"]
    return [each["request"]["url"] for each in sent if not each["request"]["url"].startswith("data:")]


def complaints(chromium: Chromium) -> list[str]:
    """Return what the console says."""
    kinds = ("Log.entryAdded", "Runtime.exceptionThrown", "Runtime.consoleAPICalled")
    return [str(event["params"]) for event in chromium.events if event["method"] in kinds]


@pytest.mark.parametrize("width", [360, 1280])
@pytest.mark.parametrize("dark", [False, True])
def test_page_fits_and_is_complete(chromium: Chromium, page: Path, width: int, dark: bool) -> None:
    chromium.show(page.as_uri(), width, dark=dark)
    assert chromium.ask("document.documentElement.scrollWidth") == width
    assert chromium.ask("[...document.images].filter(image => !image.naturalWidth).length") == 0
    # Nine numeric features, the shares over time, and the confidence for each of two labels.
    assert chromium.ask("[...document.querySelectorAll('svg')].filter(svg => svg.clientHeight > 100).length") == 12
    assert chromium.ask("getComputedStyle(document.body).backgroundColor") == (
        "rgb(21, 23, 27)" if dark else "rgb(255, 255, 255)"
    )
    assert requests(chromium) == [page.as_uri()]
    assert complaints(chromium) == []


def test_filters_work_by_keyboard(chromium: Chromium, page: Path) -> None:
    chromium.show(page.as_uri())
    count, focused = "document.getElementById('shown').textContent", "document.activeElement.value"
    assert chromium.ask(count) == "Shown: 200 of 200 captures, 48 of 48 pictures."
    for _ in range(40):
        chromium.press("Tab")
        if chromium.ask(focused) == "0":
            break
    assert chromium.ask(focused) == "0", "Tab does not reach the first label"
    assert chromium.ask("getComputedStyle(document.activeElement).outlineStyle") == "solid"

    chromium.press(" ")
    visible = chromium.ask(VISIBLE)
    assert 0 < visible < 48
    assert chromium.ask(count) == f"Shown: 80 of 200 captures, {visible} of 48 pictures."
    assert chromium.ask("[...document.querySelectorAll('[data-label=\"0\"]')].every(part => !part.checkVisibility())")

    chromium.press("Tab")
    chromium.press(" ")
    assert chromium.ask(count) == "Shown: 0 of 200 captures, 0 of 48 pictures."
    assert chromium.ask("[...document.querySelectorAll('.none')].every(said => said.checkVisibility())")

    chromium.press(" ")
    chromium.press("Tab")
    assert chromium.ask(focused) == "accepted"
    chromium.press(" ")
    assert chromium.ask(count).startswith("Shown: 40 of 200 captures, ")
    drawn = "[...document.querySelectorAll('path[data-outcome]')].filter(path => path.checkVisibility())"
    assert chromium.ask(f"{drawn}.map(path => path.dataset.outcome)") == ["neither"]


def test_everything_is_visible_without_scripts(chromium: Chromium, page: Path) -> None:
    chromium.send("Emulation.setScriptExecutionDisabled", value=True)
    try:
        chromium.show(page.as_uri(), 360)
        assert chromium.ask(VISIBLE) == 48
        assert not chromium.ask("document.getElementById('filter').checkVisibility()")
    finally:
        chromium.send("Emulation.setScriptExecutionDisabled", value=False)


def test_what_is_smuggled_in_neither_runs_nor_loads(chromium: Chromium, page: Path, tmp_path: Path) -> None:
    """The page's policy holds where escaping would fail."""
    smuggled = """<script>document.title = "ran"</script>
        <img src="http://127.0.0.1:9/x.png" onerror="document.title = 1">
        <script src="http://127.0.0.1:9/x.js"></script><link rel="stylesheet" href="http://127.0.0.1:9/x.css">
        <iframe src="http://127.0.0.1:9/x.html"></iframe>"""
    copy = tmp_path / "page.html"
    copy.write_text(page.read_text().replace("</main>", f"{smuggled}</main>"))
    chromium.show(copy.as_uri())
    assert chromium.ask("document.title").startswith("No drift detected")

    def refused() -> str:
        chromium.ask("1")  # takes in what the browser has said since
        return str([said for said in complaints(chromium) if "Content Security Policy" in said])

    wait_for(lambda: all(name in refused() for name in ("x.png", "x.js", "x.css", "Framing")))
