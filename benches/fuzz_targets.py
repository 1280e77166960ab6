"""One entry point for every decoder of a stranger's bytes, each with its invariant on line one.

A target takes bytes, returns whether they were taken, and raises nothing but what it names as its
verdict. Seeds are what honest members send. benches/fuzz.py mutates them; a coverage-guided fuzzer
(benches/fuzz_atheris.py) starts from the same table.
"""

import struct
from collections.abc import Callable
from dataclasses import dataclass, replace
from random import Random
from typing import Any

import numpy as np

from tapestry_p2p.daemon.control import parse_request
from tapestry_p2p.daemon.invite import parse_invite
from tapestry_p2p.daemon.manifest import (
    Genesis,
    Manifest,
    Network,
    Schema,
    Task,
    dump_manifest,
    parse_manifest,
)
from tapestry_p2p.daemon.sealed import Opener, SealError
from tapestry_p2p.daemon.yamux import HEADER, Flag, Kind, Mux, ViolationError
from tapestry_p2p.errors import TapestryError
from tapestry_p2p.gossip import events as ev
from tapestry_p2p.gossip import fetch
from tapestry_p2p.gossip.canonical import Malformed, pack, unpack
from tapestry_p2p.gossip.fork import decode_proof, fork_proof
from tapestry_p2p.gossip.header import NO_HASH, Header, SignedHeader, decode_signed, sign
from tapestry_p2p.gossip.identity import Identity
from tapestry_p2p.gossip.merkle import chunk_hash
from tapestry_p2p.gossip.messages import (
    HELLO,
    SYNC,
    Digest,
    Heads,
    Hello,
    Members,
    Row,
    Want,
    decode_hello,
    decode_sync,
    encode_hello,
    encode_sync,
)
from tapestry_p2p.gossip.profile import Profile, decode_profile, encode_profile
from tapestry_p2p.gossip.protocol import Protocol
from tapestry_p2p.gossip.settings import Settings
from tapestry_p2p.mix.codec import CODECS, CodecError, decode_add, encode, payload_bytes
from tapestry_p2p.mix.copy import vector_of

FRAME_BYTES_MAX = 65_536
D = 300  # parameters of the vectors here: a whole block and a short one
NORM_MAX = 1e6
NETWORK, ROOT = bytes(range(32)), bytes([7]) * 32
AUTHOR, OTHER = Identity(bytes([1]) * 32), Identity(bytes([2]) * 32)


@dataclass(frozen=True)
class Target:
    """A decoder. ``share``: how many of a hundred frames go to it."""

    take: Callable[[bytes], object]
    verdict: type[Exception] | tuple[type[Exception], ...]
    seeds: list[bytes]
    share: int = 8


# ---- what honest members send --------------------------------------------------------------------


def _log() -> list[SignedHeader]:
    """An author's first entries: genesis, profile, difference, resume, retire."""
    payload = encode_profile(PROFILE)
    rows: list[tuple[str, dict[str, Any]]] = [
        ("genesis", {"root": ROOT}),
        ("profile", {"chunks": (chunk_hash(payload),), "payload_bytes": len(payload)}),
        (
            "difference",
            {
                "codec": "2bit",
                "chunks": (chunk_hash(b"x"),),
                "payload_bytes": payload_bytes("2bit", D),
                "root": ROOT,
                "round": 1,
                "tokens": 99,
            },
        ),
        ("resume", {"root": ROOT, "cites": bytes(32)}),
    ]
    log: list[SignedHeader] = []
    for seq, (kind, more) in enumerate(rows):
        fields: dict[str, Any] = {
            "network": NETWORK,
            "author": AUTHOR.public_key,
            "incarnation": bytes(16),
            "seq": seq,
            "prev": log[-1].header.hash if log else NO_HASH,
            "kind": kind,
            "codec": "",
            "chunks": (),
            "payload_bytes": 0,
            "root": b"",
            "round": 0,
            "tokens": 0,
            "cites": b"",
        }
        log.append(sign(Header(**{**fields, **more}), AUTHOR.sign))
    return log


