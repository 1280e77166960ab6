"""How long a peer may take to answer: from how long it took before, within a floor and a ceiling.

Latency is smoothed as TCP smooths it (RFC 6298: mean and mean deviation), throughput beside it. No
number guesses a link: before the first answer the ceiling holds, after a deadline that was too
short the next is twice as long. Pure but for `handshake_s`, which asks the kernel.
"""

import socket
import struct
from collections import OrderedDict
from dataclasses import dataclass
from typing import Protocol

FLOOR_S = 5.0  # a busy machine takes as long to come to it
CEILING_S = 60.0
RATE_LEAST = 16_384.0  # bytes per second, below which we rather ask another
RATE_SLOW = 4 * RATE_LEAST  # below it answers are asked for in pieces ...
PIECE_BYTES = 32_768  # ... which come in time at 550 bytes per second
SLACK = 3.0  # times what is expected
SMALL_BYTES = 4_096  # such an answer tells the latency, a larger one the throughput
PEERS_MAX = 128
ALPHA, BETA = 1 / 8, 1 / 4  # RFC 6298
HANDSHAKE_CEILING_S = 20.0
HANDSHAKE_TRIPS = 16  # Noise and its negotiations take some six round trips
_TCP_RTT_AT = 68  # of struct tcp_info: smoothed round trip in microseconds, <linux/tcp.h>


@dataclass(slots=True)
class _Measured:
    latency_s: float = 0.0
    deviation_s: float = 0.0
    rate: float = 0.0  # bytes per second; 0: not measured
    doubled: int = 0


class Patience:
    """What was measured of each peer; of those asked last if there are many."""

    def __init__(self) -> None:
        self._peers: OrderedDict[bytes, _Measured] = OrderedDict()

    def allowed_s(self, peer: bytes, length: int) -> float:
        """How long the peer may take for an answer of ``length`` bytes."""
        most = CEILING_S + length / RATE_LEAST
        found = self._peers.get(peer)
        if found is None or not (found.latency_s or found.rate):
            return most
        rate = found.rate or RATE_LEAST
        expected = found.latency_s + 4 * found.deviation_s + length / rate
        return min(most, max(FLOOR_S, SLACK * expected) * float(2**found.doubled))

    def piece(self, peer: bytes, length: int) -> int:
        """How many of ``length`` bytes to ask for at once: few of who is slow, or was too slow."""
        found = self._peers.get(peer)
        slow = found is not None and (found.doubled or 0 < found.rate < RATE_SLOW)
        return min(length, PIECE_BYTES) if slow else length

    def took(self, peer: bytes, length: int, seconds: float) -> None:
        """The peer answered with so many bytes in that time."""
        found = self._of(peer)
        found.doubled = 0
        if length < SMALL_BYTES or not found.latency_s:
            if not found.latency_s:
                found.latency_s, found.deviation_s = seconds, seconds / 2
            off = abs(seconds - found.latency_s)
            found.deviation_s += BETA * (off - found.deviation_s)
            found.latency_s += ALPHA * (seconds - found.latency_s)
        if length >= SMALL_BYTES:
            rate = length / max(seconds - found.latency_s, seconds / 8, 1e-6)
            found.rate = rate if not found.rate else found.rate + BETA * (rate - found.rate)

    def missed(self, peer: bytes) -> None:
        """The peer did not answer in time: it gets twice as long from now on."""
        found = self._of(peer)
        found.doubled = min(found.doubled + 1, 16)

    def _of(self, peer: bytes) -> _Measured:
        found = self._peers.setdefault(peer, _Measured())
        self._peers.move_to_end(peer)
        while len(self._peers) > PEERS_MAX:
            self._peers.popitem(last=False)
        return found


class TcpSocket(Protocol):
    """What can be asked what the kernel measured."""

    def getsockopt(self, level: int, optname: int, buflen: int, /) -> bytes: ...


def handshake_s(sock: TcpSocket, floor_s: float) -> float:
    """How long the handshake on a TCP socket may take, by the round trip that opened it."""
    try:
        told = sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _TCP_RTT_AT + 4)
        (micros,) = struct.unpack_from("=I", told, _TCP_RTT_AT)
    except (OSError, struct.error):
        return floor_s
    wanted: float = HANDSHAKE_TRIPS * micros / 1e6
    return max(floor_s, min(HANDSHAKE_CEILING_S, wanted))
