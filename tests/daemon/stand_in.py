"""A trainer for tests: speaks the link, learns nothing, and misbehaves as it is told.

Started like the real one; what to do stands in the task's options.
"""

import argparse
import os
import signal
import socket
import time
from typing import Any

import numpy as np

from tapestry_p2p import link

PARAMETERS = 600
SCHEMA = "ab" * 32


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("--link-fd", type=int)
    parser.add_argument("--link")
    asked = parser.parse_args()
    if asked.link is None:
        sock = socket.socket(fileno=asked.link_fd)
    else:
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        sock.connect(asked.link)
    configure = link.parse_from_node(link.receive(sock)[0])
    options = configure["options"]
    os.write(1, b"stand-in\n")
    act = options.get("act", "train")
    if act == "dies":
        return 7
    if act.startswith("failed "):
        link.send(sock, {"t": "failed", "code": act.split()[1]})
        return 78
    if act == "deaf":
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        time.sleep(1000)
    if act == "junk":
        sock.send(b"\xc1 junk")
        return 0
    vectors = link.SharedVectors.create(options.get("parameters", PARAMETERS))
    hello = {
        "t": "hello",
        "version": link.VERSION,
        "pid": os.getpid(),
        "parameters": vectors.parameters,
        "schema": options.get("schema", SCHEMA),
        "isolated": True,
        "isolation": link.ISOLATION_LINES[0],
        "genesis_digest": vectors.write(link.OUT, 0, np.ones(vectors.parameters, np.float32)),
    }
    if act == "lies":
        hello["genesis_digest"] = "0" * 64
    link.send(sock, hello, [] if act == "no memory" else [vectors.fileno()])
    return train(sock, vectors, act)


def train(sock: socket.socket, vectors: link.SharedVectors, act: str) -> int:
    """Answer every order; each correction moves the model, and the next vector shows it."""
    x = np.zeros(vectors.parameters, np.float32)
    seq = 0
    while packet := link.receive(sock)[0]:
        record = link.parse_from_node(packet)
        if record["t"] == "stop":
            return 0
        if record["t"] == "start":
            x = vectors.read(link.IN, record["seq"], record["digest"])
        if record["t"] == "train":
            round_, last = record["round"], record["last_round"]
            if act == "cannot measure":
                link.send(sock, {"t": "unmeasured"})
            seq = hand_over(sock, vectors, x, seq, round_)
        if record["t"] == "correct":
            x = x + vectors.read(link.IN, record["seq"], record["digest"])
            if act == "dies in round 2" and round_ == 1:
                os.kill(os.getpid(), signal.SIGKILL)
            if act == "hangs in round 2" and round_ == 1:
                os.kill(os.getpid(), signal.SIGSTOP)
            if round_ != last:
                round_ += 1
                seq = hand_over(sock, vectors, x, seq, round_)
    return 0


def hand_over(
    sock: socket.socket, vectors: link.SharedVectors, x: Any, seq: int, round_: int
) -> int:
    record = {
        "t": "vector",
        "seq": seq + 1,
        "round": round_,
        "applied": seq,
        "added": 0,
        "steps": 5,
        "skipped": 0,
        "tokens": 50,
        "loss": 1.25,
        "seconds": 0.5,
        "busy_s": 0.25,
        "memory_mb": 12.0,
        "digest": vectors.write(link.OUT, seq + 1, x),
    }
    link.send(sock, record)
    return seq + 1


if __name__ == "__main__":
    raise SystemExit(main())
