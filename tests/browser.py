"""A headless Chromium without a network, driven through its own protocol over two pipes; no package is needed."""

import base64
import json
import os
import select
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

PATIENCE = 120.0
"""Seconds after which a browser that says nothing is taken to hang."""

FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--disable-dev-shm-usage",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    # Addresses that need no resolver lead to a port where nothing listens.
    "--proxy-server=http://127.0.0.1:9",
    "--remote-debugging-pipe",
)

LAUNCHER = """
import fcntl, os, sys
pipes = [fcntl.fcntl(int(number), fcntl.F_DUPFD, 10) for number in sys.argv[1:3]]
for place, pipe in zip((3, 4), pipes):
    os.dup2(pipe, place)
    os.close(pipe)
os.execv(sys.argv[3], sys.argv[3:])
"""
"""Replaces itself by the browser, which uses descriptors 3 and 4; other descriptors are moved out of the way first."""


class Page:
    """One tab: its page, the errors that it logged, and the addresses that it requested."""

    def __init__(self, incoming: int, outgoing: int) -> None:
        self.errors: list[str] = []
        self.requests: list[str] = []
        self._incoming, self._outgoing = incoming, outgoing
        self._buffer, self._count, self._loaded = b"", 0, False
        self._session: str | None = None
        target = self.call("Target.createTarget", {"url": "about:blank"})["targetId"]
        self._session = self.call("Target.attachToTarget", {"targetId": target, "flatten": True})["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.call(f"{domain}.enable")

    def open(self, place: Path | str) -> None:
        """Opens a file or an address and waits until it is loaded; errors and requests of the last page are dropped."""
        self.errors, self.requests, self._loaded = [], [], False
        self.call("Page.navigate", {"url": place if isinstance(place, str) else place.resolve().as_uri()})
        while not self._loaded:
            self._take(self._read())

    def wait(self, expression: str) -> Any:
        """Waits until a JavaScript expression is neither false nor empty, and returns its value."""
        deadline = time.monotonic() + PATIENCE
        while not (found := self.evaluate(expression)):
            assert time.monotonic() < deadline, f"never true: {expression}"
            time.sleep(0.2)
        return found

    def evaluate(self, expression: str) -> Any:
        """Returns the value of a JavaScript expression, which must be JSON."""
        found = self.call("Runtime.evaluate", {"expression": expression, "returnByValue": True, "awaitPromise": True})
        assert "exceptionDetails" not in found, found["exceptionDetails"]
        return found["result"].get("value")

    def mouse(self, kind: str, x: float, y: float, **more: object) -> None:
        """Sends "mouseMoved", "mousePressed" or "mouseReleased" at this place of the window."""
        self.call("Input.dispatchMouseEvent", {"type": kind, "x": x, "y": y, **more})

    def press(self, key: str, text: str = "") -> None:
        """Presses a key and lets it go."""
        codes = {"Tab": 9, "Enter": 13}
        common = {"key": key, "code": key, "windowsVirtualKeyCode": codes[key]}
        self.call("Input.dispatchKeyEvent", {"type": "keyDown", "text": text, **common})
        self.call("Input.dispatchKeyEvent", {"type": "keyUp", **common})

    def call(self, method: str, parameters: Mapping[str, Any] | None = None) -> Any:
        """Calls a method of the protocol and returns its result; events that come before it are kept."""
        self._count += 1
        message = {"id": self._count, "method": method, "params": dict(parameters or {})}
        if self._session:
            message["sessionId"] = self._session
        os.write(self._outgoing, json.dumps(message).encode() + b"\0")
        while (answer := self._read()).get("id") != self._count:
            self._take(answer)
        assert "error" not in answer, answer["error"]
        return answer["result"]

    def _take(self, event: Mapping[str, Any]) -> None:
        """Records the errors and requests that an event reports."""
        method, found = event.get("method"), event.get("params", {})
        if method == "Page.loadEventFired":
            self._loaded = True
        elif method == "Network.requestWillBeSent":
            self.requests.append(found["request"]["url"])
        elif method == "Runtime.exceptionThrown":
            self.errors.append(json.dumps(found["exceptionDetails"]))
        elif method == "Log.entryAdded" and found["entry"]["level"] in ("error", "warning"):
            self.errors.append(found["entry"]["text"])
        elif method == "Runtime.consoleAPICalled" and found["type"] in ("error", "warning", "assert"):
            self.errors.append(json.dumps(found["args"]))

    def _read(self) -> dict[str, Any]:
        """Returns the next message."""
        deadline = time.monotonic() + PATIENCE
        while b"\0" not in self._buffer:
            ready, _, _ = select.select([self._incoming], [], [], max(0.0, deadline - time.monotonic()))
            assert ready, "Chromium says nothing"
            received = os.read(self._incoming, 1 << 20)
            assert received, "Chromium has ended"
            self._buffer += received
        message, self._buffer = self._buffer.split(b"\0", 1)
        return json.loads(message)


def set_width(page: Page, width: int) -> None:
    """Gives the window a width in pixels, that of a phone or of a desk."""
    metrics = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": width < 600}
    page.call("Emulation.setDeviceMetricsOverride", metrics)


def save_picture(page: Page, path: Path) -> None:
    """Writes the whole page as a PNG, to be looked at."""
    found = page.call("Page.captureScreenshot", {"captureBeyondViewport": True})
    path.write_bytes(base64.b64decode(found["data"]))


def await_text(page: Page, selector: str, text: str) -> None:
    """Waits until an element of the page shows a text."""
    script = f"""new Promise((resolve) => {{
        const begin = performance.now();
        const shown = () => document.querySelector({selector!r})?.innerText ?? "nothing";
        const look = () => shown() === {text!r} || performance.now() - begin > {1000 * PATIENCE / 4}
            ? resolve(shown()) : setTimeout(look, 5);
        look();
    }})"""
    assert page.evaluate(script) == text


@contextmanager
def chromium(folder: Path, server: str = "") -> Iterator[Page]:
    """Starts a browser with a new profile in this folder, and ends it; a test that calls this needs "browser".

    It reaches no network but the `server`, such as "127.0.0.1:8000", if it is given.
    """
    program = shutil.which("chromium")
    assert program
    (theirs_in, ours_out), (ours_in, theirs_out) = os.pipe(), os.pipe()
    profile = [f"--user-data-dir={folder / 'profile'}", f"--disk-cache-dir={folder / 'cache'}"]
    names = f", EXCLUDE {server.partition(':')[0]}" if server else ""
    reached = [
        f"--host-resolver-rules=MAP * ~NOTFOUND{names}",
        f"--proxy-bypass-list=<-loopback>{';' if server else ''}{server}",
    ]
    launch = [sys.executable, "-I", "-S", "-c", LAUNCHER, str(theirs_in), str(theirs_out), program]
    with (folder / "chromium.log").open("wb") as log:
        process = subprocess.Popen(
            [*launch, *FLAGS, *profile, *reached],
            pass_fds=(theirs_in, theirs_out),
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
        )
    os.close(theirs_in)
    os.close(theirs_out)
    try:
        yield Page(ours_in, ours_out)
    finally:
        os.close(ours_out)  # the browser ends when its pipe does
        os.close(ours_in)
        try:
            process.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
