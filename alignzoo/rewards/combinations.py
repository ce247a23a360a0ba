"""`reward=sum`, `product`, `min`, `max`, `ensemble`, `clip`, `whiten`: several rewards at once, from their scores alone."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum

import torch
from torch import Tensor

from alignzoo.batch import Completions
from alignzoo.contracts import Reward, Scores, Source
from alignzoo.errors import UserError, require
from alignzoo.functional.advantages import moments
from alignzoo.rewards.composite import Composite


@dataclass(kw_only=True)
class WeightedSum(Composite):
    """The sum of `parts`, each {kind: a reward's name, weight: its factor, 1 if not given, and that reward's own fields}.

        reward=sum reward.parts='{good: {kind: task}, long: {kind: function, weight: 0.1, path: alignzoo.rewards.text:length}}'

    Sums may be nested. One part scored by token makes the sum so; the others then score the last token. A completion that one
    part can't score has no score. Each part is reported under its name, before weighting.
    """

    def total(self, scored: Mapping[str, Scores], valid: Tensor, c: Completions) -> tuple[Tensor, dict[str, Tensor]]:
        by_token = any(scores.total.dim() == 2 for scores in scored.values())
        total = torch.zeros(())
        for name, scores in scored.items():
            total = total + self._factors[name] * (c.at_last(scores.total) if by_token else scores.total)
        return total, {}


@dataclass(kw_only=True)
class Product(Composite):
    """The product of `parts`, such as a quality in [0, 1] times a condition that is 0 or 1; weights are factors."""

    def combine(self, values: Tensor, valid: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        return values.prod(0), {}


@dataclass(kw_only=True)
class Minimum(Composite):
    """The least of `parts`, each times its weight: only what is good in every respect is good."""

    def combine(self, values: Tensor, valid: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        return values.amin(0), {}


@dataclass(kw_only=True)
class Maximum(Composite):
    """The greatest of `parts`, each times its weight: it is enough to be good in one respect."""

    def combine(self, values: Tensor, valid: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        return values.amax(0), {}


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

    def combine(self, values: Tensor, valid: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        mean, variance = values.mean(0), values.var(0, unbiased=False)
        total = {
            Agreement.mean: mean,
            Agreement.minimum: values.amin(0),
            Agreement.variance: mean - self.strength * variance,
            Agreement.deviation: mean - self.strength * variance.sqrt(),
        }
        return total[self.how], {"disagreement": variance.sqrt()}


@dataclass(kw_only=True)
class Clip(Composite):
    """The sum of `parts`, cut off below `low` and above `high`."""

    low: float | None = field(default=None, metadata={"help": "the least score; null: no limit"})
    high: float | None = field(default=None, metadata={"help": "the greatest score; null: no limit"})

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.low is None and self.high is None:
            raise UserError("reward=clip has no limits: give reward.low, reward.high or both")
        if self.low is not None and self.high is not None and self.low >= self.high:
            raise UserError(f"reward.low={self.low:g}: must be < reward.high={self.high:g}")

    def combine(self, values: Tensor, valid: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        total = values.sum(0)
        return total.clamp(self.low, self.high), {"unclipped": total}


@dataclass(kw_only=True)
class Whiten(Composite):
    """The sum of `parts`, (r - mean) / standard deviation of the completions that are scored together on this process.

    A score then depends on its batch, and the mean of an evaluation is 0 by construction: read `reward/unwhitened` there.
    """

    centre: bool = field(default=True, metadata={"help": "whether the mean is taken off; without, only the scale changes"})

    def combine(self, values: Tensor, valid: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        total = values.sum(0)
        return scaled(total, *moments(total, valid), self.centre), {"unwhitened": total}


def scaled(total: Tensor, mean: Tensor, variance: Tensor, centre: bool) -> Tensor:
    """(r - mean) / sqrt(variance), or r / sqrt(variance); undivided where the variance is 0."""
    divisor = torch.where(variance > 0, variance, 1).sqrt()
    return ((total - mean if centre else total.double()) / divisor).to(total.dtype)
