"""The door in the wall between node and trainer: a few record types and one shared memory.

Rule: nothing crosses that is not listed here. Every record has a closed schema (an unknown key,
type or size is a `LinkError`); measurements from the trainer carry 3 significant digits and no
more; vectors go through one sealed memory file of six slots. It knows neither what a record
means nor who sends it, and imports neither jax nor trio (numpy only when a vector is touched).

Transport: one AF_UNIX SOCK_SEQPACKET pair, one msgpack map per packet. Vector ``seq`` lives in
slot ``seq % 2`` of its direction, so at most two vectors per direction are under way. Whoever has
read a long one gives its memory back: what is not under way takes none.
"""

from __future__ import annotations

import array
import contextlib
import fcntl
import hashlib
import math
import mmap
import os
import socket
from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any

import msgpack

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

RECORD_BYTES_MAX = 65536
PARAMETERS_MAX = (1 << 30) - 1  # 4 GiB: the most that one byte string of a store's file can hold
COUNTER_MAX = (1 << 63) - 1
VERSION = 1
SIGNIFICANT_DIGITS = 3

FAILURE_CODES = (
    "data_missing",
    "data_too_small",
    "data_unreadable",
    "task_not_found",
    "task_error",
    "nonfinite",
    "start_too_far",
    "base_missing",
    "link",
)
# What a trainer may say of its isolation, and nothing else.
ISOLATION_LINES = (
    "own network namespace (root)",
    "own network namespace (user namespace)",
    "no network in the namespace it was started in",
    "not isolated: the system refused a network namespace",
    "not isolated: the proof failed",
)

TRACKS = ("alone", "together", "sovereign")  # the models whose worth is measured
FIGURES = ("loss", "bits_per_byte", "bits_per_char", "accuracy")

# trainer -> node; node -> trainer in answer to a vector; node -> trainer unasked
OUT, IN, MORE = "out", "in", "more"
_FIRST_SLOT = {OUT: 0, IN: 2, MORE: 4}
_SLOTS = 6
_BLOCK = 1 << 18  # parameters that are copied and hashed at a time
_FREED_FROM = 1 << 24  # parameters; shorter vectors keep their slots' memory: fresh pages cost time
_WORDS = 512  # 64-bit words that a digest adds up
_SEALS = fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SEAL


class LinkError(Exception):
    """The other side sent something that its schema does not allow."""


Check = Callable[[Any], bool]


def _text(chars_max: int) -> Check:
    return lambda value: isinstance(value, str) and len(value) <= chars_max


def _counter(value: Any) -> bool:
    return type(value) is int and 0 <= value <= COUNTER_MAX


def _number(value: Any) -> bool:
    return isinstance(value, float) and math.isfinite(value)


def _measure(value: Any) -> bool:
    return _number(value) and value == round_measure(value)


def _digest(value: Any) -> bool:
    return isinstance(value, str) and len(value) == 64 and set(value) <= set("0123456789abcdef")


def _flag(value: Any) -> bool:
    return isinstance(value, bool)


def _one_of(values: tuple[str, ...]) -> Check:
    return lambda value: isinstance(value, str) and value in values


def _paths(value: Any) -> bool:
    return isinstance(value, list) and all(_text(4096)(item) for item in value)


def _options(value: Any) -> bool:
    plain = (bool, int, float, str)
    return isinstance(value, dict) and all(
        isinstance(key, str) and isinstance(item, plain) for key, item in value.items()
    )


def _texts(value: Any) -> bool:
    return isinstance(value, dict) and all(
        isinstance(language, str) and _paths(paths) and len(paths) == 2
        for language, paths in value.items()
    )


def _judge(value: Any) -> bool:
    return value is None or (isinstance(value, dict) and not _faults(value, _JUDGE))


def _base(value: Any) -> bool:
    return isinstance(value, dict) and not _faults(value, _BASE)


def _share(value: Any) -> bool:
    return _number(value) and 0.0 < value <= 1.0


def _gain(value: Any) -> bool:
    return isinstance(value, dict) and not _faults(value, _GAIN)


def _figures(value: Any) -> bool:
    return isinstance(value, dict) and all(
        isinstance(name, str) and name in FIGURES and _measure(figure)
        for name, figure in value.items()
    )


