"""Screenshots for the README: the contact sheet, and the drift report and the review page in light and dark."""

import io
import re
import shutil
import subprocess
import sys
from pathlib import Path

from PIL import Image
from playwright.sync_api import sync_playwright

from common.errors import CommandError

#: Width of the images that are kept.
WIDTH = 800
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")


def take_screenshots(stack: str, source: Path, folder: Path) -> None:
    """Write the screenshots.

    Parameters
    ----------
    stack : str
        Name of the deployed stack; its review queue must hold an image.
    source : pathlib.Path
        The folder with ``contact-sheet.png`` and ``drift.html``.
    folder : pathlib.Path
        Where the screenshots go.

    Raises
    ------
    CommandError
        If there is no Chromium, or a page does not open.
    """
    _save(Image.open(source / "contact-sheet.png"), folder / "contact-sheet.png")
    shoot((source / "drift.html").resolve().as_uri(), 1000, 1300, folder, "drift-report")
    command = [sys.executable, "-m", "operations", "review", "--stack-name", stack, "--reviewer", "you", "--no-browser"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
        assert server.stdout
        try:
            address = re.search(r"http://\S+", server.stdout.readline())
            if not address:
                raise CommandError("The review page did not start")
            shoot(address[0], 1000, 720, folder, "review-page")
        finally:
            server.terminate()
            server.communicate()


def shoot(address: str, width: int, height: int, folder: Path, name: str) -> None:
    """Write a page as ``NAME.png``, and in dark colours as ``NAME-dark.png``.

    Raises
    ------
    CommandError
        If there is no Chromium.
    """
    if not CHROMIUM:
        raise CommandError("Screenshots need Chromium or Google Chrome on the PATH")
    with sync_playwright() as playwright:
        # The sandbox needs a user other than root.
        browser = playwright.chromium.launch(executable_path=CHROMIUM, chromium_sandbox=False)
        page = browser.new_page(viewport={"width": width, "height": height})
        page.goto(address, wait_until="networkidle")
        _save(Image.open(io.BytesIO(page.screenshot())).convert("RGB"), folder / f"{name}.png")
        page.emulate_media(color_scheme="dark")
        _save(Image.open(io.BytesIO(page.screenshot())).convert("RGB"), folder / f"{name}-dark.png")


def _save(image: Image.Image, path: Path) -> None:
    """Shrink and write an image with 128 colours, which is enough for pages and small in git."""
    shrunk = image.resize((WIDTH, round(image.height * WIDTH / image.width)), Image.Resampling.LANCZOS)
    path.parent.mkdir(parents=True, exist_ok=True)
    shrunk.quantize(128).save(path, optimize=True)
