"""DPO that takes length out of the preference."""

from __future__ import annotations

from dataclasses import dataclass, field

from torch import Tensor

from alignzoo.batch import Completions
from alignzoo.contracts import Search, require
from alignzoo.functional import dpo_loss

from .paired import Paired


@dataclass(kw_only=True)
class RDPOLength(Paired):
    """L = - log sigma( beta Delta + alpha (|y_c| - |y_r|) ), |y| in scored tokens.

    Park et al. 2024, Disentangling length from quality in direct preference optimization: where r - alpha |y| is maximised,
    the reward that the policy implies is beta h + alpha |y|.
    """

    alpha: float = field(
        default=0.01, metadata={"help": "what a token costs, in units of the reward", "search": Search(0.001, 1.0, log=True)}
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        require(self.alpha >= 0, "algorithm.alpha", self.alpha, ">= 0")

    def pooled(self, both: Completions, values: Tensor) -> Tensor:
        return both.sum(values) + self.alpha / self.beta * both.length

    def link(self, chosen: Tensor, rejected: Tensor) -> Tensor:
        return dpo_loss(chosen, rejected, self.beta)
