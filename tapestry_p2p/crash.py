"""Numbered crash points: where a test kills the process, as a power cut would. Off unless armed.

A point stands before and after every step that makes something durable. They are numbered as they
are passed; `arm` says at which one to die, or of which name. Knows no file and no meaning.
"""

import os
import signal
import sys
from collections.abc import Mapping

VARIABLE = "TAPESTRY_TESTING__CRASH"  # "node:17": at its 17th point; "trainer:before syncing"
_left = 0  # points still to pass; 0: off
_words: tuple[str, ...] = ()  # only points count whose name holds all of these


def arm(process: str, environ: Mapping[str, str] = os.environ) -> None:
    """Die at the point that the environment names for ``process``, if it names one."""
    global _left, _words
    name, _, which = environ.get(VARIABLE, "").partition(":")
    if name != process or not which:
        return
    if which.isascii() and which.isdigit():
        _left, _words = int(which), ()
    else:
        _left, _words = 1, tuple(which.split())


def point(name: str) -> None:
    """One crash point: nothing, or the end of this process, with its name on stderr."""
    global _left
    if not _left or not all(word in name for word in _words):
        return
    _left -= 1
    if not _left:
        os.write(sys.stderr.fileno(), f"crash point: {name}\n".encode())
        os.kill(os.getpid(), signal.SIGKILL)
