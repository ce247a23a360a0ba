"""`reward=sum`, `reward=product`, `reward=min`, `reward=max`, `reward=ensemble`: several rewards at once."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum

import torch
from torch import Tensor

from alignzoo.batch import Completions
from alignzoo.contracts import Reward, Scores, Source
from alignzoo.errors import UserError, require
from alignzoo.rewards.composite import Composite


@dataclass(kw_only=True)
class WeightedSum(Composite):
    """The sum of `parts`, each {kind: a reward's name, weight: its factor, 1 if not given, and that reward's own fields}.

        reward=sum reward.parts='{good: {kind: task}, long: {kind: function, weight: 0.1, path: alignzoo.rewards.text:length}}'

    Sums may be nested. One part scored by token makes the sum so; the others then score the last token. A completion that one
    part can't score has no score. Each part is reported under its name, before weighting.
    """

    def __call__(self, c: Completions) -> Scores:
        scored = self._scored(c)
        by_token = any(scores.total.dim() == 2 for scores in scored.values())
        total = torch.zeros(())
        for name, scores in scored.items():
            term = c.at_last(scores.total) if by_token else scores.total
            total = total.to(term.device) + self._factors[name] * term
        return self._joined(total, scored, c)

    def combine(self, values: dict[str, Tensor], valid: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        return sum_of(values), {}


@dataclass(kw_only=True)
class Product(Composite):
    """The product of `parts`, such as a quality in [0, 1] times a condition that is 0 or 1; weights are factors."""

    def combine(self, values: dict[str, Tensor], valid: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        return stacked(values).prod(0), {}


@dataclass(kw_only=True)
class Minimum(Composite):
    """The least of `parts`, each times its weight: only what is good in every respect is good."""

    def combine(self, values: dict[str, Tensor], valid: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        return stacked(values).amin(0), {}


@dataclass(kw_only=True)
class Maximum(Composite):
    """The greatest of `parts`, each times its weight: it is enough to be good in one respect."""

    def combine(self, values: dict[str, Tensor], valid: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        return stacked(values).amax(0), {}


class Agreement(Enum):
    mean = "mean"
    minimum = "minimum"  # the worst of them
    variance = "variance"  # mean - strength * variance
    deviation = "deviation"  # mean - strength * standard deviation


@dataclass(kw_only=True)
class Ensemble(Composite):
    """Several rewards for the same thing, such as reward models of different seeds, which policies find harder to exploit.

    mean; minimum ("worst-case optimisation"); variance: mean - strength * variance ("uncertainty-weighted", UWO, Coste et al.
    2023); deviation: mean - strength * standard deviation. Both are over the parts, divided by their number, and reported.
    """

    how: Agreement = field(default=Agreement.mean, metadata={"help": "mean, minimum, variance or deviation"})
    strength: float = field(default=1.0, metadata={"help": "how much disagreement costs, with variance and deviation"})

    def __post_init__(self) -> None:
        super().__post_init__()
        require(self.strength >= 0, "reward.strength", self.strength, ">= 0")

    def resolve(self, source: Source) -> Reward:
        super().resolve(source)
        if len(self.parts) < 2:
            raise UserError("reward=ensemble has one part: give reward.parts two or more")
        return self

    def combine(self, values: dict[str, Tensor], valid: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        several = stacked(values)
        mean, variance = several.mean(0), several.var(0, unbiased=False)
        total = {
            Agreement.mean: mean,
            Agreement.minimum: several.amin(0),
            Agreement.variance: mean - self.strength * variance,
            Agreement.deviation: mean - self.strength * variance.sqrt(),
        }
        return total[self.how], {"disagreement": variance.sqrt()}


def stacked(values: dict[str, Tensor]) -> Tensor:
    """(K, B) of K parts."""
    return torch.stack(list(values.values()))


def sum_of(values: dict[str, Tensor]) -> Tensor:
    """(B,)"""
    return stacked(values).sum(0)
