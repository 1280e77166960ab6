"""What the gossip tests share: keys, a scripted author's signed entries, a protocol on a bench."""

from collections.abc import Iterable
from dataclasses import replace
from random import Random
from typing import Any, TypeVar

from tapestry_p2p.gossip import effects as ef
from tapestry_p2p.gossip import events as ev
from tapestry_p2p.gossip import identity as ids
from tapestry_p2p.gossip.adoption import Reference, encode_adoption
from tapestry_p2p.gossip.header import NO_HASH, Header, SignedHeader, sign
from tapestry_p2p.gossip.identity import Identity
from tapestry_p2p.gossip.known import Known
from tapestry_p2p.gossip.merkle import chunk_hash
from tapestry_p2p.gossip.messages import (
    HELLO,
    SYNC,
    Digest,
    Heads,
    Hello,
    Members,
    Row,
    Sync,
    decode_hello,
    decode_sync,
    encode_hello,
    encode_sync,
)
from tapestry_p2p.gossip.profile import Profile, encode_profile
from tapestry_p2p.gossip.protocol import Protocol
from tapestry_p2p.gossip.settings import Settings

NETWORK = bytes(range(32))
GENESIS_ROOT = bytes([7]) * 32
PAYLOAD = 100
E = TypeVar("E")


def make_settings(**changes: Any) -> Settings:
    """Small, quick settings."""
    base = Settings(network=NETWORK, codecs={"2bit": PAYLOAD}, genesis_root=GENESIS_ROOT)
    return replace(base, **changes)


def key(n: int) -> Identity:
    """The n-th test identity."""
    return Identity(n.to_bytes(2, "big") * 16)


def root_of(n: int) -> bytes:
    """A root that stands for state n."""
    return n.to_bytes(4, "big") * 8


class Author:
    """Signs entries one after the other, as an honest member would, or forks on demand."""

    def __init__(self, n: int, network: bytes = NETWORK) -> None:
        self.identity = key(n)
        self.key = self.identity.public_key
        self.network = network
        self.incarnation = bytes([n]) * 16
        self.log: list[SignedHeader] = []
        self.payload = b""  # of the newest profile

    @property
    def last(self) -> SignedHeader:
        return self.log[-1]

    def entry(self, kind: str, **changes: Any) -> SignedHeader:
        """A signed next entry that is not added to the log."""
        last = self.log[-1].header if self.log else None
        header = Header(
            self.network, self.key, self.incarnation, last.seq + 1 if last else 0,
            last.hash if last else NO_HASH, kind, "", (), 0, b"", 0, 0, b"",
        )  # fmt: skip
        return sign(replace(header, **changes), self.identity.sign)

    def add(self, signed: SignedHeader) -> SignedHeader:
        self.log.append(signed)
        return signed

    def genesis(self) -> SignedHeader:
        return self.add(self.entry("genesis", root=GENESIS_ROOT))

    def difference(self, salt: int = 0, **changes: Any) -> SignedHeader:
        seq = len(self.log)
        fields = {
            "codec": "2bit", "chunks": (chunk_hash(bytes([salt, seq % 256])),),
            "payload_bytes": PAYLOAD, "root": root_of(1000 * salt + seq),
        }  # fmt: skip
        return self.add(self.entry("difference", **{**fields, **changes}))

    def grow(self, count: int) -> list[SignedHeader]:
        """A genesis where there is none, then differences; the new entries."""
        before = len(self.log)
        for _ in range(count):
            self.difference() if self.log else self.genesis()
        return self.log[before:]

    def profile(self, name: str = "member", address: str = "/ip4/10.0.0.1/tcp/1") -> SignedHeader:
        self.payload = encode_profile(Profile(name, ("deu",), (address,)))
        entry = self.entry(
            "profile", chunks=(chunk_hash(self.payload),), payload_bytes=len(self.payload),
            round=self.last.header.round if self.log else 0,
        )  # fmt: skip
        return self.add(entry)

    def adopt(self, *references: Reference, **changes: Any) -> SignedHeader:
        self.payload = encode_adoption(references)
        fields = {
            "chunks": (chunk_hash(self.payload),), "payload_bytes": len(self.payload),
            "root": root_of(7000),
        }  # fmt: skip
        return self.add(self.entry("adopt", **{**fields, **changes}))

    def resume(self, cites: bytes = b"", **changes: Any) -> SignedHeader:
        self.incarnation = bytes(reversed(chunk_hash(self.incarnation)))[:16]
        fields = {"root": root_of(9000 + len(self.log)), "cites": cites}
        return self.add(self.entry("resume", **{**fields, **changes}))

    def leave(self) -> SignedHeader:
        return self.add(self.entry("leave"))

    def fork(self) -> "Author":
        """Another life of the same author, with the same log so far."""
        other = Author.__new__(Author)
        other.__dict__ = {**self.__dict__, "log": list(self.log)}
        return other


