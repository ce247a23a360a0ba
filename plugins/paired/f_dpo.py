"""DPO under other divergences than the reverse KL."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum

from torch import Tensor

from alignzoo.contracts import Search, require
from alignzoo.functional import alpha_score, dpo_loss, forward_kl_score, jensen_shannon_score

from .paired import Paired


class Divergence(Enum):
    forward_kl = "forward_kl"
    jensen_shannon = "jensen_shannon"
    alpha = "alpha"


@dataclass(kw_only=True)
class FDPO(Paired):
    """L = - log sigma( beta (f'(u_chosen) - f'(u_rejected)) ), u = pi / ref, f of the divergence that ties to the reference.

    Wang et al. 2023, Beyond reverse KL: generalizing direct preference optimization, eq. 13 and table 1. The reverse KL is DPO.
    """

    divergence: Divergence = field(default=Divergence.jensen_shannon, metadata={"help": "what ties to the reference"})
    alpha: float = field(
        default=0.5,
        metadata={"help": "of divergence=alpha: 0 is the reverse KL, 1 the forward one", "search": Search(0.1, 0.9)},
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        require(0 < self.alpha < 1, "algorithm.alpha", self.alpha, "in (0, 1)")

    def score(self, ratio: Tensor) -> Tensor:
        """f'(exp(h)) of h (B,)."""
        if self.divergence is Divergence.alpha:
            return alpha_score(ratio, self.alpha)
        return forward_kl_score(ratio) if self.divergence is Divergence.forward_kl else jensen_shannon_score(ratio)

    def link(self, chosen: Tensor, rejected: Tensor) -> Tensor:
        return dpo_loss(self.score(chosen), self.score(rejected), self.beta)