def _parameters(value: Any) -> bool:
    return type(value) is int and 0 < value <= PARAMETERS_MAX


Schema = Mapping[str, Check]

_JUDGE: Schema = {
    "texts": _texts,
    "own": _text(256),
    "every_steps": _counter,
    "sovereign_from_step": _counter,
}

# A file of weights to start from; with a rank they are frozen, and adapters trained on them.
_BASE: Schema = {
    "path": _text(4096),
    "digest": _digest,
    "rank": _counter,
    "alpha": _number,
    "adapt": _paths,
}
_GAIN: Schema = {"share": _share, "alone": _flag, "sovereign": _flag}

FROM_NODE: Mapping[str, Schema] = {
    "configure": {
        "task": _text(4096),
        "options": _options,
        "data": _paths,
        "seed": _counter,
        "threads": _counter,
        "state_dir": _text(4096),
        "cache_dir": _text(4096),
        "text_socket": _text(4096),
        "schedule_steps": _counter,
        "speed": _share,
        "judge": _judge,
    },
    "start": {"seq": _counter, "round": _counter, "step": _counter, "digest": _digest},
    "train": {"round": _counter, "steps": _counter, "last_round": _counter},
    "pace": {"steps": _counter},
    "correct": {"seq": _counter, "digest": _digest},
    "add": {"seq": _counter, "digest": _digest},
    "weigh": {"seq": _counter, "digest": _digest},
    "stop": {},
}

FROM_TRAINER: Mapping[str, Schema] = {
    "hello": {
        "version": _counter,
        "pid": _counter,
        "parameters": _parameters,
        "schema": _digest,
        "isolated": _flag,
        "isolation": _one_of(ISOLATION_LINES),
        "genesis_digest": _digest,
    },
    "vector": {
        "seq": _counter,
        "round": _counter,
        "applied": _counter,
        "added": _counter,
        "steps": _counter,
        "skipped": _counter,
        "tokens": _counter,
        "loss": _measure,
        "seconds": _measure,
        "busy_s": _measure,
        "digest": _digest,
    },
    "applied": {"seq": _counter},
    "added": {"seq": _counter},
    "weighed": {"better": _flag},
    "judged": {
        "track": _one_of(TRACKS),
        "step": _counter,
        "best_step": _counter,
        "ended": _flag,
        "apart": _measure,
        "figures": _figures,
    },
    "unmeasured": {},  # the gain is measured no more, something in it failed
    "failed": {"code": _one_of(FAILURE_CODES)},
}

# May be left out by the node: `batch_seed` then follows from `seed` and the data, and without
# `gain` nothing is trained beside the shared model, without `base` from no file, and without
# `devices` on one of them. By the trainer: what an older one does not tell.
_OPTIONAL: Mapping[str, Schema] = {
    "configure": {"batch_seed": _counter, "gain": _gain, "base": _base, "devices": _counter},
    "hello": {"devices": _counter},
    "vector": {"memory_mb": _measure},  # resident, of the trainer
}


def round_measure(value: float) -> float:
    """``value`` at 3 significant digits: what a measurement may tell the node."""
    return float(f"{value:.{SIGNIFICANT_DIGITS - 1}e}")


def _rounded(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _rounded(item) for key, item in value.items()}
    return round_measure(value) if isinstance(value, float) else value


def pack_record(record: Mapping[str, Any]) -> bytes:
    """One packet for `record`, whose key ``t`` names its type.

    Floats of the trainer's records are rounded here. A record that does not fit its own schema
    is our own fault: ValueError.
    """
    kind = record.get("t")
    schema = FROM_TRAINER.get(str(kind))
    fields = {key: value for key, value in record.items() if key != "t"}
    if schema is not None:
        fields = {key: _rounded(value) for key, value in fields.items()}
    else:
        schema = FROM_NODE.get(str(kind))
    if schema is None:
        raise ValueError(f"no record type {kind!r}")
    if faults := _faults(fields, schema, _OPTIONAL.get(str(kind))):
        raise ValueError(f"bad {kind} record: {faults}")
    packed: bytes = msgpack.packb({"t": kind, **fields})
    if len(packed) > RECORD_BYTES_MAX:
        raise ValueError(f"{kind} record of {len(packed)} bytes exceeds {RECORD_BYTES_MAX}")
    return packed


