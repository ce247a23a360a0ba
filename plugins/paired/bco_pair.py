"""Binary classifier optimisation on pairs."""

from __future__ import annotations

from dataclasses import dataclass, field

from torch import Tensor

from alignzoo.contracts import Search
from alignzoo.functional import bco_pair_loss

from .paired import Paired


@dataclass(kw_only=True)
class BCOPair(Paired):
    """L = - log sigma(beta h_c) - log sigma(-beta h_r).

    Jung et al. 2024, Binary classifier optimization, without the shift of the reward.
    """

    published_rate = 5e-7  # Jung et al. 2024, section C

    beta: float = field(
        default=0.01,
        metadata={"help": "strength of the tie to the reference: larger stays nearer", "search": Search(0.001, 1.0, log=True)},
    )

    def link(self, chosen: Tensor, rejected: Tensor) -> Tensor:
        return bco_pair_loss(chosen, rejected, self.beta)
