"""Efficient exact optimisation on pairs."""

from __future__ import annotations

from dataclasses import dataclass, field

from torch import Tensor

from alignzoo.contracts import Search, require
from alignzoo.functional import exo_loss

from .paired import Paired


@dataclass(kw_only=True)
class EXO(Paired):
    """L = q log(q / (1 - e)) + (1 - q) log((1 - q) / e), q = sigma(beta Delta), Delta = h_chosen - h_rejected.

    Ji et al. 2024, Towards efficient exact optimization of language model alignment, eq. 16 for K = 2.
    """

    published_rate = 1e-6  # Ji et al. 2024, section B

    label_smoothing: float = field(
        default=1e-3,
        metadata={"help": "e, the label's probability of the rejected side", "search": Search(1e-4, 0.2, log=True)},
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        require(0 < self.label_smoothing < 0.5, "algorithm.label_smoothing", self.label_smoothing, "in (0, 0.5)")

    def link(self, chosen: Tensor, rejected: Tensor) -> Tensor:
        return exo_loss(chosen, rejected, self.beta, self.label_smoothing)
