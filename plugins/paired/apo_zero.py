"""Anchored preference optimisation, chosen up."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from alignzoo.functional import apo_zero_loss

from .paired import Paired


@dataclass(kw_only=True)
class APOZero(Paired):
    """L = 1 - sigma(beta h_c) + sigma(beta h_r).

    D'Oosterlinck et al. 2024, Anchored preference optimization and contrastive revisions, eq. 7.
    """

    published_rate = 2e-7  # D'Oosterlinck et al. 2024, section 5.2

    def link(self, chosen: Tensor, rejected: Tensor) -> Tensor:
        return apo_zero_loss(chosen, rejected, self.beta)
