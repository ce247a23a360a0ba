"""Noise-contrastive alignment on pairs."""

from __future__ import annotations

from dataclasses import dataclass, field

from torch import Tensor

from alignzoo.contracts import Search
from alignzoo.functional import nca_loss

from .paired import Paired


@dataclass(kw_only=True)
class NCA(Paired):
    """L = - log sigma(beta h_c) - 1/2 log sigma(-beta h_c) - 1/2 log sigma(-beta h_r).

    Chen et al. 2024, Noise contrastive alignment of language models with explicit rewards, eq. 11.
    """

    published_rate = 5e-6  # Chen et al. 2024, section C

    beta: float = field(
        default=0.01,
        metadata={"help": "the paper's alpha: larger stays nearer to the reference", "search": Search(0.001, 1.0, log=True)},
    )

    def link(self, chosen: Tensor, rejected: Tensor) -> Tensor:
        return nca_loss(chosen, rejected, self.beta)
