"""DPO-positive: the chosen side may not get less likely."""

from __future__ import annotations

from dataclasses import dataclass, field

from torch import Tensor

from alignzoo.contracts import Search, require
from alignzoo.functional import dpop_loss

from .paired import Paired


@dataclass(kw_only=True)
class DPOP(Paired):
    """L = - log sigma( beta (Delta - lambda max(0, -h_chosen)) ), Delta = h_chosen - h_rejected.

    Pal et al. 2024, Smaug: fixing failure modes of preference optimisation with DPO-positive, eq. 3.
    """

    beta: float = field(
        default=0.3, metadata={"help": "strength of the tie to the reference", "search": Search(0.01, 1.0, log=True)}
    )
    penalty: float = field(
        default=50.0, metadata={"help": "lambda, of a chosen side that got less likely", "search": Search(1.0, 100.0, log=True)}
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        require(self.penalty >= 0, "algorithm.penalty", self.penalty, ">= 0")

    def link(self, chosen: Tensor, rejected: Tensor) -> Tensor:
        return dpop_loss(chosen, rejected, self.beta, self.penalty)
