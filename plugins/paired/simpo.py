"""Simple preference optimisation."""

from __future__ import annotations

from dataclasses import dataclass, field

from torch import Tensor

from alignzoo.batch import Completions
from alignzoo.contracts import Search, require
from alignzoo.functional import simpo_loss

from .paired import Sides


@dataclass(kw_only=True)
class SimPO(Sides):
    """L = - log sigma( beta (l_chosen - l_rejected) - gamma ), l the mean log-prob of a token. No reference.

    Meng et al. 2024, SimPO: simple preference optimization with a reference-free reward, eq. 6.
    """

    beta: float = field(default=2.0, metadata={"help": "scale of the mean log-probs", "search": Search(1.0, 10.0, log=True)})
    margin: float = field(
        default=1.0, metadata={"help": "gamma, by which the chosen side is to win", "search": Search(0.0, 2.0)}
    )

    def __post_init__(self) -> None:
        require(self.beta > 0, "algorithm.beta", self.beta, "> 0")
        require(self.margin >= 0, "algorithm.margin", self.margin, ">= 0")

    def pooled(self, both: Completions, values: Tensor) -> Tensor:
        return both.mean(values)

    def link(self, chosen: Tensor, rejected: Tensor) -> Tensor:
        return simpo_loss(chosen, rejected, self.beta, self.margin)
