"""GRPO as OpenRLHF has it: the KL in the reward, after its normalisation."""

from __future__ import annotations

from dataclasses import dataclass, field

from torch import Tensor

from alignzoo.contracts import Models, Scores, Search
from alignzoo.functional import discounted_returns, group_advantages

from .grouped import Grouped
from .reinforce_pp import ReinforcePP


@dataclass(kw_only=True)
class GRPOOpenRLHF(ReinforcePP):
    """PPO's surrogate with A_t = (R - mean R) / (sd R + 1e-9) - beta sum_{t' >= t} (log pi - log ref)(y_t'), mean over tokens.

    Shao et al. 2024, DeepSeekMath, as the estimator `group_norm` of OpenRLHF 0.11.0 has it.
    """

    beta: float = field(
        default=0.01,
        metadata={"help": "weight of the KL beside the normalised reward; 0: none", "search": Search(0.001, 1.0, log=True)},
    )

    def least_samples(self) -> int:
        return 2

    def advantages(self, models: Models, rollout: Grouped, scores: Scores) -> Tensor:
        rewards = rollout.at_last(group_advantages(rollout.reward, rollout.prompt_of, scores.usable, epsilon=1e-9))
        return discounted_returns(self.penalised(rollout, rewards), rollout.scored)
