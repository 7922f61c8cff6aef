"""Drives a headless Chromium over its DevTools protocol, as a person with mouse and keys would."""

from __future__ import annotations

import asyncio
import base64
import json
import os
import shutil
import subprocess
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, TypeVar

import aiohttp

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator
    from pathlib import Path

T = TypeVar("T")

# s for anything to happen, on a machine that may be busy.
_PATIENCE = 30.0
_FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-dev-shm-usage",
    "--disable-sync",
    "--no-first-run",
    "--mute-audio",
    "--remote-debugging-port=0",
)
# What a key sends beside its name: its virtual key code, and the text that it types.
_KEYS = {
    " ": (32, " "),
    "ArrowLeft": (37, ""),
    "ArrowRight": (39, ""),
    "End": (35, ""),
    "Enter": (13, "\r"),
    "Home": (36, ""),
    "PageUp": (33, ""),
    "Tab": (9, ""),
}


def find_chromium() -> str | None:
    """Return the path of an installed Chromium, or None."""
    return shutil.which("chromium") or shutil.which("chromium-browser")


@contextmanager
def chromium(program: str, profile: Path) -> Iterator[Chromium]:
    """Run a browser until the block ends.

    Args:
        program: Its path.
        profile: A directory for it, which need not exist.
    """
    # A null device in place of a sound card plays in real time; nothing is asked of a session bus.
    environment = {**os.environ, "DBUS_SESSION_BUS_ADDRESS": "disabled:"}
    process = subprocess.Popen(
        [program, *_FLAGS, f"--user-data-dir={profile}", "about:blank"],
        env=environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    loop = asyncio.new_event_loop()
    try:
        browser = Chromium(loop, process, profile)
        try:
            yield browser
        finally:
            browser.close()
        process.wait(_PATIENCE)
    finally:
        process.kill()
        process.wait(_PATIENCE)
        loop.close()


class Chromium:
    """A browser that runs, and the connection to it."""

    def __init__(
        self, loop: asyncio.AbstractEventLoop, process: subprocess.Popen[bytes], profile: Path
    ) -> None:
        self._loop = loop
        self._process = process
        self._tabs: dict[str, Tab] = {}
        self._last = 0
        port, path = self._address(profile)
        self._http = self._do(_new_session())
        connecting = self._http.ws_connect(f"ws://127.0.0.1:{port}{path}", max_msg_size=0)
        self._socket = self._do(connecting)

    def open(self, url: str, width: int = 1200, height: int = 800, **media: str) -> Tab:
        """Return a tab in which a page has loaded.

        Args:
            url: The page.
            width: CSS pixels of the window.
            height: CSS pixels of the window.
            media: Media features, with `_` for `-`: `prefers_color_scheme="dark"`.
        """
        target = self.call("Target.createTarget", {"url": "about:blank"})["targetId"]
        attach = {"targetId": target, "flatten": True}
        tab = Tab(self, self.call("Target.attachToTarget", attach)["sessionId"])
        self._tabs[tab.session] = tab
        tab.load(url, width, height, media)
        return tab

    def call(self, method: str, parameters: dict[str, Any], session: str = "") -> dict[str, Any]:
        """Call a method of the protocol and return its result."""
        self._last += 1
        message = {"id": self._last, "method": method, "params": parameters}
        if session:
            message["sessionId"] = session
        return self._do(self._call(message))

    def close(self) -> None:
        """End the browser, and with it its processes."""
        self.call("Browser.close", {})
        self._do(self._socket.close())
        self._do(self._http.close())

    async def _call(self, message: dict[str, Any]) -> dict[str, Any]:
        await self._socket.send_json(message)
        while True:
            answer = await self._socket.receive_json()
            if answer.get("id") == message["id"]:
                assert "error" not in answer, f"{message['method']}: {answer['error']}"
                result: dict[str, Any] = answer["result"]
                return result
            if tab := self._tabs.get(answer.get("sessionId", "")):
                tab.take(answer["method"], answer["params"])

    def _address(self, profile: Path) -> list[str]:
        """Wait for the file in which the browser says where it listens."""
        note = profile / "DevToolsActivePort"
        wait_for(lambda: self._process.poll() is not None or (note.exists() and note.read_text()))
        assert self._process.poll() is None, "the browser ended at once"
        return note.read_text().split()

    def _do(self, action: Awaitable[T]) -> T:
        return self._loop.run_until_complete(asyncio.wait_for(action, _PATIENCE))


class Tab:
    """A page in the browser.

    Attributes:
        session: What the browser calls the connection to it.
        requests: The URLs that it asked for.
        complaints: Exceptions of its scripts, and errors in the console.
    """

    def __init__(self, browser: Chromium, session: str) -> None:
        self.session = session
        self.requests: list[str] = []
        self.complaints: list[str] = []
        self._browser = browser

    def load(self, url: str, width: int, height: int, media: dict[str, str]) -> None:
        """Load a page in a window of a size, with media features."""
        for domain in ("Page", "Runtime", "Network", "Log"):
            self.call(f"{domain}.enable")
        size = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": False}
        self.call("Emulation.setDeviceMetricsOverride", **size)
        features = [{"name": n.replace("_", "-"), "value": v} for n, v in media.items()]
        self.call("Emulation.setEmulatedMedia", features=features)
        self.call("Page.navigate", url=url)
        self.wait(f"location.href == {json.dumps(url)} && document.readyState == 'complete'")

    def take(self, event: str, data: dict[str, Any]) -> None:
        """Note what the browser tells of the page."""
        if event == "Network.requestWillBeSent":
            self.requests.append(data["request"]["url"])
        elif event == "Runtime.exceptionThrown":
            self.complaints.append(json.dumps(data["exceptionDetails"]))
        elif event == "Log.entryAdded" and data["entry"]["level"] == "error":
            self.complaints.append(data["entry"]["text"])

    def call(self, method: str, **parameters: Any) -> dict[str, Any]:
        """Call a method of the protocol for this page."""
        return self._browser.call(method, parameters, self.session)

    def value(self, expression: str) -> Any:
        """Return the value of a JavaScript expression."""
        found = self.call("Runtime.evaluate", expression=expression, returnByValue=True)
        assert "exceptionDetails" not in found, found["exceptionDetails"]
        return found["result"].get("value")

    def wait(self, expression: str) -> Any:
        """Wait until a JavaScript expression is true, and return its value."""
        return wait_for(lambda: self.value(expression), expression)

    def click(self, selector: str, *, at: float = 0.5) -> None:
        """Click on an element: in the middle, or at another share of its width."""
        self.mouse("mousePressed", selector, at)
        self.mouse("mouseReleased", selector, at)

    def mouse(self, kind: str, selector: str, at: float = 0.5) -> None:
        """Send one event of the mouse, over an element."""
        box = self.value(
            f"(({{left, top, width, height}}) => [left + {at} * width, top + height / 2])"
            f"(document.querySelector({json.dumps(selector)}).getBoundingClientRect())"
        )
        button = {"button": "left", "buttons": 1, "clickCount": 1}
        self.call("Input.dispatchMouseEvent", type=kind, x=box[0], y=box[1], **button)

    def wheel(self, selector: str, pixels: float) -> None:
        """Turn the mouse wheel over an element."""
        box = self.value(
            f"(({{left, top}}) => [left + 5, top + 5])"
            f"(document.querySelector({json.dumps(selector)}).getBoundingClientRect())"
        )
        turn = {"deltaX": 0, "deltaY": pixels}
        self.call("Input.dispatchMouseEvent", type="mouseWheel", x=box[0], y=box[1], **turn)

    def press(self, key: str, *, shift: bool = False) -> None:
        """Press and release a key."""
        code, text = _KEYS[key]
        event = {"key": key, "windowsVirtualKeyCode": code, "modifiers": 8 if shift else 0}
        kind = "keyDown" if text else "rawKeyDown"
        self.call("Input.dispatchKeyEvent", type=kind, text=text, **event)
        self.call("Input.dispatchKeyEvent", type="keyUp", **event)

    def picture(self) -> bytes:
        """Return a PNG of what is to be seen."""
        return base64.b64decode(self.call("Page.captureScreenshot")["data"])

    def printed(self) -> bytes:
        """Return a PDF of the page as it is printed."""
        return base64.b64decode(self.call("Page.printToPDF", printBackground=False)["data"])

    def close(self) -> None:
        """Close the page."""
        self.call("Page.close")


async def _new_session() -> aiohttp.ClientSession:
    return aiohttp.ClientSession()


def wait_for(condition: Callable[[], Any], what: str = "the browser") -> Any:
    """Return what a condition comes to when it is true."""
    deadline = time.monotonic() + _PATIENCE
    while not (found := condition()):
        assert time.monotonic() < deadline, f"waited in vain for {what}"
        time.sleep(0.02)
    return found
