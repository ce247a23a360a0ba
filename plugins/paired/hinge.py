"""Hinge loss on log-ratios."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from alignzoo.functional import hinge_loss

from .paired import Paired


@dataclass(kw_only=True)
class Hinge(Paired):
    """L = max(0, 1 - beta Delta), Delta = h_chosen - h_rejected.

    Liu et al. 2024, Statistical rejection sampling improves preference optimization, eq. 10, not normalised by
    length.
    """

    published_rate = 1e-4  # Zhao et al. 2023, SLiC-HF, section 3.2

    def link(self, chosen: Tensor, rejected: Tensor) -> Tensor:
        return hinge_loss(chosen, rejected, self.beta)
