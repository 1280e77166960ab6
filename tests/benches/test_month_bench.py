"""benches/month.py: it looks into every table, finds a planted leak, and some days show none."""

from collections import deque

import pytest

from benches.month import BOUNDS, Month, judged, report, show, tables


class Slotted:
    __module__ = "tapestry_p2p.made_here"  # as if it were ours
    __slots__ = ("names",)
    names: dict[str, int]


class Holder:
    __module__ = "tapestry_p2p.made_here"


def holder() -> Holder:
    """Something of ours with containers of all kinds."""
    outer, inner = Holder(), Slotted()
    inner.names = {"a": 1, "b": 2}
    vars(outer).update(pair=(inner, [inner]), ends=deque([1], maxlen=7), empty=set())
    return outer


def test_every_container_is_seen_also_those_inside_others() -> None:
    assert tables(holder()) == {
        "Holder.pair": 2, "Holder.ends": 1, "Holder.empty": 0, "Slotted.names": 2,
    }  # fmt: skip
    assert BOUNDS["Holder.ends"] == 7


@pytest.mark.parametrize("growth", [1, 2, 10])
def test_a_table_that_grows_is_not_flat_and_one_that_wobbles_is(growth: int) -> None:
    looks = range(120)  # thirty days
    assert not judged("x", [20 + growth * look for look in looks]).flat
    assert judged("x", [20 + 2 * (look % growth) for look in looks]).flat


def test_a_table_may_fill_up_to_its_own_bound() -> None:
    tables(holder())
    assert judged("Holder.ends", [look // 20 for look in range(120)]).flat
    assert not judged("Holder.ends", list(range(120))).flat


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