def _fork() -> bytes:
    """A proof that an author signed two entries with one number."""
    other = sign(replace(LOG[2].header, tokens=100), AUTHOR.sign)
    return fork_proof(LOG[2], other).encode()


PROFILE = Profile("Anna", ("deu", "ell"), ("/ip4/192.0.2.1/tcp/4001",))
LOG = _log()
ROWS = (Row(AUTHOR.public_key, 1, 3, 0), Row(OTHER.public_key, 0, 5, 2))
HELLOS = [encode_hello(Hello(NETWORK, 1, tuple(LOG), ROWS, True))]
SYNCS = [
    encode_sync(Heads(tuple(LOG))),
    encode_sync(Want(AUTHOR.public_key, 0, 9)),
    encode_sync(Digest(ROWS)),
    encode_sync(Members(((LOG[1], encode_profile(PROFILE)),))),
]
REQUESTS = [
    fetch.encode_request(fetch.ChunkRequest(bytes(32), 0, 100)),
    fetch.encode_request(fetch.LeavesRequest(AUTHOR.public_key, 3, ROOT)),
    fetch.encode_request(fetch.MoreLeavesRequest(AUTHOR.public_key, 3, ROOT, 0, 64)),
    fetch.encode_request(fetch.FrameRequest(AUTHOR.public_key, 3, ROOT, 0, 0, 100)),
    fetch.encode_request(fetch.ManifestRequest(NETWORK)),
    fetch.encode_request(fetch.BaseLeavesRequest(ROOT)),
    fetch.encode_request(fetch.BaseRequest(ROOT, 3, 10, 100)),
]
VECTOR = np.random.default_rng(0).standard_normal(D).astype(np.float32)
FRAMES = [
    HEADER.pack(0, Kind.WINDOW, Flag.SYN, 1, 0) + HEADER.pack(0, Kind.DATA, 0, 1, 5) + b"hello",
    HEADER.pack(0, Kind.DATA, Flag.SYN | Flag.FIN, 3, 2) + b"hi",
    HEADER.pack(0, Kind.PING, Flag.SYN, 0, 9) + HEADER.pack(0, Kind.WINDOW, Flag.RST, 1, 0),
]
MANIFEST = Manifest(
    network=Network(name="test"),
    task=Task(name="language"),
    schema=Schema(hash="ab" * 32, parameters=D),
    genesis=Genesis(seed=1, root=ROOT.hex()),
)


# ---- targets -------------------------------------------------------------------------------------


def canonical(data: bytes) -> None:
    """What is taken is canonical: packing it again gives the same bytes."""
    assert pack(unpack(data, bytes_max=FRAME_BYTES_MAX)) == data


def header(data: bytes) -> None:
    """A taken header encodes to the bytes it came from."""
    assert decode_signed(data).encode() == data


def hello(data: bytes) -> None:
    """A taken hello encodes to the bytes it came from."""
    assert encode_hello(decode_hello(data, FRAME_BYTES_MAX)) == data


def sync(data: bytes) -> None:
    """A taken sync frame encodes to the bytes it came from."""
    assert encode_sync(decode_sync(data, FRAME_BYTES_MAX)) == data


def request(data: bytes) -> None:
    """A taken request encodes to the bytes it came from."""
    assert fetch.encode_request(fetch.decode_request(data)) == data


def response(data: bytes) -> None:
    """A taken response encodes to the bytes it came from."""
    assert fetch.encode_response(fetch.decode_response(data)) == data


def profile(data: bytes) -> None:
    """A taken profile encodes to the bytes it came from and has only plain text."""
    found = decode_profile(data)
    assert encode_profile(found) == data
    assert found.name.isprintable()


def proof(data: bytes) -> None:
    """No bytes prove a fork but two signed headers that conflict."""
    decode_proof(data)


def chunk(data: bytes) -> None:
    """A payload moves a copy by a finite vector, or not at all; the first byte picks the codec."""
    codec = CODECS[data[0] % len(CODECS)] if data else CODECS[0]
    target = np.zeros(D, np.float32)
    decode_add(codec, data[1:], target)
    assert np.isfinite(target).all()


