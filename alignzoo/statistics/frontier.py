"""Reward against KL to the reference: what an algorithm reaches for what it moves, beside best-of-n and the true optimum.

A point is (KL, reward). A curve is a list of points.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import comb, log

import numpy as np

Point = tuple[float, float]
BEST_OF = (1, 2, 4, 8, 16, 32, 64, 128, 256)
STRENGTHS = tuple(float(b) for b in np.geomspace(100, 0.02, 40).round(6))


def envelope(points: Sequence[Point]) -> list[Point]:
    """The upper concave envelope, from the least KL to the point of most reward.

    Each of its points can be had: mixing two policies gives the mixed reward at no more than the mixed KL.
    """
    best: list[Point] = []
    for kl, reward in sorted(points, key=lambda point: (point[0], -point[1])):
        if best and reward <= best[-1][1]:
            continue
        while len(best) > 1 and _turns_left(best[-2], best[-1], (kl, reward)):
            best.pop()
        best.append((kl, reward))
    return best


def _turns_left(a: Point, b: Point, c: Point) -> bool:
    """Whether b lies on or below the line from a to c."""
    return (b[1] - a[1]) * (c[0] - a[0]) <= (c[1] - a[1]) * (b[0] - a[0])


def reward_at(points: Sequence[Point], kl: float) -> float | None:
    """The envelope's reward at this KL: that of the last point beyond it, None below the first, where nothing is known."""
    hull = envelope(points)
    if not hull or kl < hull[0][0]:
        return None
    return float(np.interp(kl, [p[0] for p in hull], [p[1] for p in hull]))


def area(points: Sequence[Point], most_kl: float) -> float | None:
    """The mean over KL in [0, most_kl] of the envelope's reward above that of its first point.

    The first point must be the reference, at KL 0: None without it, or where most_kl is not above 0.
    """
    hull = envelope(points)
    if not hull or hull[0][0] > 0 or most_kl <= 0:
        return None
    knots = [0.0, *(kl for kl, _ in hull if 0 < kl < most_kl), most_kl]
    rewards = np.interp(knots, [p[0] for p in hull], [p[1] for p in hull])
    return float(np.trapezoid(rewards - rewards[0], knots) / most_kl)


def best_of_n_bound(n: int) -> float:
    """log n - (n - 1) / n: an upper bound on the KL of the best of n samples (Beirami et al., 2024, "Theoretical guarantees on
    the best-of-n alignment policy"); equal to it only where no two samples coincide.
    """
    return log(n) - (n - 1) / n


def best_of_n_estimate(
    rewards: np.ndarray, counts: Sequence[int] = BEST_OF, chosen_by: np.ndarray | None = None
) -> list[dict[str, float]]:
    """Best-of-n from `rewards` (P, m) of m samples of the reference for each prompt: the unbiased mean of that of the best of n
    drawn without replacement, for every n up to m, against the *bound* on KL. Best by the scores `chosen_by` (P, m), such as a
    proxy's, or by the rewards themselves.
    """
    by = rewards if chosen_by is None else chosen_by
    ordered = np.take_along_axis(np.asarray(rewards, dtype=np.float64), np.argsort(by, axis=1, kind="stable"), axis=1)
    m = ordered.shape[1]
    curve = []
    for n in (n for n in counts if n <= m):
        share = np.array([comb(i, n - 1) / comb(m, n) for i in range(m)])  # that the sample of rank i is the largest
        curve.append({"n": n, "kl": best_of_n_bound(n), "reward": float((ordered * share).sum(1).mean())})
    return curve
