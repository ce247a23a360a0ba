"""What several seeds say about an algorithm."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import sqrt
from statistics import fmean, stdev


@dataclass(frozen=True)
class Estimate:
    """A mean over runs, with the half-width of its confidence interval, None for a single run."""

    mean: float
    half_width: float | None
    count: int


def estimate(values: Sequence[float], confidence: float = 0.95) -> Estimate:
    """Student's t interval for the mean of independent, roughly normal values. Raises ValueError where there are none."""
    if not values:
        raise ValueError("no values to average")
    if len(values) == 1:
        return Estimate(values[0], None, 1)
    from scipy.stats import t

    quantile = float(t.ppf((1 + confidence) / 2, len(values) - 1))
    return Estimate(fmean(values), quantile * stdev(values) / sqrt(len(values)), len(values))
