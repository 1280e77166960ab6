"""The door in the wall: closed schemas, three digits, sealed memory. Hostile bytes: one error."""

import mmap
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import msgpack
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tapestry_p2p import link

Record = dict[str, Any]

DIGEST = "a" * 64
RECORDS_FROM_NODE: list[Record] = [
    {
        "t": "configure",
        "task": "language",
        "options": {"layers": 2, "learning_rate": 0.002, "schedule": "cosine"},
        "data": ["/a/b.txt"],
        "seed": 7,
        "threads": 1,
        "state_dir": "/s",
        "cache_dir": "/c",
        "text_socket": "",
        "schedule_steps": 0,
        "speed": 1.0,
        "judge": {
            "texts": {"fra": ["/v", "/t"]},
            "own": "fra",
            "every_steps": 20,
            "sovereign_from_step": 300,
        },
    },
    {"t": "start", "seq": 0, "round": 1, "step": 0, "digest": DIGEST},
    {"t": "train", "round": 1, "steps": 50, "last_round": 0},
    {"t": "correct", "seq": 3, "digest": DIGEST},
    {"t": "add", "seq": 1, "digest": DIGEST},
    {"t": "weigh", "seq": 0, "digest": DIGEST},
    {"t": "stop"},
]
VECTOR: Record = {
    "t": "vector",
    "seq": 1,
    "round": 1,
    "applied": 0,
    "added": 0,
    "skipped": 0,
    "steps": 50,
    "tokens": 25600,
    "loss": 3.14159,
    "seconds": 0.40004,
    "busy_s": 0.39996,
    "digest": DIGEST,
}
JUDGED: Record = {
    "t": "judged",
    "track": "sovereign",
    "step": 400,
    "best_step": 380,
    "ended": False,
    "apart": 0.123,
    "figures": {"loss": 2.34567, "bits_per_byte": 2.34567},
}
RECORDS_FROM_TRAINER: list[Record] = [
    {
        "t": "hello",
        "version": 1,
        "pid": 4711,
        "parameters": 70000,
        "schema": DIGEST,
        "isolated": True,
        "isolation": link.ISOLATION_LINES[0],
        "genesis_digest": DIGEST,
    },
    VECTOR,
    {"t": "applied", "seq": 2},
    {"t": "added", "seq": 2},
    {"t": "weighed", "better": True},
    JUDGED,
    {"t": "unmeasured"},
    {"t": "failed", "code": "nonfinite"},
]


@pytest.mark.parametrize("record", RECORDS_FROM_NODE, ids=lambda record: record["t"])
def test_orders_arrive_as_sent(record: Record) -> None:
    assert link.parse_from_node(link.pack_record(record)) == record
    with pytest.raises(link.LinkError):
        link.parse_from_trainer(link.pack_record(record))


@pytest.mark.parametrize("record", RECORDS_FROM_TRAINER, ids=lambda record: record["t"])
def test_the_trainers_records_are_closed(record: Record) -> None:
    parsed = link.parse_from_trainer(link.pack_record(record))
    assert parsed.keys() == record.keys()
    for key in record:
        fields = {name: value for name, value in parsed.items() if name != key}
        for bad in (fields, {**parsed, "note": "x"}, {**parsed, key: b"secret"}):
            with pytest.raises(link.LinkError):
                link.parse_from_trainer(msgpack.packb(bad))


def test_measurements_carry_three_digits_and_the_receiver_insists() -> None:
    parsed = link.parse_from_trainer(link.pack_record(VECTOR))
    assert (parsed["loss"], parsed["seconds"], parsed["busy_s"]) == (3.14, 0.4, 0.4)
    for loss in (3.14159, float("nan"), float("inf"), 3):
        with pytest.raises(link.LinkError):
            link.parse_from_trainer(msgpack.packb({**parsed, "loss": loss}))


def test_what_may_be_left_out_is_a_measurement_too() -> None:
    parsed = link.parse_from_trainer(link.pack_record({**VECTOR, "memory_mb": 312.44}))
    assert parsed["memory_mb"] == 312.0
    for memory in (312.44, float("inf"), "312", b"secret"):
        with pytest.raises(link.LinkError):
            link.parse_from_trainer(msgpack.packb({**parsed, "memory_mb": memory}))


def test_a_judgement_holds_known_figures_of_three_digits() -> None:
    parsed = link.parse_from_trainer(link.pack_record(JUDGED))
    assert parsed["figures"] == {"loss": 2.35, "bits_per_byte": 2.35}
    for figures in ({"loss": 2.34567}, {"text": 1.0}, {"loss": "2"}, {1: 2.0}, [2.0], None):
        with pytest.raises(link.LinkError):
            link.parse_from_trainer(msgpack.packb({**parsed, "figures": figures}))
    with pytest.raises(link.LinkError):
        link.parse_from_trainer(msgpack.packb({**parsed, "track": "another"}))


