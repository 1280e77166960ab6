"""The control socket: whatever the local user sends, one line comes back and the daemon lives."""

import json
import os
import socket
import stat
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import trio
from daemon_kit import in_trio, no_descriptors_left

from tapestry_p2p.daemon import control
from tapestry_p2p.daemon.address import Address
from tapestry_p2p.daemon.ask import ask
from tapestry_p2p.daemon.status import _dialable
from tapestry_p2p.errors import FAILURE, NO_DAEMON, TEMPORARY, TIMEOUT, USAGE, TapestryError


async def handler(request: dict[str, Any]) -> dict[str, Any]:
    """A few verbs."""
    await trio.lowlevel.checkpoint()
    match request.get("do"):
        case "echo":
            return {"echo": request.get("what")}
        case "large":
            return {"large": "x" * 3_000_000}
        case "sleep":
            await trio.sleep_forever()
        case "refuse":
            raise TapestryError("the disk is full; make room", TEMPORARY)
        case "bug":
            raise ZeroDivisionError("ours")
    raise TapestryError("do must be one of echo, large, refuse", USAGE)


@asynccontextmanager
async def serving(path: Path) -> AsyncIterator[None]:
    async with trio.open_nursery() as nursery:
        await nursery.start(control.serve, path, handler)
        yield
        nursery.cancel_scope.cancel()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "run" / "control.sock"


async def asked(path: Path, timeout_s: float = 10.0, **request: Any) -> dict[str, Any]:
    return await trio.to_thread.run_sync(lambda: ask(path, request, timeout_s))


async def raw(path: Path, data: bytes) -> bytes:
    """What comes back for these bytes, to the end."""
    stream = await trio.open_unix_socket(path)
    async with stream:
        try:
            await stream.send_all(data)
            await stream.send_eof()
        except trio.BrokenResourceError:
            return b""
        found = bytearray()
        try:
            async for part in stream:
                found += part
        except trio.BrokenResourceError:
            pass
        return bytes(found)


@in_trio
async def test_a_question_has_one_answer(path: Path) -> None:
    async with serving(path):
        assert await asked(path, do="echo", what="größe") == {"echo": "größe"}
        assert len((await asked(path, do="large"))["large"]) == 3_000_000


@in_trio
async def test_a_refusal_keeps_its_words_and_its_code(path: Path) -> None:
    async with serving(path):
        for do, code, words in (("refuse", TEMPORARY, "disk is full"), ("dance", USAGE, "echo")):
            with pytest.raises(TapestryError, match=words) as refused:
                await asked(path, do=do)
            assert refused.value.exit_code == code


HOSTILE = [
    b"",
    b"\n",
    b"\0\n",
    b"not json\n",
    b"[]\n",
    b"1\n",
    b"null\n",
    b'"do"\n',
    b"{\n",
    b"\xff\xfe\xfa\n",
    b'{"do": "\xed\xa0\x80"}\n',
    b"[" * 60_000 + b"\n",
    b'{"do":' * 9_000 + b"\n",
    b"1" * 60_000 + b"\n",
    b'{"do": NaN}\n',
    b'{"do": {"do": []}}\n',
    b'{"do": 1e999}\n',
    b'{"do": "echo", "do": "refuse"}\n',
    b"x" * control.REQUEST_BYTES_MAX + b"\n",
]


@pytest.mark.parametrize("data", HOSTILE)
@in_trio
async def test_a_hostile_caller_gets_one_line(path: Path, data: bytes) -> None:
    async with serving(path):
        answer = await raw(path, data)
        assert answer.count(b"\n") == 1
        assert "error" in json.loads(answer)
        assert await asked(path, do="echo", what=1) == {"echo": 1}


@in_trio
async def test_a_caller_who_never_ends_gets_no_room(path: Path) -> None:
    async with serving(path):
        await raw(path, b"x" * 5_000_000)
        assert await asked(path, do="echo", what=1) == {"echo": 1}


