"""What the protocol asks the shell to do, in the order given. An effect is a plain order.

A Persist must be durable before any effect after it in the list is performed.
"""

from __future__ import annotations

from tapestry_p2p.gossip.fact import fact
from tapestry_p2p.gossip.fork import ForkProof
from tapestry_p2p.gossip.header import SignedHeader


@fact
class Send:
    """Send one frame to a connected peer; drop it silently if the connection is gone."""

    peer: bytes
    channel: str
    data: bytes


@fact
class Persist:
    """Make ``data`` durable before going on.

    ``record`` is ``own`` (a signed header of ours, with the payload in the event), ``seen`` (the
    highest head of ours that somebody else showed), ``proof`` (an encoded ForkProof), ``resumed``
    (the entry by which a forked author may come back), or ``retired`` (a key's last entry). For all
    but ``own`` a stored snapshot will do.
    """

    record: str
    seq: int
    data: bytes
    payload: bytes = b""


@fact
class Arrived:
    """A header of a followed author was accepted for the first time, at ``at``."""

    author: bytes
    seq: int
    at: float


@fact
class Fetch:
    """Bring the copy of ``author`` from seq-1 to seq; answer with Applied or ApplyFailed.

    A genesis entry has no payload: the copy starts as the manifest's vector. That of an adopt entry
    is for Protocol.read_adoption: the copy starts as the median of the copies it names. ``sources``
    are connected peers that should hold the payload, best first. A new Fetch or FetchKeyframe for
    an author replaces the one that runs. If the copy already stands at seq, answer Applied.
    """

    author: bytes
    signed_header: SignedHeader
    sources: tuple[bytes, ...]


@fact
class FetchKeyframe:
    """Replace the copy of ``author`` by the whole vector whose root the header states."""

    author: bytes
    signed_header: SignedHeader
    sources: tuple[bytes, ...]


@fact
class Advanced:
    """The next entry changes no copy: the copy of ``author`` now stands at its seq. No answer."""

    author: bytes
    signed_header: SignedHeader


@fact
class Unfollow:
    """The author's copy is no longer wanted: free it."""

    author: bytes
    reason: str


@fact
class Dial:
    """Try to connect; answer with Connected or DialFailed."""

    peer: bytes
    addresses: tuple[str, ...]


@fact
class Drop:
    """Close the connection to ``peer``. ``fault``: it broke the rules."""

    peer: bytes
    reason: str
    fault: bool = False


@fact
class OwnHead:
    """Somebody holds a head signed by our key that we do not know. We are mute from now on.

    The shell sends Unmute when it is ready, then publishes a ``resume``.
    """

    signed_header: SignedHeader


@fact
class CloneSeen:
    """Another live node signs with our key. Stop, and tell the operator."""

    signed_header: SignedHeader


@fact
class Forked:
    """The author signed two entries with one seq: its weight is 0 until it resumes."""

    author: bytes
    proof: ForkProof


@fact
class Left:
    """The author said goodbye: no member any more, until a later entry of it comes."""

    author: bytes
    signed_header: SignedHeader


@fact
class ProfileDue:
    """Our profile is old: publish it again, or others will forget us."""


Effect = (
    Send
    | Persist
    | Arrived
    | Fetch
    | FetchKeyframe
    | Advanced
    | Unfollow
    | Dial
    | Drop
    | OwnHead
    | CloneSeen
    | Forked
    | Left
    | ProfileDue
)
