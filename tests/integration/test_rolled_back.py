"""A member whose store went back in time asks, resumes above what others saw, forks nothing."""

import json
import shutil
from collections import defaultdict
from pathlib import Path
from typing import Any

import pytest
from integration_kit import TINY, answered, signed_by, tap_of, until

from tapestry_p2p.cli.testnet.cluster import Cluster, Member
from tapestry_p2p.cli.testnet.homes import prepare
from tapestry_p2p.cli.testnet.plan import make_plan
from tapestry_p2p.gossip.header import RESUME, Header

pytestmark = pytest.mark.integration

LONG, LATER = 12, 30  # rounds before the backup is made, and before it is restored
ROUNDS = 60


class Watched:
    """A cluster of three, and every header that its first member signed."""

    def __init__(self, cluster: Cluster) -> None:
        self.cluster = cluster
        self.first, *self.others = cluster.members
        self.headers: dict[tuple[bytes, int], set[Header]] = defaultdict(set)

    def look(self) -> dict[str, Any]:
        home = self.first.home.paths.config
        for header in signed_by(home):
            self.headers[header.incarnation, header.seq].add(header)
        return answered(home, "status")

    def round(self) -> int:
        return int(self.look().get("round", 0))

    def stop(self, member: Member) -> None:
        assert member.process is not None
        member.let_go()
        member.process.terminate()
        assert member.process.wait(10) == 0

    def start(self, member: Member) -> None:
        member.start()
        member.went = False
        until(lambda: answered(member.home.paths.config, "status"), "an answer")


@pytest.fixture
def cluster(tmp_path: Path) -> Cluster:
    model = tmp_path / "model.json"
    model.write_text(json.dumps(TINY))
    plan = make_plan(
        members=3,
        byzantine=0,
        tolerate=None,
        attack="mirror",
        data="udhr",
        languages="eng,fra,spa",
        split=1,
        rounds=ROUNDS,
        inner_steps=40,
        rule="cs_plus",
        codec="2bit",
        model=str(model),
        seed=3,
        out=tmp_path / "out",
    )
    prepared = prepare(plan, plan.rule, plan.out / "run")
    for home in prepared.homes:
        home.environment.update(tap_of(home.paths.config))
    register = plan.out / "members.json"
    return Cluster(prepared.homes, register, watch=lambda members: None)


def test_a_restored_backup_resumes_and_forks_nothing(cluster: Cluster, tmp_path: Path) -> None:
    with cluster:
        cluster.wait_until_ready()
        watched = Watched(cluster)
        first = watched.first
        state = first.home.paths.state
        until(lambda: watched.round() >= LONG, f"round {LONG}")
        watched.stop(first)
        shutil.copytree(state, tmp_path / "backup")
        before = len(watched.headers)
        watched.start(first)
        cluster.revive()
        until(lambda: watched.round() >= LATER, f"round {LATER}")
        watched.stop(first)
        watched.look()
        head = max(seq for _, seq in watched.headers)
        assert len(watched.headers) > before + 5
        assert len({incarnation for incarnation, _ in watched.headers}) == 1

        shutil.rmtree(state)
        shutil.copytree(tmp_path / "backup", state)
        watched.start(first)
        assert "asking" in watched.look()["state"]
        cluster.revive()
        cluster.wait_until_finished(120)
        watched.look()
        equal = cluster.wait_until_equal()
        seen = [answered(m.home.paths.config, "peers")["peers"] for m in watched.others]
    check(watched, head)
    assert equal == dict.fromkeys(equal, True)
    rows = [row for rows in seen for row in rows]
    assert len(rows) == 4
    assert not any(row["weight_zero"] for row in rows)
    log = (first.home.paths.config / "node.log").read_text()
    assert "a peer knows entry" in log
    assert "resumed our stream" in log
    assert first.status["keyframe_bytes_sent"] > 0  # its copy is the older one: taken whole
    assert [member.exit_code for member in cluster.members] == [0, 0, 0]


def check(watched: Watched, head: int) -> None:
    """One hash for each seq of an incarnation; the second one begins above all that was shown."""
    assert all(len({h.hash for h in found}) == 1 for found in watched.headers.values())
    resumes = {h for found in watched.headers.values() for h in found if h.kind == RESUME}
    assert len(resumes) == 1
    resume = resumes.pop()
    assert resume.seq > head
    assert len({incarnation for incarnation, _ in watched.headers}) == 2
    after = [seq for incarnation, seq in watched.headers if incarnation == resume.incarnation]
    assert sorted(after) == list(range(resume.seq, max(after) + 1))
    assert max(after) > resume.seq + 5
