"""Online DPO."""

from __future__ import annotations

from dataclasses import dataclass

from alignzoo.batch import Prompts
from alignzoo.contracts import Models

from .online_pairs import OnlinePairs, SampledPairs, compared


@dataclass(kw_only=True)
class OnlineDPO(OnlinePairs):
    """L = - log sigma(beta Delta) on the best and the worst of a prompt's samples.

    Guo et al. 2024, Direct language model alignment from online AI feedback (of two samples).
    """

    data = Prompts

    def least_samples(self) -> int:
        return 2

    def experience(self, models: Models, batch: Prompts) -> SampledPairs:
        c = models.policy.generate(batch, models.sampling)
        scores = models.reward(c)
        reward = scores.summed(c)
        best, worst = c.best(reward, 1, scores.usable), c.best(-reward, 1, scores.usable)
        differ = reward[best] > reward[worst]
        best, worst = best[differ], worst[differ]
        return compared(c.take(best), c.take(worst), (reward[best], reward[worst]))
