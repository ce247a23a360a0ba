"""Which algorithm is better, or that two are level, and how sure that is: paired tests on common seeds, corrected for how many
there are."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from math import ceil, comb, inf, log2, sqrt

import numpy as np

from alignzoo.statistics.intervals import Ends, mean_interval, within

LEVEL = 0.05
EXACT_SEEDS = 40  # two halves of 2^20 sums each; more are tested on random signs


@dataclass(frozen=True)
class Comparison:
    """First against second on their common seeds. `corrected` is p after Holm's correction for all comparisons made.
    `equivalence_p` is that of a difference beyond the `margin`, where there is one."""

    first: str
    second: str
    seeds: int
    difference: float
    interval: Ends | None
    p: float
    corrected: float
    improvement: float
    improvement_interval: Ends | None
    margin: float | None = None
    equivalence_p: float = 1.0
    equivalence_corrected: float = 1.0

    @property
    def separated(self) -> bool:
        return self.corrected <= LEVEL

    @property
    def equivalent(self) -> bool:
        """Whether the difference is shown to be smaller than the margin."""
        return self.margin is not None and self.equivalence_corrected <= LEVEL

    def turned(self) -> Comparison:
        """The second against the first."""

        def ends(interval: Ends | None, about: float) -> Ends | None:
            return None if interval is None else (about - interval[1], about - interval[0])

        return replace(
            self, first=self.second, second=self.first, difference=-self.difference, interval=ends(self.interval, 0.0),
            improvement=1 - self.improvement, improvement_interval=ends(self.improvement_interval, 1.0),
        )  # fmt: skip


def compare(
    scores: Mapping[str, Mapping[int, float]],
    pairs: Sequence[tuple[str, str]] | None = None,
    most: float = inf,
    margin: float | None = None,
) -> list[Comparison]:
    """Every pair of `scores[algorithm][seed]`, or the planned `pairs` alone, in the given order; `most` is how far apart two
    scores can be, beyond which no interval of a difference goes. With a `margin`, each is tested for equivalence too.

    A pair without a common seed has p = 1. Holm's correction is over all pairs compared.
    """
    chosen = list(combinations(scores, 2)) if pairs is None else list(pairs)
    differences = []
    for first, second in chosen:
        common = sorted(scores[first].keys() & scores[second].keys())
        sides = (np.array([scores[name][seed] for seed in common], dtype=np.float64) for name in (first, second))
        differences.append((first, second, _apart(*sides)))
    comparisons = [
        Comparison(
            first, second, len(d), float(d.mean()) if len(d) else 0.0,
            within(mean_interval(d), (-most, most)) if len(d) > 1 else None, sign_flip_p(d), 1.0,
            *probability_of_improvement(list(scores[first].values()), list(scores[second].values())),
            margin, 1.0 if margin is None else equivalence_p(d, margin),
        )
        for first, second, d in differences
    ]  # fmt: skip
    return corrected_together([comparisons])[0]


def _apart(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Their differences, exactly 0 where rounding alone makes one, which has a sign too."""
    return np.where(np.isclose(first, second, rtol=1e-12, atol=0), 0.0, first - second)


def corrected_together(groups: Sequence[Sequence[Comparison]]) -> list[list[Comparison]]:
    """The same comparisons with Holm's correction over all of them: one family of tests, not one a group.

    Tests of equivalence belong to it. Two algorithms can't both be the same and be further apart than the margin, so no more
    hypotheses hold at once than there are pairs (Shaffer 1986, Modified sequentially rejective multiple test procedures)."""
    every = [c for group in groups for c in group]
    equivalences = [c.equivalence_p for c in every if c.margin is not None]
    together = iter(holm([*(c.p for c in every), *equivalences], len(every)))
    differences = [[replace(c, corrected=next(together)) for c in group] for group in groups]
    return [
        [c if c.margin is None else replace(c, equivalence_corrected=next(together)) for c in group] for group in differences
    ]


def behind(first: Sequence[Comparison], second: Sequence[Comparison]) -> list[Comparison]:
    """The `second` comparisons, each with p no smaller than the largest of the `first`: they are looked at only where all of
    those are claims, so that both families together make a false claim as rarely as one (serial gatekeeping; Westfall and
    Krishen 2001, Optimally weighted, fixed sequence and gatekeeper multiple testing procedures, section 4)."""
    least = max((min(c.corrected, c.equivalence_corrected) for c in first), default=0.0)
    return [
        replace(c, corrected=max(c.corrected, least), equivalence_corrected=max(c.equivalence_corrected, least)) for c in second
    ]


def equivalence_p(differences: Sequence[float] | np.ndarray, margin: float) -> float:
    """p of a difference that is no smaller than `margin` on either side: the larger of two one-sided tests (Schuirmann 1987, A
    comparison of the two one-sided tests procedure and the power approach), each the half of `sign_flip_p` about that end."""
    d = np.asarray(differences, dtype=np.float64)
    return max(sign_flip_p(inside) / 2 if inside.sum() > 0 else 1.0 for inside in (margin + d, margin - d))


