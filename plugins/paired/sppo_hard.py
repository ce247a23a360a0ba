"""Self-play preference optimisation with labels as probabilities."""

from __future__ import annotations

from dataclasses import dataclass, field

from torch import Tensor

from alignzoo.contracts import Search
from alignzoo.functional import sppo_hard_loss

from .paired import Paired


@dataclass(kw_only=True)
class SPPOHard(Paired):
    """L = (h_c - 1 / (2 beta))^2 + (h_r + 1 / (2 beta))^2.

    Wu et al. 2024, Self-play preference optimization, eq. 4.7 with P = 1 for the chosen and 0 for the rejected side.
    """

    published_rate = 5e-7  # Wu et al. 2024, section C

    beta: float = field(
        default=0.001,
        metadata={
            "help": "one over the paper's eta: larger stays nearer to the reference",
            "search": Search(0.001, 1.0, log=True),
        },
    )

    def link(self, chosen: Tensor, rejected: Tensor) -> Tensor:
        return sppo_hard_loss(chosen, rejected, self.beta)
