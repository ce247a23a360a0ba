"""Robust DPO, unbiased under flipped labels."""

from __future__ import annotations

from dataclasses import dataclass, field

from torch import Tensor

from alignzoo.contracts import Search, require
from alignzoo.functional import robust_dpo_loss

from .paired import Paired


@dataclass(kw_only=True)
class Robust(Paired):
    """L = ( - (1 - e) log sigma(beta Delta) + e log sigma(-beta Delta) ) / (1 - 2 e), Delta = h_chosen - h_rejected.

    Chowdhury et al. 2024, Provably robust DPO, eq. 9.
    """

    published_rate = 1e-6  # DPO's; the paper's 1e-3 is of GPT-2

    label_smoothing: float = field(
        default=0.1, metadata={"help": "e, the share of labels that are flipped", "search": Search(0.0, 0.4)}
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        require(0 <= self.label_smoothing < 0.5, "algorithm.label_smoothing", self.label_smoothing, "in [0, 0.5)")

    def link(self, chosen: Tensor, rejected: Tensor) -> Tensor:
        return robust_dpo_loss(chosen, rejected, self.beta, self.label_smoothing)