def sign_flip_p(differences: Sequence[float] | np.ndarray) -> float:
    """Two-sided p of the paired permutation test: how many of the 2^n ways to flip the signs of the differences give a sum at
    least as far from 0. Exact up to 40 differences. 1 where there are none, or all are 0.
    """
    d = np.abs(np.asarray(differences, dtype=np.float64))
    observed = abs(float(np.sum(differences)))
    if len(d) > EXACT_SEEDS:
        from scipy.stats import permutation_test

        sample = (np.asarray(differences, dtype=np.float64),)
        return float(permutation_test(sample, np.mean, permutation_type="samples", n_resamples=99_999, rng=0).pvalue)
    # sums that differ by rounding alone are ties, and ties count
    bar = observed - 1e-9 * float(d.sum())
    half = len(d) // 2
    left, right = _signed_sums(d[:half]), np.sort(_signed_sums(d[half:]))
    above = len(right) - np.searchsorted(right, bar - left, side="left")
    below = np.searchsorted(right, -bar - left, side="right")
    total = 2 ** len(d)
    return min(1.0, int(above.sum() + below.sum()) / total)


def _signed_sums(d: np.ndarray) -> np.ndarray:
    """All 2^n sums of +-d."""
    sums = np.zeros(1)
    for value in d:
        sums = np.concatenate([sums + value, sums - value])
    return sums


def smallest_p(seeds: int, comparisons: int = 1) -> float:
    """The least p that the test can give after correction, however large the difference: `comparisons` 2 / 2^seeds."""
    return min(1.0, comparisons * 2.0 / 2**seeds)


def seeds_needed(comparisons: int = 1, level: float = LEVEL) -> int:
    """The fewest common seeds with which p <= `level` can be reached after correction."""
    return ceil(log2(2 * comparisons / level))


def holm(ps: Sequence[float], most: int | None = None) -> list[float]:
    """Holm (1979), "A simple sequentially rejective multiple test procedure": the i-th smallest of m, times m - i + 1 (or times
    `most`, if no more hypotheses can hold at once), made non-decreasing, at most 1. In the order given.
    """
    corrected, highest = [0.0] * len(ps), 0.0
    for rank, index in enumerate(sorted(range(len(ps)), key=lambda i: ps[i])):
        highest = max(highest, min(1.0, min(len(ps) - rank, most or len(ps)) * ps[index]))
        corrected[index] = highest
    return corrected


def probability_of_improvement(
    first: Sequence[float], second: Sequence[float], confidence: float = 0.95
) -> tuple[float, tuple[float, float] | None]:
    """How often a run of the first beats a run of the second, any seed against any, ties by half; and its interval, None for
    one seed.

    Interval: Newcombe (2006), "Confidence intervals for an effect size measure based on the Mann-Whitney statistic. Part 2",
    method 5, which does not collapse where all runs of one are better.
    """
    from scipy.special import ndtri

    x, y = np.asarray(first, dtype=np.float64), np.asarray(second, dtype=np.float64)
    share = float(((x[:, None] > y).mean() + (x[:, None] >= y).mean()) / 2)
    if min(len(x), len(y)) < 2:
        return share, None
    z = float(ndtri((1 + confidence) / 2))
    low = _crossing(share, z, len(x), len(y))
    return share, (low, 1 - _crossing(1 - share, z, len(y), len(x)))


def _crossing(share: float, z: float, m: int, n: int) -> float:
    """The least value from which `share` is no more than z standard errors away, by bisection."""
    extra = (m + n) / 2 - 1

    def far(value: float) -> bool:
        shape = 1 + extra * ((1 - value) / (2 - value) + value / (1 + value))
        return share - value > z * sqrt(value * (1 - value) * shape / (m * n))

    low, high = 0.0, share
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if far(middle) else (low, middle)
    return high


@dataclass(frozen=True)
class Reached:
    """What reaching a threshold took, over runs, of which `censored` stopped short of it. Of those it is known only that they
    need more than they had. The median is infinite where they leave it open, and then is more than `at_least`. The interval
    of the median, of at least 95 %, is None below six runs; its upper end is infinite where too many stopped short.
    """

    median: float
    at_least: float
    interval: tuple[float, float] | None
    runs: int
    censored: int


def to_threshold(curves: Sequence[tuple[Sequence[float], Sequence[float]]], threshold: float) -> Reached:
    """From curves (cost, score) of evaluations: the cost of the first one at or above the threshold, so an upper bound.

    Interval: between order statistics, whose chance to miss the median is that of coins (David and Nagaraja, 2003, "Order
    statistics", 7.1); it needs no distribution, and censored runs stay in it. Raises ValueError where there is no curve, or an
    empty one.
    """
    if not curves or not all(len(cost) for cost, _ in curves):
        raise ValueError("no evaluations to look for a threshold in")
    first = [next((x for x, y in zip(*curve, strict=True) if y >= threshold), inf) for curve in curves]
    latest = sorted(first)
    earliest = sorted(cost[-1] if x == inf else x for (cost, _), x in zip(curves, first, strict=True))
    low, high = float(np.median(earliest)), float(np.median(latest))
    rank = _median_rank(len(first))
    interval = (earliest[rank - 1], latest[-rank]) if rank else None
    return Reached(high if low == high else inf, low, interval, len(first), sum(x == inf for x in first))


def _median_rank(count: int, confidence: float = 0.95) -> int:
    """The largest k for which the k-th least and the k-th largest of `count` hold the median; 0 where even the ends don't."""
    below = np.cumsum([comb(count, rank) / 2**count for rank in range(count + 1)])
    return int(np.searchsorted(2 * below, 1 - confidence, side="right"))
