"""Clipped importance weights, with every token's gradient."""

from __future__ import annotations

from dataclasses import dataclass, field

from torch import Tensor

from alignzoo.batch import Completions
from alignzoo.contracts import Search, require
from alignzoo.functional import cispo_surrogate

from .grouped import Grouped, GroupRelative, Metrics


@dataclass(kw_only=True)
class CISPO(GroupRelative):
    """L = mean over the step's tokens of - sg(clip(r_t, low, high)) A log pi(y_t), A as GRPO's.

    MiniMax 2025, MiniMax-M1. The weight is clipped, not the gradient: rare tokens go on learning.
    """

    low: float = field(default=0.0, metadata={"help": "the least importance weight"})
    high: float = field(default=5.0, metadata={"help": "the greatest importance weight", "search": Search(1.0, 10.0, log=True)})

    def __post_init__(self) -> None:
        super().__post_init__()
        require(0 <= self.low < 1, "algorithm.low", self.low, "in [0, 1)")
        require(self.high >= 1, "algorithm.high", self.high, ">= 1")

    def surrogate(self, batch: Grouped, new: Tensor, old: Tensor, advantages: Tensor) -> tuple[Tensor, Metrics]:
        ratio = (new - old).detach().exp()
        clipped = (ratio < self.low) | (ratio > self.high)
        return cispo_surrogate(new, old, advantages, self.low, self.high), {"clip_fraction": clipped.float()}

    def averaged(self, c: Completions, loss: Tensor, longest: int) -> Tensor:
        return loss
