"""The Loom round on quadratics: agreement, momentum, attackers, views that are stale or batched."""

from collections.abc import Iterable

import numpy as np
import pytest

from tapestry_p2p.mix.codec import decode, encode
from tapestry_p2p.mix.copy import PublicCopy
from tapestry_p2p.mix.loom import Loom, LoomSettings

D = 120
Vector = np.ndarray


class World:
    """Members on f_i = .5 ||x - c_i||^2, all-to-all, in one process."""

    def __init__(
        self, settings: LoomSettings, n: int, byzantine: int = 0, seed: int = 0,
        attack: str = "mirror",
    ) -> None:  # fmt: skip
        random = np.random.default_rng(seed)
        self.attack = attack
        self.centres = random.standard_normal((n, D)).astype(np.float32)
        zero = np.zeros(D, np.float32)
        self.looms = [Loom[int](settings, zero, PublicCopy(zero)) for _ in range(n)]
        self.settings = settings
        total = n + byzantine
        self.copies = [{j: PublicCopy(zero) for j in range(total) if j != i} for i in range(n)]
        self.seqs = [0] * total
        self.hostile = [PublicCopy(zero) for _ in range(byzantine)]
        self.held: dict[tuple[int, int], list[tuple[int, Vector]]] = {}
        self.batched: dict[tuple[int, int], int] = {}  # (receiver, sender): entries at a time
        self.lag = 0  # entries by which everybody's news is late
        self.heads_first = False  # whether headers arrive at once and only payloads are late
        self.aside = random.standard_normal(D) / np.sqrt(D)
        for i in range(n):
            for j in self.copies[i]:
                self.looms[i].decoded(j, 0)

    def train(self, i: int, lr: float = 0.05, steps: int = 5) -> Vector:
        x = self.looms[i].x.copy()
        for _ in range(steps):
            x -= np.float32(lr) * (x - self.centres[i])
        return x

    def deliver(self, j: int, difference: Vector) -> None:
        self.seqs[j] += 1
        for i in range(len(self.looms)):
            if i == j:
                continue
            held = self.held.setdefault((i, j), [])
            held.append((self.seqs[j], difference))
            if self.heads_first:
                self.looms[i].arrived(j, self.seqs[j])
            if len(held) - self.lag >= self.batched.get((i, j), 1):
                self.take(i, j, held[: len(held) - self.lag])
                del held[: len(held) - self.lag]

    def take(self, i: int, j: int, entries: Iterable[tuple[int, Vector]]) -> None:
        for seq, step in entries:
            self.looms[i].arrived(j, seq)
            self.copies[i][j].add(step)
            self.looms[i].decoded(j, seq)

    def round(self, who: list[int]) -> None:
        ys = {}
        for i in who:
            ys[i] = self.train(i)
            difference = self.looms[i].difference(ys[i])
            self.looms[i].published(difference, ys[i])
            self.deliver(i, difference.vector)
        for b, copy in enumerate(self.hostile):
            wanted = self.hostile_copy().astype(np.float32)
            payload = encode(self.settings.codec, wanted - copy.vector)
            step = decode(self.settings.codec, payload, D)
            copy.add(step)
            self.deliver(len(self.looms) + b, step)
        for i in who:
            vectors = {j: copy.vector for j, copy in self.copies[i].items()}
            self.looms[i].mixed(self.looms[i].mix(ys[i], vectors, len(vectors)))

    def hostile_copy(self) -> Vector:
        """mirror: -3 times the mean; drift: aside of it, no farther than the honest are."""
        copies = np.array([loom.own.vector for loom in self.looms])
        mean = copies.mean(axis=0)
        if self.attack == "mirror":
            return np.asarray(-3 * mean)
        return np.asarray(mean + self.aside * np.linalg.norm(copies - mean, axis=1).mean())

    def error(self) -> float:
        """Mean distance to the honest optimum, relative to the centres' spread."""
        best = self.centres.mean(0)
        spread = float(np.linalg.norm(self.centres - best, axis=1).mean())
        return float(np.mean([np.linalg.norm(w.x - best) for w in self.looms])) / spread


SETTINGS = {
    "2bit": LoomSettings(gamma=1.0, mu=0.3),
    "int8": LoomSettings(codec="int8", gamma=1.0, mu=0.3),
    "fp32": LoomSettings(codec="fp32", gamma=1.0, mu=0.3),
}


@pytest.mark.parametrize("codec", SETTINGS)
def test_members_agree_near_the_optimum(codec: str) -> None:
    world = World(SETTINGS[codec], 6)
    for _ in range(150):
        world.round(list(range(6)))
    assert world.error() < 0.35  # a member's last own steps: zeta * lr * steps


