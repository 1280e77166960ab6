"""Who may ask the page anything: one door before every handler, for browsers' and users' sakes.

Rule: a request passes if it names this server (Host), comes from this server's own page (Origin,
Sec-Fetch-Site), is small, and, for all but the empty page itself, carries the key of this start.
Programs use /v1/ with a token of their own, which opens nothing else and needs no Origin.
Other sites in the same browser, names that were bound to 127.0.0.1 (DNS rebinding), other users of
this machine and other servers on other ports of it all fail at one of these. GET changes nothing.
"""

import hmac
import json
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import trio
from starlette.types import ASGIApp, Message, Receive, Scope, Send

BODY_BYTES_MAX = 16 << 10
BODY_DEADLINE_S = 10.0
KEY_HEADER = b"x-tapestry-key"
API = "/api/"
PROGRAMS = "/v1/"  # OpenAI's paths, for other programs of this machine
EVENTS = "/api/events"  # an EventSource sends no header of ours: its handler takes a ticket instead
METHODS = ("GET", "HEAD", "POST")

POLICY = "; ".join(
    [
        "default-src 'none'",
        "script-src 'self'",
        "style-src 'self'",
        "connect-src 'self'",
        "img-src 'self'",
        "base-uri 'none'",
        "form-action 'none'",
        "frame-ancestors 'none'",
        "require-trusted-types-for 'script'",
        "trusted-types 'none'",
    ]
)
HEADERS = (
    (b"content-security-policy", POLICY.encode()),
    (b"x-content-type-options", b"nosniff"),
    (b"x-frame-options", b"DENY"),
    (b"referrer-policy", b"no-referrer"),
    (b"cross-origin-opener-policy", b"same-origin"),
    (b"cross-origin-resource-policy", b"same-origin"),
    (b"cache-control", b"no-store"),
    (b"permissions-policy", b"camera=(), geolocation=(), microphone=()"),
)


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why a request goes no further: HTTP status and a word for people who read along."""

    status: int
    word: str


class Guard:
    """ASGI middleware. ``port``: where this server listens; ``key``: the secret of this start.

    ``token``: what programs show as `Authorization: Bearer`; empty: no program may ask.
    """

    def __init__(self, app: ASGIApp, port: int, key: str, token: str) -> None:
        self._app, self._key, self._token = app, key.encode(), token.encode()
        hosts = [f"{host}:{port}" for host in ("127.0.0.1", "localhost", "[::1]")]
        self._hosts = {host.encode() for host in hosts}
        self._origins = {b"http://" + host for host in self._hosts}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Refuse, or read the bounded body and hand on."""
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
            return
        if scope["type"] != "http":
            await send({"type": "websocket.close", "code": 1008})
            return
        found = self.judge(scope)
        body = b""
        if found is None and scope["method"] == "POST":
            read = await _body(receive)
            found, body = (read, b"") if isinstance(read, Refusal) else (None, read)
        if found is not None:
            await _refuse(found, scope, send)
            return
        if scope["method"] == "POST":
            receive = _replay(body, receive)
        await self._app(scope, receive, _with_headers(send))

    def judge(self, scope: Scope) -> Refusal | None:
        """What the head of a request is refused for; None: nothing."""
        headers: list[tuple[bytes, bytes]] = scope["headers"]
        path, method = str(scope["path"]), str(scope["method"])
        if _values(headers, b"host") not in [[host] for host in self._hosts]:
            return Refusal(421, "this server has another name: open the link that it printed")
        if method not in METHODS:
            return Refusal(405, "only GET, HEAD and POST are known here")
        if not _plain_path(scope):
            return Refusal(404, "no such page")
        return (
            self._foreign(headers, path, method)
            or self._keyless(headers, path)
            or (_unfit(headers) if method == "POST" else None)
        )

    def _foreign(
        self, headers: list[tuple[bytes, bytes]], path: str, method: str
    ) -> Refusal | None:
        origins = _values(headers, b"origin")
        sites = _values(headers, b"sec-fetch-site")
        if len(origins) > 1 or not self._origins.issuperset(origins):
            return Refusal(403, "another site asks; it has no business here")
        if method == "POST" and not origins and not path.startswith(PROGRAMS):
            return Refusal(403, "a POST must say where it comes from (Origin)")
        opening = method != "POST" and path == "/"  # the empty page: a link may lead to it
        if not opening and any(site not in (b"same-origin", b"none") for site in sites):
            return Refusal(403, "another site asks; it has no business here")
        return None

    def _keyless(self, headers: list[tuple[bytes, bytes]], path: str) -> Refusal | None:
        if path.startswith(PROGRAMS):
            shown = b"".join(_values(headers, b"authorization"))
            kind, _, token = shown.partition(b" ")
            right = hmac.compare_digest(token, self._token) and kind.lower() == b"bearer"
            if self._token and right and len(_values(headers, b"authorization")) == 1:
                return None
            return Refusal(401, "the token is missing or wrong: tapestry page --api prints it")
        if not path.startswith(API) or path == EVENTS:
            return None
        keys = _values(headers, KEY_HEADER)
        if len(keys) != 1 or not hmac.compare_digest(keys[0], self._key):
            return Refusal(401, "the key is missing or old: open the link that was printed")
        return None


