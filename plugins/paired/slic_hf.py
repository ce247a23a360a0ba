"""Sequence likelihood calibration with human feedback."""

from __future__ import annotations

from dataclasses import dataclass, field

from torch import Tensor

from alignzoo.batch import Completions
from alignzoo.contracts import Models, Search, require
from alignzoo.functional import slic_loss

from .paired import Sides, Terms


@dataclass(kw_only=True)
class SLiCHF(Sides):
    """L = max(0, delta - log pi(y_c) + log pi(y_r)) - lambda log pi(y_c). No reference.

    Zhao et al. 2023, SLiC-HF: sequence likelihood calibration with human feedback, eq. 1, the chosen side as what it calls
    the reference answer.
    """

    published_rate = 1e-4  # Zhao et al. 2023, section 3.2

    margin: float = field(
        default=1.0, metadata={"help": "delta, nats by which the chosen side is to win", "search": Search(0.1, 10.0, log=True)}
    )
    likelihood: float = field(
        default=0.1, metadata={"help": "lambda, of the chosen side's log-likelihood", "search": Search(0.01, 1.0, log=True)}
    )

    def __post_init__(self) -> None:
        require(self.margin > 0, "algorithm.margin", self.margin, "> 0")
        require(self.likelihood >= 0, "algorithm.likelihood", self.likelihood, ">= 0")

    def link(self, chosen: Tensor, rejected: Tensor) -> Tensor:
        return slic_loss(chosen, rejected, self.margin)

    def terms(self, loss: Tensor, models: Models, both: Completions, logprobs: Tensor) -> Terms:
        return {"rank": loss, "nll": -self.likelihood * both.sum(logprobs).chunk(2)[0]}
