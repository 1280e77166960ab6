"""A headless Chromium driven over the DevTools protocol; nothing is downloaded.

Needs a `chromium` of the system (Debian: apt-get install chromium); trio-websocket comes with
libp2p. Every request, console message and exception of the page is kept, to be looked at.
"""

import base64
import contextlib
import json
import os
import shutil
import subprocess
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import trio
from trio_websocket import WebSocketConnection, open_websocket_url

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
PATIENCE_S = 90.0
MESSAGE_BYTES_MAX = 64 << 20
OPTIONS = (
    "--headless=new --no-sandbox --disable-gpu --disable-dev-shm-usage --remote-debugging-port=0"
    " --no-first-run --disable-background-networking --disable-component-update --disable-sync"
    " --disable-default-apps --hide-scrollbars --no-proxy-server"
).split()


@dataclass
class Tab:
    """One page of the browser."""

    socket: WebSocketConnection
    session: str = ""
    requests: list[str] = field(default_factory=list)
    complaints: list[str] = field(default_factory=list)  # errors, warnings, exceptions
    _waiting: dict[int, tuple[trio.Event, list[dict[str, Any]]]] = field(default_factory=dict)
    _number: int = 0

    async def hear(self) -> None:
        """Take answers and events; until cancelled."""
        while True:
            message = json.loads(await self.socket.get_message())
            if "id" in message:
                event, answer = self._waiting.pop(message["id"])
                answer.append(message)
                event.set()
                continue
            params = message.get("params", {})
            match message["method"]:
                case "Network.requestWillBeSent":
                    self.requests.append(params["request"]["url"])
                case "Network.webSocketCreated":
                    self.requests.append(params["url"])
                case "Log.entryAdded":
                    entry = params["entry"]
                    self.complaints.append(f"{entry['text']} {entry.get('url', '')}")
                case "Runtime.exceptionThrown":
                    self.complaints.append(json.dumps(params["exceptionDetails"])[:500])
                case "Runtime.consoleAPICalled" if params["type"] in ("error", "warning"):
                    self.complaints.append(json.dumps(params["args"])[:500])

    async def call(self, method: str, **params: Any) -> dict[str, Any]:
        """One command of the protocol, and its result."""
        self._number += 1
        event, answer = self._waiting.setdefault(self._number, (trio.Event(), []))
        message = {"id": self._number, "method": method, "params": params}
        if self.session:
            message["sessionId"] = self.session
        await self.socket.send_message(json.dumps(message))
        with trio.fail_after(PATIENCE_S):
            await event.wait()
        assert "error" not in answer[0], answer[0]
        result: dict[str, Any] = answer[0]["result"]
        return result

    async def run(self, script: str) -> Any:
        """The value of a JavaScript expression (awaited, if it is a promise)."""
        found = await self.call(
            "Runtime.evaluate", expression=script, awaitPromise=True, returnByValue=True
        )
        assert "exceptionDetails" not in found, found
        return found["result"].get("value")

    async def until(self, script: str) -> Any:
        """The first true value of an expression; fails rather than hangs."""
        with trio.move_on_after(PATIENCE_S):
            while True:
                if found := await self.run(script):
                    return found
                await trio.sleep(0.2)
        text = await self.run("document.body.innerText")
        raise AssertionError(f"never true: {script}\n{text}\n{self.complaints}")

    async def open(self, link: str) -> None:
        """Go to an address, in a fresh document."""
        await self.call("Page.navigate", url="about:blank")
        await self.call("Page.navigate", url=link)
        await self.until("document.readyState === 'complete' && location.href !== 'about:blank'")

    async def look_like(self, width: int, height: int = 900, scheme: str = "light") -> None:
        """Be a window so large, on a system with this colour scheme."""
        await self.call(
            "Emulation.setDeviceMetricsOverride",
            width=width, height=height, deviceScaleFactor=1, mobile=width < 500,
        )  # fmt: skip
        features = [{"name": "prefers-color-scheme", "value": scheme}]
        await self.call("Emulation.setEmulatedMedia", features=features)

    async def picture(self, path: Path) -> None:
        """The whole page as PNG."""
        found = await self.call("Page.captureScreenshot", captureBeyondViewport=True)
        path.write_bytes(base64.b64decode(found["data"]))


@contextlib.asynccontextmanager
async def browser(folder: Path, language: str = "en") -> AsyncIterator[Tab]:
    """A browser with an empty profile in ``folder``, gone when the block ends."""
    assert CHROMIUM is not None
    command = [CHROMIUM, *OPTIONS, f"--lang={language}", f"--user-data-dir={folder}"]
    process = subprocess.Popen(
        [*command, "about:blank"],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        env={"PATH": os.environ["PATH"], "HOME": str(folder), "LANGUAGE": language},
    )
    try:
        port_file = folder / "DevToolsActivePort"
        with trio.fail_after(PATIENCE_S):
            while not (port_file.exists() and len(port_file.read_text().split()) == 2):
                await trio.sleep(0.1)
        port, path = port_file.read_text().split()
        url = f"ws://127.0.0.1:{port}{path}"
        async with (
            open_websocket_url(url, max_message_size=MESSAGE_BYTES_MAX) as socket,
            trio.open_nursery() as nursery,
        ):
            tab = Tab(socket)
            nursery.start_soon(tab.hear)
            await _attach(tab)
            yield tab
            nursery.cancel_scope.cancel()
    finally:
        process.kill()
        process.wait()


async def _attach(tab: Tab) -> None:
    made = await tab.call("Target.createTarget", url="about:blank")
    target = made["targetId"]
    tab.session = (await tab.call("Target.attachToTarget", targetId=target, flatten=True))[
        "sessionId"
    ]
    for domain in ("Page", "Runtime", "Log", "Network"):
        await tab.call(f"{domain}.enable")
