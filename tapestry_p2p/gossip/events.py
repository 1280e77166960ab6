"""What may happen to the protocol. Every event carries the time it happened at.

``at`` is seconds of the shell's monotonic clock. Peers and authors are 32-byte public keys. An
event is a plain fact: it holds no decision.
"""

from __future__ import annotations

from tapestry_p2p.gossip.fact import fact
from tapestry_p2p.gossip.header import SignedHeader


@fact
class Connected:
    """A connection to ``peer`` is open, whoever dialled it. May repeat.

    ``address`` is where its other end is as we see it, a multiaddress; empty if not known.
    """

    peer: bytes
    at: float
    address: str = ""


@fact
class Disconnected:
    """The last connection to ``peer`` is gone."""

    peer: bytes
    at: float


@fact
class DialFailed:
    """A Dial effect did not lead to a connection."""

    peer: bytes
    at: float


@fact
class Message:
    """One whole frame from ``peer``; ``channel`` is ``hello`` or ``sync``."""

    peer: bytes
    channel: str
    data: bytes
    at: float


@fact
class Applied:
    """The shell's copy of ``author`` now stands at ``seq`` with ``root`` (b"" if not computed)."""

    author: bytes
    seq: int
    root: bytes
    at: float


@fact
class ApplyFailed:
    """A Fetch or FetchKeyframe of ``seq`` ended without a copy at ``seq``.

    ``reason`` is one of REASONS: ``missing``, ``busy``, ``timeout``, ``unreachable`` (no copy was
    touched), ``root`` (the copy is spoilt and must come whole), ``content`` (decoded to something
    not finite, too long or of a wrong size; the copy is out).
    """

    author: bytes
    seq: int
    reason: str
    at: float


REASONS = ("missing", "busy", "timeout", "unreachable", "root", "content")


@fact
class Publish:
    """Sign and announce our next entry. Raises ProtocolError while mute: that is our own bug.

    ``payload`` holds the bytes of a profile or an adoption; ``chunks`` and ``payload_bytes``
    describe the payload of a difference, which the shell has already made durable. ``tokens``:
    trained on since our last entry; the header states them all.
    """

    kind: str
    at: float
    codec: str = ""
    chunks: tuple[bytes, ...] = ()
    payload_bytes: int = 0
    root: bytes = b""
    round: int = 0
    tokens: int = 0
    cites: bytes = b""
    payload: bytes = b""


@fact
class Unmute:
    """The shell has asked the neighbours for our own head and may publish again."""

    at: float


@fact
class Retire:
    """Our operator hands in somebody's signed ``retire`` entry, or our own, for all to see.

    Raises ProtocolError if it is none of this network; the shell has checked that.
    """

    signed_header: SignedHeader
    at: float


@fact
class Tick:
    """Time passed. At least once a second; more often costs little."""

    at: float


Event = (
    Connected
    | Disconnected
    | DialFailed
    | Message
    | Applied
    | ApplyFailed
    | Publish
    | Unmute
    | Retire
    | Tick
)
