"""DPO with the likelihood of the chosen side beside it."""

from __future__ import annotations

from dataclasses import dataclass, field

from torch import Tensor

from alignzoo.batch import Completions
from alignzoo.contracts import Models, Search, require
from alignzoo.functional import dpo_loss

from .paired import Paired, Terms


@dataclass(kw_only=True)
class RPONLL(Paired):
    """L = - log sigma(beta Delta) - alpha log pi(y_chosen) / |y_chosen|, Delta = h_chosen - h_rejected.

    Pang et al. 2024, Iterative reasoning preference optimization, eq. 1.
    """

    alpha: float = field(default=1.0, metadata={"help": "weight of the likelihood", "search": Search(0.1, 2.0, log=True)})

    def __post_init__(self) -> None:
        super().__post_init__()
        require(self.alpha >= 0, "algorithm.alpha", self.alpha, ">= 0")

    def link(self, chosen: Tensor, rejected: Tensor) -> Tensor:
        return dpo_loss(chosen, rejected, self.beta)

    def terms(self, loss: Tensor, models: Models, both: Completions, logprobs: Tensor) -> Terms:
        return {"preference": loss, "nll": -self.alpha * both.mean(logprobs).chunk(2)[0]}
