"""How often do 95 % intervals hold what they are of? python benchmarks/statistics/coverage.py > coverage.md

Gaps closed by an algorithm are near normal, or skewed to the left: most seeds come close to a limit, a few fall short.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from scipy import stats

from alignzoo.statistics.comparison import probability_of_improvement
from alignzoo.statistics.intervals import interquartile_interval, mean_interval

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


def student(scores: np.ndarray) -> tuple[float, float]:
    half = stats.t.ppf(0.975, len(scores) - 1) * scores.std(ddof=1) / math.sqrt(len(scores))
    return scores.mean() - half, scores.mean() + half


def trimmed(scores: np.ndarray) -> tuple[float, float]:
    """Tukey and McLaughlin's interval of the mean without whole quarters, by scipy."""
    low, high = stats.mstats.trimmed_mean_ci(scores, limits=(0.25, 0.25), alpha=0.05)
    return float(low), float(high)


def bootstrap(method: str, statistic: Callable[..., Any] = np.mean) -> Interval:
    def interval(scores: np.ndarray) -> tuple[float, float]:
        found = stats.bootstrap((scores,), statistic, method=method, n_resamples=2000, rng=0, vectorized=True)
        return found.confidence_interval.low, found.confidence_interval.high

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
                found = probability_of_improvement(rng.normal(ahead, 1, seeds), rng.normal(0, 1, seeds))[1]
                held += found is not None and found[0] <= true <= found[1]
            cells.append(f"{held / 4000:.1%}")
        yield ["normal", str(seeds), *cells]


def main() -> None:
    tables = {
        "Intervals of the mean": of_means, "Intervals of the interquartile mean": of_interquartile_means,
        "Intervals of the probability of improvement": of_improvement,
    }  # fmt: skip
    print("How often 95 % intervals hold what they are of, by `benchmarks/statistics/coverage.py`.")
    for title, rows in tables.items():
        print(f"\n## {title}\n")
        for i, row in enumerate(rows()):
            print("|", " | ".join(row), "|", flush=True)
            if i == 0:
                print("|" + "---|" * len(row))


if __name__ == "__main__":
    main()
