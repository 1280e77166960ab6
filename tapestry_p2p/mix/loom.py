"""The Loom round: train, publish a coded difference, draw the neighbourhood in robustly.

Knows vectors and own entry numbers; not time, bytes on a wire, or who the neighbours are. A step
is proposed, made durable by the caller, then committed: a proposal changes nothing.

  OUTER    D = t - x;  y = x + eta D             t: what training made of x, corrections included
  PUBLISH  q = C(y - own);  own += decode(q);  P += the pull of the round that ends
                                                 P: all pull that ``own`` holds
  MIX      z_j  = (copy_j - P) - (own - P)@j     neighbour seen from where we stood when its header
                                                 first arrived, less the pull applied since
           m    = own + sum_j w_j clip(z_j, tau) robust mean of the neighbourhood
           mom  = rho mom + (1 - rho)(m - m_prev)  over the neighbours common to both rounds
                                                 where a rule tells one's part from another's
           u    = mom min(1, eta ||D|| / ((1 - mu) ||mom||))              trust clip
           pull = gamma (m - own);  x' = y + mu u + pull
  APPLY    the trainer, which never waited, adds x' - t at its next step boundary
  NEWS     a neighbour publishes before our next round: MIX again with its newest copy, and apply
           how the round's pull changes. However often, a round pulls once: the rule's bound holds.

A round publishes first and mixes news at once, so that neighbours who train side by side see one
another's newest work (docs/decisions/0006). Views: ``current`` takes z_j = copy_j - own;
``applied_pull`` as above; ``naive`` leaves P out and diverges when speeds differ (the control that
must fail; no manifest may name it).
"""

from collections.abc import Callable, Hashable, Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Generic, TypeVar

import numpy as np

from tapestry_p2p.mix.codec import Vector, decode, encode
from tapestry_p2p.mix.copy import PublicCopy, norm
from tapestry_p2p.mix.rules import Report, mix
from tapestry_p2p.mix.rules.base import Each, Weights
from tapestry_p2p.mix.space import BLOCK, MEMORY, Space
from tapestry_p2p.mix.topology import enough_live

Author = TypeVar("Author", bound=Hashable)
Shares = Mapping[Author, float]  # of a neighbour's weight, where it is less than 1
VIEWS = ("applied_pull", "current")
OWED_MAX = 64  # who left and may come back; strangers come and go for ever


@dataclass(frozen=True, slots=True)
class LoomSettings:
    """The round's knobs, equal for all members (the manifest's [mixing] and [streams])."""

    rule: str = "cs_plus"
    f: int = 0
    eta: float = 1.0  # higher: the mean moves faster, members stand farther apart
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
class Mean(Generic[Author]):
    """A robust mean m = own + pull, and what it takes to leave one neighbour out of it again.

    Neighbour j's part of the pull is shares[j] * (copy_j - base_j); no shares: a coordinate rule.
    """

    own: Vector
    pull: Vector
    authors: frozenset[Author]
    shares: dict[Author, float]
    bases: dict[Author, Vector]  # empty: own; else by reference, neighbours share them
    copies: dict[Author, int]  # which of the author's copies it was
    owed: tuple[Author, ...] = ()  # left with their part: they come back with it


@dataclass(frozen=True, slots=True)
class Mixing(Generic[Author]):
    """What mixing makes of y, not yet in force. Vectors are float32[d]."""

    x: Vector
    correction: Vector  # what the trainer adds
    pull: Vector  # of the whole round so far: gamma * (m - own)
    momentum: Vector | None  # None: news between two rounds
    mean: Mean[Author] | None  # None: the same
    authors: tuple[Author, ...]
    report: Report | None  # None: nothing was mixed


