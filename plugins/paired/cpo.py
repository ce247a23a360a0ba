"""Contrastive preference optimisation."""

from __future__ import annotations

from dataclasses import dataclass, field

from torch import Tensor

from alignzoo.batch import Completions, Pairs
from alignzoo.contracts import Models, Search, require
from alignzoo.functional import dpo_loss

from .paired import Sides, Terms


@dataclass(kw_only=True)
class CPO(Sides):
    """L = - log sigma( beta (log pi(y_c) - log pi(y_r)) ) - alpha log pi(y_c), the second the mean over the step's tokens.

    Xu et al. 2024, Contrastive preference optimization, eq. 5, the likelihood averaged as its authors' code does. No reference.
    """

    beta: float = field(default=0.1, metadata={"help": "scale of the log-probs", "search": Search(0.01, 1.0, log=True)})
    alpha: float = field(default=1.0, metadata={"help": "weight of the likelihood", "search": Search(0.1, 2.0, log=True)})

    def __post_init__(self) -> None:
        require(self.beta > 0, "algorithm.beta", self.beta, "> 0")
        require(self.alpha >= 0, "algorithm.alpha", self.alpha, ">= 0")

    def link(self, chosen: Tensor, rejected: Tensor) -> Tensor:
        return dpo_loss(chosen, rejected, self.beta)

    def weights(self, batch: Pairs) -> dict[str, Tensor]:
        return {"nll": batch.both.scored[: len(batch)] * batch.counted[:, None]}

    def terms(self, loss: Tensor, models: Models, both: Completions, logprobs: Tensor) -> Terms:
        return {"preference": loss, "nll": -self.alpha * logprobs.chunk(2)[0]}
