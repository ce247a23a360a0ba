"""DPO in which what a completion has beyond the other's length counts less."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor

from alignzoo.batch import Completions
from alignzoo.contracts import Search, require
from alignzoo.functional import dpo_loss

from .paired import Paired


@dataclass(kw_only=True)
class LDDPO(Paired):
    """L = - log sigma(beta Delta), h = sum_t w_t (log pi - log ref)(y_t), w_t = 1 up to the shorter side's length, then alpha.

    Liu et al. 2024, Length desensitization in direct preference optimization.
    """

    alpha: float = field(
        default=0.5, metadata={"help": "weight of the tokens beyond the shorter side's length", "search": Search(0.0, 1.0)}
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        require(0 <= self.alpha <= 1, "algorithm.alpha", self.alpha, "in [0, 1]")

    def pooled(self, both: Completions, values: Tensor) -> Tensor:
        shorter = both.length.view(2, -1).amin(0).repeat(2)[:, None]
        return both.sum(torch.where(both.scored.cumsum(1) <= shorter, values, self.alpha * values))

    def link(self, chosen: Tensor, rejected: Tensor) -> Tensor:
        return dpo_loss(chosen, rejected, self.beta)
