"""MiniLLM: the policy gradient of the reverse KL to a teacher."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor

from alignzoo.batch import Completions, Prompts
from alignzoo.contracts import Kind, Models, OnlineAlgorithm, Role, Search, require
from alignzoo.functional import clipped_surrogate, returns_ahead, reverse_kl, whiten


@dataclass(frozen=True, eq=False, kw_only=True)
class Taught(Completions):
    """What a rollout leaves behind: per token (B, T), per completion (B,)."""

    old_logprobs: Tensor
    advantages: Tensor
    weight: Tensor  # how much likelier a token is to the policy than to what it was sampled from
    reverse_kl: Tensor  # (B,), of the sampler to the teacher


@dataclass(kw_only=True)
class MiniLLM(OnlineAlgorithm):
    """L = E_t[- w_t min(r_t A_t, clip(r_t, 1 - e, 1 + e) A_t) + KL(Q_t || P_t)], A_t the mean of log P / Q over tokens after t.

    Gu et al. 2024, MiniLLM: knowledge distillation of large language models: the reverse KL of sequences, of whose gradient
    the part of each token's own distribution is exact, and what follows is estimated from samples.
    """

    data = Prompts
    published_rate = 5e-6  # its authors' scripts for GPT-2

    single_step: bool = field(default=True, metadata={"help": "each token's own KL exactly, and not as a part of its return"})
    length_norm: bool = field(default=True, metadata={"help": "the mean of what follows a token, not the sum"})
    whiten: bool = field(default=True, metadata={"help": "advantages of a rollout to mean 0 and variance 1"})
    mix: float = field(
        default=0.2, metadata={"help": "the teacher's share in what samples are drawn from", "search": Search(0.0, 0.5)}
    )
    limit: float = field(default=50.0, metadata={"help": "a token's log P / Q is cut there, both ways"})
    clip: float = field(default=0.2, metadata={"help": "epsilon of the ratio", "search": Search(0.05, 0.5, log=True)})
    epochs: int = field(default=4, metadata={"help": "passes over a rollout", "search": Search(1, 8)})

    def __post_init__(self) -> None:
        for name in ("limit", "clip"):
            require(getattr(self, name) > 0, f"algorithm.{name}", getattr(self, name), "> 0")
        require(0 <= self.mix < 1, "algorithm.mix", self.mix, "in [0, 1)")
        require(self.epochs >= 1, "algorithm.epochs", self.epochs, ">= 1")

    def roles(self) -> Mapping[str, Role]:
        exact = frozenset({"tokens"} if self.single_step else set())
        policy = Role(kind=Kind.POLICY, trained=True, needs=frozenset({"logprobs", "generate"}) | exact)
        return {"policy": policy, "teacher": Role(kind=Kind.POLICY, needs=frozenset({"logprobs"}) | exact, start="config")}

    def passes(self) -> int:
        return self.epochs

    def experience(self, models: Models, batch: Prompts) -> Taught:
        mixing: dict[str, Any] = {"adjust": self.mixed, "beside": [models.teacher]} if self.mix else {}
        c = models.policy.generate(batch, models.sampling, **mixing)
        old, teacher = models.policy.logprobs(c), models.teacher.logprobs(c)
        rewards = (teacher - old).clamp(-self.limit, self.limit)
        advantages = returns_ahead(rewards, c.scored, own=not self.single_step, mean=self.length_norm)
        sampled = torch.logaddexp(old + math.log1p(-self.mix), teacher + math.log(self.mix)) if self.mix else old
        c = replace(c, logprobs=None) if self.mix else c  # not those that were sampled from, so no measure of its entropy
        rollout = Taught(
            **vars(c), old_logprobs=old, advantages=advantages, weight=(old - sampled).exp(), reverse_kl=-c.sum(rewards)
        )
        if not self.whiten:
            return rollout
        return replace(rollout, advantages=whiten(advantages, c.scored, models.sum))

    def mixed(self, student: Tensor, teacher: Tensor) -> Tensor:
        """Logits (n, V) -> those that are sampled from."""
        shares = student.log_softmax(-1) + math.log1p(-self.mix), teacher.log_softmax(-1) + math.log(self.mix)
        return torch.logaddexp(*shares)

    def loss(self, models: Models, batch: Taught) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        logprobs = models.policy.logprobs(batch)
        policy = clipped_surrogate(logprobs, batch.old_logprobs, batch.advantages, self.clip)
        terms = {"policy": batch.weight * policy}
        if self.single_step:
            terms["single_step"] = models.policy.tokens(batch, reverse_kl, beside=[models.teacher])
        ratio = (logprobs - batch.old_logprobs).detach().exp()
        return terms, {"ratio": ratio, "clip_fraction": ((ratio - 1).abs() > self.clip).float()}
