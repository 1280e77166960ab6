"""The trainer has no network: proven in a process of its own, as root and as nobody."""

import errno
import json
import os
import socket
import subprocess
import sys

import pytest

from tapestry_p2p.learn import isolation
from tapestry_p2p.link import ISOLATION_LINES

PROBE = """
import json, os, socket, sys
from tapestry_p2p.learn import isolation
if sys.argv[1] == "nobody":  # after the imports: it may not read them where we live
    os.setgroups([]); os.setgid(65534); os.setuid(65534)
before = sorted(isolation.interfaces())
isolation.close_inherited(2)
isolated, line = isolation.leave_network()
with socket.socket() as tcp:
    tcp.settimeout(2)
    try:
        tcp.connect(("127.0.0.1", int(sys.argv[2])))
        reached = True
    except OSError:
        reached = False
try:
    os.fstat(int(sys.argv[3]))
    inherited = True
except OSError:
    inherited = False
print(json.dumps([isolated, line, sorted(isolation.interfaces()), reached, inherited]))
"""


def _probe(user: str) -> list[object]:
    with socket.create_server(("127.0.0.1", 0)) as server, open(os.devnull) as leaked:
        port = server.getsockname()[1]
        os.set_inheritable(leaked.fileno(), True)
        done = subprocess.run(
            [sys.executable, "-c", PROBE, user, str(port), str(leaked.fileno())],
            capture_output=True,
            text=True,
            close_fds=False,
            check=True,
        )
    found: list[object] = json.loads(done.stdout)
    return found


def test_without_root_or_with_it_the_truth_is_told() -> None:
    isolated, line, interfaces, reached, inherited = _probe("self")
    assert line in ISOLATION_LINES
    assert not inherited
    if isolated:
        assert interfaces == ["lo"]
        assert not reached
    else:
        assert "not isolated" in str(line)
    if os.getuid() == 0 and isolated:
        assert line == isolation.BY_ROOT


@pytest.mark.skipif(os.getuid() != 0, reason="the test above runs as an ordinary user already")
def test_an_ordinary_user_gets_a_user_namespace_or_the_truth() -> None:
    isolated, line, interfaces, reached, _ = _probe("nobody")
    if isolated:
        assert line == isolation.BY_USER
        assert interfaces == ["lo"]
        assert not reached
    else:
        assert line == isolation.REFUSED


def test_this_process_has_not_left() -> None:
    lines = {isolation.BY_ROOT, isolation.BY_USER, isolation.BEFORE}
    assert lines | {isolation.REFUSED, isolation.UNPROVEN} == set(ISOLATION_LINES)


@pytest.mark.parametrize(
    ("failure", "alone"), [(errno.EAFNOSUPPORT, True), (errno.EPERM, True), (errno.EMFILE, False)]
)
def test_a_filter_that_forbids_sockets_is_a_proof_too(
    monkeypatch: pytest.MonkeyPatch, failure: int, alone: bool
) -> None:
    """As in a unit with RestrictAddressFamilies=AF_UNIX; out of descriptors proves nothing."""

    def refuse(*_: object) -> socket.socket:
        raise OSError(failure, os.strerror(failure))

    monkeypatch.setattr(isolation, "interfaces", lambda: {"lo"})
    monkeypatch.setattr(socket, "socket", refuse)
    assert isolation.has_no_network() is alone
