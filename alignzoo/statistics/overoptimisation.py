"""What a proxy of the reward is worth once it is climbed: the law of Gao, Schulman and Hilton (2023), "Scaling laws for reward
model overoptimization", and whether a run ended below what it had.

With d = sqrt(KL) and R the gold reward above that of the reference:

    R(d) = d (alpha - beta log d)        for reinforcement learning
    R(d) = d (alpha - beta d)            for best-of-n
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum
from math import exp, inf

import numpy as np

from alignzoo.statistics.intervals import Ends, mean_interval


class Law(Enum):
    rl = "rl"
    best_of_n = "best of n"

    def bend(self, d: np.ndarray) -> np.ndarray:
        """What beta stands before: d log d, which goes to 0 with d, or d^2."""
        if self is Law.best_of_n:
            return d**2
        return d * np.log(np.where(d > 0, d, 1.0))


@dataclass(frozen=True)
class Fit:
    law: Law
    alpha: float
    beta: float

    def __call__(self, d: np.ndarray) -> np.ndarray:
        return self.alpha * d - self.beta * self.law.bend(d)

    @property
    def peak(self) -> float:
        """The d of most gold reward, where the derivative is zero: exp(alpha / beta - 1), or alpha / (2 beta) and not below 0.
        Infinite where it only rises.
        """
        if self.beta <= 0:
            return inf
        if self.law is Law.best_of_n:
            return max(0.0, self.alpha / (2 * self.beta))
        return exp(min(self.alpha / self.beta - 1, 700.0))


def fit(law: Law, points: Sequence[tuple[float, float]]) -> Fit | None:
    """Least squares over points (d, R), which is linear in alpha and beta. None with fewer than three of different d > 0: two
    would be met whatever they are.
    """
    d, gain = (np.array([point[i] for point in points if point[0] > 0], dtype=np.float64) for i in (0, 1))
    if len(np.unique(d)) < 3:
        return None
    (alpha, beta), *_ = np.linalg.lstsq(np.stack([d, -law.bend(d)], 1), gain, rcond=None)
    return Fit(law, float(alpha), float(beta))


@dataclass(frozen=True)
class Fall:
    """From evaluation `best`, that of the highest mean, to the last: what gold lost and what the proxy gained on the same
    prompts, with intervals. That of the loss is corrected for `best` being chosen among all.
    """

    best: int
    lost: float
    lost_interval: Ends
    gained: float
    gained_interval: Ends

    @property
    def shown(self) -> bool:
        """Whether gold ends below its maximum, and the proxy above what it was there, by more than their intervals."""
        return self.lost_interval[0] > 0 and self.gained_interval[0] > 0


def fall(gold: np.ndarray, proxy: np.ndarray, confidence: float = 0.95) -> Fall | None:
    """From the scores (evaluations, prompts), of the same prompts at every evaluation. None where the last is the best, or
    there is one prompt.
    """
    best, last = int(gold.mean(1).argmax()), len(gold) - 1
    if best == last or gold.shape[1] < 2:
        return None
    lost, gained = gold[best] - gold[last], proxy[last] - proxy[best]
    among_all = 1 - (1 - confidence) / last
    return Fall(
        best,
        float(lost.mean()),
        mean_interval(lost, among_all),
        float(gained.mean()),
        mean_interval(gained, confidence),
    )