def test_a_map_may_not_be_written_another_way() -> None:
    plain = link.pack_record({"t": "applied", "seq": 2})
    longer = plain.replace(b"\x02", b"\xcd\x00\x02")  # the same number in three bytes
    assert msgpack.unpackb(longer) == msgpack.unpackb(plain)
    with pytest.raises(link.LinkError):
        link.parse_from_trainer(longer)


def test_our_own_bad_record_is_our_fault() -> None:
    for bad in ({"t": "nonsense"}, {"t": "applied", "seq": -1}, {"t": "applied"}):
        with pytest.raises(ValueError, match="record"):
            link.pack_record(bad)


@given(st.binary(max_size=200))
def test_any_bytes_give_a_record_or_a_link_error(packet: bytes) -> None:
    for parse in (link.parse_from_node, link.parse_from_trainer):
        try:
            parse(packet)
        except link.LinkError:
            continue


@given(st.dictionaries(st.text(max_size=8), st.recursive(st.integers(), st.lists, max_leaves=3)))
def test_any_map_gives_a_record_or_a_link_error(fields: Record) -> None:
    for kind in (*link.FROM_NODE, *link.FROM_TRAINER):
        packet = msgpack.packb({**fields, "t": kind}, default=str) if _packable(fields) else b""
        for parse in (link.parse_from_node, link.parse_from_trainer):
            try:
                assert parse(packet)["t"] == kind
            except link.LinkError:
                continue


def _packable(fields: Record) -> bool:
    try:
        msgpack.packb(fields)
    except (OverflowError, ValueError):
        return False
    return True


@pytest.fixture
def vectors() -> Iterator[link.SharedVectors]:
    made = link.SharedVectors.create(1000)
    yield made
    made.close()


def test_four_slots_hold_four_vectors(vectors: link.SharedVectors) -> None:
    other = link.SharedVectors.from_fd(os.dup(vectors.fileno()), 1000)
    written = {
        (way, seq): np.random.default_rng(seq).normal(size=1000).astype(np.float32) + len(way)
        for way in (link.IN, link.OUT)
        for seq in (1, 2)
    }
    digests = {slot: vectors.write(*slot, vector) for slot, vector in written.items()}
    for slot, vector in written.items():
        assert np.array_equal(other.read(*slot, digests[slot]), vector)
    other.close()


def test_a_read_vector_is_a_copy_and_checked(vectors: link.SharedVectors) -> None:
    digest = vectors.write(link.OUT, 1, np.ones(1000, np.float32))
    copy = vectors.read(link.OUT, 1, digest)
    vectors.write(link.OUT, 3, np.zeros(1000, np.float32))
    assert copy.all()
    with pytest.raises(link.LinkError):
        vectors.read(link.OUT, 1, digest)


def test_a_vector_of_another_length_or_type_is_our_fault(vectors: link.SharedVectors) -> None:
    wrongs: list[Any] = [np.ones(999, np.float32), np.ones(1000), np.ones((1000, 1), np.float32)]
    for wrong in wrongs:
        with pytest.raises(ValueError, match="want float32"):
            vectors.write(link.OUT, 0, wrong)


def test_the_memory_cannot_shrink_under_the_reader(vectors: link.SharedVectors) -> None:
    with pytest.raises(PermissionError):
        os.ftruncate(vectors.fileno(), mmap.PAGESIZE)


def test_unsealed_or_wrongly_sized_memory_is_refused(vectors: link.SharedVectors) -> None:
    unsealed = os.memfd_create("test", os.MFD_ALLOW_SEALING)
    os.ftruncate(unsealed, 16000)
    for fd, parameters in (
        (unsealed, 1000),
        (os.dup(vectors.fileno()), 1001),
        (os.open(os.devnull, os.O_RDONLY), 1000),
    ):
        with pytest.raises(link.LinkError):
            link.SharedVectors.from_fd(fd, parameters)
        with pytest.raises(OSError, match="Bad file descriptor"):
            os.fstat(fd)


def test_descriptors_travel_with_hello_and_a_closed_link_is_empty(
    vectors: link.SharedVectors,
) -> None:
    node, trainer = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with node:
        with trainer:
            link.send(trainer, RECORDS_FROM_TRAINER[0], [vectors.fileno()])
            packet, fds = link.receive(node, fds_max=1)
            assert link.parse_from_trainer(packet)["pid"] == 4711
            link.SharedVectors.from_fd(fds[0], 1000).close()
            link.send(trainer, RECORDS_FROM_TRAINER[0], [vectors.fileno()])
            with pytest.raises(link.LinkError):
                link.receive(node)
        assert link.receive(node) == (b"", [])


def test_the_door_itself_is_light() -> None:
    code = (
        "import sys, tapestry_p2p.link;"
        "print(*{'jax', 'numpy', 'trio', 'libp2p', 'flax'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == []
