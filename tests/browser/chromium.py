"""A page in headless Chromium that a test can type into, look at and ask, over the DevTools protocol's pipe.

Protocol: https://chromedevtools.github.io/devtools-protocol/ ; messages are JSON, each ended by a zero byte.
"""

import base64
import itertools
import json
import os
import shutil
import signal
import time
from pathlib import Path
from types import TracebackType
from typing import Any

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--hide-scrollbars",
)
WAIT_SECONDS = 300.0


class Chromium:
    """A browser with one page; ends with its ``with`` block.

    Parameters
    ----------
    profile : pathlib.Path
        An empty folder for what the browser keeps.
    """

    def __init__(self, profile: Path) -> None:
        assert CHROMIUM
        to_browser, self._out = os.pipe()
        self._in, from_browser = os.pipe()
        # The browser reads from its descriptor 3 and writes to 4. Both pipes' own numbers are beyond, under pytest.
        assert min(to_browser, from_browser) > 4
        self._process = os.posix_spawn(
            CHROMIUM,
            [CHROMIUM, *FLAGS, "--remote-debugging-pipe", f"--user-data-dir={profile}", "about:blank"],
            os.environ,
            file_actions=[
                (os.POSIX_SPAWN_OPEN, 1, os.devnull, os.O_WRONLY, 0),
                (os.POSIX_SPAWN_OPEN, 2, os.devnull, os.O_WRONLY, 0),
                (os.POSIX_SPAWN_DUP2, to_browser, 3),
                (os.POSIX_SPAWN_DUP2, from_browser, 4),
            ],
        )
        os.close(to_browser)
        os.close(from_browser)
        self._buffer = b""
        self._ids = itertools.count(1)
        self._session: str | None = None
        #: What has happened since the page was opened, of the domains that a test has enabled.
        self.events: list[dict[str, Any]] = []
        target = self.send("Target.createTarget", url="about:blank")["targetId"]
        self._session = self.send("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        self.send("Page.enable")

    def __enter__(self) -> "Chromium":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        os.close(self._out)
        os.close(self._in)
        os.kill(self._process, signal.SIGKILL)
        os.waitpid(self._process, 0)

    def send(self, method: str, **parameters: Any) -> dict[str, Any]:
        """Send a command, and return its result."""
        number = next(self._ids)
        message: dict[str, Any] = {"id": number, "method": method, "params": parameters}
        if self._session:
            message["sessionId"] = self._session
        os.write(self._out, json.dumps(message).encode() + b"\0")
        while True:
            while b"\0" not in self._buffer:
                received = os.read(self._in, 1 << 20)
                assert received, "the browser has ended"
                self._buffer += received
            text, _, self._buffer = self._buffer.partition(b"\0")
            answer = json.loads(text)
            if answer.get("id") == number:
                assert "error" not in answer, answer
                return dict(answer["result"])
            self.events.append(answer)

    def show(self, address: str, width: int = 1280, height: int = 800, dark: bool = False) -> None:
        """Open a page on a screen of a size in pixels; narrow ones are touched, as phones are."""
        phone = width < 600
        self.send("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=phone)
        self.send("Emulation.setTouchEmulationEnabled", enabled=phone)
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.send("Emulation.setEmulatedMedia", features=[scheme])
        self.events = []
        self.send("Page.navigate", url=address)
        self.wait_for(f"location.href === {json.dumps(address)} && document.readyState === 'complete'")

    def ask(self, expression: str) -> Any:
        """Return the value of a JavaScript expression."""
        result = self.send("Runtime.evaluate", expression=expression, returnByValue=True)
        assert "exceptionDetails" not in result, result
        return result["result"].get("value")

    def wait_for(self, expression: str) -> Any:
        """Wait until a JavaScript expression is true; return its value."""
        deadline = time.monotonic() + WAIT_SECONDS
        while not (value := self.ask(expression)):
            assert time.monotonic() < deadline, f"waited in vain for {expression}; the page says: {self.text()}"
            time.sleep(0.05)
        return value

    def text(self) -> str:
        """Return what the page shows as text."""
        return str(self.ask("document.body && document.body.innerText"))

    def press(self, key: str) -> None:
        """Press and release a key, as ``a``, ``1``, ``Tab`` or ``Enter``."""
        code = {"Tab": 9, "Enter": 13}.get(key, ord(key.upper()[0]))
        typed = {"Tab": "", "Enter": "\r"}.get(key, key)
        common = {"key": key, "windowsVirtualKeyCode": code}
        self.send("Input.dispatchKeyEvent", type="keyDown", **common, **({"text": typed} if typed else {}))
        self.send("Input.dispatchKeyEvent", type="keyUp", **common)

    def screenshot(self, path: Path) -> None:
        """Write what the screen shows as PNG."""
        path.write_bytes(base64.b64decode(self.send("Page.captureScreenshot", format="png")["data"]))
