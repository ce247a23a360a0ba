"""Anchored preference optimisation, both down."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from alignzoo.functional import apo_down_loss

from .paired import Paired


@dataclass(kw_only=True)
class APODown(Paired):
    """L = sigma(beta h_c) + 1 - sigma(beta Delta), Delta = h_c - h_r.

    D'Oosterlinck et al. 2024, Anchored preference optimization and contrastive revisions, eq. 8.
    """

    published_rate = 2e-7  # D'Oosterlinck et al. 2024, section 5.2

    def link(self, chosen: Tensor, rejected: Tensor) -> Tensor:
        return apo_down_loss(chosen, rejected, self.beta)
