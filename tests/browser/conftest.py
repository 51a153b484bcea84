"""Pages in the Chromium of this machine, headless; Playwright's own browsers are not needed."""

import shutil
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from playwright.sync_api import Browser, Page, expect, sync_playwright

from tests.support.stack import HANG_SECONDS

expect.set_options(timeout=HANG_SECONDS * 1000)


@pytest.fixture(scope="package")
def browser() -> Iterator[Browser]:
    """Return a browser; skip where there is none."""
    chromium = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if not chromium:
        pytest.skip("needs a browser: install chromium")
    with sync_playwright() as playwright:
        # The sandbox needs a user other than root.
        browser = playwright.chromium.launch(
            executable_path=chromium, chromium_sandbox=False, args=["--disable-gpu"], timeout=HANG_SECONDS * 1000
        )
        yield browser
        browser.close()


@pytest.fixture
def new_page(browser: Browser) -> Iterator[Callable[..., Page]]:
    """Return a maker of empty pages on a screen of a size in pixels; narrow ones are touched, as phones are."""
    contexts = []

    def make(width: int = 1280, height: int = 800, **options: Any) -> Page:
        phone = width < 600
        size: Any = {"width": width, "height": height}
        context = browser.new_context(viewport=size, is_mobile=phone, has_touch=phone, **options)
        contexts.append(context)
        context.set_default_timeout(HANG_SECONDS * 1000)
        return context.new_page()

    yield make
    for context in contexts:
        context.close()
