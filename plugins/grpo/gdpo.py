"""Each part of the reward normalised in its group by itself."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor

from alignzoo.contracts import Models, Scores, UserError
from alignzoo.functional import decoupled_advantages

from .grouped import Clipped, Grouped


@dataclass(kw_only=True)
class GDPO(Clipped):
    """GRPO's loss with A = S / sd S over the rollout, S the weighted sum of each reward part's group advantages.

    Liu et al. 2026, GDPO: group reward-decoupled normalization policy optimization.
    """

    part_weights: dict[str, float] = field(
        default_factory=dict, metadata={"help": "{part of the reward: its weight}; none: all parts alike"}
    )

    def advantages(self, models: Models, rollout: Grouped, scores: Scores) -> Tensor:
        parts = {name: part for name, part in scores.parts.items() if "/" not in name} or {"reward": rollout.reward}
        weights = self.part_weights or dict.fromkeys(parts, 1.0)
        if missing := sorted(weights.keys() - parts.keys()):
            raise UserError(
                f"algorithm.part_weights has {missing[0]}, which is no part of the reward: it has {', '.join(parts)}"
            )
        rows = torch.stack([parts[name].to(rollout.reward) for name in weights])
        factors = torch.tensor(list(weights.values()), device=rollout.reward.device)
        return decoupled_advantages(rows, factors, rollout.prompt_of, scores.usable, models.sum)
