"""A page without a network: requests as ASGI scopes, and a member that says what a test wants."""

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import trio
from starlette.types import ASGIApp, Message

from tapestry_p2p.page.app import make_app
from tapestry_p2p.page.board import Board

PORT = 8420
HOST = f"127.0.0.1:{PORT}"
ORIGIN = f"http://{HOST}"
KEY = "the-key-of-this-start"
TOKEN = "the-token-for-programs"
PATIENCE_S = 10.0

STATUS: dict[str, Any] = {
    "version": "0.1.0",
    "id": "12D3KooWAnaAnaAna1111",
    "name": "Ana",
    "network": "Harbour",
    "network_id": "0a" * 32,
    "state": "training",
    "fault": "",
    "paused": {},
    "uptime_s": 12.5,
    "round": 7,
    "rounds": 0,
    "peers": 2,
    "members": 3,
    "live": 3,
    "mixing": True,
    "tolerate": 0,
    "trainer": {"running": True, "loss": 2.5, "steps": 70, "last_failure": ""},
    "trainer_isolated": True,
    "gain": {
        "unit": "bits_per_byte",
        "alone": {"steps": 40, "best_step": 40, "value": 3.0, "ended": False},
        "together": {"steps": 400, "best_step": 400, "value": 2.2, "ended": False},
        "sovereign": None,
        "compared_at_step": 40,
        "gain_together": 0.1,
        "gain_sovereign": None,
        "sovereign_distance": 0.0,
        "diversity": None,
    },
    "languages": [
        {
            "language": "km",
            "unit": "bits_per_char",
            "members": 1,
            "not_counted": 1,
            "alone": None,
            "together": 5.5,
            "sovereign": None,
            "claims": [
                {
                    "id": "12D3KooWBoBoBoBo2222",
                    "name": "Bo",
                    "counted": True,
                    "steps": 100,
                    "alone": None,
                    "together": 5.5,
                    "sovereign": None,
                }
            ],
        }
    ],
    "mixed": {"authors": [{"id": "12D3KooWBoBoBoBo2222", "coefficient": 0.5, "distance": 3.0}]},
    "bytes_sent": 1000,
    "bytes_received": 2000,
}
PEER: dict[str, Any] = {
    "id": "12D3KooWBoBoBoBo2222",
    "name": "Bo",
    "languages": ["de"],
    "connected": True,
    "round": 6,
    "weight_zero": False,
    "probation": 0,
    "coefficient": 0.5,
    "distance": 3.0,
}


@dataclass
class FakeMember:
    """Answers what it is told to, and counts what it was asked."""

    status: dict[str, Any] = field(default_factory=lambda: dict(STATUS))
    peers: list[dict[str, Any]] = field(default_factory=lambda: [dict(PEER)])
    text: str = "abc"
    fails: Exception | None = None
    asked: list[Any] = field(default_factory=list)

    async def ask(self, verb: str) -> dict[str, Any]:
        """As the control socket would."""
        self.asked.append(verb)
        if self.fails:
            raise self.fails
        answers: dict[str, dict[str, Any]] = {
            "status": self.status,
            "peers": {"peers": self.peers},
            "curves": {
                "unit": "bits_per_byte",
                "curves": {"alone": [[0, 8.0], [40, 3.0]], "together": [[0, 8.0], [400, 2.2]]},
            },
            "pause": {"paused": {"operator": "by you"}},
            "resume": {"paused": {}},
            "invite": {"link": "tapestry:" + "0a" * 32},
        }
        return answers[verb]

    async def ask_trainer(self, request: dict[str, Any]) -> dict[str, Any]:
        """As the trainer's socket would."""
        self.asked.append(request)
        if self.fails:
            raise self.fails
        if request["do"] == "evaluate":
            return {"bits_per_byte": {"fr": 2.0, "de": 3.0}, "accuracy": None}
        return {"text": self.text}

    async def left(self) -> dict[str, Any]:
        """Nothing left."""
        return {"readable": True, "kinds": [], "entries": 0, "bytes": 0}

    async def log(self) -> list[dict[str, str]]:
        """One line."""
        return [{"at": "2026-01-01T00:00:00", "level": "info", "message": "running"}]

    async def export(self) -> dict[str, Any]:
        """A path."""
        self.asked.append("export")
        return {"path": "/somewhere", "parameters": 1}

    @property
    def changed(self) -> list[Any]:
        """What was asked that could change anything."""
        return [each for each in self.asked if each not in ("status", "peers")]


@dataclass
class Answer:
    """One answer, whole."""

    status: int
    headers: dict[str, str]
    body: bytes

    def json(self) -> Any:
        """The body as JSON."""
        return json.loads(self.body)


def scope_of(method: str, path: str, headers: list[tuple[str, str]]) -> dict[str, Any]:
    """An ASGI scope, as a server makes it of a request line and headers."""
    target, _, query = path.partition("?")
    return {
        "type": "http",
        "asgi": {"version": "3.0"},
        "http_version": "1.1",
        "scheme": "http",
        "method": method,
        "path": target,
        "raw_path": target.encode("utf-8", "surrogateescape"),
        "query_string": query.encode(),
        "headers": [(k.lower().encode(), v.encode("latin-1")) for k, v in headers],
        "client": ("127.0.0.1", 50000),
        "server": ("127.0.0.1", PORT),
    }


def good(method: str = "GET", **instead: str | None) -> list[tuple[str, str]]:
    """The headers of the page's own script; ``instead`` replaces (None: leaves out) some."""
    found: dict[str, str | None] = {"host": HOST, "sec-fetch-site": "same-origin"}
    found["x-tapestry-key"] = KEY
    if method == "POST":
        found |= {"origin": ORIGIN, "content-type": "application/json"}
    found |= {name.replace("_", "-"): value for name, value in instead.items()}
    return [(name, value) for name, value in found.items() if value is not None]


def ask(
    app: ASGIApp,
    method: str,
    path: str,
    headers: list[tuple[str, str]],
    body: bytes | list[bytes] = b"",
    enough: Callable[[bytes], bool] | None = None,
    gone: trio.Event | None = None,
) -> Answer:
    """One request to its end; the client hangs up when ``enough(body so far)``, or ``gone``."""
    return trio.run(ask_async, app, method, path, headers, body, enough, gone)


async def ask_async(
    app: ASGIApp,
    method: str,
    path: str,
    headers: list[tuple[str, str]],
    body: bytes | list[bytes] = b"",
    enough: Callable[[bytes], bool] | None = None,
    gone: trio.Event | None = None,
) -> Answer:
    """See `ask`."""
    parts = [body] if isinstance(body, bytes) else list(body)
    found = Answer(0, {}, b"")
    gone = trio.Event() if gone is None else gone

    async def receive() -> Message:
        if parts:
            part = parts.pop(0)
            return {"type": "http.request", "body": part, "more_body": bool(parts)}
        await gone.wait()
        return {"type": "http.disconnect"}

    async def send(message: Message) -> None:
        if message["type"] == "http.response.start":
            found.status = message["status"]
            found.headers = {k.decode(): v.decode() for k, v in message["headers"]}
        elif message["type"] == "http.response.body":
            found.body += message.get("body", b"")
            if enough and enough(found.body):
                gone.set()

    with trio.fail_after(PATIENCE_S):
        await app(scope_of(method, path, headers), receive, send)
    return found


def page(member: FakeMember) -> tuple[ASGIApp, Board]:
    """The page of a member, and its board."""
    board = Board(member)
    return make_app(member, board, PORT, KEY, TOKEN), board
