"""A trainer ends soon after SIGTERM or its node, also in the middle of a long computation."""

import signal
import subprocess
import sys
import time

import pytest

BUSY = """
import hashlib, socket, sys, threading
from tapestry_p2p.learn import trainer
ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
begun = threading.Event()
if "begun" in sys.argv:
    begun.set()
trainer._watch_for_the_end(ours, trainer._obey_signals(ours), begun)
trainer.ORPHAN_S = trainer.TERM_S = 0.5
print("busy", flush=True)
if "orphan" in sys.argv:
    theirs.close()
hashlib.pbkdf2_hmac("sha256", b"", b"", 1 << 27)  # a minute in which Python runs no signal handler
"""


@pytest.mark.parametrize("begun", ["begun", "starting"])
@pytest.mark.parametrize(("why", "status"), [("term", 0), ("orphan", 1)])
def test_it_ends_while_it_computes(why: str, begun: str, status: int) -> None:
    command = [sys.executable, "-c", BUSY, why, begun]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"busy\n"
        began = time.monotonic()
        if why == "term":
            process.send_signal(signal.SIGTERM)
        try:
            assert process.wait(timeout=20) == status
        finally:
            process.kill()
        assert time.monotonic() - began < 10
