"""How the trainer leaves the network, and the proof that it has.

Rule: called before any thread exists and before anything is read or imported that could see data
(`unshare` of a user namespace fails once a second thread runs). Reports what is true, never what
was hoped. Standard library only.
"""

from __future__ import annotations

import ctypes
import errno
import os
import socket
from pathlib import Path

CLONE_NEWNET, CLONE_NEWUSER = 0x40000000, 0x10000000  # <linux/sched.h>; os.unshare is 3.12+
FORBIDDEN = (
    errno.EAFNOSUPPORT,
    errno.EPERM,
    errno.EACCES,
)  # such sockets, to this process
ELSEWHERE = ("192.0.2.1", 9)  # TEST-NET-1 (RFC 5737): nobody's address; UDP, so nothing is sent

BY_ROOT = "own network namespace (root)"
BY_USER = "own network namespace (user namespace)"
BEFORE = "no network in the namespace it was started in"
REFUSED = "not isolated: the system refused a network namespace"
UNPROVEN = "not isolated: the proof failed"


def close_inherited(keep: int) -> None:
    """Close every descriptor but 0, 1, 2 and ``keep``."""
    highest = os.sysconf("SC_OPEN_MAX")
    os.closerange(3, keep)
    os.closerange(max(3, keep + 1), highest)


def leave_network() -> tuple[bool, str]:
    """Enter a network namespace of our own, and prove it.

    Returns whether this process has no network, and one of the lines above.
    """
    line = _unshare()
    alone = has_no_network()
    if alone:
        return True, BEFORE if line == REFUSED else line
    return False, REFUSED if line == REFUSED else UNPROVEN


def has_no_network() -> bool:
    """No interface but loopback, and no way to an address elsewhere."""
    return interfaces() <= {"lo"} and not _reachable()


def interfaces() -> set[str]:
    """Names of the network interfaces that this process sees; {"unknown"} if it cannot tell."""
    try:
        lines = Path("/proc/self/net/dev").read_text().splitlines()[2:]
    except OSError:
        return {"unknown"}
    return {line.partition(":")[0].strip() for line in lines}


def _reachable() -> bool:
    try:
        probe = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    except OSError as error:
        return error.errno not in FORBIDDEN  # anything else does not tell
    with probe:
        try:
            probe.connect(ELSEWHERE)
        except OSError:
            return False
    return True


def _unshare() -> str:
    libc = ctypes.CDLL(None, use_errno=True)
    uid, gid = os.getuid(), os.getgid()
    if libc.unshare(CLONE_NEWNET) == 0:
        return BY_ROOT
    if libc.unshare(CLONE_NEWUSER | CLONE_NEWNET) != 0:
        return REFUSED
    for name, text in (
        ("setgroups", "deny"),
        ("uid_map", f"{uid} {uid} 1"),
        ("gid_map", f"{gid} {gid} 1"),
    ):
        try:
            Path(f"/proc/self/{name}").write_text(text)
        except OSError:
            break  # we stay the overflow user: our own files may be out of reach, the net is off
    return BY_USER
