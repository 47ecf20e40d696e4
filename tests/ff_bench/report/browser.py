"""A headless Chromium spoken to through a pipe, for tests of pages: no driver, no port, no library."""

from __future__ import annotations

import base64
import fcntl
import json
import os
import select
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Any

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")
FLAGS = (
    "--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run",
    "--mute-audio", "--autoplay-policy=no-user-gesture-required", "--remote-debugging-pipe",
    "--disable-background-networking", "--disable-component-update", "--disable-sync",
)  # fmt: skip
PATIENCE = 60.0
"""Seconds for one answer; machines that test are busy."""


def find() -> str | None:
    """Return the path of a Chromium, None where there is none."""
    return next((path for name in NAMES if (path := shutil.which(name))), None)


class Browser:
    """One browser with one page."""

    def __init__(self, folder: Path, *, width: int = 1180, height: int = 900) -> None:
        """Start it.

        Args:
            folder: For its profile and downloads.
            width: px of the window.
            height: px of the window.
        """
        program = find()
        assert program is not None, "no Chromium here"
        self.downloads = folder / "downloads"
        self.downloads.mkdir(parents=True, exist_ok=True)
        self.problems: list[str] = []
        self.requests: list[str] = []
        self._count = 0
        self._buffer = b""
        self._start([program, *FLAGS, f"--user-data-dir={folder / 'profile'}", "about:blank"])
        try:
            self._attach()
            self.resize(width, height)
        except BaseException:
            self.close()
            raise

    def _start(self, command: list[str]) -> None:
        """Start the browser, which reads from descriptor 3 and writes to 4."""
        to_read, self._to = os.pipe()
        self._from, to_write = os.pipe()
        ends = [fcntl.fcntl(end, fcntl.F_DUPFD, 10) for end in (to_read, to_write)]  # away from 3 and 4
        moved = "import os, sys; os.dup2(int(sys.argv[1]), 3); os.dup2(int(sys.argv[2]), 4); "
        starter = [sys.executable, "-c", moved + "os.execv(sys.argv[3], sys.argv[3:])", *map(str, ends)]
        quiet = subprocess.DEVNULL
        self._process = subprocess.Popen([*starter, *command], pass_fds=ends, stdout=quiet, stderr=quiet)
        for end in (to_read, to_write, *ends):
            os.close(end)

    def _attach(self) -> None:
        """Speak to its page."""
        targets = self._ask("Target.getTargets", session="")["targetInfos"]
        page = next(target["targetId"] for target in targets if target["type"] == "page")
        attached = self._ask("Target.attachToTarget", {"targetId": page, "flatten": True}, session="")
        self._session = attached["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self._ask(f"{domain}.enable")
        allowed = {"behavior": "allow", "downloadPath": str(self.downloads)}
        self._ask("Browser.setDownloadBehavior", allowed, session="")

    def __enter__(self) -> Browser:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """End it."""
        self._process.terminate()
        self._process.wait(PATIENCE)
        os.close(self._to)
        os.close(self._from)

    def resize(self, width: int, height: int, *, scale: float = 1) -> None:
        """Set the size of the window in px."""
        size = {"width": width, "height": height, "deviceScaleFactor": scale, "mobile": width < 600}
        self._ask("Emulation.setDeviceMetricsOverride", size)

    def open(self, path: Path) -> None:
        """Open a page from disk and wait until it is there."""
        self._ask("Page.navigate", {"url": path.resolve().as_uri()})
        address = path.name
        self.wait(f"document.readyState === 'complete' && location.href.endsWith({json.dumps(address)})")

    def run(self, script: str) -> Any:
        """Return the value of an expression; a promise is waited for."""
        asked = {"expression": script, "returnByValue": True, "awaitPromise": True, "userGesture": True}
        answer = self._ask("Runtime.evaluate", asked)
        assert "exceptionDetails" not in answer, answer["exceptionDetails"]
        return answer["result"].get("value")

    def wait(self, script: str, seconds: float = PATIENCE) -> None:
        """Wait until an expression is true."""
        self.wait_for(lambda: bool(self.run(script)), script, seconds)

    @staticmethod
    def wait_for(condition: Callable[[], bool], what: str, seconds: float = PATIENCE) -> None:
        """Wait until something holds."""
        end = time.monotonic() + seconds
        while not condition():
            assert time.monotonic() < end, f"waited in vain for {what}"
            time.sleep(0.05)

    def press(self, key: str, *, shift: bool = False) -> None:
        """Press a key as a user does."""
        text = key if len(key) == 1 else ""
        event = {"key": key, "modifiers": 8 if shift else 0}
        self._ask("Input.dispatchKeyEvent", {**event, "type": "keyDown", **({"text": text} if text else {})})
        self._ask("Input.dispatchKeyEvent", {**event, "type": "keyUp"})

    def picture(self, path: Path, *, whole: bool = False) -> Path:
        """Save what is seen as PNG; `whole` takes the page to its end."""
        shown = self._ask("Page.captureScreenshot", {"format": "png", "captureBeyondViewport": whole})
        path.write_bytes(base64.b64decode(shown["data"]))
        return path

    def _ask(self, method: str, values: dict[str, Any] | None = None, *, session: str | None = None) -> Any:
        self._count += 1
        message: dict[str, Any] = {"id": self._count, "method": method, "params": values or {}}
        session = self._session if session is None else session
        if session:
            message["sessionId"] = session
        os.write(self._to, json.dumps(message).encode() + b"\0")
        while True:
            answer = self._read()
            if answer.get("id") == self._count:
                assert "error" not in answer, (method, answer["error"])
                return answer["result"]
            self._note(answer)

    def _read(self) -> dict[str, Any]:
        while b"\0" not in self._buffer:
            ready, _, _ = select.select([self._from], [], [], PATIENCE)
            assert ready, "the browser does not answer"
            block = os.read(self._from, 1 << 20)
            assert block, "the browser has gone"
            self._buffer += block
        message, _, self._buffer = self._buffer.partition(b"\0")
        found: dict[str, Any] = json.loads(message)
        return found

    def _note(self, event: dict[str, Any]) -> None:
        """Keep what went wrong, and which addresses were asked for."""
        method, values = event.get("method"), event.get("params", {})
        if method == "Runtime.exceptionThrown":
            self.problems.append(json.dumps(values["exceptionDetails"])[:500])
        elif method == "Runtime.consoleAPICalled" and values["type"] in ("error", "warning", "assert"):
            self.problems.append(json.dumps(values["args"])[:500])
        elif method == "Log.entryAdded" and values["entry"]["level"] in ("error", "warning"):
            self.problems.append(f"{values['entry']['text']} {values['entry'].get('url', '')}"[:500])
        elif method == "Network.requestWillBeSent":
            self.requests.append(values["request"]["url"][:200])
