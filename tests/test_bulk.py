"""bulk.py: documents are msgpack's own bytes, arrays in them are views, long vectors are files."""

import errno
import os
import weakref
from pathlib import Path
from typing import Any

import msgpack
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tapestry_p2p import bulk

plain = st.one_of(
    st.none(), st.booleans(), st.integers(-(2**63), 2**64 - 1), st.floats(allow_nan=False),
    st.text(max_size=300), st.binary(max_size=300),
)  # fmt: skip
documents = st.recursive(
    plain,
    lambda inner: st.one_of(
        st.lists(inner, max_size=20), st.dictionaries(st.text(max_size=40), inner, max_size=20)
    ),
    max_leaves=40,
)


def as_bytes(value: Any) -> Any:
    if isinstance(value, memoryview):
        return bytes(value)
    if isinstance(value, list):
        return [as_bytes(item) for item in value]
    return {k: as_bytes(v) for k, v in value.items()} if isinstance(value, dict) else value


@given(documents)
def test_a_document_is_msgpacks_own(document: Any) -> None:
    packed = b"".join(bulk.pieces(document))
    assert packed == msgpack.packb(document)
    assert as_bytes(bulk.views(memoryview(packed))) == document


@pytest.mark.parametrize("size", [0, 1, 255, 256, 65_535, 65_536, 3_000_000])
def test_an_array_stands_for_its_bytes(size: int) -> None:
    array = np.arange(size, dtype=np.uint8)
    floats = np.linspace(0, 1, size, dtype=np.float32)
    packed = b"".join(bulk.pieces({"a": array, "b": [floats], "c": memoryview(array.data)}))
    raw = {"a": array.tobytes(), "b": [floats.tobytes()], "c": array.tobytes()}
    assert packed == msgpack.packb(raw)
    assert bulk.views(memoryview(packed))["b"][0] == floats.tobytes()


@given(documents, st.integers(0, 200))
def test_a_document_cut_short_is_refused(document: Any, cut: int) -> None:
    packed = msgpack.packb([document, b"end"])
    with pytest.raises(ValueError, match="short"):
        bulk.views(memoryview(packed[: max(0, len(packed) - 1 - cut)]))
    with pytest.raises(ValueError, match="more than one"):
        bulk.views(memoryview(packed + b"\x00"))


def test_what_no_document_of_ours_holds_is_refused() -> None:
    with pytest.raises(ValueError, match="no part"):
        bulk.views(memoryview(msgpack.packb(msgpack.Timestamp(1))))


def rss_kb() -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmRSS"))


def test_a_long_vector_is_a_file_that_can_leave_the_memory(tmp_path: Path) -> None:
    shelf = bulk.Shelf(tmp_path, mapped_from=1000)
    vector = shelf.empty(8 << 20)
    before = rss_kb()
    vector[:] = 1.5
    assert rss_kb() - before > 30_000
    shelf.settle()
    assert rss_kb() - before < 3_000
    assert (vector == 1.5).all()
    assert list(tmp_path.iterdir()) == []  # no name leads to it
    gone = weakref.ref(vector.base)
    del vector
    assert gone() is None
    assert shelf.empty(999).base is None


def test_a_full_disk_means_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(fd: int, offset: int, length: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "posix_fallocate", full)
    vector = bulk.Shelf(tmp_path, mapped_from=10).empty(20)
    vector[:] = 2
    assert vector.sum() == 40


def test_a_file_is_read_by_the_piece(tmp_path: Path) -> None:
    content = np.random.default_rng(1).bytes(9 << 20)
    (tmp_path / "file").write_bytes(content)
    (tmp_path / "empty").write_bytes(b"")
    with (tmp_path / "file").open("rb") as file, (tmp_path / "empty").open("rb") as empty:
        assert b"".join(bulk.read(file.fileno(), 5, 6 << 20)) == content[5 : 5 + (6 << 20)]
        assert b"".join(bulk.read(file.fileno(), 5, 1 << 40)) == content[5:]
        data = bulk.mapped(file.fileno())
        assert bytes(bulk.mapped(empty.fileno())) == b""
    found = bulk.vector(data, lambda d: np.empty(d, np.float32), lambda: None)
    assert found.tobytes() == content
