"""Identity preference optimisation, per token."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from alignzoo.batch import Completions
from alignzoo.functional import ipo_loss

from .paired import Paired


@dataclass(kw_only=True)
class IPO(Paired):
    """L = (Delta - 1 / (2 beta))^2, Delta the difference of the sides' mean log-ratio of a token.

    Azar et al. 2024, A general theoretical paradigm to understand learning from human preferences, eq. 17, in the normalised
    form that its results are of. `ipo_sum` is eq. 17 as it is written.
    """

    def pooled(self, both: Completions, log_ratio: Tensor) -> Tensor:
        return both.mean(log_ratio)

    def link(self, chosen: Tensor, rejected: Tensor) -> Tensor:
        return ipo_loss(chosen, rejected, self.beta)
