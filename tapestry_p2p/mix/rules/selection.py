"""Rules that compare neighbours with one another: IOS, geometric median, multi-Krum, and NNM.

They see the inner products G_ij = <z_i, z_j> (z_j = x_j - own, own = 0), float64[k, k]: one pass
over the vectors, k^2 d operations, then only k x k work, then one pass for the weighted sum. The
member itself is one of the n = k + 1 points: index 0, weight 1 - sum w. G is measured from the own
vector, which no attacker can move; a pair much closer to one another than to us is measured again
directly, because G has only float32's digits.
"""

from dataclasses import replace

import numpy as np

from tapestry_p2p.mix.rules.base import Scene, Weigh, Weighing, Weights

WEISZFELD_STEPS, WEISZFELD_SMOOTHING = 64, 1e-3
_TOO_CLOSE = 1e-2  # of the squared distance from us: G would leave them fewer than four digits


def with_self(scene: Scene) -> Weights:
    """G float64[n, n] with the member itself as point 0, at the origin."""
    k = len(scene.weights)
    padded = np.zeros((k + 1, k + 1))
    padded[1:, 1:] = scene.products
    return padded


def square_distances(scene: Scene) -> Weights:
    """||z_i - z_j||^2 float64[n, n] of all points, the member itself first."""
    products = with_self(scene)
    squares = np.diagonal(products)
    apart = np.maximum(squares[:, None] + squares[None, :] - 2 * products, 0.0)
    close = apart < _TOO_CLOSE * np.maximum(squares[:, None], squares[None, :])
    for i, j in np.argwhere(np.triu(close, 1)):
        if i:
            apart[i, j] = apart[j, i] = scene.between(int(i) - 1, int(j) - 1)
    np.fill_diagonal(apart, 0.0)
    return apart


def ios(scene: Scene) -> Weighing:
    """IOS: f times, leave out the neighbour farthest from the weighted mean of those that remain.

    Wu, Chen, Ling (2023). The member itself always remains; the mean is over weights renormalised:
    pull = sum_kept w z / (w_own + sum_kept w). Ties: the later position goes. O(k^2 d + f k^2).
    Its theory asks for f < k/3. With f >= k nobody is left and the pull is 0.
    """
    kept = np.ones(len(scene.weights), bool)
    squares = np.diagonal(scene.products)
    for _ in range(min(scene.f, len(kept))):
        middle = _renormalised(scene, kept)
        toward = scene.products @ middle
        apart = np.where(kept, squares - 2 * toward + middle @ toward, -np.inf)
        kept[len(kept) - 1 - int(np.argmax(apart[::-1]))] = False
    return Weighing(_renormalised(scene, kept), kept.astype(np.float64))


def _renormalised(scene: Scene, kept: np.ndarray) -> Weights:
    weights = np.where(kept, scene.weights, 0.0)
    whole = scene.own_weight + float(weights.sum())
    return weights / whole if whole > 0 else weights


def geometric_median(scene: Scene) -> Weighing:
    """The point y with the least sum_i w_i ||y - x_i|| over neighbours and self, smoothed.

    Weiszfeld (1937), smoothed as in RFA (Pillutla, Kakade, Harchaoui 2022): repeat
    e_i = w_i / max(nu, ||y - x_i||), y = sum e x / sum e, at most 64 times; nu is 1e-3 of the
    median distance. O(k^2 d). Stays bounded while honest points hold more than half of the weight;
    f does not occur. c_j = min(1, e_j / w_j). Starts from the clipped mean: no liar moves it far.
    """
    products = with_self(scene)
    squares = np.diagonal(products)
    weights = np.concatenate([[scene.own_weight], scene.weights])
    typical = float(np.median(scene.distances))
    smooth = max(WEISZFELD_SMOOTHING * typical, 1e-12 * float(scene.distances.max()), 1e-30)
    shares = weights * np.minimum(1.0, (typical + smooth) / np.maximum(np.sqrt(squares), smooth))
    shares[0] += 1.0 - shares.sum()
    for _ in range(WEISZFELD_STEPS):
        toward = products @ shares
        apart = np.sqrt(np.maximum(squares - 2 * toward + shares @ toward, 0.0))
        pulls = weights / np.maximum(apart, smooth)
        before, shares = shares, pulls / pulls.sum()
        if np.abs(shares - before).max() < 1e-7:
            break
    return Weighing(shares[1:], np.minimum(1.0, shares[1:] / scene.weights))


def multi_krum(scene: Scene) -> Weighing:
    """Multi-Krum: the weighted mean of the n - f points with the smallest Krum scores.

    Blanchard et al. (NeurIPS 2017): a point's score is the sum of its squared distances to the
    n - f - 2 points nearest to it; the member itself is one of the points and may be left out.
    O(k^2 d). Needs n > 2f + 2; where fewer are there the pull is 0. Ties: the earlier position.
    """
    n, f = len(scene.weights) + 1, scene.f
    if n <= 2 * f + 2:
        return Weighing(np.zeros(n - 1), np.zeros(n - 1))
    apart = np.sort(square_distances(scene), axis=1)
    scores = apart[:, 1 : n - f - 1].sum(axis=1)
    kept = np.zeros(n, bool)
    kept[np.argsort(scores, kind="stable")[: n - f]] = True
    weights = np.concatenate([[scene.own_weight], scene.weights]) * kept
    return Weighing(weights[1:] / weights.sum(), kept[1:].astype(np.float64))


def nearest_mixing(scene: Scene) -> Weights:
    """NNM's matrix M float64[n, n]: row i averages the n - f points nearest to point i.

    Allouah et al. (AISTATS 2023). x_i becomes sum_l M_il x_l, itself included. Needs n > 2f.
    """
    apart = square_distances(scene)
    n = len(apart)
    count = max(1, n - scene.f)
    nearest = np.argsort(apart, axis=1, kind="stable")[:, :count]
    matrix = np.zeros((n, n))
    np.put_along_axis(matrix, nearest, 1.0 / count, axis=1)
    return matrix


def after_nearest_mixing(rule: Weigh, scene: Scene) -> Weighing:
    """NNM, then a weighing rule on the mixed points, as one set of shares of the given points.

    With B_jl = M_jl - M_0l and z'_j = sum_l B_jl z_l the rule sees G' = B G B^T; its shares e' of
    the z' are shares M_0 + B^T e' of the z. No vector is touched. Mixed points are often equal or
    opposite: a rule that leaves somebody out then goes by position.
    """
    matrix = nearest_mixing(scene)
    steps = matrix[1:, 1:] - matrix[0, 1:]
    products = steps @ scene.products @ steps.T
    distances = np.sqrt(np.maximum(np.diagonal(products), 0.0))

    def between(i: int, j: int) -> float:
        step = steps[i] - steps[j]
        return max(0.0, float(step @ scene.products @ step))

    mixed = rule(replace(scene, products=products, distances=distances, between=between))
    shares = matrix[0, 1:] + steps.T @ mixed.shares
    return Weighing(np.maximum(shares, 0.0), mixed.coefficients, mixed.tau)
