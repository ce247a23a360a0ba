"""How often do 95 % intervals of the mean hold the true mean? python benchmarks/statistics/coverage.py > coverage.md

Gaps closed by an algorithm are near normal, or skewed to the left: most seeds come close to a limit, a few fall short.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
from scipy import stats

from alignzoo.evaluation.intervals import mean_interval

Draw = Callable[[np.random.Generator, tuple[int, int]], np.ndarray]
Interval = Callable[[np.ndarray], tuple[float, float]]

# name: draws, true mean. All but the last are what the interval is for; the last shows where it ends.
GAPS: dict[str, tuple[Draw, float]] = {
    "normal": (lambda g, size: g.normal(0.9, 0.02, size), 0.9),
    "beta(8, 2), skewness -0.8": (lambda g, size: g.beta(8, 2, size), 0.8),
    "1 - gamma(4), skewness -1": (lambda g, size: 1 - 0.02 * g.gamma(4, 1, size), 0.92),
    "beta(18, 1.5), skewness -1.3": (lambda g, size: g.beta(18, 1.5, size), 18 / 19.5),
    "1 - log-normal(0.5), skewness -1.8": (lambda g, size: 1 - g.lognormal(-3, 0.5, size), 1 - math.exp(-3 + 0.125)),
    "1 - exponential, skewness -2": (lambda g, size: 1 - g.exponential(0.05, size), 0.95),
}
SEEDS = (3, 5, 10, 20)


def student(scores: np.ndarray) -> tuple[float, float]:
    half = stats.t.ppf(0.975, len(scores) - 1) * scores.std(ddof=1) / math.sqrt(len(scores))
    return scores.mean() - half, scores.mean() + half


def bootstrap(method: str) -> Interval:
    def interval(scores: np.ndarray) -> tuple[float, float]:
        found = stats.bootstrap((scores,), np.mean, method=method, n_resamples=2000, rng=0, vectorized=True)
        return found.confidence_interval.low, found.confidence_interval.high

    return interval


def coverage(interval: Interval, draw: Draw, mean: float, seeds: int, trials: int) -> float:
    """The share of `trials` samples of `seeds` gaps each whose interval holds the true mean."""
    samples = draw(np.random.default_rng(seeds), (trials, seeds))
    return sum(low <= mean <= high for low, high in map(interval, samples)) / trials


def main() -> None:
    methods: dict[str, tuple[Interval, int]] = {
        "alignzoo": (mean_interval, 20_000),
        "t": (student, 20_000),
        "BCa": (bootstrap("BCa"), 2_000),
        "percentile": (bootstrap("percentile"), 2_000),
    }
    print("| gaps | seeds |", " | ".join(methods), "|")
    print("|---|---|" + "---|" * len(methods))
    for name, (draw, mean) in GAPS.items():
        for seeds in SEEDS:
            cells = [f"{coverage(interval, draw, mean, seeds, trials):.1%}" for interval, trials in methods.values()]
            print(f"| {name} | {seeds} |", " | ".join(cells), "|", flush=True)


if __name__ == "__main__":
    main()
