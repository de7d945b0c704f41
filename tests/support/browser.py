"""A headless Chromium that tests drive through its DevTools protocol: one process for all pages of a session."""

import asyncio
import base64
import contextlib
import json
import shutil
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import aiohttp

CHROMIUM = next(
    (found for name in ("chromium", "chromium-browser", "google-chrome") if (found := shutil.which(name))), ""
)
OPTIONS = (
    "--headless --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking "
    "--disable-component-update --disable-sync --disable-extensions --enable-unsafe-swiftshader --hide-scrollbars "
    "--disable-dev-shm-usage --remote-debugging-port=0"
)
SECONDS = 60.0
"""A browser that does not do something in this time is broken."""


class Browser:
    """Starts Chromium.

    Args:
        profile: Folder for its profile.
    """

    def __init__(self, profile: Path) -> None:
        self._process = subprocess.Popen(
            [CHROMIUM, *OPTIONS.split(), f"--user-data-dir={profile}", "about:blank"],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        port = profile / "DevToolsActivePort"
        until(lambda: port.exists() and "/" in port.read_text(), "Chromium did not start")
        number, path = port.read_text().split()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()
        self._answers: dict[int, asyncio.Future[Any]] = {}
        self._pages: dict[str, Page] = {}
        self._count = 0
        self.run(self._connect(f"ws://127.0.0.1:{number}{path}"))

    def run(self, work: Any) -> Any:
        """Wait for a coroutine."""
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(SECONDS)

    def page(self, url: str, **look: Any) -> "Page":
        """Open a page; `look` as for `Page.look`."""
        target = self.run(self.send("Target.createTarget", url="about:blank"))["targetId"]
        session = self.run(self.send("Target.attachToTarget", targetId=target, flatten=True))["sessionId"]
        page = self._pages[session] = Page(self, session, target)
        for domain in ("Page", "Runtime", "Log"):
            page.do(f"{domain}.enable")
        page.look(**look)
        page.go(url)
        return page

    def close(self) -> None:
        """End it."""
        self._process.terminate()
        try:
            self._process.wait(10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self.run(self._disconnect())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    async def send(self, method: str, session: str | None = None, **values: Any) -> Any:
        """Send a command of the protocol and return its result."""
        self._count += 1
        number = self._count
        answer = self._answers[number] = asyncio.get_running_loop().create_future()
        message = {"id": number, "method": method, "params": values} | ({"sessionId": session} if session else {})
        await self._socket.send_str(json.dumps(message))
        return await answer

    async def _connect(self, url: str) -> None:
        self._client = aiohttp.ClientSession()
        self._socket = await self._client.ws_connect(url, max_msg_size=0)
        self._reader = asyncio.create_task(self._read())

    async def _disconnect(self) -> None:
        self._reader.cancel()
        await asyncio.wait([self._reader])
        await self._client.close()

    async def _read(self) -> None:
        async for message in self._socket:
            data = json.loads(message.data)
            if "id" in data:
                answer = self._answers.pop(data["id"])
                if "error" in data:
                    answer.set_exception(RuntimeError(str(data["error"])))
                else:
                    answer.set_result(data["result"])
            elif data.get("sessionId") in self._pages:
                self._pages[data["sessionId"]].received(data["method"], data["params"])


class Page:
    """A page of a browser, with the errors of its console."""

    def __init__(self, browser: Browser, session: str, target: str) -> None:
        self._browser, self._session, self._target = browser, session, target
        self.errors: list[str] = []
        self.loads = 0
        """Times that a document was loaded."""

    def do(self, method: str, **values: Any) -> Any:
        """Do a command of the protocol."""
        return self._browser.run(self._browser.send(method, self._session, **values))

    def go(self, url: str) -> None:
        """Open an address and wait until it is loaded."""
        before = self.loads
        self.do("Page.navigate", url=url)
        until(lambda: self.loads > before, f"{url} was not loaded")

    def look(self, width: int = 1400, height: int = 900, *, dark: bool = False, media: str = "screen") -> None:
        """Change the width, the colour scheme and the medium."""
        self.do("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=False)
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.do("Emulation.setEmulatedMedia", media=media, features=[scheme])

    def js(self, text: str) -> Any:
        """Return the value of an expression, awaited if it is a promise."""
        found = self.do("Runtime.evaluate", expression=text, returnByValue=True, awaitPromise=True)
        if "exceptionDetails" in found:
            raise AssertionError(found["exceptionDetails"])
        return found["result"].get("value")

    def until(self, text: str, seconds: float = SECONDS) -> None:
        """Wait until an expression is true."""
        until(lambda: self.js(f"Boolean({text})"), f"it never held that {text}; errors: {self.errors}", seconds)

    def picture(self, path: Path) -> None:
        """Write the whole page as PNG."""
        height = self.js("document.documentElement.scrollHeight")
        width = self.js("innerWidth")
        clip = {"x": 0, "y": 0, "width": width, "height": height, "scale": 1}
        found = self.do("Page.captureScreenshot", format="png", clip=clip, captureBeyondViewport=True)
        path.write_bytes(base64.b64decode(found["data"]))

    def close(self) -> None:
        """Close it."""
        self._browser.run(self._browser.send("Target.closeTarget", targetId=self._target))

    def received(self, method: str, values: dict[str, Any]) -> None:
        """Take an event."""
        if method == "Page.loadEventFired":
            self.loads += 1
        elif method == "Runtime.exceptionThrown":
            self.errors.append(json.dumps(values["exceptionDetails"])[:500])
        elif method == "Runtime.consoleAPICalled" and values["type"] in ("error", "assert"):
            self.errors.append(" ".join(str(one.get("value", one.get("description"))) for one in values["args"]))
        elif method == "Log.entryAdded" and values["entry"]["level"] == "error":
            self.errors.append(f"{values['entry']['text']} {values['entry'].get('url', '')}")


def until(true: Any, otherwise: str, seconds: float = SECONDS) -> Any:
    """Wait until something is true, and return it."""
    end = time.monotonic() + seconds
    while not (found := true()):
        assert time.monotonic() < end, otherwise
        time.sleep(0.05)
    return found


@contextlib.contextmanager
def started(profile: Path) -> Iterator[Browser]:
    """A browser for a block."""
    browser = Browser(profile)
    try:
        yield browser
    finally:
        browser.close()
