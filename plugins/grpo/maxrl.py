"""Advantages in units of the group's mean."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from alignzoo.batch import Completions
from alignzoo.contracts import Models, Scores
from alignzoo.functional import maxrl_advantages

from .grouped import Clipped, Grouped


@dataclass(kw_only=True)
class MaxRL(Clipped):
    """L = sum_t - min(r_t A, clip(r_t, 1 - e, 1 + e_high) A), A = (R - mean R) / mean |R| over the prompt's samples.

    Tajwar et al. 2026, Maximum likelihood reinforcement learning. For rewards of 0 and 1 the gradient tends to that of the log
    of the chance of success as the group grows.
    """

    def advantages(self, models: Models, rollout: Grouped, scores: Scores) -> Tensor:
        return maxrl_advantages(rollout.reward, rollout.prompt_of, scores.usable)

    def averaged(self, c: Completions, loss: Tensor, longest: int) -> Tensor:
        return c.sum(loss)