def parse_from_trainer(packet: bytes) -> dict[str, Any]:
    """The record in a packet that the trainer sent. LinkError unless it fits exactly."""
    return _parse(packet, FROM_TRAINER)


def parse_from_node(packet: bytes) -> dict[str, Any]:
    """The record in a packet that the node sent. LinkError unless it fits exactly."""
    return _parse(packet, FROM_NODE)


def _parse(packet: bytes, schemas: Mapping[str, Schema]) -> dict[str, Any]:
    if len(packet) > RECORD_BYTES_MAX:
        raise LinkError("record too long")
    try:
        record = msgpack.unpackb(packet, strict_map_key=True)
    except (ValueError, msgpack.UnpackException, RecursionError) as error:
        raise LinkError("record is no msgpack map") from error
    if not isinstance(record, dict) or msgpack.packb(record) != packet:
        raise LinkError("record is no map in its shortest encoding")
    kind = record.pop("t", None)
    schema = schemas.get(kind) if isinstance(kind, str) else None
    if schema is None:
        raise LinkError("unknown record type")
    if faults := _faults(record, schema, _OPTIONAL.get(str(kind))):
        raise LinkError(f"bad {kind} record: {', '.join(faults)}")
    return {"t": kind, **record}


def _faults(fields: Mapping[str, Any], schema: Schema, optional: Schema | None = None) -> list[str]:
    """Names of keys that are missing, unknown, or whose value fails its check."""
    optional = optional or {}
    faults = [key for key in schema if key not in fields]
    for key, value in fields.items():
        check = schema.get(key) or optional.get(key)
        if check is None:
            faults.append("unknown key")
        elif not check(value):
            faults.append(key)
    return faults


