"""The geometric mean of clipped ratios."""

from __future__ import annotations

from dataclasses import dataclass, field

from torch import Tensor

from alignzoo.contracts import Search, require
from alignzoo.functional import gmpo_surrogate

from .grouped import Grouped, GroupRelative, Metrics


@dataclass(kw_only=True)
class GMPO(GroupRelative):
    """L = - A exp(mean_t l_t), l_t = log r_t cut at e where A > 0 and at - e where A < 0; A as GRPO's.

    Zhao et al. 2025, Geometric-mean policy optimization. An outlier among the ratios moves their geometric mean little.
    """

    clip: float = field(
        default=0.4, metadata={"help": "epsilon of the log of a token's ratio", "search": Search(0.05, 1.0, log=True)}
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        require(self.clip > 0, "algorithm.clip", self.clip, "> 0")

    def surrogate(self, batch: Grouped, new: Tensor, old: Tensor, advantages: Tensor) -> tuple[Tensor, Metrics]:
        log_ratio = (new - old).detach()
        clipped = (log_ratio.sign() == advantages.sign()) & (log_ratio.abs() > self.clip)
        loss = gmpo_surrogate(new, old, advantages[:, 0], batch.scored, self.clip)
        return loss[:, None].expand_as(new), {"clip_fraction": clipped.float()}
