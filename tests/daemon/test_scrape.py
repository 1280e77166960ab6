"""The metrics' HTTP door: two answers for this machine, a refusal for all else, bounded."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

import pytest
import trio
from daemon_kit import in_trio

from tapestry_p2p.daemon import scrape
from tapestry_p2p.errors import TapestryError

WELL = scrape.Answers(lambda: "tapestry_rounds_total 3.0\n", lambda: (True, "training"))
ILL = scrape.Answers(lambda: "", lambda: (False, "degraded"))


@asynccontextmanager
async def serving(answers: scrape.Answers = WELL) -> AsyncIterator[int]:
    async with trio.open_nursery() as nursery:
        yield await nursery.start(scrape.serve, 0, answers)
        nursery.cancel_scope.cancel()


async def said(port: int, data: bytes) -> bytes:
    """All that is answered to these bytes."""
    stream = await trio.open_tcp_stream("127.0.0.1", port)
    got = b""
    async with stream:
        with suppress(trio.BrokenResourceError):
            await stream.send_all(data)
            async for part in stream:
                got += part
    return got


def get(
    port: int, target: str = "/metrics", host: str = "127.0.0.1:%d", verb: str = "GET"
) -> bytes:
    name = host % port if "%d" in host else host
    return f"{verb} {target} HTTP/1.1\r\nHost: {name}\r\nUser-Agent: Prometheus/3\r\n\r\n".encode()


@in_trio
async def test_metrics_and_health_are_told() -> None:
    async with serving() as port:
        for host in ("127.0.0.1:%d", "localhost:%d"):
            answer = await said(port, get(port, host=host))
            head, _, body = answer.partition(b"\r\n\r\n")
            assert head.startswith(b"HTTP/1.1 200 ")
            assert b"text/plain; version=0.0.4" in head
            assert b"access-control" not in head.lower()
            assert body == b"tapestry_rounds_total 3.0\n"
        assert (await said(port, get(port, "/healthz"))).endswith(b"\r\n\r\ntraining\n")
        assert (await said(port, get(port, verb="HEAD"))).endswith(b"\r\n\r\n")
    async with serving(ILL) as port:
        answer = await said(port, get(port, "/healthz"))
        assert answer.startswith(b"HTTP/1.1 503 ")
        assert answer.endswith(b"degraded\n")


HOSTS = [
    "evil.example:%d",
    "127.0.0.1",
    "localhost",
    "127.0.0.1:1",
    "",
    "127.0.0.1:%d.evil.example",
]


@pytest.mark.parametrize("host", HOSTS)
@in_trio
async def test_a_page_under_another_name_gets_nothing(host: str) -> None:
    async with serving() as port:
        answer = await said(port, get(port, host=host))
        assert answer.startswith((b"HTTP/1.1 421 ", b"HTTP/1.1 400 "))
        assert b"rounds" not in answer


HOSTILE = [
    b"\r\n\r\n",
    b"\0" * 100,
    b"GET /metrics HTTP/1.1\r\n\r\n",
    b"GET /metrics HTTP/9.9\r\nHost: x\r\n\r\n",
    b"GET /metrics\r\n\r\n",
    b"GET " + b"/" * 20_000 + b" HTTP/1.1\r\nHost: x\r\n\r\n",
    b"GET /metrics HTTP/1.1\r\n" + b"X: y\r\n" * 5_000 + b"\r\n",
    b"GET /metrics HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n",
    b"POST /metrics HTTP/1.1\r\nHost: x\r\nContent-Length: 99999999999\r\n\r\n",
    b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",  # TLS
    b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
]


@pytest.mark.parametrize("data", HOSTILE)
@in_trio
async def test_what_is_no_request_of_ours(data: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scrape, "DEADLINE_S", 0.3)
    async with serving() as port:
        answer = await said(port, data)
        assert b"rounds" not in answer
        assert not answer or answer.startswith(b"HTTP/1.1 4")
        assert b" 200 " in await said(port, get(port))


@pytest.mark.parametrize(
    ("target", "verb", "status"),
    [
        ("/", "GET", b"404"),
        ("/metrics/../x", "GET", b"404"),
        ("/metrics?x=1", "GET", b"404"),
        ("/metrics", "POST", b"405"),
        ("/metrics", "OPTIONS", b"405"),
        ("/healthz", "DELETE", b"405"),
    ],
)
@in_trio
async def test_other_targets_and_methods(target: str, verb: str, status: bytes) -> None:
    async with serving() as port:
        answer = await said(port, get(port, target, verb=verb))
        assert answer.startswith(b"HTTP/1.1 " + status)


@in_trio
async def test_the_silent_are_let_go_and_too_many_turned_away(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(scrape, "DEADLINE_S", 0.2)
    async with serving() as port:
        silent = [await trio.open_tcp_stream("127.0.0.1", port) for _ in range(scrape.CALLERS_MAX)]
        await trio.sleep(0.05)
        assert await said(port, get(port)) == b""
        await trio.sleep(0.3)
        assert b" 200 " in await said(port, get(port))
        for stream in silent:
            await stream.aclose()


@in_trio
async def test_a_port_that_is_taken_is_one_line() -> None:
    async with serving() as port:
        errors: list[BaseException] = []
        try:
            async with trio.open_nursery() as nursery:
                await nursery.start(scrape.serve, port, WELL)
        except* TapestryError as group:
            errors += group.exceptions
        assert "choose another [metrics] listen" in str(errors[0])


@in_trio
async def test_a_mistake_of_ours_does_not_end_the_node() -> None:
    def broken() -> str:
        raise OSError(24, "Too many open files")

    async with serving(scrape.Answers(broken, lambda: (True, "training"))) as port:
        assert (await said(port, get(port))).startswith(b"HTTP/1.1 500 ")
        assert (await said(port, get(port, "/healthz"))).endswith(b"\r\n\r\ntraining\n")