def send(sock: socket.socket, record: Mapping[str, Any], fds: Iterable[int] = ()) -> None:
    """Send one record, with file descriptors attached if any."""
    attached = list(fds)
    ancillary = (
        [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", attached))] if attached else []
    )
    sock.sendmsg([pack_record(record)], ancillary)


def receive(sock: socket.socket, fds_max: int = 0) -> tuple[bytes, list[int]]:
    """Receive one packet and its descriptors; ``b""`` means that the other side is gone.

    LinkError if packet or descriptors were cut; descriptors received so far are closed then.
    """
    size = socket.CMSG_SPACE(fds_max * array.array("i").itemsize) if fds_max else 0
    try:
        packet, ancillary, flags, _ = sock.recvmsg(RECORD_BYTES_MAX, size, socket.MSG_CMSG_CLOEXEC)
    except ConnectionResetError:
        return b"", []
    fds = array.array("i")
    for level, kind, data in ancillary:
        if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
            fds.frombytes(data[: len(data) - len(data) % fds.itemsize])
    if flags & (socket.MSG_TRUNC | socket.MSG_CTRUNC):
        for fd in fds:
            os.close(fd)
        raise LinkError("packet was cut")
    return packet, list(fds)


class SharedVectors:
    """Six slots of float32[d] in one sealed memory file: two to the node, four to the trainer.

    The maker calls `create` and hands `fileno()` over; the other side calls `from_fd`, which
    takes the descriptor over, and checks seals and size, so that neither can shrink the file
    under the other. Whoever holds one calls `close`.
    """

    def __init__(self, fd: int, parameters: int) -> None:
        self.parameters = parameters
        self._fd = fd
        self._map = mmap.mmap(fd, _file_bytes(parameters))

    @classmethod
    def create(cls, parameters: int) -> SharedVectors:
        """Make and seal the memory for vectors of length ``parameters``."""
        if not _parameters(parameters):
            raise ValueError(f"{parameters} parameters: must be 1..{PARAMETERS_MAX}")
        fd = os.memfd_create("tapestry-vectors", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
        os.ftruncate(fd, _file_bytes(parameters))
        fcntl.fcntl(fd, fcntl.F_ADD_SEALS, _SEALS)
        return cls(fd, parameters)

    @classmethod
    def from_fd(cls, fd: int, parameters: int) -> SharedVectors:
        """Map the memory that the trainer made. LinkError (descriptor closed) if it isn't so."""
        try:
            seals = fcntl.fcntl(fd, fcntl.F_GET_SEALS)
            if seals & _SEALS != _SEALS or seals & fcntl.F_SEAL_WRITE:
                raise LinkError("shared memory is not sealed")
            if os.fstat(fd).st_size != _file_bytes(parameters):
                raise LinkError("shared memory has another size")
            return cls(fd, parameters)
        except OSError as error:
            os.close(fd)
            raise LinkError("shared memory cannot be mapped") from error
        except LinkError:
            os.close(fd)
            raise

    def fileno(self) -> int:
        """The descriptor to send along with ``hello``."""
        return self._fd

    def write(self, direction: str, seq: int, vector: NDArray[np.float32]) -> str:
        """Put float32[d] into the slot of ``seq``; its digest (64 hex)."""
        import numpy as np

        if vector.dtype != np.float32 or vector.shape != (self.parameters,):
            raise ValueError(f"want float32[{self.parameters}], got {vector.dtype}{vector.shape}")
        return self.write_parts(direction, seq, [vector])

    def write_parts(self, direction: str, seq: int, parts: Iterable[NDArray[np.float32]]) -> str:
        """`write` of float32[d] that is given in parts, in order: no vector is made of them."""
        slot, hasher, at, noted = self._slot(direction, seq), hashlib.sha256(), 0, 0
        for part in parts:
            for start in range(0, len(part), _BLOCK):
                block = slot[at : at + min(_BLOCK, len(part) - start)]
                block[:] = part[start : start + _BLOCK]
                at += len(block)
                while at - noted >= _BLOCK:
                    _note(hasher, slot[noted : noted + _BLOCK])
                    noted += _BLOCK
        if at != self.parameters:
            raise ValueError(f"want {self.parameters} parameters, got {at}")
        _note(hasher, slot[noted:])
        return hasher.hexdigest()

    def read(
        self,
        direction: str,
        seq: int,
        expected: str,
        empty: Callable[[int], NDArray[np.float32]] | None = None,
    ) -> NDArray[np.float32]:
        """A copy of the slot of ``seq``: float32[d], where ``empty`` makes it; once.

        LinkError if its digest is another.
        """
        import numpy as np

        slot, hasher = self._slot(direction, seq), hashlib.sha256()
        vector = np.empty(self.parameters, np.float32) if empty is None else empty(self.parameters)
        for start in range(0, self.parameters, _BLOCK):
            block = vector[start : start + _BLOCK]
            block[:] = slot[start : start + _BLOCK]
            _note(hasher, block)  # of the copy: what it holds nobody else can change
        if hasher.hexdigest() != expected:
            raise LinkError("vector does not match its digest")
        self._free(direction, seq)
        return vector

    def close(self) -> None:
        """Unmap and close; further use is an error."""
        with contextlib.suppress(BufferError):  # a thread still copies: it ends with that
            self._map.close()
        os.close(self._fd)

    def _slot(self, direction: str, seq: int) -> NDArray[np.float32]:
        import numpy as np

        return np.frombuffer(self._map, np.float32, self.parameters, self._start(direction, seq))

    def _start(self, direction: str, seq: int) -> int:
        return (_FIRST_SLOT[direction] + seq % 2) * 4 * self.parameters

    def _free(self, direction: str, seq: int) -> None:
        """Give back the memory of the whole pages of a slot that was read."""
        if self.parameters >= _FREED_FROM:
            start = self._start(direction, seq)
            first = -(-start // mmap.PAGESIZE) * mmap.PAGESIZE
            end = (start + 4 * self.parameters) // mmap.PAGESIZE * mmap.PAGESIZE
            self._map.madvise(mmap.MADV_REMOVE, first, end - first)


def _note(hasher: hashlib._Hash, block: NDArray[np.float32]) -> None:
    """Take a block into a digest: the sums of every 4 KiB, then what is left over.

    It shows a slot that is torn or stale, twenty times as fast as a hash of all bytes. Whoever
    writes a slot states its digest too, so that a stronger one would keep nobody out.
    """
    import numpy as np

    whole = len(block) // (2 * _WORDS) * (2 * _WORDS)
    sums = np.add.reduce(block[:whole].view(np.uint64).reshape(-1, _WORDS), axis=1)
    hasher.update(sums.data)
    hasher.update(block[whole:].data)


def _file_bytes(parameters: int) -> int:
    return _SLOTS * 4 * parameters
