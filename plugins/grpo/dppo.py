"""A trust region by divergence."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum

from torch import Tensor

from alignzoo.batch import Completions
from alignzoo.contracts import Models, Scores, Search, require
from alignzoo.functional import binary_kl, binary_total_variation, dppo_surrogate, group_advantages

from .grouped import Grouped, GroupRelative, Metrics


class Divergence(Enum):
    tv = "tv"  # total variation
    kl = "kl"


FUNCTIONS = {Divergence.tv: binary_total_variation, Divergence.kl: binary_kl}


@dataclass(kw_only=True)
class DPPO(GroupRelative):
    """L = 1 / longest sum_t - M_t r_t A, M_t = 0 where "this token or another" has diverged and A pushes it further apart.

    Qi et al. 2026, Rethinking the trust region in LLM reinforcement learning, eq. 11 to 14. A is R - mean R.
    """

    divergence: Divergence = field(default=Divergence.tv, metadata={"help": "of a token from the sampler: tv or kl"})
    threshold: float = field(
        default=0.15, metadata={"help": "the divergence beyond which it is held", "search": Search(0.01, 0.5, log=True)}
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        most = 1 if self.divergence is Divergence.tv else float("inf")
        require(0 < self.threshold < most, "algorithm.threshold", self.threshold, "> 0, and < 1 for tv")

    def advantages(self, models: Models, rollout: Grouped, scores: Scores) -> Tensor:
        return group_advantages(rollout.reward, rollout.prompt_of, scores.usable, scale=False)

    def surrogate(self, batch: Grouped, new: Tensor, old: Tensor, advantages: Tensor) -> tuple[Tensor, Metrics]:
        divergence = FUNCTIONS[self.divergence](new.detach(), old)
        loss, masked = dppo_surrogate(new, old, advantages, divergence, self.threshold)
        return loss, {"divergence": divergence, "clip_fraction": masked.float()}

    def averaged(self, c: Completions, loss: Tensor, longest: int) -> Tensor:
        return c.sum(loss) / longest
