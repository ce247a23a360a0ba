"""DPO that takes length out of the preference."""

from __future__ import annotations

from dataclasses import dataclass, field

from torch import Tensor

from alignzoo.batch import Pairs
from alignzoo.contracts import Models, Search, require
from alignzoo.functional import dpo_loss

from .paired import Paired, Terms


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

    def link(self, chosen: Tensor, rejected: Tensor) -> Tensor:
        """Of rewards that length explains too, in units of 1 / beta."""
        return dpo_loss(chosen, rejected, self.beta)

    def loss(self, models: Models, batch: Pairs) -> tuple[Terms, dict[str, Tensor]]:
        both = batch.both
        ratio = both.sum(self.per_token(models, both, models.policy.logprobs(both)))
        explained = ratio + self.alpha / self.beta * both.length
        return self.link(*explained.chunk(2)), self.measured(*ratio.chunk(2))
