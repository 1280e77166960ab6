"""Metrics over HTTP for this machine alone: GET /metrics and /healthz on 127.0.0.1, nothing else.

Knows requests and bounds; what is answered is handed in. This process holds the key, so as little
as possible listens in it: h11 parses (no framework, no routes, no body is ever read), a caller gets
one answer and is closed, few may call at once. Web pages cannot read it through a browser: requests
whose Host is not this machine's own name are refused, and no answer allows other origins. Why no
web framework: docs/decisions/0010.
"""

import logging
from collections.abc import Callable
from dataclasses import dataclass

import h11
import trio

from tapestry_p2p.errors import FAILURE, TapestryError

log = logging.getLogger("tapestry.scrape")

HOST = "127.0.0.1"
REQUEST_BYTES_MAX = 8_192  # Prometheus sends some 300
DEADLINE_S = 5.0
CALLERS_MAX = 8
TEXT = "text/plain; version=0.0.4; charset=utf-8"  # Prometheus' format


@dataclass(frozen=True, slots=True)
class Answers:
    """What is told: the metrics' text, and whether the node is well, with a word that says how."""

    metrics: Callable[[], str]
    health: Callable[[], tuple[bool, str]]


async def serve(
    port: int, answers: Answers, task_status: trio.TaskStatus[int] = trio.TASK_STATUS_IGNORED
) -> None:
    """Answer callers until cancelled. TapestryError if the port is taken."""
    try:
        listeners = await trio.open_tcp_listeners(port, host=HOST, backlog=CALLERS_MAX)
    except OSError as error:
        raise TapestryError(
            f"cannot listen on {HOST}:{port}: {error.strerror}; choose another [metrics] listen",
            FAILURE,
        ) from error
    listener = listeners[0]
    limit = trio.CapacityLimiter(CALLERS_MAX)
    async with listener, trio.open_nursery() as nursery:
        task_status.started(listener.socket.getsockname()[1])
        while True:
            try:
                caller = await listener.accept()
            except OSError as error:  # out of descriptors, or the caller was gone again
                log.warning("accept failed: %s", error)
                await trio.sleep(0.1)
                continue
            if limit.available_tokens < 1:
                caller.socket.close()
                continue
            nursery.start_soon(_answer, caller, answers, limit)


async def _answer(caller: trio.SocketStream, answers: Answers, limit: trio.CapacityLimiter) -> None:
    async with limit, caller:
        with trio.move_on_after(DEADLINE_S):
            try:
                await _one_exchange(caller, answers)
            except (trio.BrokenResourceError, trio.ClosedResourceError):
                log.debug("a caller left before the answer")


async def _one_exchange(caller: trio.SocketStream, answers: Answers) -> None:
    """Read one request's head, send one answer."""
    http = h11.Connection(h11.SERVER, max_incomplete_event_size=REQUEST_BYTES_MAX)
    try:
        while (event := http.next_event()) is h11.NEED_DATA:
            http.receive_data(await caller.receive_some(4096))
    except h11.RemoteProtocolError as error:
        event, status, body = None, error.error_status_hint, "not a request\n"
    if isinstance(event, h11.Request):
        port = caller.socket.getsockname()[1]
        try:
            status, body = judge(event, port, answers)
        except Exception:  # our own mistake: the caller hears of it, the node lives
            log.exception("a request failed")
            status, body = 500, "the node could not answer; its log says why\n"
    elif event is not None:
        return  # closed before it asked
    data = body.encode()
    headers = [
        ("Content-Type", TEXT),
        ("Content-Length", str(len(data))),
        ("Connection", "close"),
        ("Cache-Control", "no-store"),
        ("X-Content-Type-Options", "nosniff"),
    ]
    head = http.send(h11.Response(status_code=status, headers=headers)) or b""
    if isinstance(event, h11.Request) and event.method == b"HEAD":
        data = b""
    await caller.send_all(head + data)


def judge(request: h11.Request, port: int, answers: Answers) -> tuple[int, str]:
    """Status and text for a request's head."""
    hosts = [value.decode("latin-1") for name, value in request.headers if name == b"host"]
    if hosts not in ([f"{HOST}:{port}"], [f"localhost:{port}"]):
        return 421, "this host is not served here\n"
    if request.method not in (b"GET", b"HEAD"):
        return 405, "GET only\n"
    if request.target == b"/metrics":
        return 200, answers.metrics()
    if request.target == b"/healthz":
        well, words = answers.health()
        return (200 if well else 503), f"{words}\n"
    return 404, "/metrics or /healthz\n"