@pytest.mark.parametrize("codec", SETTINGS)
def test_author_and_followers_hold_the_same_bits(codec: str) -> None:
    world = World(SETTINGS[codec], 4)
    for _ in range(30):
        world.round(list(range(4)))
    for i, loom in enumerate(world.looms):
        for j in range(4):
            if j != i:
                assert world.copies[j][i].vector.tobytes() == loom.own.vector.tobytes()


ATTACKS = pytest.mark.parametrize("attack", ["", "drift"], ids=["none", "drift"])
VIEWS = pytest.mark.parametrize("view", ["applied_pull", "current"])


def bounded(world: World, steady: set[int], ratio: int, ticks: int) -> None:
    """Never farther off than a member alone, and better than that once it has settled."""
    late = 0.0
    for tick in range(ticks):
        world.round([i for i in range(len(world.looms)) if i in steady or tick % ratio == 0])
        assert world.error() < 1
        late = max(late, world.error()) if tick > ticks - 2 * ratio else 0.0
    assert late < (0.5 if world.settings.view == "applied_pull" else 0.35)


def besieged(attack: str, view: str) -> World:
    """Five honest members, and one more that attacks: CERTIFIED."""
    f = 1 if attack else 0
    settings = LoomSettings(gamma=1.0, mu=0.3, view=view, f=f)
    return World(settings, 5, byzantine=f, attack=attack)


@VIEWS
@ATTACKS
@pytest.mark.parametrize("ratio", [4, 8, 16])
@pytest.mark.parametrize("steady", [{0, 1, 2, 3}, {0}], ids=["one slow", "one fast"])
def test_unequal_speeds_keep_it_bounded(
    view: str, attack: str, ratio: int, steady: set[int]
) -> None:
    bounded(besieged(attack, view), steady, ratio, ticks=80)


@VIEWS
@ATTACKS
@pytest.mark.parametrize("batch", [4, 8, 16])
def test_one_batched_link_keeps_it_bounded(view: str, attack: str, batch: int) -> None:
    world = besieged(attack, view)
    world.batched[(0, 1)] = batch
    bounded(world, set(range(5)), batch, ticks=80)


@VIEWS
@pytest.mark.parametrize("attack", ["", "mirror", "drift"])
@pytest.mark.parametrize("lag", [4, 15])
def test_stale_views_keep_it_bounded(view: str, attack: str, lag: int) -> None:
    """All news is late by so many rounds: the start is slower, the end is the same."""
    world = besieged(attack, view)
    world.lag = lag
    bounded(world, set(range(5)), 1, ticks=80)


@VIEWS
@ATTACKS
def test_payloads_later_than_their_headers_keep_it_bounded(view: str, attack: str) -> None:
    world = besieged(attack, view)
    world.lag, world.heads_first = 4, True
    bounded(world, set(range(5)), 1, ticks=80)


def test_naive_age_matching_diverges() -> None:
    """The control: without the applied-pull term a fast member applies each view again."""
    world = World(LoomSettings(gamma=1.0, mu=0.3, view="naive"), 5)
    worst = 0.0
    for tick in range(200):
        world.round([i for i in range(5) if i == 0 or tick % 4 == 0])
        worst = max(worst, world.error())
        if worst > 5:
            break
    assert worst > 5


def test_a_mirror_attacker_is_bounded_and_ruins_the_mean() -> None:
    errors = {}
    for rule in ("cs_plus", "mean"):
        world = World(LoomSettings(gamma=1.0, mu=0.3, rule=rule, f=1), 6, byzantine=1)
        for _ in range(150):
            world.round(list(range(6)))
        best = world.centres.mean(0)
        middle = np.mean([loom.x for loom in world.looms], axis=0)
        errors[rule] = float(np.linalg.norm(middle - best) / np.linalg.norm(best))
    assert errors["cs_plus"] < 1
    assert errors["mean"] > 1.3 * errors["cs_plus"]


def test_below_three_f_plus_one_nothing_is_mixed() -> None:
    world = World(LoomSettings(f=1), 3)
    world.round([0, 1, 2])
    y = world.train(0)
    vectors = {j: copy.vector for j, copy in world.copies[0].items()}
    mixing = world.looms[0].mix(y, vectors, 2)
    assert mixing.report is None
    assert not mixing.correction.any()


def test_a_silent_neighbour_leaves_the_mean_and_its_weight_stays_with_self() -> None:
    world = World(LoomSettings(ttl=3), 3)
    world.round([0, 1, 2])
    for _ in range(4):
        world.round([0, 1])
    assert not world.looms[0].fresh(2)
    assert world.looms[0].fresh(1)
    vectors = {j: copy.vector for j, copy in world.copies[0].items()}
    mixing = world.looms[0].mix(world.looms[0].x, vectors, 2)
    assert mixing.authors == (1,)
    assert mixing.report is not None
    assert mixing.report.shares == pytest.approx([1 / 3])


