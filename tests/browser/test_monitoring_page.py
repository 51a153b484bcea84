"""The report of captures in a real browser: it fits, its filters work by keyboard, and nothing is fetched."""

from collections.abc import Callable
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, expect

from demo.drawing import bicycle, encoded, motorcycle, noise
from monitoring.__main__ import main
from tests.support.captures import write_captures

#: What is captured, again and again: for each picture the probabilities of bicycle and motorcycle. The last two are
#: unsure, and neither.
ANSWERS = ([0.95, 0.03], [0.02, 0.96], [0.9, 0.05], [0.6, 0.1], [0.1, 0.2])
CAPTURES = 200
VISIBLE = "[...document.querySelectorAll('.faces li')].filter(item => item.checkVisibility()).length"


@pytest.fixture(scope="module")
def report(browser: Browser, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a report page of drawn images, every other one small."""
    folder = tmp_path_factory.mktemp("report")
    captured = []
    for i in range(CAPTURES):
        edge = 160 if i % 2 else 32
        image = (motorcycle if i % len(ANSWERS) == 1 else bicycle)(edge, edge, i % 40)
        captured.append((encoded(image), ANSWERS[i % len(ANSWERS)]))
    write_captures(folder / "captures", captured, seconds=90)
    write_captures(folder / "usual", captured[:100])
    usual, captures, baseline = str(folder / "usual"), str(folder / "captures"), str(folder / "baseline")
    assert main(["baseline", "--captures", usual, "--output", baseline]) == 0
    when = ["--end", "2026-11-25T00:00:00+00:00", "--hours", "48"]
    assert main(["check", "--captures", captures, "--baseline", baseline, "--output", str(folder), *when]) == 0
    return folder / "report.html"


@pytest.fixture(scope="module")
def drifted(report: Path) -> Path:
    """Return a report page of a window in which the content drifted, among other features."""
    write_captures(report.parent / "odd", [(encoded(noise(64, 48, seed)), ANSWERS[3]) for seed in range(40)])
    captures, baseline, folder = (str(report.parent / name) for name in ("odd", "baseline", "drifted"))
    assert main(["check", "--captures", captures, "--baseline", baseline, "--output", folder]) == 3
    return report.parent / "drifted" / "report.html"


def listen(page: Page) -> tuple[list[str], list[str]]:
    """Return two lists that fill: what the page asks for, but for what it holds itself, and what the console says."""
    requests: list[str] = []
    complaints: list[str] = []
    page.on("request", lambda sent: None if sent.url.startswith("data:") else requests.append(sent.url))
    page.on("console", lambda said: complaints.append(said.text))
    page.on("pageerror", lambda error: complaints.append(str(error)))
    return requests, complaints


@pytest.mark.parametrize("width", [360, 1280])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_page_fits_and_is_complete(new_page: Callable[..., Page], report: Path, width: int, scheme: str) -> None:
    page = new_page(width, color_scheme=scheme)
    requests, complaints = listen(page)
    page.goto(report.as_uri())
    assert page.locator("article.card").first.is_hidden(), "features that did not drift are folded"
    page.locator("summary").click()
    assert page.evaluate("document.documentElement.scrollWidth") == width
    assert page.evaluate("[...document.images].filter(image => !image.naturalWidth).length") == 0
    # Ten numeric features, the shares over time, and the confidence for each of two labels.
    assert page.evaluate("[...document.querySelectorAll('svg')].filter(svg => svg.clientHeight > 100).length") == 13
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") == (
        "rgb(21, 23, 27)" if scheme == "dark" else "rgb(255, 255, 255)"
    )
    assert requests == [report.as_uri()]
    assert complaints == []


@pytest.mark.parametrize("width", [360, 1280])
def test_what_drifted_fits_and_leads_to_what_to_do(new_page: Callable[..., Page], drifted: Path, width: int) -> None:
    page = new_page(width)
    page.goto(drifted.as_uri())
    assert page.evaluate("document.documentElement.scrollWidth") == width
    page.locator("#violations + ul a", has_text="content").click()
    expect(page.locator("#test-content")).to_be_in_viewport()
    card = page.locator("article.drifted", has=page.locator("#test-content"))
    expect(card.locator(".multiples img")).to_have_count(8)
    card.get_by_role("link", name="What to do").click()
    expect(page.locator("#what-to-do")).to_be_in_viewport()


def test_filters_work_by_keyboard(new_page: Callable[..., Page], report: Path) -> None:
    page = new_page()
    page.goto(report.as_uri())
    focused = page.locator(":focus")
    count = page.locator("#shown")
    expect(count).to_have_text("Shown: 200 of 200 captures, 48 of 48 images.")
    for _ in range(40):
        page.keyboard.press("Tab")
        if focused.get_attribute("value") == "0":
            break
    expect(focused).to_have_value("0")
    expect(focused).to_have_css("outline-style", "solid")

    page.keyboard.press(" ")
    visible = page.evaluate(VISIBLE)
    assert 0 < visible < 48
    expect(count).to_have_text(f"Shown: 80 of 200 captures, {visible} of 48 images.")
    assert page.evaluate("[...document.querySelectorAll('[data-label=\"0\"]')].every(part => !part.checkVisibility())")

    page.keyboard.press("Tab")
    page.keyboard.press(" ")
    expect(count).to_have_text("Shown: 0 of 200 captures, 0 of 48 images.")
    assert page.evaluate("[...document.querySelectorAll('.none')].every(said => said.checkVisibility())")

    page.keyboard.press(" ")
    page.keyboard.press("Tab")
    expect(focused).to_have_value("accepted")
    page.keyboard.press(" ")
    expect(count).to_contain_text("Shown: 40 of 200 captures, ")
    drawn = "[...document.querySelectorAll('path[data-outcome]')].filter(path => path.checkVisibility())"
    assert page.evaluate(f"{drawn}.map(path => path.dataset.outcome)") == ["neither"]


def test_everything_is_visible_without_scripts(new_page: Callable[..., Page], report: Path) -> None:
    page = new_page(360, java_script_enabled=False)
    page.goto(report.as_uri())
    assert page.evaluate(VISIBLE) == 48
    expect(page.locator("#filter")).to_be_hidden()


def test_what_is_smuggled_in_neither_runs_nor_loads(
    new_page: Callable[..., Page], report: Path, tmp_path: Path
) -> None:
    """The page's policy holds where escaping would fail."""
    smuggled = """<script>document.title = "ran"</script>
        <img src="http://127.0.0.1:9/x.png" onerror="document.title = 1">
        <script src="http://127.0.0.1:9/x.js"></script><link rel="stylesheet" href="http://127.0.0.1:9/x.css">
        <iframe src="http://127.0.0.1:9/x.html"></iframe>"""
    copy = tmp_path / "page.html"
    copy.write_text(report.read_text().replace("</main>", f"{smuggled}</main>"))
    page = new_page()
    _, complaints = listen(page)
    page.goto(copy.as_uri())
    assert page.title().startswith("No drift detected")

    def refused() -> str:
        return str([said for said in complaints if "Content Security Policy" in said])

    while not all(name in refused() for name in ("x.png", "x.js", "x.css", "Framing")):
        page.wait_for_event("console")