@in_trio
async def test_a_caller_who_says_nothing_is_let_go(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(control, "REQUEST_DEADLINE_S", 0.05)
    async with serving(path):
        stream = await trio.open_unix_socket(path)
        async with stream:
            await stream.send_all(b'{"do": "echo"')
            assert await stream.receive_some() == b""
        assert await asked(path, do="echo", what=1) == {"echo": 1}


@in_trio
async def test_many_silent_callers_lock_nobody_out(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(control, "REQUEST_DEADLINE_S", 0.1)
    async with serving(path):
        silent = [await trio.open_unix_socket(path) for _ in range(3 * control.CALLERS_MAX)]
        assert await asked(path, do="echo", what=1) == {"echo": 1}
        for stream in silent:
            await stream.aclose()


@in_trio
async def test_a_caller_who_leaves_before_the_answer(path: Path) -> None:
    async with serving(path):
        for _ in range(20):
            async with await trio.open_unix_socket(path) as caller:
                await caller.send_all(b'{"do": "large"}\n')
        assert await asked(path, do="echo", what=1) == {"echo": 1}


@in_trio
async def test_no_descriptors_left_for_a_moment(
    path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with serving(path):
        with socket.socket(socket.AF_UNIX) as caller:
            caller.connect(str(path))
            with no_descriptors_left():
                while "Too many open files" not in caplog.text:
                    await trio.sleep(0.01)
            caller.sendall(b'{"do": "echo"}\n')
            assert await trio.to_thread.run_sync(caller.recv, 100) == b'{"echo": null}\n'


@in_trio
async def test_only_this_user_may_speak(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with serving(path):
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
        real = os.getuid()
        monkeypatch.setattr(os, "getuid", lambda: real + 1)
        answer = await raw(path, b'{"do": "echo"}\n')
        allowed = real == 0  # root may always
        assert (answer != b"") == allowed


@in_trio
async def test_the_socket_goes_with_the_daemon_and_an_old_one_is_replaced(path: Path) -> None:
    path.parent.mkdir()
    with socket.socket(socket.AF_UNIX) as old:
        old.bind(str(path))
    async with serving(path):
        assert await asked(path, do="echo", what=1) == {"echo": 1}
    assert not path.exists()


@in_trio
async def test_a_path_too_long_for_a_socket_is_one_line(tmp_path: Path) -> None:
    path = tmp_path / ("x" * 200) / "control.sock"
    errors: list[BaseException] = []
    try:
        async with serving(path):
            pytest.fail("it listens")
    except* TapestryError as group:
        errors += group.exceptions
    assert len(errors) == 1
    assert "shorter TAPESTRY_HOME" in str(errors[0])


# ---- the asking half -----------------------------------------------------------------------------


def test_nobody_listens(path: Path) -> None:
    with pytest.raises(TapestryError, match="tapestry run") as refused:
        ask(path, {"do": "status"})
    assert refused.value.exit_code == NO_DAEMON


@pytest.fixture
def answering(tmp_path: Path) -> Iterator[Callable[[bytes | None], Path]]:
    """A daemon that answers with these bytes, or not at all."""
    threads = []
    done = threading.Event()

    def answer(data: bytes | None) -> Path:
        path = tmp_path / "s"
        listening = socket.socket(socket.AF_UNIX)
        listening.bind(str(path))
        listening.listen()

        def serve() -> None:
            with listening, listening.accept()[0] as caller:
                caller.recv(1 << 16)
                if data is None:
                    done.wait(10)
                else:
                    caller.sendall(data)

        threads.append(threading.Thread(target=serve))
        threads[0].start()
        return path

    yield answer
    done.set()
    for thread in threads:
        thread.join()


def test_no_answer_in_time(answering: Callable[[bytes | None], Path]) -> None:
    with pytest.raises(TapestryError, match="no answer") as refused:
        ask(answering(None), {"do": "status"}, timeout_s=0.1)
    assert refused.value.exit_code == TIMEOUT


@pytest.mark.parametrize(
    ("data", "code"),
    [
        (b"", NO_DAEMON),
        (b"junk\n", FAILURE),
        (b'{"half": "an answ', FAILURE),
        (b"[1, 2]\n", FAILURE),
        (b'"error"\n', FAILURE),
        (b"[" * 100_000 + b"\n", FAILURE),
        (b'{"error": "no", "exit_code": "many"}\n', FAILURE),
        (b'{"error": "no", "exit_code": 6}\n', 6),
    ],
)
def test_a_strange_answer_is_one_line(
    data: bytes, code: int, answering: Callable[[bytes | None], Path]
) -> None:
    with pytest.raises(TapestryError) as refused:
        ask(answering(data), {"do": "status"})
    assert refused.value.exit_code == code
    assert "\n" not in refused.value.message


@in_trio
async def test_a_bug_in_a_verb_is_an_answer_not_the_end(
    path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with serving(path):
        with pytest.raises(TapestryError, match="could not answer") as refused:
            await asked(path, do="bug")
        assert refused.value.exit_code == FAILURE
        assert (await asked(path, do="echo", what=1))["echo"] == 1
    assert "ZeroDivisionError" in caplog.text


def test_an_invite_leaves_out_addresses_that_nobody_can_dial() -> None:
    found = _dialable(["/dns/a..b/tcp/1", "/x", "/ip4/192.0.2.7/tcp/1/p2p/x"], "id")
    assert found == [Address("ip4", "192.0.2.7", 1, "id")]
