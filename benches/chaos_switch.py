"""A switch between network namespaces that makes bad weather: loss, delay, jitter, blocked ways.

    python benches/chaos_switch.py PORT,PORT,...      (names of veth ends; needs CAP_NET_RAW)

Every frame that one port gives is looked at once: blocked, lost by chance, or handed to the port
of its target after a delay that is drawn for itself alone, so that frames overtake each other.
Commands are JSON lines on standard input: ``{"loss": .3, "delay_s": [.3, .5], "blocked": [[0,
1]]}`` (what is not named is as in calm weather), each answered by one line of counts. Ends with
standard input.
"""

import heapq
import itertools
import json
import os
import select
import socket
import sys
import time
from collections import Counter
from random import Random
from typing import Any

SOL_PACKET, IGNORE_OUTGOING, VNET_HDR, ETH_P_ALL = 263, 23, 15, 3
RCVBUFFORCE, RCVBUF_BYTES = 33, 8 << 20
VNET_BYTES = 10  # struct virtio_net_hdr: checksum and segmentation offload, passed on as it is
CARRIED = (b"\x08\x00", b"\x08\x06")  # IPv4, ARP
BROADCAST = b"\xff" * 6
FRAME_MAX = 1 << 17


def mac(port: int) -> bytes:
    """The address of whoever is behind a port; the bench gives it to that interface."""
    return bytes([2, 0, 0, 0, 0, port + 1])


class Switch:
    """Ports, the weather between them, and frames under way."""

    def __init__(self, names: list[str], seed: int = 0) -> None:
        self._ports = [self._open(name) for name in names]
        self._number = {mac(port): port for port in range(len(names))}
        self._random = Random(seed)
        self._order = itertools.count()
        self._under_way: list[
            tuple[float, int, int, int, bytes]
        ] = []  # due, order, from, to, frame
        self._newest = Counter[tuple[int, int]]()  # order of the last frame that left, by way
        self.counts: Counter[str] = Counter()
        self.set_weather({})

    @staticmethod
    def _open(name: str) -> socket.socket:
        port = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(ETH_P_ALL))
        port.setsockopt(socket.SOL_SOCKET, RCVBUFFORCE, RCVBUF_BYTES)
        port.setsockopt(SOL_PACKET, IGNORE_OUTGOING, 1)
        port.setsockopt(SOL_PACKET, VNET_HDR, 1)
        port.bind((name, 0))
        port.setblocking(False)
        return port

    def set_weather(self, told: dict[str, Any]) -> None:
        """Take up a command; what it does not name is calm."""
        self._loss = float(told.get("loss", 0.0))
        self._delay_s = tuple(told.get("delay_s", (0.0, 0.0)))
        self._blocked = {(int(a), int(b)) for a, b in told.get("blocked", [])}

    def run(self) -> None:
        """Carry frames until standard input ends."""
        poll = select.epoll()
        poll.register(0, select.EPOLLIN)
        for port in self._ports:
            poll.register(port.fileno(), select.EPOLLIN)
        by_fd = {port.fileno(): number for number, port in enumerate(self._ports)}
        while True:
            wait = -1.0
            if self._under_way:
                wait = max(0.0, self._under_way[0][0] - time.monotonic())
            for fd, _ in poll.poll(wait):
                if fd == 0:
                    if not self._obey():
                        return
                else:
                    self._take(by_fd[fd])
            self._let_go()

    def _obey(self) -> bool:
        told = b"".join(iter(lambda: os.read(0, 1), b"\n")) if (first := os.read(0, 1)) else b""
        if not first:
            return False
        self.set_weather(json.loads(first + told))
        sys.stdout.write(json.dumps(self.counts) + "\n")
        sys.stdout.flush()
        self.counts.clear()
        return True

    def _take(self, source: int) -> None:
        """All frames that wait at a port."""
        port = self._ports[source]
        while True:
            try:
                frame = port.recv(FRAME_MAX)
            except BlockingIOError:
                return
            head = frame[VNET_BYTES:]
            if head[12:14] not in CARRIED:
                continue
            if head[:6] == BROADCAST:
                targets = [n for n in self._number.values() if n != source]
            else:
                targets = [self._number[head[:6]]] if head[:6] in self._number else []
            for target in targets:
                self._send_off(source, target, frame)

    def _send_off(self, source: int, target: int, frame: bytes) -> None:
        if (source, target) in self._blocked:
            self.counts["blocked"] += 1
        elif self._loss and self._random.random() < self._loss:
            self.counts["lost"] += 1
        else:
            due = time.monotonic() + self._random.uniform(*self._delay_s)
            heapq.heappush(self._under_way, (due, next(self._order), source, target, frame))

    def _let_go(self) -> None:
        """Deliver what is due."""
        now = time.monotonic()
        while self._under_way and self._under_way[0][0] <= now:
            _, order, source, target, frame = heapq.heappop(self._under_way)
            self.counts["overtaken"] += order < self._newest[source, target]
            self._newest[source, target] = max(order, self._newest[source, target])
            try:
                self._ports[target].send(frame)
                self.counts["carried"] += 1
            except OSError:  # its queue is full (a slow link), or it is gone
                self.counts["dropped"] += 1


def main() -> None:
    if len(sys.argv) != 2 or sys.argv[1].startswith("-"):
        sys.exit(__doc__)
    switch = Switch(sys.argv[1].split(","))
    sys.stdout.write("{}\n")
    sys.stdout.flush()
    switch.run()


if __name__ == "__main__":
    main()
