"""The Loom round on quadratics: agreement, momentum, unequal speeds, attackers, and its control."""

import numpy as np
import pytest

from tapestry_p2p.mix.codec import decode, encode
from tapestry_p2p.mix.copy import PublicCopy
from tapestry_p2p.mix.loom import Loom, LoomSettings

D = 300
Vector = np.ndarray


class World:
    """Members on f_i = .5 ||x - c_i||^2, all-to-all, in one process."""

    def __init__(self, settings: LoomSettings, n: int, byzantine: int = 0, seed: int = 0) -> None:
        random = np.random.default_rng(seed)
        self.centres = random.standard_normal((n, D)).astype(np.float32)
        zero = np.zeros(D, np.float32)
        self.looms = [Loom[int](settings, zero, PublicCopy(zero)) for _ in range(n)]
        self.settings = settings
        total = n + byzantine
        self.copies = [{j: PublicCopy(zero) for j in range(total) if j != i} for i in range(n)]
        self.seqs = [0] * total
        self.hostile = [PublicCopy(zero) for _ in range(byzantine)]
        self.held: dict[tuple[int, int], list[tuple[int, Vector]]] = {}
        self.batched: dict[tuple[int, int], int] = {}
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
            if len(held) >= self.batched.get((i, j), 1):
                for seq, step in held:
                    self.looms[i].arrived(j, seq)
                    self.copies[i][j].add(step)
                    self.looms[i].decoded(j, seq)
                held.clear()

    def round(self, who: list[int]) -> None:
        ys = {}
        for i in who:
            ys[i] = self.train(i)
            difference = self.looms[i].difference(ys[i])
            self.looms[i].published(difference, ys[i])
            self.deliver(i, difference.vector)
        mean = np.mean([loom.own.vector for loom in self.looms], axis=0)
        for b, copy in enumerate(self.hostile):
            payload = encode(self.settings.codec, (-3 * mean - copy.vector).astype(np.float32))
            step = decode(self.settings.codec, payload, D)
            copy.add(step)
            self.deliver(len(self.looms) + b, step)
        for i in who:
            vectors = {j: copy.vector for j, copy in self.copies[i].items()}
            self.looms[i].mixed(self.looms[i].mix(ys[i], vectors, len(vectors)))

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


@pytest.mark.parametrize("view", ["applied_pull", "current"])
@pytest.mark.parametrize("ratio", [4, 8, 16])
@pytest.mark.parametrize("steady", [{0, 1, 2, 3}, {0}], ids=["one slow", "one fast"])
def test_unequal_speeds_keep_it_bounded(view: str, ratio: int, steady: set[int]) -> None:
    world = World(LoomSettings(gamma=1.0, mu=0.3, view=view), 5)
    for tick in range(200):
        world.round([i for i in range(5) if i in steady or tick % ratio == 0])
        assert world.error() < 1


@pytest.mark.parametrize("view", ["applied_pull", "current"])
@pytest.mark.parametrize("batch", [4, 8, 16])
def test_one_batched_link_keeps_it_bounded(view: str, batch: int) -> None:
    world = World(LoomSettings(gamma=1.0, mu=0.3, view=view), 5)
    world.batched[(0, 1)] = batch
    for _ in range(200):
        world.round(list(range(5)))
        assert world.error() < 1


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
