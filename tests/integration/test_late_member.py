"""A member that comes late begins where the others are, and all hold the same bits of it."""

import json
from pathlib import Path
from typing import Any

import pytest
from integration_kit import TINY, answered, until

from tapestry_p2p.cli.testnet.cluster import Cluster, Member
from tapestry_p2p.cli.testnet.homes import prepare
from tapestry_p2p.cli.testnet.plan import make_plan
from tapestry_p2p.daemon.ask import ask

pytestmark = pytest.mark.integration

ROUNDS, HEAD_START = 24, 10


def _homes(tmp_path: Path) -> list[Any]:
    model = tmp_path / "model.json"
    model.write_text(json.dumps(TINY))
    plan = make_plan(
        members=4,
        byzantine=0,
        tolerate=None,
        attack="mirror",
        data="udhr",
        languages="eng",
        split=4,
        rounds=ROUNDS,
        inner_steps=40,
        rule="cs_plus",
        codec="2bit",
        model=str(model),
        seed=3,
        out=tmp_path / "out",
    )
    return prepare(plan, plan.rule, plan.out / "run").homes


def _status(member: Member) -> dict[str, Any]:
    return answered(member.home.paths.config, "status")


def _held(member: Member, author: str) -> Any:
    """Where a member's copy of an author stands, and its root."""
    copies = answered(member.home.paths.config, "copies")
    return copies.get("followed", {}).get(author) if copies else None


def test_a_late_member_adopts_and_mixes(tmp_path: Path) -> None:
    *early, late_home = _homes(tmp_path)
    with Cluster(early, tmp_path / "members.json", watch=lambda members: None) as cluster:
        cluster.wait_until_ready()
        first = cluster.members[0]
        until(lambda: _status(first).get("round", 0) >= HEAD_START, f"round {HEAD_START}")
        late = Member(late_home)
        late.start()
        try:
            until(lambda: _status(late).get("seq", -1) >= 0, "an entry of the late member")
            began = _status(late)
            me = began["id"]
            others = {_status(member)["id"] for member in cluster.members}
            assert len(began["adopted"]) == 3
            assert set(began["adopted"]) == others
            ask(late.home.paths.control_socket, {"do": "go"}, 5.0)
            mixed = until(lambda: _status(late)["mixed"]["authors"], "something mixed")
            assert {row["id"] for row in mixed} == others
            until(lambda: _status(late).get("finished"), "its last round")
            cluster.wait_until_finished(120)
            own = answered(late.home.paths.config, "copies")["own"]
            until(
                lambda: all(_held(member, me) == own for member in cluster.members),
                "the same bits of the late member everywhere",
            )
            verdicts = [_status(member)["verdicts"] for member in cluster.members]
        finally:
            late.let_go()
            assert late.process is not None
            late.process.terminate()
            code = late.process.wait(20)
    assert code == 0
    assert [table["reject"] for table in verdicts] == [{}, {}, {}]
    assert all(table["accept"].get("adopt") == 1 for table in verdicts)
    assert not any("fetch_root" in table["ignore"] for table in verdicts)
