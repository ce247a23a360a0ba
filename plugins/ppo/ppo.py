"""Proximal policy optimisation for language models."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from enum import Enum
from typing import Any

import torch
from torch import Tensor

from alignzoo.batch import Batch, Completions, Prompts
from alignzoo.contracts import Kind, Models, Next, OnlineAlgorithm, Role, Search, require
from alignzoo.functional import clipped_surrogate, clipped_value_loss, gae, k3, whiten

from .kl import KL, Place


class ValueModel(Enum):
    policy = "policy"  # its own network, starting from the policy's weights
    reward = "reward"  # its own network, starting from the reward model's weights
    shared = "shared"  # a head on the policy's trunk


@dataclass(frozen=True, eq=False, kw_only=True)
class Trajectories(Completions):
    """What a rollout leaves behind: per token (B, T), per completion (B,)."""

    old_logprobs: Tensor
    values: Tensor
    advantages: Tensor
    returns: Tensor
    reward: Tensor  # (B,), before the KL penalty
    kl: Tensor | None = None  # (B,)
    reference_logprobs: Tensor | None = None
    demonstration: Completions | None = None  # one a row


@dataclass(kw_only=True)
class PPO(OnlineAlgorithm):
    """L = E_t[- min(r_t A_t, clip(r_t, 1 - e, 1 + e) A_t)] + c_v L_value - c_e H + beta KL - c_ptx log pi(demonstration).

    Schulman et al. 2017, eq. 9, with generalised advantages; for language models as in Ziegler et al. 2019 and, with
    `ptx_coef`, Ouyang et al. 2022, eq. 2. An action is a token; a completion is an episode, which its last token ends.
    """

    published_rate = 3e-6  # Huang et al. 2024, The N+ implementation details of RLHF with PPO

    discount: float = field(default=1.0, metadata={"help": "gamma: how much less a reward is worth one token later"})
    gae_lambda: float = field(
        default=0.95, metadata={"help": "lambda: 1 trusts the sampled return, 0 the value model", "search": Search(0.8, 1.0)}
    )
    clip: float = field(default=0.2, metadata={"help": "epsilon of the ratio", "search": Search(0.05, 0.5, log=True)})
    value_clip: float | None = field(
        default=0.2,
        metadata={"help": "how far a value may move; none: no clipping", "search": Search(options=(None, 0.1, 0.2, 0.5))},
    )
    value_coef: float = field(default=0.1, metadata={"help": "weight of the value loss", "search": Search(0.01, 1.0, log=True)})
    value_model: ValueModel = field(default=ValueModel.policy, metadata={"help": "where the value model comes from"})
    whiten: bool = field(default=True, metadata={"help": "advantages of a rollout to mean 0 and variance 1"})
    epochs: int = field(default=4, metadata={"help": "passes over a rollout", "search": Search(1, 8)})
    kl: KL = field(default_factory=KL, metadata={"help": "the tie to the reference"})
    entropy_coef: float = field(default=0.0, metadata={"help": "weight of the entropy bonus"})
    stop_kl: float | None = field(default=None, metadata={"help": "sample anew once the KL to the sampler exceeds this"})
    ptx_coef: float = field(default=0.0, metadata={"help": "weight of the log-likelihood of the data's demonstrations"})

    def __post_init__(self) -> None:
        for name in ("discount", "gae_lambda"):
            require(0 <= getattr(self, name) <= 1, f"algorithm.{name}", getattr(self, name), "in [0, 1]")
        for name in ("value_coef", "entropy_coef", "ptx_coef"):
            require(getattr(self, name) >= 0, f"algorithm.{name}", getattr(self, name), ">= 0")
        require(self.clip > 0, "algorithm.clip", self.clip, "> 0")
        for name in ("value_clip", "stop_kl"):
            value = getattr(self, name)
            require(value is None or value > 0, f"algorithm.{name}", value, "> 0, or none")
        require(self.epochs >= 1, "algorithm.epochs", self.epochs, ">= 1")

    @property
    def data(self) -> type[Batch]:
        return Completions if self.ptx_coef else Prompts

    def roles(self) -> Mapping[str, Role]:
        shared = self.value_model is ValueModel.shared
        start, shares = ("policy", "policy") if shared else (self.value_model.value, None)
        entropy = {"tokens"} if self.entropy_coef else set()
        roles = {
            "policy": Role(kind=Kind.POLICY, trained=True, needs=frozenset({"logprobs", "generate"} | entropy)),
            "value": Role(kind=Kind.VALUE, trained=True, needs=frozenset({"values"}), start=start, shares=shares),
            "reward": Role(kind=Kind.REWARD),
        }
        return roles | ({"reference": Role(kind=Kind.POLICY, start="reference")} if self.kl.beta else {})

    def experience(self, models: Models, batch: Prompts | Completions) -> Trajectories:
        batch = batch.draws() if isinstance(batch, Completions) else batch
        prompts = batch.prompts if isinstance(batch, Completions) else batch
        c = models.policy.generate(prompts, models.sampling)
        scores = models.reward(c)
        reward = c.at_last(scores.total)  # (B, T)
        old, values = models.policy.logprobs(c), models.value.values(c)
        reference = models.reference.logprobs(c) if self.kl.beta else None
        penalised = reward
        if reference is not None and self.kl.place is Place.reward:
            penalised = reward - self.kl.penalty(old, reference)
        advantages, returns = gae(penalised, values, c.scored, self.discount, self.gae_lambda)
        rollout = Trajectories(
            **vars(c), old_logprobs=old, values=values, advantages=advantages, returns=returns, reward=c.sum(reward),
            kl=None if reference is None else c.sum(old - reference), reference_logprobs=reference,
            demonstration=batch.take(c.prompt_of) if isinstance(batch, Completions) else None,
        ).take(scores.usable)  # fmt: skip
        if not self.whiten:
            return rollout
        return replace(rollout, advantages=whiten(rollout.advantages, rollout.scored, models.sum))

    def passes(self) -> int:
        return self.epochs

    def loss(self, models: Models, batch: Trajectories) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        logprobs, values = models.policy.logprobs(batch), models.value.values(batch)
        terms = {
            "policy": clipped_surrogate(logprobs, batch.old_logprobs, batch.advantages, self.clip),
            "value": self.value_coef * clipped_value_loss(values, batch.values, batch.returns, self.value_clip),
        }
        if batch.reference_logprobs is not None and self.kl.place is Place.loss:
            terms["kl_penalty"] = self.kl.penalty(logprobs, batch.reference_logprobs)
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
