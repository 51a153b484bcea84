"""Screenshots for the README: the contact sheet, the drift report and the review page of the demo."""

import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from PIL import Image

#: Width of the images that are kept.
WIDTH = 800
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")


class ScreenshotError(Exception):
    """A screenshot could not be taken; the message says why."""


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
    ScreenshotError
        If there is no Chromium, or a page does not open.
    """
    folder.mkdir(parents=True, exist_ok=True)
    _save(Image.open(source / "contact-sheet.png"), folder / "contact-sheet.png")
    _shoot((source / "drift.html").resolve().as_uri(), (1000, 900), folder / "drift-report.png")
    command = [sys.executable, "-m", "operations", "review", "--stack-name", stack, "--reviewer", "you", "--no-browser"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
        assert server.stdout
        try:
            address = re.search(r"http://\S+", server.stdout.readline())
            if not address:
                raise ScreenshotError("The review page did not start")
            _shoot(address[0], (1000, 720), folder / "review-page.png")
        finally:
            server.terminate()
            server.communicate()


def _shoot(address: str, size: tuple[int, int], path: Path) -> None:
    if not CHROMIUM:
        raise ScreenshotError("Screenshots need Chromium or Google Chrome on the PATH")
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile:
        image = Path(profile) / "screenshot.png"
        flags = ("--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", "--force-device-scale-factor=1")
        # Time in the page passes as fast as its requests are answered: scripts have ended when the picture is taken.
        settings = (f"--user-data-dir={profile}", f"--window-size={size[0]},{size[1]}", "--virtual-time-budget=5000")
        done = subprocess.run(
            [CHROMIUM, *flags, *settings, f"--screenshot={image}", address], capture_output=True, text=True, check=False
        )
        if not image.is_file():
            raise ScreenshotError(f"Chromium took no screenshot of {address}: {done.stderr[-500:]}")
        _save(Image.open(image), path)


def _save(image: Image.Image, path: Path) -> None:
    """Shrink and write an image with 128 colours, which is enough for pages and small in git."""
    shrunk = image.convert("RGB").resize((WIDTH, round(image.height * WIDTH / image.width)), Image.Resampling.LANCZOS)
    shrunk.quantize(128).save(path, optimize=True)
