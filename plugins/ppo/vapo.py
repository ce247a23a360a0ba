"""Value-based augmented proximal policy optimisation."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from torch import Tensor

from alignzoo.batch import Completions, Prompts
from alignzoo.contracts import Models, Next, Search, require
from alignzoo.functional import clipped_surrogate, gae, length_adaptive_lambda, whiten

from .critic import PlainlyTied, Trajectories, ValueModel


@dataclass(kw_only=True)
class VAPO(PlainlyTied):
    """PPO with lambda = 1 - 1 / (alpha l) for the policy and 1 for the values, a wider clip upwards, and a likelihood term on
    what succeeded.

    Yue et al. 2025, VAPO: efficient and reliable reinforcement learning for advanced reasoning tasks.
    """

    data = Prompts
    published_rate = 1e-6  # Yue et al. 2025, of the policy

    alpha: float = field(
        default=0.05, metadata={"help": "lambda of the policy is 1 - 1 / (alpha l)", "search": Search(0.01, 10.0, log=True)}
    )
    clip: float = field(default=0.2, metadata={"help": "epsilon downwards", "search": Search(0.05, 0.5, log=True)})
    clip_high: float = field(default=0.28, metadata={"help": "epsilon upwards", "search": Search(0.05, 0.5, log=True)})
    whiten: bool = field(default=True, metadata={"help": "advantages of a rollout to mean 0 and variance 1"})
    imitation_coef: float = field(default=0.1, metadata={"help": "weight of the likelihood of what succeeded"})
    success: float = field(default=0.0, metadata={"help": "a reward above this is a success"})
    value_warmup: int = field(default=0, metadata={"help": "first optimizer steps, in which the value model alone learns"})
    epochs: int = field(default=1, metadata={"help": "passes over a rollout", "search": Search(1, 8)})
    value_coef: float = field(default=1.0, metadata={"help": "weight of the value loss", "search": Search(0.01, 1.0, log=True)})

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("alpha", "clip", "clip_high"):
            require(getattr(self, name) > 0, f"algorithm.{name}", getattr(self, name), "> 0")
        require(self.imitation_coef >= 0, "algorithm.imitation_coef", self.imitation_coef, ">= 0")
        used = self.imitation_coef > 0 or self.success == 0
        require(used, "algorithm.success", self.success, "left at 0 where algorithm.imitation_coef=0")
        require(self.epochs >= 1, "algorithm.epochs", self.epochs, ">= 1")
        apart = self.value_warmup == 0 or self.value_model is not ValueModel.shared
        require(self.value_warmup >= 0 and apart, "algorithm.value_warmup", self.value_warmup, ">= 0, and 0 on a shared trunk")
        self.steps = 0

    def passes(self) -> int:
        return self.epochs

    def estimated(self, rewards: Tensor, values: Tensor, c: Completions) -> tuple[Tensor, Tensor]:
        lam = length_adaptive_lambda(c.length, self.alpha).to(values.dtype)
        returns = gae(rewards, values, c.scored, self.discount, lam=1.0)[1]
        return gae(rewards, values, c.scored, self.discount, lam)[0], returns

    def experience(self, models: Models, batch: Prompts) -> Trajectories:
        rollout, usable = self.sampled(models, batch)
        rollout = rollout.take(usable)
        if not self.whiten:
            return rollout
        return replace(rollout, advantages=whiten(rollout.advantages, rollout.scored, models.sum))

    def loss(self, models: Models, batch: Trajectories) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        logprobs, learns = models.policy.logprobs(batch), float(self.steps >= self.value_warmup)
        surrogate = clipped_surrogate(logprobs, batch.old_logprobs, batch.advantages, self.clip, self.clip_high)
        terms = {"policy": learns * surrogate, **self.tied(models, batch, logprobs, None)}
        if self.imitation_coef:
            terms["imitation"] = -learns * self.imitation_coef * logprobs
        ratio = (logprobs - batch.old_logprobs).detach().exp()
        clipped = (ratio < 1 - self.clip) | (ratio > 1 + self.clip_high)
        return terms, {"ratio": ratio, "clip_fraction": clipped.float()}

    def weights(self, batch: Trajectories) -> dict[str, Tensor]:
        succeeded = batch.scored & (batch.reward > self.success)[:, None]
        return {"imitation": succeeded.float()} if self.imitation_coef else {}

    def after_step(self, metrics: Mapping[str, float]) -> Next:
        self.steps += 1
        return Next.CONTINUE

    def state_dict(self) -> dict[str, Any]:
        return {"steps": self.steps}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.steps = state["steps"]
