"""A real Chromium without a window, driven over its debugging pipe: messages of JSON, each ended by a zero byte.

It listens to nothing and is reached by nobody else; it ends with its end of the pipe.
"""

from __future__ import annotations

import base64
import contextlib
import fcntl
import json
import os
import select
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

PROGRAM = "chromium"
#: A cold start on two busy cores took 3 s.
ANSWER_S = 30.0
_FLAGS = (
    "--headless=new",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--no-first-run",
    "--disable-extensions",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--mute-audio",
    "--hide-scrollbars",
    "--remote-debugging-pipe",
)
#: Chromium reads descriptor 3 and writes descriptor 4.
_LAUNCH = (
    "import os, sys; os.dup2(int(sys.argv[1]), 3); os.dup2(int(sys.argv[2]), 4); os.execvp(sys.argv[3], sys.argv[3:])"
)


class Browser:
    """One process of the browser, with its files below `directory`."""

    def __init__(self, directory: Path) -> None:
        theirs_in, self._to = _pipe()
        self._from, theirs_out = _pipe()
        directory.mkdir(parents=True, exist_ok=True)
        environment = {**os.environ, "HOME": str(directory), "TMPDIR": str(directory)}
        command = [PROGRAM, *_FLAGS, f"--user-data-dir={directory / 'profile'}", "about:blank"]
        with (directory / "log").open("wb") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-c", _LAUNCH, str(theirs_in), str(theirs_out), *command],
                pass_fds=(theirs_in, theirs_out),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=environment,
            )
        os.close(theirs_in)
        os.close(theirs_out)
        self._buffer = b""
        self._number = 0
        self.told: list[dict[str, Any]] = []

    def call(self, method: str, session: str = "", **params: Any) -> dict[str, Any]:
        """Order something, and return what came of it. Raises RuntimeError."""
        self._number += 1
        message = {"id": self._number, "method": method, "params": params}
        if session:
            message["sessionId"] = session
        os.write(self._to, json.dumps(message).encode() + b"\0")
        number, until = self._number, time.monotonic() + ANSWER_S
        while time.monotonic() < until:
            for answer in self._read(until - time.monotonic()):
                if answer.get("id") == number:
                    if "error" in answer:
                        raise RuntimeError(f"{method}: {answer['error']}")
                    result: dict[str, Any] = answer["result"]
                    return result
                self.told.append(answer)
        raise RuntimeError(f"{method}: no answer within {ANSWER_S:.0f} s")

    def _read(self, seconds: float) -> Iterator[dict[str, Any]]:
        if b"\0" not in self._buffer and select.select([self._from], [], [], max(0.0, seconds))[0]:
            data = os.read(self._from, 1 << 20)
            if not data:
                raise RuntimeError("the browser has ended")
            self._buffer += data
        *whole, self._buffer = self._buffer.split(b"\0")
        # A caller that has its answer leaves the loop: what came after it must not be lost.
        read = [json.loads(one) for one in whole]
        for at, message in enumerate(read):
            if "id" in message:
                self.told += [later for later in read[at + 1 :] if "id" not in later]
                yield message
                return
            yield message

    def page(self) -> Page:
        """A new, empty page."""
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        return Page(self, target, self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"])

    def close(self) -> None:
        """End the process and wait for it."""
        with contextlib.suppress(RuntimeError, OSError):
            self.call("Browser.close")
        os.close(self._to)
        os.close(self._from)
        try:
            self._process.wait(10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()


class Page:
    """One page, and everything that went wrong in it."""

    def __init__(self, browser: Browser, target: str, session: str) -> None:
        self._browser = browser
        self._target = target
        self._session = session
        self._forgiven: list[str] = []
        for domain in ("Page", "Runtime", "Log", "Network", "Audits"):
            self.call(f"{domain}.enable")
        self.size(1200, 900)

    def call(self, method: str, **params: Any) -> dict[str, Any]:
        """An order for this page."""
        return self._browser.call(method, self._session, **params)

    def close(self) -> None:
        """Close it; nothing of it goes on."""
        self._browser.call("Target.closeTarget", targetId=self._target)

    def open(self, url: str) -> None:
        """Go there, and wait until all of it is loaded."""
        self.call("Page.navigate", url=url)
        self.wait(f"location.href === {json.dumps(url)} && document.readyState === 'complete'")

    def value(self, expression: str) -> Any:
        """What a JavaScript expression is. Raises RuntimeError when it throws."""
        found = self.call("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True)
        if "exceptionDetails" in found:
            raise RuntimeError(f"{expression}: {found['exceptionDetails']}")
        return found["result"].get("value")

    def wait(self, expression: str, seconds: float = 20.0) -> float:
        """Wait until an expression is true; for how long that took, in seconds. Raises AssertionError."""
        began = time.monotonic()
        while True:
            # A page that is being replaced has nothing to ask.
            with contextlib.suppress(RuntimeError):
                if self.value(expression):
                    return time.monotonic() - began
            assert time.monotonic() - began < seconds, f"not within {seconds} s: {expression}"
            _rest()

    def size(self, width: int, height: int) -> None:
        """The size of the window."""
        self.call("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=False)

    def media(self, medium: str = "screen", scheme: str = "light") -> None:
        """Look as on `print` or `screen`, to somebody who likes `light` or `dark`."""
        feature = {"name": "prefers-color-scheme", "value": scheme}
        self.call("Emulation.setEmulatedMedia", media=medium, features=[feature])

    def scripts(self, on: bool) -> None:
        """Run the scripts of pages that are opened from now on, or none."""
        self.call("Emulation.setScriptExecutionDisabled", value=not on)

    def picture(self, file: Path, whole: bool = True) -> None:
        """Save what it looks like."""
        data = self.call("Page.captureScreenshot", format="png", captureBeyondViewport=whole)["data"]
        file.write_bytes(base64.b64decode(data))

    def text(self) -> str:
        """Everything that is to be read on it."""
        return str(self.value("document.body.innerText"))

    def forgive(self, word: str) -> None:
        """What has this word in it is no complaint."""
        self._forgiven.append(word)

    @property
    def complaints(self) -> list[str]:
        """Violations of the policy, exceptions and errors so far."""
        self.value("1")
        found: list[str] = []
        for message in self._browser.told:
            if message.get("sessionId") != self._session:
                continue
            params = message.get("params", {})
            method = message.get("method")
            if method == "Runtime.exceptionThrown" or (method == "Audits.issueAdded" and _is_policy(params)):
                found.append(json.dumps(params))
            elif method == "Log.entryAdded" and params["entry"]["level"] == "error":
                found.append(params["entry"]["text"])
        return [text for text in found if not any(word in text for word in self._forgiven)]


def _is_policy(params: dict[str, Any]) -> bool:
    return bool(params["issue"]["code"] == "ContentSecurityPolicyIssue")


def _pipe() -> tuple[int, int]:
    """Two ends above the descriptors that the browser wants for itself."""
    ends = []
    for end in os.pipe():
        ends.append(fcntl.fcntl(end, fcntl.F_DUPFD_CLOEXEC, 10))
        os.close(end)
    return ends[0], ends[1]


def _rest() -> None:
    """Between two looks."""
    select.select([], [], [], 0.02)
