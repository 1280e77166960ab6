"""A real member rolls back, running and stopped; those who follow it hold its copy bit for bit."""

import json
from pathlib import Path

import pytest
from integration_kit import TINY, answered, signed_by, tap_of, tapestry, until

from tapestry_p2p.cli.testnet.cluster import Cluster, Member
from tapestry_p2p.cli.testnet.homes import prepare
from tapestry_p2p.cli.testnet.plan import make_plan
from tapestry_p2p.gossip.header import RESUME, Header

pytestmark = pytest.mark.integration


@pytest.fixture
def cluster(tmp_path: Path) -> Cluster:
    model = tmp_path / "model.json"
    model.write_text(json.dumps(TINY))
    plan = make_plan(
        members=3, byzantine=0, tolerate=None, attack="mirror", data="udhr",
        languages="eng,fra,spa", split=1, rounds=90, inner_steps=40, rule="cs_plus", codec="2bit",
        model=str(model), seed=3, out=tmp_path / "out",
    )  # fmt: skip
    prepared = prepare(plan, plan.rule, plan.out / "run")
    for home in prepared.homes:
        home.environment.update(tap_of(home.paths.config))
    return Cluster(prepared.homes, plan.out / "members.json", watch=lambda members: None)


def test_followers_follow_bit_for_bit(cluster: Cluster) -> None:
    with cluster:
        cluster.wait_until_ready()
        first, *others = cluster.members
        home = first.home.paths.config

        def round_() -> int:
            return int(answered(home, "status").get("round", 0))

        until(lambda: round_() >= 20, "round 20")
        running = tapestry(home, "rollback", "--rounds", "9", "--json")
        assert running.returncode == 0, running.stderr
        told = json.loads(running.stdout)
        assert told["taken"] == told["round"] - 9
        until(lambda: round_() > told["round"] + 2, "rounds after it")
        assert resumes(first)[-1].seq == told["seq"]
        assert answered(home, "status")["trainer"]["restarts"] == 0, "no failure of its trainer"

        assert first.process is not None
        first.let_go()
        first.process.terminate()
        assert first.process.wait(10) == 0
        stopped = tapestry(home, "rollback", "--rounds", "5")
        assert stopped.returncode == 0, stopped.stderr
        assert tapestry(home, "rollback", "--rounds", "5000").returncode == 6
        first.start()
        first.went = False
        until(lambda: answered(home, "status"), "an answer")
        cluster.revive()
        cluster.wait_until_finished(180)
        equal = cluster.wait_until_equal()
        seen = [answered(m.home.paths.config, "peers")["peers"] for m in others]
    assert equal == dict.fromkeys(equal, True)
    assert len(resumes(first)) >= 2
    headers = signed_by(home)
    assert len({header.hash for header in headers}) == len({header.seq for header in headers})
    assert not any(row["weight_zero"] for rows in seen for row in rows)
    assert [member.exit_code for member in cluster.members] == [0, 0, 0]


def resumes(member: Member) -> list[Header]:
    return [h for h in signed_by(member.home.paths.config) if h.kind == RESUME]