def keyframe(data: bytes) -> None:
    """A taken keyframe is a finite vector of the right length and a bounded norm."""
    assert np.isfinite(vector_of(data, D, NORM_MAX)).all()


def frame(data: bytes) -> None:
    """The mux takes frames or ends the connection, and holds no more than its windows."""
    mux = Mux(_NoSocket(), False)  # type: ignore[arg-type]
    mux.feed(data)
    assert len(mux.streams) <= 16


def record(data: bytes) -> None:
    """No forged Noise message is opened."""
    opener = Opener(bytes(32))
    room = opener.room()[: len(data)]
    room[:] = data[: len(room)]
    opener.filled(len(room))
    assert not opener.opened()


class _NoSocket:
    """The mux's writer does not run here."""


def control(data: bytes) -> None:
    """A control request is one JSON map."""
    assert isinstance(parse_request(data), dict)


def invite(data: bytes) -> None:
    """A taken invite names a network, addresses and keys."""
    assert parse_invite(data.decode("latin-1")).addresses


def manifest(data: bytes) -> None:
    """A taken manifest has a network id."""
    assert len(parse_manifest(data).network_id) == 32


class _Conversation:
    """A protocol that a peer talks to for a while; then another one."""

    def __init__(self) -> None:
        self.left = 0

    def take(self, data: bytes) -> None:
        """Whatever a frame says, ``step`` returns, and the tables stay bounded."""
        if not self.left:
            self.settings = Settings(
                network=NETWORK, codecs={"2bit": payload_bytes("2bit", D)}, genesis_root=ROOT
            )
            self.at, self.left = 0.0, 200
            us = Identity(bytes([9]) * 32)
            self.protocol = Protocol(self.settings, us.public_key, us.sign, Random(0))
            self.protocol.step(ev.Connected(OTHER.public_key, 0.0))
            self.protocol.step(ev.Message(OTHER.public_key, HELLO, HELLOS[0], 0.0))
        self.left -= 1
        self.at += 0.2
        self.protocol.step(ev.Message(OTHER.public_key, SYNC, data, self.at))
        tables = self.protocol.statistics()["tables"]
        assert tables["streams"] <= self.settings.streams_max
        assert tables["members"] <= self.settings.members_max


BAD = (Malformed,)
TARGETS: dict[str, Target] = {
    "canonical": Target(canonical, BAD, [*HELLOS, *SYNCS, *REQUESTS]),
    "header": Target(header, BAD, [signed.encode() for signed in LOG]),
    "hello": Target(hello, BAD, HELLOS),
    "sync": Target(sync, BAD, SYNCS),
    "request": Target(request, BAD, REQUESTS),
    "response": Target(response, BAD, [fetch.encode_response(fetch.FetchResponse("ok", 100, 100))]),
    "profile": Target(profile, BAD, [encode_profile(PROFILE)]),
    "proof": Target(proof, BAD, [_fork()]),
    "chunk": Target(
        chunk, CodecError, [bytes([n]) + encode(codec, VECTOR) for n, codec in enumerate(CODECS)]
    ),
    "keyframe": Target(keyframe, CodecError, [VECTOR.astype("<f4").tobytes()]),
    "frame": Target(frame, ViolationError, FRAMES),
    "record": Target(record, SealError, [struct.pack("!H", 40) + bytes(40)], 6),
    "control": Target(control, ValueError, [b'{"do":"status"}\n', b'{"do":"peers","n":[1,2]}']),
    "invite": Target(
        invite,
        TapestryError,
        [f"tapestry:{NETWORK.hex()}?a=/ip4/192.0.2.1/tcp/1/p2p/{AUTHOR.peer_id}".encode()],
        4,
    ),
    "manifest": Target(manifest, TapestryError, [dump_manifest(MANIFEST).encode()], 1),
    "protocol": Target(_Conversation().take, (), [*SYNCS, *HELLOS], 3),
}
