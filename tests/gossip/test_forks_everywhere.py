"""A founder that forks, resumes and forks again: at no honest member does it ever weigh in full."""

from typing import Any

from tapestry_p2p.gossip.probation import SHARE
from tapestry_p2p.mix.loom import LoomSettings
from tapestry_p2p.sim.cluster import Cluster, Plan


class Founded(Cluster):
    """All are genesis members, the forker as well."""

    probation = 0

    def _topology(self, n: int, near: list[int]) -> dict[str, Any]:
        founders = frozenset(member.key for member in self.members)
        known = {"f": 1, "founders": founders, "probation_rounds": self.probation}
        return {**super()._topology(n, near), **known}


class OnProbation(Founded):
    """And whoever forked is new again for longer than the run."""

    probation = 50


def _shares(cluster: Cluster) -> list[float]:
    """The forker's share at each honest member that has a proof against it, or had one."""
    (forker,) = cluster.villains
    found = []
    for member in cluster.honest:
        assert member.protocol is not None
        if member.protocol.statistics()["accept"].get("fork"):
            found.append(member.protocol.share(forker.key))
    return found


def _play(kind: type[Founded]) -> tuple[Cluster, list[float]]:
    cluster = kind(
        Plan(seed=3, honest=5, byzantine=1, attack="equivocate", d=8, loom=LoomSettings(f=1))
    )
    seen: list[float] = []
    for _ in range(80):
        cluster.run(0.3)
        seen += _shares(cluster)
    return cluster, seen


def test_the_proof_is_everywhere_and_the_weight_stays_small_after_every_resume() -> None:
    cluster, seen = _play(OnProbation)
    assert len(_shares(cluster)) == 5, "every honest member had the proof"
    resumes = cluster.verdicts()["accept"]["resume"]
    assert resumes >= 5, "it came back, at more than one"
    assert set(seen) <= {0.0, SHARE}
    assert 0.0 in seen
    assert not cluster.doubly_signed()
    assert cluster.blamed() == 0


def test_without_probation_it_is_back_in_full_at_once() -> None:
    _, seen = _play(Founded)
    assert 1.0 in seen
