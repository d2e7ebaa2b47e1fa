"""A headless Chromium, driven through chromedriver's WebDriver protocol: enough to click through a page and look at it.

Nothing but the standard library; Debian's packages are `chromium` and `chromium-driver`.
"""

from __future__ import annotations

import base64
import json
import os
import shutil
import subprocess
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
DRIVER = shutil.which("chromedriver")
MISSING = "" if BROWSER and DRIVER else "no browser: apt-get install chromium chromium-driver"

# As root, without a GPU, on a machine without a network; the browser itself must not connect anywhere
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
    "--hide-scrollbars",
)
ELEMENT = "element-6066-11e4-a52e-4f735466cecf"  # of the protocol
KEYS = {"Escape": "\ue00c", "Enter": "\ue007", "Tab": "\ue004", "ArrowLeft": "\ue012", "ArrowUp": "\ue013"}
KEYS |= {"ArrowRight": "\ue014", "ArrowDown": "\ue015", "End": "\ue010", "Home": "\ue011"}


class Page:
    """One tab."""

    def __init__(self, session: str) -> None:
        self._session = session

    def open(self, path: Path) -> None:
        """Show a file; what was said and asked for before is forgotten."""
        self.complaints()
        self.requests()
        self.call("url", {"url": path.as_uri()})

    def run(self, script: str, *arguments: Any) -> Any:
        """What the body of a JavaScript function returns; a promise is waited for."""
        body = (
            "const done = arguments[arguments.length - 1], given = [...arguments].slice(0, -1);"
            f"(async (...args) => {{ {script} }})(...given)"
            ".then((value) => done({ value }), (error) => done({ error: `${error}` }))"
        )
        answer = self.call("execute/async", {"script": body, "args": list(arguments)})
        assert "error" not in answer, answer
        return answer.get("value")

    def wait(self, condition: str) -> None:
        """Until a JavaScript expression is true."""
        self.run(
            "for (let i = 0; i < 500; i++) {"
            f"  if ({condition}) return;"
            "  await new Promise((go) => setTimeout(go, 10));"
            "}"
            "throw new Error(`never true: ${args[0]}`)",
            condition,
        )

    def settle(self) -> None:
        """Until what was asked for has been painted."""
        self.run("await new Promise((go) => requestAnimationFrame(() => requestAnimationFrame(go)))")

    def move(self, selector: str, x: float, y: float, click: bool = False) -> None:
        """Move the pointer to a place in an element, given as shares of its width and height."""
        left, top = self.run(
            "const found = document.querySelector(args[0]); found.scrollIntoView({ block: 'center' });"
            "const box = found.getBoundingClientRect();"
            "return [box.left + args[1] * box.width, box.top + args[2] * box.height]",
            selector,
            x,
            y,
        )
        steps: list[dict[str, Any]] = [{"type": "pointerMove", "duration": 0, "x": int(left), "y": int(top)}]
        if click:
            steps += [{"type": "pointerDown", "button": 0}, {"type": "pointerUp", "button": 0}]
        self.call("actions", {"actions": [{"type": "pointer", "id": "mouse", "actions": steps}]})
        self.settle()

    def click(self, selector: str) -> None:
        self.move(selector, 0.5, 0.5, click=True)

    def press(self, *keys: str) -> None:
        steps = [{"type": kind, "value": KEYS.get(key, key)} for key in keys for kind in ("keyDown", "keyUp")]
        self.call("actions", {"actions": [{"type": "key", "id": "keys", "actions": steps}]})
        self.settle()

    def look(self, width: int, height: int, dark: bool = False) -> None:
        """Set the size of the window and what the reader prefers."""
        self.devtools(
            "Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=False
        )
        scheme = [{"name": "prefers-color-scheme", "value": "dark" if dark else "light"}]
        self.devtools("Emulation.setEmulatedMedia", features=scheme)
        self.settle()

    def picture(self, path: Path) -> None:
        """The whole page as a PNG."""
        shot = self.devtools("Page.captureScreenshot", format="png", captureBeyondViewport=True)
        path.write_bytes(base64.b64decode(shot["data"]))

    def devtools(self, command: str, **parameters: Any) -> Any:
        return self.call("goog/cdp/execute", {"cmd": command, "params": parameters})

    def complaints(self) -> list[str]:
        """What the console said since the last call."""
        return [entry["message"] for entry in self.call("se/log", {"type": "browser"})]

    def requests(self) -> list[str]:
        """The addresses asked for since the last call, other than those of data that is in the page."""
        events = (json.loads(entry["message"])["message"] for entry in self.call("se/log", {"type": "performance"}))
        sent = [event["params"] for event in events if event["method"] == "Network.requestWillBeSent"]
        return [url for each in sent if not (url := each["request"]["url"]).startswith("data:")]

    def call(self, what: str, body: dict[str, Any]) -> Any:
        return _post(f"{self._session}/{what}", body)


@contextmanager
def chromium() -> Iterator[Page]:
    """A browser of its own, with nothing remembered."""
    assert BROWSER and DRIVER, MISSING
    with tempfile.TemporaryDirectory() as profile:
        driver = subprocess.Popen(
            [DRIVER, "--port=0"],
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            env={**os.environ, "TMPDIR": profile},  # what the browser leaves behind goes with it
        )
        try:
            options = {"binary": BROWSER, "args": [*FLAGS, f"--user-data-dir={profile}"]}
            logs = {"browser": "ALL", "performance": "ALL"}
            wanted = {"goog:chromeOptions": options, "goog:loggingPrefs": logs, "timeouts": {"script": 30_000}}
            base = f"http://127.0.0.1:{_port(driver)}/session"
            made = _post(base, {"capabilities": {"alwaysMatch": wanted}})
            session = f"{base}/{made['sessionId']}"
            try:
                yield Page(session)
            finally:
                urllib.request.urlopen(urllib.request.Request(session, method="DELETE"), timeout=30).close()
        finally:
            driver.terminate()
            driver.wait(30)
            assert driver.stdout is not None
            driver.stdout.close()


def _port(driver: subprocess.Popen[str]) -> int:
    assert driver.stdout is not None
    for line in driver.stdout:
        if "started successfully on port" in line:
            return int(line.rstrip(".\n").rpartition(" ")[2])
    raise RuntimeError(f"chromedriver ended with {driver.wait()}")


def _post(url: str, body: dict[str, Any]) -> Any:
    request = urllib.request.Request(url, json.dumps(body).encode(), {"Content-Type": "application/json"})
    for attempt in range(2):
        try:
            with urllib.request.urlopen(request, timeout=120) as answer:
                return json.loads(answer.read())["value"]
        except urllib.error.HTTPError as error:
            raise RuntimeError(f"{url}: {error.read().decode()[:2000]}") from error
        except urllib.error.URLError:  # the driver says that it has started a moment before it listens
            if attempt:
                raise
            time.sleep(0.5)
    raise AssertionError("unreachable")
