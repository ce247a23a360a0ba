"""REINFORCE++."""

from __future__ import annotations

from dataclasses import dataclass, field

from torch import Tensor

from alignzoo.batch import Completions
from alignzoo.contracts import Models, Scores, Search
from alignzoo.functional import discounted_returns, whiten
from alignzoo.kl import FlatKL

from .grouped import Clipped, Grouped


@dataclass(kw_only=True)
class ReinforcePP(Clipped):
    """PPO's surrogate with A_t = R - beta sum_{t' >= t} (log pi - log ref)(y_t'), normalised over the tokens of the rollout.

    Hu et al. 2025, REINFORCE++: stabilizing critic-free policy optimization with global normalization.
    """

    beta: float = field(
        default=0.01,
        metadata={"help": "weight of the KL in the reward; 0 needs no reference", "search": Search(0.001, 1.0, log=True)},
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        self.kl = FlatKL(beta=self.beta)

    def least_samples(self) -> int:
        return 1

    def advantages(self, models: Models, rollout: Grouped, scores: Scores) -> Tensor:
        returns = discounted_returns(self.penalised(rollout, rollout.at_last(scores.total)), rollout.scored)
        return whiten(returns, rollout.scored & scores.usable[:, None], models.sum)

    def penalised(self, rollout: Grouped, rewards: Tensor) -> Tensor:
        """Rewards of tokens, (B, T), without the KL and with it."""
        if rollout.reference_logprobs is None:
            return rewards
        return rewards - self.kl.penalty(rollout.old_logprobs, rollout.reference_logprobs)

    def averaged(self, c: Completions, loss: Tensor, longest: int) -> Tensor:
        return loss