class Bench:
    """One production Protocol under test, with a counting verifier and a clock set by hand."""

    def __init__(self, n: int = 0, known: Known | None = None, **changes: Any) -> None:
        mute, leaving = changes.pop("mute", False), changes.pop("leaving", False)
        self.identity = key(n)
        self.key = self.identity.public_key
        self.verifies = 0
        self.now = 100.0
        self.settings = make_settings(**changes)
        self.protocol = Protocol(
            self.settings, self.key, self.identity.sign, Random(n), known,
            at=self.now, mute=mute, leaving=leaving, verify=self._verify,
        )  # fmt: skip

    def _verify(self, public_key: bytes, signature: bytes, message: bytes) -> bool:
        self.verifies += 1
        return ids.verify(public_key, signature, message)

    def step(self, event: ev.Event) -> list[ef.Effect]:
        return self.protocol.step(event)

    def tick(self, seconds: float = 0.0) -> list[ef.Effect]:
        self.now += seconds
        return self.step(ev.Tick(self.now))

    def ticks(self, seconds: float, every: float = 0.5) -> list[ef.Effect]:
        return [effect for _ in range(int(seconds / every)) for effect in self.tick(every)]

    def connect(
        self, peer: bytes, *heads: SignedHeader, rows: tuple[Row, ...] = ()
    ) -> list[ef.Effect]:
        effects = self.step(ev.Connected(peer, self.now))
        return effects + self.hello(peer, *heads, rows=rows)

    def hello(
        self, peer: bytes, *heads: SignedHeader, rows: tuple[Row, ...] = ()
    ) -> list[ef.Effect]:
        hello = Hello(NETWORK, 1, heads, rows, False)
        return self.step(ev.Message(peer, HELLO, encode_hello(hello), self.now))

    def say(self, peer: bytes, message: Sync) -> list[ef.Effect]:
        return self.step(ev.Message(peer, SYNC, encode_sync(message), self.now))

    def heads(self, peer: bytes, *heads: SignedHeader) -> list[ef.Effect]:
        return self.say(peer, Heads(heads))

    def digest(self, peer: bytes, *rows: Row) -> list[ef.Effect]:
        return self.say(peer, Digest(rows))

    def profile(self, peer: bytes, author: Author) -> list[ef.Effect]:
        return self.say(peer, Members(((author.last, author.payload),)))

    def applied(self, author: bytes, seq: int, root: bytes = b"") -> list[ef.Effect]:
        return self.step(ev.Applied(author, seq, root, self.now))

    def failed(self, author: bytes, seq: int, reason: str) -> list[ef.Effect]:
        return self.step(ev.ApplyFailed(author, seq, reason, self.now))

    def obey(self, effects: list[ef.Effect]) -> list[ef.Effect]:
        """Let every fetch succeed at once, and what follows from it; all effects."""
        everything, todo = list(effects), list(effects)
        while todo:
            effect = todo.pop(0)
            if isinstance(effect, ef.Fetch | ef.FetchKeyframe):
                header = effect.signed_header.header
                more = self.applied(effect.author, header.seq, header.root)
                everything += more
                todo += more
        return everything

    def count(self, verdict: str, reason: str) -> int:
        return self.protocol.statistics()[verdict].get(reason, 0)


def only(effects: Iterable[Any], kind: type[E]) -> list[E]:
    """The effects of one type."""
    return [effect for effect in effects if isinstance(effect, kind)]


def sent(effects: Iterable[Any], peer: bytes | None = None) -> list[Sync | Hello]:
    """What was said to ``peer`` (or anybody), parsed."""
    frames = [send for send in only(effects, ef.Send) if peer in (None, send.peer)]
    return [
        decode_hello(send.data, 65_536) if send.channel == HELLO else decode_sync(send.data, 65_536)
        for send in frames
    ]
