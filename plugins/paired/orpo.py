"""Odds ratio preference optimisation."""

from __future__ import annotations

from dataclasses import dataclass, field

from torch import Tensor

from alignzoo.batch import Completions
from alignzoo.contracts import Models, Search, require
from alignzoo.functional import dpo_loss, log_odds

from .paired import Sides, Terms


@dataclass(kw_only=True)
class ORPO(Sides):
    """L = - l_c - lambda log sigma( log odds(exp(l_c)) - log odds(exp(l_r)) ), l a token's mean log-prob, odds p / (1 - p).

    Hong et al. 2024, ORPO: monolithic preference optimization without reference model, eq. 6 and 7.
    """

    weight: float = field(default=0.1, metadata={"help": "lambda, of the odds ratio", "search": Search(0.05, 1.0, log=True)})

    def __post_init__(self) -> None:
        require(self.weight > 0, "algorithm.weight", self.weight, "> 0")

    def pooled(self, both: Completions, values: Tensor) -> Tensor:
        return both.mean(values)

    def link(self, chosen: Tensor, rejected: Tensor) -> Tensor:
        return self.weight * dpo_loss(log_odds(chosen), log_odds(rejected), 1.0)

    def terms(self, loss: Tensor, models: Models, both: Completions, logprobs: Tensor) -> Terms:
        return {"odds": loss, "nll": -both.mean(logprobs).chunk(2)[0]}
