"""A headless Chromium, driven through a pipe (Chrome DevTools Protocol): no package is needed, and no port."""

from __future__ import annotations

import base64
import fcntl
import itertools
import json
import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

NAMES = ("chromium", "chromium-browser", "google-chrome", "chrome")


class Browser:
    """One page.

    Attributes:
        requests: The addresses that the page has asked for, its own apart.
        problems: Errors of its scripts, and what its policy has blocked.
    """

    def __init__(self, into: int, out: int) -> None:
        self._into, self._out = into, out
        self._numbers = itertools.count(1)
        self._held = b""
        self._session = ""
        self.requests: list[str] = []
        self.problems: list[str] = []
        target = self._call("Target.createTarget", url="about:blank")["targetId"]
        self._session = self._call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        self._call("Target.setAutoAttach", autoAttach=True, waitForDebuggerOnStart=False, flatten=True)
        for domain in ("Page", "Runtime", "Network", "Log"):
            self._call(f"{domain}.enable")

    def open(
        self, address: str, width: int = 1200, height: int = 900, *, dark: bool = False, phone: bool = False
    ) -> None:
        """Show a page."""
        self._call("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=phone)
        self._call("Emulation.setTouchEmulationEnabled", enabled=phone)
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self._call("Emulation.setEmulatedMedia", features=[scheme])
        self._call("Page.navigate", url=address)
        self.wait("document.readyState === 'complete'")
        self.requests = [one for one in self.requests if one != address]

    def value(self, expression: str) -> Any:
        """Return what an expression gives, once it is there."""
        given = self._call("Runtime.evaluate", expression=expression, awaitPromise=True, returnByValue=True)
        if "exceptionDetails" in given:
            raise AssertionError(given["exceptionDetails"])
        return given["result"].get("value")

    def wait(self, expression: str, seconds: float = 120) -> None:
        """Wait until an expression is true."""
        end = time.monotonic() + seconds
        while not self.value(expression):
            assert time.monotonic() < end, f"not within {seconds} s: {expression}; {self.problems}"
            time.sleep(0.05)

    def drop(self, files: Sequence[Path]) -> None:
        """Drop files onto the middle of the page's top."""
        data = {"items": [], "files": [str(file) for file in files], "dragOperationsMask": 1}
        for kind in ("dragEnter", "dragOver", "drop"):
            self._call("Input.dispatchDragEvent", type=kind, x=200, y=200, data=data)

    def choose(self, selector: str, files: Sequence[Path]) -> None:
        """Choose files in an element."""
        root = self._call("DOM.getDocument")["root"]["nodeId"]
        node = self._call("DOM.querySelector", nodeId=root, selector=selector)["nodeId"]
        self._call("DOM.setFileInputFiles", nodeId=node, files=[str(file) for file in files])

    def picture(self, path: Path) -> None:
        """Write what the whole page looks like."""
        given = self._call("Page.captureScreenshot", captureBeyondViewport=True)
        path.write_bytes(base64.b64decode(given["data"]))

    def _call(self, method: str, **parameters: Any) -> dict[str, Any]:
        number = next(self._numbers)
        message = {"id": number, "method": method, "params": parameters}
        if self._session:
            message["sessionId"] = self._session
        os.write(self._into, json.dumps(message).encode() + b"\0")
        while True:
            told = self._next()
            if told.get("id") == number:
                assert "error" not in told, f"{method}: {told['error']}"
                return dict(told["result"])
            self._note(told)

    def _next(self) -> dict[str, Any]:
        while b"\0" not in self._held:
            more = os.read(self._out, 1 << 20)
            assert more, "the browser has ended"
            self._held += more
        message, _, self._held = self._held.partition(b"\0")
        return dict(json.loads(message))

    def _note(self, told: dict[str, Any]) -> None:
        method, given = told.get("method"), told.get("params", {})
        if method == "Network.requestWillBeSent":
            self.requests.append(given["request"]["url"])
        elif method == "Runtime.exceptionThrown":
            self.problems.append(str(given["exceptionDetails"]))
        elif method == "Log.entryAdded" and given["entry"]["level"] == "error":
            self.problems.append(given["entry"]["text"])
        elif method == "Target.attachedToTarget":  # a worker
            held, self._session = self._session, given["sessionId"]
            self._tell("Network.enable")
            self._session = held

    def _tell(self, method: str) -> None:
        message = {"id": next(self._numbers), "method": method, "sessionId": self._session}
        os.write(self._into, json.dumps(message).encode() + b"\0")


@contextmanager
def browser() -> Iterator[Browser]:
    """Start a browser; tests are skipped, with the reason, where there is none."""
    program = next((found for name in NAMES if (found := shutil.which(name))), None)
    if program is None:
        pytest.skip(f"what a page does is seen in a browser, and none is installed: {', '.join(NAMES)}")
    into, out = os.pipe(), os.pipe()
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as home:
        arguments = ["--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"]
        arguments += ["--remote-debugging-pipe", f"--user-data-dir={home}", "--no-first-run"]

        def pipes() -> None:
            ends = [fcntl.fcntl(end, fcntl.F_DUPFD, 10) for end in (into[0], out[1])]
            for end, wanted in zip(ends, (3, 4), strict=True):
                os.dup2(end, wanted)

        process = subprocess.Popen(
            [program, *arguments], stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
            close_fds=False, preexec_fn=pipes,
        )  # fmt: skip
        os.close(into[0])
        os.close(out[1])
        try:
            yield Browser(into[1], out[0])
        finally:
            process.terminate()
            process.wait(30)
            os.close(into[1])
            os.close(out[0])
