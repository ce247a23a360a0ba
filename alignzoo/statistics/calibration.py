"""How good a reward model's preferences are: right, sure of it to the right degree, and not a matter of length.

A margin is the score of the better completion less that of the worse one, (N,); sigma(margin) is the probability that the model
gives to the label (Bradley-Terry).
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from alignzoo.statistics.intervals import deviation

Floats = NDArray[np.float64]
BINS = 10


@dataclass(frozen=True)
class Bin:
    """Comparisons of which the model is about as sure: how many there are, how sure it is of them on average, and the share of
    them that it has right."""

    low: float
    high: float
    count: int
    confidence: float
    accuracy: float


def right(margins: Floats) -> Floats:
    """(N,): 1 where the better completion has the higher score, 0 where the lower, a half where they are equal."""
    return (np.sign(margins) + 1) / 2


def accuracy(margins: Floats) -> float:
    """The share of comparisons that the model has right; equal scores count half. NaN where there are none."""
    return float(right(margins).mean()) if len(margins) else float("nan")


def log_loss(margins: Floats) -> float:
    """The mean of -log sigma(margin): log 2 for a model that knows nothing, infinite for one that is wrong and certain."""
    return float(np.logaddexp(0, -margins).mean()) if len(margins) else float("nan")


def reliability(margins: Floats, bins: int = BINS) -> list[Bin]:
    """The reliability diagram (Guo et al. 2017, On calibration of modern neural networks, figure 1): accuracy by confidence.

    Confidence, sigma(|margin|), is at least a half between two completions, so the bins are equally wide parts of [0.5, 1],
    each with its lower end and the last with both. Empty bins are left out.
    """
    sure, correct = 1 / (1 + np.exp(-np.abs(margins))), right(margins)
    edges = np.linspace(0.5, 1, bins + 1)
    place = np.clip(np.searchsorted(edges, sure, side="right") - 1, 0, bins - 1)
    diagram = []
    for i, (low, high) in enumerate(pairwise(edges.tolist())):
        inside = place == i
        if count := int(inside.sum()):
            diagram.append(Bin(low, high, count, float(sure[inside].mean()), float(correct[inside].mean())))
    return diagram


def expected_calibration_error(margins: Floats, bins: int = BINS) -> float:
    """sum_b n_b / N |accuracy_b - confidence_b| over the bins of `reliability` (Guo et al. 2017, eq. 3); 0 is calibrated."""
    return sum(b.count * abs(b.accuracy - b.confidence) for b in reliability(margins, bins)) / len(margins)


def accuracy_by_size(margins: Floats, sizes: Floats, parts: int = 4) -> list[float]:
    """Accuracy in `parts` groups of comparisons, as equal in number as can be, from the least `sizes` (N,) to the greatest,
    such as |margin| or how much better a person found the better completion. Equal sizes stay in the order given."""
    order = np.argsort(sizes, kind="stable")
    return [accuracy(margins[group]) for group in np.array_split(order, parts)]


def correlation(a: Floats, b: Floats) -> float:
    """Pearson's; 0 where one of them does not vary."""
    scale = float(deviation(a).item() * deviation(b).item())
    return float(((a - a.mean()) * (b - b.mean())).mean()) / scale if scale > 0 else 0.0