def test_the_trust_clip_bounds_momentum_by_training() -> None:
    settings = LoomSettings(gamma=0.01, mu=0.6)
    world = World(settings, 3)
    for _ in range(5):
        world.round([0, 1, 2])
    loom = world.looms[0]
    y = loom.x.copy()  # no training at all: no momentum may be added
    difference = loom.difference(y)
    loom.published(difference, y)
    mixing = loom.mix(y, {}, 2)
    assert not mixing.correction.any()
    vectors = {j: copy.vector for j, copy in world.copies[0].items()}
    mixing = loom.mix(y, vectors, 2)
    np.testing.assert_array_equal(mixing.correction, mixing.pull)


@pytest.mark.parametrize("eta", [0.5, 2.0])
def test_the_trust_clip_goes_by_the_step_that_is_published(eta: float) -> None:
    """u <= eta ||D|| / (1 - mu): a member's outer step is eta D, and momentum is measured by it."""
    settings = LoomSettings(codec="fp32", gamma=0.01, mu=0.6, rho=0.0, eta=eta)
    zero = np.zeros(D, np.float32)
    loom = Loom[int](settings, zero, PublicCopy(zero))
    for seq in range(2):
        loom.decoded(1, seq)
        trained = loom.x + np.float32(0.001)
        loom.published(loom.difference(trained), trained)
        copies = {1: np.full(D, 100 * seq, np.float32)}  # far more momentum than training
        mixing = loom.mix(trained, copies, 1)
        moved, training = mixing.x - (loom.x + eta * (trained - loom.x)), trained - loom.x
        loom.mixed(mixing)
    u = (moved - mixing.pull) / settings.mu
    bound = eta * np.linalg.norm(training) / (1 - settings.mu)
    assert np.linalg.norm(u) == pytest.approx(bound, rel=0.01)


# ---- momentum over the neighbours common to both rounds ---------------------------------------


def mixed_once(loom: Loom[int], copies: dict[int, Vector]) -> Vector:
    """A round whose own copy does not move; the momentum that it leaves."""
    nothing = loom.difference(loom.own.vector.copy())
    loom.published(nothing, loom.own.vector.copy())
    mixing = loom.mix(loom.x, copies, 3)
    loom.mixed(mixing)
    assert mixing.momentum is not None
    return mixing.momentum


def three_neighbours(rule: str) -> tuple[Loom[int], dict[int, Vector]]:
    """rho = 0: the momentum is the last step of the mean. Everybody's weight is 1/4."""
    zero = np.zeros(2, np.float32)
    loom = Loom[int](LoomSettings(codec="fp32", rule=rule, rho=0.0, ttl=2), zero, PublicCopy(zero))
    copies = {j: np.array([j, -j], np.float32) for j in (1, 2, 3)}
    for j in copies:
        loom.decoded(j, 0)
    assert not mixed_once(loom, copies).any()
    return loom, copies


@pytest.mark.parametrize("rule", ["mean", "cs_plus", "ios"])
def test_who_falls_silent_or_comes_back_gives_no_momentum(rule: str) -> None:
    loom, copies = three_neighbours(rule)
    for seq in (1, 2):  # 3 is silent, 1 moves
        copies[1] = copies[1] + np.float32(4)
        loom.decoded(1, seq)
        loom.decoded(2, seq)
        np.testing.assert_allclose(mixed_once(loom, copies), [1, 1], atol=1e-5)
    assert not loom.fresh(3)
    loom.decoded(3, 9)
    np.testing.assert_allclose(mixed_once(loom, copies), [0, 0], atol=1e-5)


def test_a_flapping_neighbour_neither_feeds_nor_kills_the_momentum() -> None:
    """Its copy is not at hand when it is away: what it takes when it goes it gave when it came."""
    loom, copies = three_neighbours("mean")
    steps = []
    for seq in range(1, 9):
        copies[1] = copies[1] + np.float32(4)
        for j in (1, 2, *([3] if seq % 2 else [])):
            loom.decoded(j, seq)
        if seq % 2 == 0:
            loom.forget(3)
        steps.append(mixed_once(loom, {j: c for j, c in copies.items() if j < 3 or seq % 2}))
    part = np.array([0.75, -0.75])
    np.testing.assert_allclose(steps[1::2], np.tile(1 - part, (4, 1)), atol=1e-5)
    np.testing.assert_allclose(steps[2::2], np.tile(1 + part, (3, 1)), atol=1e-5)


def test_a_rule_without_parts_takes_the_step_of_the_whole_mean() -> None:
    loom, copies = three_neighbours("median")
    del copies[3]
    copies[1] = np.array([8, 8], np.float32)
    loom.decoded(1, 1)  # median of (0, 8, 2) after that of (0, 1, 2, 3): 2 - 1.5
    np.testing.assert_allclose(mixed_once(loom, copies), [0.5, 1.5], atol=1e-5)
