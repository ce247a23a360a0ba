"""Advantage actor-critic."""

from __future__ import annotations

from dataclasses import dataclass, field

from torch import Tensor

from alignzoo.batch import Prompts
from alignzoo.contracts import Models, Search, require
from alignzoo.functional import reinforce

from .critic import Trajectories, WithGAE


@dataclass(kw_only=True)
class A2C(WithGAE):
    """L = - A_t log pi(y_t) + c_v / 2 (V_t - G_t)^2 - c_e H, A by the value model; of samples of this very policy, so no ratio.

    Mnih et al. 2016, Asynchronous methods for deep reinforcement learning, section 4, with all workers in step.
    """

    data = Prompts
    published_rate = 3e-6  # as PPO's: the paper's is of games

    value_coef: float = field(default=1.0, metadata={"help": "weight of the value loss", "search": Search(0.01, 1.0, log=True)})
    entropy_coef: float = field(default=0.01, metadata={"help": "weight of the entropy bonus"})

    def __post_init__(self) -> None:
        super().__post_init__()
        require(self.entropy_coef >= 0, "algorithm.entropy_coef", self.entropy_coef, ">= 0")

    def policy_needs(self) -> frozenset[str]:
        return super().policy_needs() | ({"tokens"} if self.entropy_coef else set())

    def loss(self, models: Models, batch: Trajectories) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        logprobs = models.policy.logprobs(batch)
        terms = {"policy": reinforce(logprobs, batch.advantages), **self.tied(models, batch, logprobs, None)}
        if self.entropy_coef:
            terms["entropy_bonus"] = -self.entropy_coef * models.policy.entropy(batch)
        return terms, {}
