"""How often do 95 % intervals hold what they are of, and how often does a page claim what isn't so?

    python benchmarks/statistics/coverage.py > coverage.md
    python benchmarks/statistics/coverage.py 'False claims'    # these tables alone

Gaps closed by an algorithm are near normal, or skewed to the left: most seeds come close to a limit, a few fall short.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from scipy import stats

from alignzoo.statistics.comparison import behind, compare, corrected_together, probability_of_improvement
from alignzoo.statistics.intervals import interquartile_interval, mean_interval, within

Interval = Callable[[np.ndarray], tuple[float, float]]


class Gaps:
    """1 - x or x, of a distribution of scipy's."""

    def __init__(self, x: Any, shortfall: bool = False) -> None:
        self.x, self.shortfall = x, shortfall
        self.mean = self._turn(x.mean())
        middle = x.ppf(0.25 + 0.5 * (np.arange(100_000) + 0.5) / 100_000)
        self.interquartile_mean = self._turn(float(middle.mean()))

    def _turn(self, x: Any) -> Any:
        return 1 - x if self.shortfall else x

    def draw(self, trials: int, seeds: int) -> np.ndarray:
        return np.asarray(self._turn(self.x.rvs(size=(trials, seeds), random_state=np.random.default_rng(seeds))))


# All but the last are what the intervals are for; the last shows where they end.
GAPS = {
    "normal": Gaps(stats.norm(0.9, 0.02)),
    "beta(8, 2), skewness -0.8": Gaps(stats.beta(8, 2)),
    "1 - gamma(4), skewness -1": Gaps(stats.gamma(4, scale=0.02), shortfall=True),
    "beta(18, 1.5), skewness -1.3": Gaps(stats.beta(18, 1.5)),
    "1 - log-normal(0.5), skewness -1.8": Gaps(stats.lognorm(0.5, scale=math.exp(-3)), shortfall=True),
    "1 - exponential, skewness -2": Gaps(stats.expon(scale=0.05), shortfall=True),
}
SEEDS = (3, 5, 10, 20)
PAGES = 2000


def student(scores: np.ndarray) -> tuple[float, float]:
    half = stats.t.ppf(0.975, len(scores) - 1) * scores.std(ddof=1) / math.sqrt(len(scores))
    return scores.mean() - half, scores.mean() + half


def trimmed(scores: np.ndarray) -> tuple[float, float]:
    """Tukey and McLaughlin's interval of the mean without whole quarters, by scipy."""
    low, high = stats.mstats.trimmed_mean_ci(scores, limits=(0.25, 0.25), alpha=0.05)
    return float(low), float(high)


def bootstrap(method: str, statistic: Callable[..., Any] = np.mean) -> Interval:
    def interval(scores: np.ndarray) -> tuple[float, float]:
        estimate = stats.bootstrap((scores,), statistic, method=method, n_resamples=2000, rng=0, vectorized=True)
        return estimate.confidence_interval.low, estimate.confidence_interval.high

    return interval


def middle(scores: np.ndarray, axis: int = -1) -> Any:
    return stats.trim_mean(scores, 0.25, axis=axis)


def coverage(interval: Interval, samples: np.ndarray, true: float) -> float:
    return sum(low <= true <= high for low, high in map(interval, samples)) / len(samples)


def of_means() -> Iterator[list[str]]:
    methods = {
        "alignzoo": (mean_interval, 20_000), "t": (student, 20_000), "BCa": (bootstrap("BCa"), 2_000),
        "percentile": (bootstrap("percentile"), 2_000),
    }  # fmt: skip
    yield ["gaps", "seeds", *methods]
    for name, gaps in GAPS.items():
        for seeds in SEEDS:
            cells = [f"{coverage(m, gaps.draw(trials, seeds), gaps.mean):.1%}" for m, trials in methods.values()]
            yield [name, str(seeds), *cells]


