"""Jobs on all cores: in order, at the same time where there are several, and nothing is left."""

import os
import threading

import numpy as np
import pytest

from tapestry_p2p.daemon.cores import on_all_cores
from tapestry_p2p.mix.rules import mix


def test_results_come_in_order_and_no_thread_stays() -> None:
    before = threading.active_count()
    assert on_all_cores(lambda j: j * j, range(0, 50, 5)) == [j * j for j in range(0, 50, 5)]
    assert on_all_cores(str, []) == []
    assert threading.active_count() == before


def test_two_cores_work_at_the_same_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _pid: {0, 1})
    both = threading.Barrier(2, timeout=20)  # broken unless two are here together
    assert sorted(on_all_cores(lambda _j: both.wait(), range(2))) == [0, 1]  # type: ignore[type-var]


def test_one_core_needs_no_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _pid: {0})
    here = threading.get_ident()
    assert on_all_cores(lambda _j: threading.get_ident(), range(3)) == [here] * 3


def test_a_rule_mixes_to_the_same_bits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _pid: {0, 1, 2})
    points = np.random.default_rng(0).standard_normal((6, 1_100_000)).astype(np.float32)
    weights = np.full(5, 1 / 6)
    alone, _ = mix("cs_plus", points[0], points[1:], weights, f=1)
    together, _ = mix("cs_plus", points[0], points[1:], weights, f=1, each=on_all_cores)
    assert together.tobytes() == alone.tobytes()
