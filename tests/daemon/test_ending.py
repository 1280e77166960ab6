"""SIGTERM before the event loop listens: ends a start well; during the loop it is only noted."""

import signal
import subprocess
import sys

HELPS = """
import os, signal
from tapestry_p2p.daemon.ending import ENDING
ENDING.listen()
{}
"""


def ended(code: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [sys.executable, "-c", HELPS.format(code)],
        capture_output=True, text=True, timeout=20, check=False,
    )  # fmt: skip


def test_a_start_that_is_told_to_end_ends_well() -> None:
    done = ended("os.kill(os.getpid(), signal.SIGTERM)\nprint('went on')")
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_not_even_an_import_that_catches_everything_delays_it() -> None:
    caught = "try:\n    os.kill(os.getpid(), signal.SIGTERM)\nexcept BaseException:\n    pass\n"
    done = ended(caught + "print('went on')")
    assert (done.returncode, done.stdout) == (0, "")


def test_without_it_the_signal_ends_the_process() -> None:
    code = "signal.signal(signal.SIGTERM, signal.SIG_DFL)\nos.kill(os.getpid(), signal.SIGTERM)"
    assert ended(code).returncode == -signal.SIGTERM


def test_the_loop_is_not_torn_it_sees_that_it_was_told() -> None:
    done = ended("ENDING.loop()\nos.kill(os.getpid(), signal.SIGTERM)\nprint(ENDING.told)")
    assert (done.returncode, done.stdout.strip()) == (0, "True")