def of_interquartile_means() -> Iterator[list[str]]:
    methods = {
        "alignzoo": (interquartile_interval, 10_000), "whole quarters trimmed": (trimmed, 10_000),
        "percentile": (bootstrap("percentile", middle), 1_000),
    }  # fmt: skip
    yield ["gaps", "seeds", *methods]
    for name, gaps in GAPS.items():
        for seeds in SEEDS:
            cells = [f"{coverage(m, gaps.draw(trials, seeds), gaps.interquartile_mean):.1%}" for m, trials in methods.values()]
            yield [name, str(seeds), *cells]


def of_improvement() -> Iterator[list[str]]:
    """The first better by 0, 1 and 2 standard deviations, and spread alike, on other seeds."""
    yield ["gaps", "seeds", "P = 50 %", "P = 76 %", "P = 92 %"]
    for seeds in SEEDS:
        cells = []
        for ahead in (0.0, 1.0, 2.0):
            rng, true = np.random.default_rng(seeds), stats.norm.cdf(ahead / math.sqrt(2))
            held = 0
            for _ in range(4000):
                interval = probability_of_improvement(rng.normal(ahead, 1, seeds), rng.normal(0, 1, seeds))[1]
                held += interval is not None and interval[0] <= true <= interval[1]
            cells.append(f"{held / 4000:.1%}")
        yield ["normal", str(seeds), *cells]


def of_failing_seeds() -> Iterator[list[str]]:
    """A seed closes 95 +- 1 % of the gap, one in ten nothing: the mean is 85.5 %."""
    yield ["seeds", "holds the mean", "no seed fails", "holds it then", "one or more fail", "holds it then"]
    for seeds in (5, 10, 20, 40):
        rng = np.random.default_rng(seeds)
        failed = rng.random((20_000, seeds)) < 0.1
        scores = np.where(failed, 0.0, rng.normal(0.95, 0.01, failed.shape))
        ends = [within(mean_interval(row), (-math.inf, 1.0)) for row in scores]
        held, lucky = np.array([low <= 0.855 <= high for low, high in ends]), ~failed.any(1)
        cells = held.mean(), lucky.mean(), held[lucky].mean(), (~lucky).mean(), held[~lucky].mean()
        yield [str(seeds), *(f"{cell:.1%}" for cell in cells)]


def of_false_claims() -> Iterator[list[str]]:
    """Reports on three algorithms under four conditions, of which two algorithms are alike: a false claim is that one of these
    is better, on average or under a condition. The third is as good as they are, or better by so many standard deviations."""
    yield ["the third is better by", "seeds", "two families", "conditions behind means"]
    for ahead in (0.0, 1.0, 3.0):
        for seeds in (8, 10, 16):
            rng, wrong = np.random.default_rng(seeds), np.zeros(2)
            for _ in range(PAGES):
                scores = rng.normal(size=(4, 3, seeds)) + np.array([0.0, 0.0, ahead])[:, None]
                by_name = [{name: dict(enumerate(row)) for name, row in zip("abc", table, strict=True)} for table in scores]
                alike = {("a", "b"), *(() if ahead else (("a", "c"), ("b", "c")))}
                means = compare({name: dict(enumerate(row)) for name, row in zip("abc", scores.mean(0), strict=True)})
                apart = corrected_together([compare(table) for table in by_name])
                for place, conditions in enumerate((apart, [behind(means, group) for group in apart])):
                    claims = [c for group in (means, *conditions) for c in group if c.separated]
                    wrong[place] += any((c.first, c.second) in alike for c in claims)
            yield [f"{ahead:g} sd", str(seeds), *(f"{share:.1%}" for share in wrong / PAGES)]


def main(wanted: list[str]) -> None:
    tables = {
        "Intervals of the mean": of_means, "Intervals of the interquartile mean": of_interquartile_means,
        "Intervals of the probability of improvement": of_improvement,
        "Where one seed in ten fails": of_failing_seeds, "False claims": of_false_claims,
    }  # fmt: skip
    print("How often 95 % intervals hold what they are of, by `benchmarks/statistics/coverage.py`.")
    for title, rows in tables.items():
        if wanted and title not in wanted:
            continue
        print(f"\n## {title}\n")
        for i, row in enumerate(rows()):
            print("|", " | ".join(row), "|", flush=True)
            if i == 0:
                print("|" + "---|" * len(row))


if __name__ == "__main__":
    main(sys.argv[1:])
