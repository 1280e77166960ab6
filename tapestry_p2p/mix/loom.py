"""The Loom round: train, publish a coded difference, draw the neighbourhood in robustly.

Knows vectors and own entry numbers; not time, bytes on a wire, or who the neighbours are. A step
is proposed, made durable by the caller, then committed: a proposal changes nothing.

  PUBLISH  q = C(y - own);  own += decode(q);  P += the pull of the round that ends
                                                 y: what training made of x, corrections included
                                                 P: all pull that ``own`` holds
  MIX      z_j  = (copy_j - P) - (own - P)@j     neighbour seen from where we stood when its header
                                                 first arrived, less the pull applied since
           m    = own + sum_j w_j clip(z_j, tau) robust mean of the neighbourhood
           mom  = rho mom + (1 - rho)(m - m_prev)  over the neighbours common to both rounds
           u    = mom min(1, ||D|| / ((1 - mu) ||mom||)),  D = y - x      trust clip
           pull = gamma (m - own);  x' = y + mu u + pull
  APPLY    the trainer, which never waited, adds x' - y at its next step boundary
  NEWS     a neighbour publishes before our next round: MIX again with its newest copy, and apply
           how the round's pull changes. However often, a round pulls once: the rule's bound holds.

A round publishes first and mixes news at once, so that neighbours who train side by side see one
another's newest work (docs/decisions/0006). Views: ``current`` takes z_j = copy_j - own;
``applied_pull`` as above; ``naive`` leaves P out and diverges when speeds differ (the control that
must fail; no manifest may name it).
"""

from collections.abc import Hashable, Mapping
from dataclasses import dataclass
from typing import Generic, TypeVar

import numpy as np

from tapestry_p2p.mix.codec import Vector, decode, encode
from tapestry_p2p.mix.copy import PublicCopy, norm
from tapestry_p2p.mix.rules import Report, clipped
from tapestry_p2p.mix.topology import enough_live

Author = TypeVar("Author", bound=Hashable)
VIEWS = ("applied_pull", "current")


@dataclass(frozen=True, slots=True)
class LoomSettings:
    """The round's knobs, equal for all members (the manifest's [mixing] and [streams])."""

    rule: str = "cs_plus"
    f: int = 0
    gamma: float = 1.0  # higher: faster agreement; beyond 1 it overshoots
    mu: float = 0.4  # higher: makes up for what clipping takes; more overshoots
    rho: float = 0.6  # higher: smoother momentum, slower to turn
    codec: str = "2bit"
    ttl: int = 16  # own entries after which a silent neighbour leaves the mean
    view: str = "current"


@dataclass(frozen=True, slots=True)
class Difference:
    """A coded step of the own copy, not yet in force."""

    payload: bytes
    vector: Vector  # decode(payload), float32[d]


@dataclass(frozen=True, slots=True)
class Mixing(Generic[Author]):
    """What mixing makes of y, not yet in force. Vectors are float32[d]."""

    x: Vector
    correction: Vector  # what the trainer adds
    pull: Vector  # of the whole round so far: gamma * (m - own)
    momentum: Vector | None  # None: news between two rounds
    pulls: dict[Author, Vector]  # w_j clip(z_j, tau)
    authors: tuple[Author, ...]
    report: Report | None  # None: nothing was mixed


