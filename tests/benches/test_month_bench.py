"""benches/month.py: it looks into every table, finds a planted leak, and some days show none."""

from collections import deque

import pytest

from benches.month import BOUNDS, Month, judged, report, show, tables
from tapestry_p2p.gossip.bucket import Bucket


def holder() -> Bucket:
    """Something of ours with containers of all kinds."""
    outer, inner = Bucket(1.0, 1.0), Bucket(1.0, 1.0)
    inner.__dict__["names"] = {"a": 1, "b": 2}
    outer.__dict__.update(pair=(inner, [inner]), ends=deque([1], maxlen=7), empty=set())
    return outer


def test_every_container_is_seen_also_those_inside_others() -> None:
    assert tables(holder()) == {
        "Bucket.pair": 2, "Bucket.ends": 1, "Bucket.empty": 0, "Bucket.names": 2,
    }  # fmt: skip
    assert BOUNDS["Bucket.ends"] == 7


@pytest.mark.parametrize("growth", [1, 2, 10])
def test_a_table_that_grows_is_not_flat_and_one_that_wobbles_is(growth: int) -> None:
    looks = range(120)  # thirty days
    assert not judged("x", [20 + growth * look for look in looks]).flat
    assert judged("x", [20 + 2 * (look % growth) for look in looks]).flat


def test_a_table_may_fill_up_to_its_own_bound() -> None:
    tables(holder())
    assert judged("Bucket.ends", [look // 20 for look in range(120)]).flat
    assert not judged("Bucket.ends", list(range(120))).flat


@pytest.mark.integration
def test_some_days_show_no_growth_and_the_planted_leak_is_found() -> None:
    month = Month(4.0, 7, 1, leaks=True)
    month.run()
    found = report(month)
    assert found["growing"] == ["Pursuit.leak"], show(found, 4.0)
    assert {"OwnStream.kept", "Link.heads", "Loom._ring"} <= set(month.series)
    assert found["counts"]["crashed"] > 0
    assert found["counts"]["restarted"] > 0
    assert month.rounds > 1000
