"""Proximal policy optimisation for language models."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor

from alignzoo.batch import Batch, Completions, Prompts
from alignzoo.contracts import Models, Next, Search, require
from alignzoo.functional import clipped_surrogate, gae, k3, whiten
from alignzoo.kl import KL

from .critic import ActorCritic, Trajectories, ValueModel

__all__ = ["PPO", "Trajectories", "ValueModel"]  # checkpoints of older versions look for Trajectories here


@dataclass(kw_only=True)
class PPO(ActorCritic):
    """L = E_t[- min(r_t A_t, clip(r_t, 1 - e, 1 + e) A_t)] + c_v L_value - c_e H + beta KL - c_ptx log pi(demonstration).

    Schulman et al. 2017, eq. 9, with generalised advantages; for language models as in Ziegler et al. 2019 and, with
    `ptx_coef`, Ouyang et al. 2022, eq. 2. An action is a token; a completion is an episode, which its last token ends.
    """

    published_rate = 3e-6  # Huang et al. 2024, The N+ implementation details of RLHF with PPO

    gae_lambda: float = field(
        default=0.95, metadata={"help": "lambda: 1 trusts the sampled return, 0 the value model", "search": Search(0.8, 1.0)}
    )
    clip: float = field(default=0.2, metadata={"help": "epsilon of the ratio", "search": Search(0.05, 0.5, log=True)})
    value_clip: float | None = field(
        default=0.2,
        metadata={"help": "how far a value may move; none: no clipping", "search": Search(options=(None, 0.1, 0.2, 0.5))},
    )
    whiten: bool = field(default=True, metadata={"help": "advantages of a rollout to mean 0 and variance 1"})
    epochs: int = field(default=4, metadata={"help": "passes over a rollout", "search": Search(1, 8)})
    kl: KL = field(default_factory=KL, metadata={"help": "the tie to the reference"})
    entropy_coef: float = field(default=0.0, metadata={"help": "weight of the entropy bonus"})
    stop_kl: float | None = field(default=None, metadata={"help": "sample anew once the KL to the sampler exceeds this"})
    ptx_coef: float = field(default=0.0, metadata={"help": "weight of the log-likelihood of the data's demonstrations"})

    def __post_init__(self) -> None:
        super().__post_init__()
        require(0 <= self.gae_lambda <= 1, "algorithm.gae_lambda", self.gae_lambda, "in [0, 1]")
        for name in ("entropy_coef", "ptx_coef"):
            require(getattr(self, name) >= 0, f"algorithm.{name}", getattr(self, name), ">= 0")
        require(self.clip > 0, "algorithm.clip", self.clip, "> 0")
        for name in ("value_clip", "stop_kl"):
            value = getattr(self, name)
            require(value is None or value > 0, f"algorithm.{name}", value, "> 0, or none")
        require(self.epochs >= 1, "algorithm.epochs", self.epochs, ">= 1")

    @property
    def data(self) -> type[Batch]:
        return Completions if self.ptx_coef else Prompts

    def tie(self) -> KL:
        return self.kl

    def policy_needs(self) -> frozenset[str]:
        return super().policy_needs() | ({"tokens"} if self.entropy_coef else set())

    def estimated(self, rewards: Tensor, values: Tensor, c: Completions) -> tuple[Tensor, Tensor]:
        return gae(rewards, values, c.scored, self.discount, self.gae_lambda)

    def experience(self, models: Models, batch: Prompts | Completions) -> Trajectories:
        if isinstance(batch, Completions):
            batch = batch.draws()
            rollout, usable = self.sampled(models, batch.prompts)
            rollout = replace(rollout, demonstration=batch.take(rollout.prompt_of))
        else:
            rollout, usable = self.sampled(models, batch)
        rollout = rollout.take(usable)
        if not self.whiten:
            return rollout
        return replace(rollout, advantages=whiten(rollout.advantages, rollout.scored, models.sum))

    def passes(self) -> int:
        return self.epochs

    def loss(self, models: Models, batch: Trajectories) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        logprobs = models.policy.logprobs(batch)
        surrogate = clipped_surrogate(logprobs, batch.old_logprobs, batch.advantages, self.clip)
        terms = {"policy": surrogate, **self.tied(models, batch, logprobs, self.value_clip)}
        if self.entropy_coef:
            terms["entropy_bonus"] = -self.entropy_coef * models.policy.entropy(batch)
        if batch.demonstration is not None:
            terms["pretraining"] = -self.ptx_coef * models.policy.logprobs(batch.demonstration)
        ratio = (logprobs - batch.old_logprobs).detach().exp()
        metrics = {
            "ratio": ratio,
            "clip_fraction": ((ratio - 1).abs() > self.clip).float(),
            "approximate_kl": k3(batch.old_logprobs, logprobs.detach()),
            "kl_coefficient": torch.tensor(self.kl.coefficient),
        }
        return terms, metrics

    def weights(self, batch: Trajectories) -> dict[str, Tensor]:
        return {} if batch.demonstration is None else {"pretraining": batch.demonstration.scored.float()}

    def after_rollout(self, metrics: Mapping[str, float]) -> None:
        self.kl.adapt(metrics)

    def after_step(self, metrics: Mapping[str, float]) -> Next:
        stop = self.stop_kl is not None and metrics.get("approximate_kl", 0.0) > self.stop_kl
        return Next.ROLLOUT if stop else Next.CONTINUE

    def state_dict(self) -> dict[str, Any]:
        return {"kl_coefficient": self.kl.coefficient}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.kl.coefficient = state["kl_coefficient"]