class Loom(Generic[Author]):
    """One member's rounds. Owns x, the applied pull P, the momentum and the ring of views."""

    def __init__(self, settings: LoomSettings, x: Vector, own: PublicCopy) -> None:
        self.settings = settings
        self.own = own
        self.x: Vector = np.array(x, dtype=np.float32)
        self.latest: Vector = self.x  # where a restart begins: y once published, then x'
        self.rounds = 0  # own entries since start: the clock of TTL and views
        self._applied: Vector = np.zeros_like(self.x)  # P
        self._pull: Vector = self._applied  # of the running round
        self._momentum: Vector | None = None
        self._before: tuple[Vector, dict[Author, Vector]] | None = None
        self._ring: dict[int, Vector] = {}
        self._arrived: dict[tuple[Author, int], int] = {}
        self._view: dict[Author, int] = {}

    def arrived(self, author: Author, seq: int) -> None:
        """The header of ``author``'s entry ``seq`` arrived here for the first time, now."""
        self._arrived.setdefault((author, seq), self.rounds)
        self._snapshot()

    def decoded(self, author: Author, seq: int) -> None:
        """The author's copy now stands at ``seq``: see it from where its header found us."""
        at = self._arrived.get((author, seq), self.rounds)
        if at == self.rounds:
            self._snapshot()
        self._view[author] = at
        for key in [k for k in self._arrived if k[0] == author and k[1] <= seq]:
            del self._arrived[key]

    def forget(self, author: Author) -> None:
        """The author is no neighbour any more."""
        self._view.pop(author, None)
        for key in [k for k in self._arrived if k[0] == author]:
            del self._arrived[key]

    def fresh(self, author: Author) -> bool:
        """Whether the author's view is at most ``ttl`` own entries old."""
        at = self._view.get(author)
        return at is not None and self.rounds - at <= self.settings.ttl and at in self._ring

    # -- publish

    def difference(self, y: Vector) -> Difference:
        """The coded step from the own copy to ``y`` float32[d]. CodecError if y is not finite."""
        payload = encode(self.settings.codec, y - self.own.vector)
        return Difference(payload, decode(self.settings.codec, payload, len(y)))

    def published(self, difference: Difference, y: Vector) -> None:
        """The difference to ``y`` is durable and out: the own copy and the clock move."""
        self.own.add(difference.vector)
        self.latest = y
        self._applied = self._applied + self._pull
        self._pull = np.zeros_like(self.x)
        self.rounds += 1
        oldest = self.rounds - self.settings.ttl
        needed = {*self._view.values(), *self._arrived.values()}
        self._ring = {t: q for t, q in self._ring.items() if t in needed and t >= oldest}
        self._arrived = {k: t for k, t in self._arrived.items() if t >= oldest}

    # -- mix

    def mix(self, y: Vector, copies: Mapping[Author, Vector], neighbours: int) -> Mixing[Author]:
        """Draw the neighbours' public copies in, with momentum: once a round, after publishing.

        Every weight is 1/(neighbours+1). ``copies`` leaves out whoever must not count (forked,
        barred); stale ones are left out here. An absent neighbour's weight stays with self.
        Changes nothing.
        """
        return self._mix(y, copies, neighbours, once=True)

    def mix_news(self, copies: Mapping[Author, Vector], neighbours: int) -> Mixing[Author]:
        """The round's mixing once more, with what neighbours published since; at any time."""
        return self._mix(self.x, copies, neighbours, once=False)

    def _mix(
        self, y: Vector, copies: Mapping[Author, Vector], neighbours: int, once: bool
    ) -> Mixing[Author]:
        s = self.settings
        authors = tuple(a for a in copies if self.fresh(a))
        report: Report | None = None
        pulls: dict[Author, Vector] = {}
        if authors and enough_live(len(authors) + 1, s.f):
            weights = np.full(len(authors), 1.0 / (max(neighbours, len(authors)) + 1))
            z = [self._seen(a, copies[a]) for a in authors]
            parts, report = clipped(s.rule, z, weights, s.f)
            pulls = dict(zip(authors, parts, strict=True))
        pull = np.zeros_like(self.x)
        for part in pulls.values():
            pull += part
        pull *= np.float32(s.gamma)
        correction = pull - self._pull
        momentum = self._next_momentum(pulls) if once else None
        if momentum is not None and report is not None:
            correction += np.float32(s.mu * self._trust(y, momentum)) * momentum
        return Mixing(y + correction, correction, pull, momentum, pulls, authors, report)

    def mixed(self, mixing: Mixing[Author]) -> None:
        """Put a mixing in force: x, P, momentum."""
        self.x = self.latest = mixing.x
        self._pull = mixing.pull
        if mixing.momentum is not None:
            self._before = (self.own.vector.copy(), mixing.pulls)
            self._momentum = mixing.momentum

    def _snapshot(self) -> None:
        """Remember where we stand, in coordinates that a later pull does not move."""
        if self.rounds not in self._ring:
            if self.settings.view == "applied_pull":
                self._ring[self.rounds] = self.own.vector - self._applied
            else:
                naive = self.settings.view == "naive"
                nothing = np.empty(0, np.float32)
                self._ring[self.rounds] = self.own.vector.copy() if naive else nothing

    def _seen(self, author: Author, copy: Vector) -> Vector:
        """z_j float32[d]."""
        if self.settings.view == "current":
            return copy - self.own.vector
        then = self._ring[self._view[author]]
        return copy - then if self.settings.view == "naive" else copy - self._applied - then

    def _next_momentum(self, pulls: dict[Author, Vector]) -> Vector:
        """EMA of the neighbourhood mean's step, over the neighbours common to both rounds."""
        if self._before is None or self._momentum is None:
            return np.zeros_like(self.x)
        own_before, pulls_before = self._before
        step = self.own.vector - own_before
        for author in pulls.keys() & pulls_before.keys():
            step += pulls[author] - pulls_before[author]
        rho = np.float32(self.settings.rho)
        return rho * self._momentum + (np.float32(1) - rho) * step

    def _trust(self, y: Vector, momentum: Vector) -> float:
        """The factor that keeps ||u|| <= ||D|| / (1 - mu)."""
        length = norm(momentum)
        allowed = norm(y - self.x) / (1 - self.settings.mu)
        return min(1.0, allowed / length) if length > 0 else 0.0
