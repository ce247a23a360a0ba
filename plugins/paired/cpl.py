"""Contrastive preference learning."""

from __future__ import annotations

from dataclasses import dataclass, field

from torch import Tensor

from alignzoo.batch import Completions
from alignzoo.contracts import Search, require
from alignzoo.functional import cpl_loss

from .paired import Sides


@dataclass(kw_only=True)
class CPL(Sides):
    """L = - log( exp(A_c) / (exp(A_c) + exp(lambda A_r)) ), A = alpha sum_t gamma^t log pi(y_t). No reference.

    Preferences are taken to follow regret. Hejna et al. 2023, Contrastive preference learning: learning from human feedback
    without RL, eq. 5; conservative with lambda < 1, eq. 10.
    """

    alpha: float = field(
        default=0.1,
        metadata={
            "help": "temperature of maximum-entropy RL: an advantage is alpha log pi",
            "search": Search(0.01, 1.0, log=True),
        },
    )
    gamma: float = field(default=1.0, metadata={"help": "discount of later tokens"})
    bias: float = field(
        default=0.5, metadata={"help": "lambda: below 1 keeps the policy near the data", "search": Search(0.25, 1.0)}
    )

    def __post_init__(self) -> None:
        require(self.alpha > 0, "algorithm.alpha", self.alpha, "> 0")
        require(0 < self.gamma <= 1, "algorithm.gamma", self.gamma, "in (0, 1]")
        require(0 < self.bias <= 1, "algorithm.bias", self.bias, "in (0, 1]")

    def pooled(self, both: Completions, values: Tensor) -> Tensor:
        discount = self.gamma ** (both.scored.cumsum(1) - 1).clamp(min=0).to(values.dtype)
        return self.alpha * both.sum(discount * values)

    def link(self, chosen: Tensor, rejected: Tensor) -> Tensor:
        return cpl_loss(chosen, rejected, self.bias)
