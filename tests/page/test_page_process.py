"""The page as it really runs: on 127.0.0.1 alone, by its link, apart from all that is heavy."""

import http.client
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
ROOM = ROOT / "tapestry_p2p" / "page"
DAEMON = {"tapestry_p2p.daemon.ask", "tapestry_p2p.daemon.paths"}
PATIENCE_S = 60.0


@contextmanager
def running(home: Path, *words: str) -> Iterator[tuple["subprocess.Popen[str]", str]]:
    """The verb as a process, and the link that it prints."""
    home.mkdir(exist_ok=True)
    process = subprocess.Popen(
        [sys.executable, "-m", "tapestry_p2p", "page", "--port", "0", *words],
        env={"PATH": os.environ["PATH"], "TAPESTRY_HOME": str(home), "PYTHONPATH": str(ROOT)},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    try:
        assert process.stdout is not None
        yield process, process.stdout.readline().strip()
    finally:
        process.kill()
        process.communicate()


def port_of(link: str) -> int:
    """The port in a link."""
    return int(link.removeprefix("http://127.0.0.1:").partition("/")[0])


@pytest.mark.integration
def test_the_page_listens_here_alone_and_ends_without_a_trace(tmp_path: Path) -> None:
    home = tmp_path / "home"
    with running(home) as (process, link):
        port = port_of(link)
        listening = Path("/proc/net/tcp").read_text() + Path("/proc/net/tcp6").read_text()
        bound = [line.split()[1] for line in listening.splitlines() if f":{port:04X} " in line]
        assert {address.partition(":")[0] for address in bound[:1]} == {"0100007F"}
        for name in ("page.json", "page.html"):
            assert (home / "run" / name).stat().st_mode & 0o777 == 0o600
        key = link.partition("#key=")[2]
        assert key not in Path(f"/proc/{process.pid}/cmdline").read_text()
        assert opened(port).startswith("<!doctype html>")
        assert "no_daemon" in first_events(port, key)
        with running(home) as (second, same):
            assert same == link
            assert second.wait(PATIENCE_S) == 0
        process.send_signal(signal.SIGTERM)
        assert process.wait(PATIENCE_S) == 0
    assert not list((home / "run").glob("page.*"))


def opened(port: int) -> str:
    """The empty page."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=PATIENCE_S)
    connection.request("GET", "/")
    text = connection.getresponse().read().decode()
    connection.close()
    return text


def first_events(port: int, key: str) -> str:
    """What a viewer hears first."""
    host = f"127.0.0.1:{port}"
    connection = http.client.HTTPConnection(host, timeout=PATIENCE_S)
    headers = {"Origin": f"http://{host}", "Content-Type": "application/json"}
    connection.request("POST", "/api/ticket", b"{}", {**headers, "X-Tapestry-Key": key})
    ticket = json.loads(connection.getresponse().read())["ticket"]
    connection.request("GET", f"/api/events?ticket={ticket}")
    found = connection.getresponse().read1(4096).decode()
    connection.close()
    return found


@pytest.mark.integration
def test_a_tethered_page_ends_with_who_started_it_also_while_watched(tmp_path: Path) -> None:
    with running(tmp_path / "home", "--tether") as (process, link):
        assert "no_daemon" in first_events(port_of(link), link.partition("#key=")[2])
        assert process.stdin is not None
        process.stdin.close()
        assert process.wait(PATIENCE_S) == 0
        process.stdin = None


@pytest.mark.integration
def test_half_a_request_and_noise_harm_nobody(tmp_path: Path) -> None:
    with running(tmp_path / "home") as (process, link):
        port = port_of(link)
        socks = []
        for noise in (
            b"",
            b"GET",
            b"GET / HTTP/1.1\r\n",
            os.urandom(9000),
            b"\x00" * 99,
            b"\r\n" * 9,
        ):
            socks.append(socket.create_connection(("127.0.0.1", port)))
            socks[-1].sendall(noise)
        time.sleep(0.5)
        assert opened(port).startswith("<!doctype html>")
        assert process.poll() is None
        for sock in socks:
            sock.close()


def test_a_taken_port_has_a_next_step(tmp_path: Path) -> None:
    from tapestry_p2p.errors import TapestryError
    from tapestry_p2p.page.serve import listen

    with (
        socket.create_server(("127.0.0.1", 0)) as taken,
        pytest.raises(TapestryError, match="--port 0"),
    ):
        listen(taken.getsockname()[1])


def test_the_room_knows_of_the_daemon_only_how_to_ask_it() -> None:
    found = set()
    for path in ROOM.glob("*.py"):
        for line in path.read_text().splitlines():
            if line.startswith("from tapestry_p2p.daemon"):
                found.add(line.split()[1])
    assert found == DAEMON


def test_its_process_has_no_code_that_peers_or_data_could_reach() -> None:
    heavy = ("jax", "numpy", "libp2p", "cryptography", "msgpack", "tapestry_p2p.gossip")
    code = f"import sys, tapestry_p2p.page.serve; print([n for n in {heavy} if n in sys.modules])"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT
    )
    assert done.stdout.strip() == "[]"
