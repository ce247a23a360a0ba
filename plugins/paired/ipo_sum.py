"""Identity preference optimisation, eq. 17 as it is written."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from alignzoo.functional import ipo_loss

from .paired import Paired


@dataclass(kw_only=True)
class IPOSum(Paired):
    """L = (Delta - 1 / (2 beta))^2, Delta = h_chosen - h_rejected, summed over tokens.

    Azar et al. 2024, A general theoretical paradigm to understand learning from human preferences, eq. 17.
    """

    def link(self, chosen: Tensor, rejected: Tensor) -> Tensor:
        return ipo_loss(chosen, rejected, self.beta)