def _values(headers: Iterable[tuple[bytes, bytes]], name: bytes) -> list[bytes]:
    return [value for key, value in headers if key.lower() == name]


def _plain_path(scope: Scope) -> bool:
    """Our paths are short and plain; what must be decoded or tidied first is nobody's path."""
    raw = scope.get("raw_path") or str(scope["path"]).encode()
    path = raw.split(b"?")[0]
    return (
        len(path) <= 64
        and path.startswith(b"/")
        and all(
            c in b"abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-./" for c in path
        )
        and b".." not in path
        and b"//" not in path
        and path == str(scope["path"]).encode()
        and len(scope.get("query_string", b"")) <= 128
    )


def _unfit(headers: list[tuple[bytes, bytes]]) -> Refusal | None:
    """Forms of other sites can send any body but never this type without being asked first."""
    kinds = [kind.split(b";")[0].strip().lower() for kind in _values(headers, b"content-type")]
    if kinds != [b"application/json"]:
        return Refusal(415, "the body must be application/json")
    for length in _values(headers, b"content-length"):
        if not length.isdigit() or len(length) > 9 or int(length) > BODY_BYTES_MAX:
            return Refusal(413, f"the body may have {BODY_BYTES_MAX} bytes")
    return None


async def _body(receive: Receive) -> bytes | Refusal:
    body = bytearray()
    with trio.move_on_after(BODY_DEADLINE_S):
        while True:
            message = await receive()
            if message["type"] != "http.request":
                return Refusal(400, "gone before the end")
            body += message.get("body", b"")
            if len(body) > BODY_BYTES_MAX:
                return Refusal(413, f"the body may have {BODY_BYTES_MAX} bytes")
            if not message.get("more_body"):
                return bytes(body)
    return Refusal(408, "the body came too slowly")


def _replay(body: bytes, receive: Receive) -> Receive:
    waiting: list[Message] = [{"type": "http.request", "body": body, "more_body": False}]

    async def again() -> Message:
        return waiting.pop() if waiting else await receive()

    return again


def _with_headers(send: Send) -> Send:
    async def sealed(message: Message) -> None:
        if message["type"] == "http.response.start":
            ours = {name for name, _ in HEADERS}
            given = [(k, v) for k, v in message.get("headers", ()) if k.lower() not in ours]
            message = {**message, "headers": [*given, *HEADERS]}
        await send(message)

    return sealed


async def _refuse(refusal: Refusal, scope: Scope, send: Send) -> None:
    body, kind = refusal.word.encode() + b"\n", b"text/plain; charset=utf-8"
    if str(scope["path"]).startswith(PROGRAMS):
        body, kind = _for_programs(refusal), b"application/json"
    body = b"" if scope["method"] == "HEAD" else body
    headers: list[Any] = [
        (b"content-type", kind),
        (b"content-length", str(len(body)).encode()),
        (b"connection", b"close"),
    ]
    sealed = _with_headers(send)
    await sealed({"type": "http.response.start", "status": refusal.status, "headers": headers})
    await sealed({"type": "http.response.body", "body": body})


def _for_programs(refusal: Refusal) -> bytes:
    """The refusal in OpenAI's form."""
    code = "invalid_api_key" if refusal.status == 401 else None
    problem = {"message": refusal.word, "type": "invalid_request_error", "param": None}
    return json.dumps({"error": {**problem, "code": code}}).encode()