class Loom(Generic[Author]):
    """One member's rounds. Owns x, the applied pull P, the momentum and the ring of views."""

    def __init__(
        self,
        settings: LoomSettings,
        x: Vector,
        own: PublicCopy,
        each: Each = map,
        space: Space = MEMORY,
    ) -> None:
        """``each`` runs the rule's jobs: `map`, or a thread pool's. Vectors live in ``space``."""
        self.settings = settings
        self.own = own
        self._each, self._space = each, space
        self.x: Vector = space.copy(x)
        self.latest: Vector = self.x  # where a restart begins: y once published, then x'
        self.rounds = 0  # own entries since start: the clock of TTL and views
        self._applied: Vector | None = None  # P, where views need it
        self._pull: Vector | None = None  # of the running round
        self._momentum: Vector | None = None
        self._before: Mean[Author] | None = None
        self._ring: dict[int, Vector] = {}
        self._arrived: dict[tuple[Author, int], int] = {}
        self._view: dict[Author, int] = {}
        self._copy: dict[Author, int] = {}  # a number for each state of an author's copy
        self._copies = 0

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
        self._copies += 1
        self._copy[author] = self._copies
        for key in [k for k in self._arrived if k[0] == author and k[1] <= seq]:
            del self._arrived[key]

    def forget(self, author: Author) -> None:
        """The author is no neighbour any more."""
        self._view.pop(author, None)
        self._copy.pop(author, None)
        for key in [k for k in self._arrived if k[0] == author]:
            del self._arrived[key]

    def fresh(self, author: Author) -> bool:
        """Whether the author's view is at most ``ttl`` own entries old."""
        at = self._view.get(author)
        return at is not None and self.rounds - at <= self.settings.ttl and at in self._ring

    # -- publish

    def difference(self, trained: Vector) -> Difference:
        """The coded step from the own copy to y = x + eta (trained - x).

        ``trained`` is t, float32[d]: what training made of x, corrections included. CodecError if
        the step is not finite.
        """
        codec, d = self.settings.codec, len(trained)
        step = self._space.made(np.subtract, self._outer(trained), self.own.vector)
        payload = encode(codec, step)
        return Difference(payload, decode(codec, payload, d, out=step))

    def published(self, difference: Difference, trained: Vector) -> None:
        """The difference is durable and out: the own copy and the clock move.

        ``trained``, float32[d], is the one that the difference was made of.
        """
        self.own.add(difference.vector)
        self.latest = self._outer(trained)
        if self.settings.view == "applied_pull" and self._pull is not None:
            before = self._applied
            self._applied = (
                self._pull if before is None else self._space.made(np.add, before, self._pull)
            )
        self._pull = None
        self.rounds += 1
        oldest = self.rounds - self.settings.ttl
        needed = {*self._view.values(), *self._arrived.values()}
        self._ring = {t: q for t, q in self._ring.items() if t in needed and t >= oldest}
        self._arrived = {k: t for k, t in self._arrived.items() if t >= oldest}

    # -- mix

    def mix(
        self,
        trained: Vector,
        copies: Mapping[Author, Vector],
        neighbours: int,
        shares: Shares[Author] = MappingProxyType({}),
    ) -> Mixing[Author]:
        """Draw the neighbours' public copies in, with momentum: once a round, after publishing.

        ``trained`` is t as in ``difference``; every copy is float32[d] too. Every weight is
        1/(neighbours+1) times ``shares[author]``, in [0, 1], 1 where there is none; whoever has
        less than 1 is on probation and adds nobody to the live. ``copies`` leaves out whoever must
        not count (forked, barred); stale ones are left out here. An absent neighbour's weight
        stays with self. Changes nothing.
        """
        return self._mix(trained, copies, neighbours, shares, once=True)

    def mix_news(
        self,
        copies: Mapping[Author, Vector],
        neighbours: int,
        shares: Shares[Author] = MappingProxyType({}),
    ) -> Mixing[Author]:
        """The round's mixing once more, with what neighbours published since; at any time.

        Arguments as in ``mix``.
        """
        return self._mix(self.x, copies, neighbours, shares, once=False)

    def _mix(
        self,
        trained: Vector,
        copies: Mapping[Author, Vector],
        neighbours: int,
        shares: Shares[Author],
        once: bool,
    ) -> Mixing[Author]:
        s = self.settings
        authors = tuple(a for a in copies if self.fresh(a))
        full = sum(shares.get(author, 1.0) == 1.0 for author in authors)
        if not enough_live(full + 1, s.f):
            authors = ()
        weight = 1.0 / (max(neighbours, full) + 1)
        weights = np.array([weight * shares.get(author, 1.0) for author in authors])
        mean, report = self._mean(authors, copies, weights)
        pull = mean.pull if s.gamma == 1.0 else self._times(s.gamma, mean.pull)
        correction = self._moved(pull, self._pull)
        momentum = kept = None
        if once:
            momentum, owed = self._next_momentum(mean, copies)
            kept = replace(mean, owed=owed)
            if s.eta != 1.0:
                self._add(correction, np.subtract, self._outer(trained), trained)
            if authors:
                trust = np.float32(s.mu * self._trust(trained, momentum))
                self._add(correction, lambda part, out: np.multiply(trust, part, out), momentum)
        x = self._space.made(np.add, trained, correction)
        return Mixing(x, correction, pull, momentum, kept, authors, report)

    def mixed(self, mixing: Mixing[Author]) -> None:
        """Put a mixing in force: x, P, momentum."""
        self.x = self.latest = mixing.x
        self._pull = mixing.pull
        if mixing.momentum is not None:
            own = self._space.copy(self.own.vector)
            self._before = replace(mixing.mean, own=own) if mixing.mean else None
            self._momentum = mixing.momentum

    def _mean(
        self, authors: tuple[Author, ...], copies: Mapping[Author, Vector], weights: Weights
    ) -> tuple[Mean[Author], Report | None]:
        """The rule's mean of these neighbours."""
        s = self.settings
        report: Report | None = None
        bases = self._bases(authors)
        if not authors:
            pull = self._space.zeros(len(self.x))
        else:
            pull, report = mix(
                s.rule,
                self.own.vector,
                [copies[a] for a in authors],
                weights,
                f=s.f,
                age=self.rounds,
                bases=[bases[a] for a in authors] if bases else None,
                each=self._each,
                space=self._space,
            )
        mean = Mean(
            self.own.vector,
            pull,
            frozenset(authors),
            dict(zip(authors, report.shares if report else (), strict=False)),
            bases,
            {a: self._copy[a] for a in authors},
        )
        return mean, report

    def _bases(self, authors: tuple[Author, ...]) -> dict[Author, Vector]:
        """Where we stood, for views that are not of now: copy_j - base_j is z_j."""
        if self.settings.view == "current":
            return {}
        views = {self._view[a] for a in authors}
        if self.settings.view == "naive" or self._applied is None:
            then = {at: self._ring[at] for at in views}
        else:
            then = {at: self._space.made(np.add, self._ring[at], self._applied) for at in views}
        return {a: then[self._view[a]] for a in authors}

    def _snapshot(self) -> None:
        """Remember where we stand, in coordinates that a later pull does not move."""
        if self.rounds not in self._ring:
            if self.settings.view == "current":
                self._ring[self.rounds] = np.empty(0, np.float32)
            elif self._applied is None:
                self._ring[self.rounds] = self._space.copy(self.own.vector)
            else:
                self._ring[self.rounds] = self._moved(self.own.vector, self._applied)

    def _next_momentum(
        self, mean: Mean[Author], copies: Mapping[Author, Vector]
    ) -> tuple[Vector, tuple[Author, ...]]:
        """EMA of the neighbourhood mean's step over the neighbours common to both rounds; the owed.

        Whoever came is taken out of the new mean; whoever left, out of the old one, if their copy
        is still what it was then (a silent neighbour's is). Where it is not at hand, or a rule has
        no parts, they take their part with them and bring it when they come back: a flapping
        neighbour adds nothing in the long run, and stops nothing.
        """
        before = self._before
        if before is None or self._momentum is None:
            return self._space.zeros(len(self.x)), ()
        step = self._space.made(_between, mean.own, before.own, mean.pull, before.pull)
        owed = dict.fromkeys(before.owed)
        for author in mean.copies:  # dicts: in an order that no hash of a set decides
            if author in owed:
                del owed[author]
            elif author not in before.authors and author in mean.shares:
                self._take_part(np.subtract, step, mean, author, copies[author])
        for author, copy in before.copies.items():
            if author in mean.authors:
                continue
            if author in before.shares and author in copies and self._copy.get(author) == copy:
                self._take_part(np.add, step, before, author, copies[author])
            else:
                owed[author] = None
        rho = np.float32(self.settings.rho)

        def smooth(old: Vector, new: Vector, out: Vector) -> None:
            np.multiply(np.float32(1) - rho, new, out=out)
            out += rho * old

        return self._space.made(smooth, self._momentum, step), tuple(owed)[-OWED_MAX:]

    def _take_part(
        self, way: np.ufunc, step: Vector, mean: Mean[Author], author: Author, copy: Vector
    ) -> None:
        """Add one neighbour's part of the mean's pull to ``step``, or subtract it, in place."""
        share, base = np.float32(mean.shares[author]), mean.bases.get(author, mean.own)
        for block in self._space.blocks(len(step)):
            way(step[block], share * (copy[block] - base[block]), out=step[block])

    def _times(self, factor: float, vector: Vector) -> Vector:
        by = np.float32(factor)
        return self._space.made(lambda part, out: np.multiply(by, part, out=out), vector)

    def _moved(self, vector: Vector, by: Vector | None) -> Vector:
        """``vector`` less ``by``; None: less nothing."""
        if by is None:
            return self._space.copy(vector)
        return self._space.made(np.subtract, vector, by)

    def _add(self, to: Vector, step: Callable[..., object], *vectors: Vector) -> None:
        """``to`` += step(of the vectors), block by block, in place."""
        work = np.empty(min(BLOCK, len(to)), np.float32)
        for block in self._space.blocks(len(to)):
            part = work[: block.stop - block.start]
            step(*(vector[block] for vector in vectors), part)
            to[block] += part

    def _outer(self, trained: Vector) -> Vector:
        """y: DiLoCo's outer rate, taken by each member on its own step; the rule then bounds it."""
        if self.settings.eta == 1.0:
            return trained
        eta = np.float32(self.settings.eta)

        def step(x: Vector, t: Vector, out: Vector) -> None:
            np.add(x, eta * (t - x), out=out)

        return self._space.made(step, self.x, trained)

    def _trust(self, trained: Vector, momentum: Vector) -> float:
        """The factor that keeps ||u|| <= eta ||D|| / (1 - mu)."""
        length = norm(momentum)
        allowed = self.settings.eta * norm(trained, self.x) / (1 - self.settings.mu)
        return min(1.0, allowed / length) if length > 0 else 0.0


def _between(own: Vector, was: Vector, pull: Vector, pulled: Vector, out: Vector) -> None:
    """The step of a mean: own + pull, less what the two were before."""
    np.subtract(own, was, out=out)
    out += pull
    out -= pulled
