"""What algorithms with a value model share: roles, the rollout with its advantages, the terms of the loss."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum

from torch import Tensor

from alignzoo.batch import Completions, Prompts
from alignzoo.contracts import Kind, Models, OnlineAlgorithm, Role, Search, require
from alignzoo.functional import clipped_value_loss, gae
from alignzoo.kl import KL, FlatKL, Place


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
class ActorCritic(OnlineAlgorithm):
    """An action is a token; a completion is an episode, which its last token ends."""

    discount: float = field(default=1.0, metadata={"help": "gamma: how much less a reward is worth one token later"})
    value_coef: float = field(default=0.1, metadata={"help": "weight of the value loss", "search": Search(0.01, 1.0, log=True)})
    value_model: ValueModel = field(default=ValueModel.policy, metadata={"help": "where the value model comes from"})

    def __post_init__(self) -> None:
        require(0 <= self.discount <= 1, "algorithm.discount", self.discount, "in [0, 1]")
        require(self.value_coef >= 0, "algorithm.value_coef", self.value_coef, ">= 0")

    @abstractmethod
    def tie(self) -> KL:
        """To the reference."""

    def policy_needs(self) -> frozenset[str]:
        return frozenset({"logprobs", "generate"})

    def roles(self) -> Mapping[str, Role]:
        shared = self.value_model is ValueModel.shared
        start, shares = ("policy", "policy") if shared else (self.value_model.value, None)
        roles = {
            "policy": Role(kind=Kind.POLICY, trained=True, needs=self.policy_needs()),
            "value": Role(kind=Kind.VALUE, trained=True, needs=frozenset({"values"}), start=start, shares=shares),
            "reward": Role(kind=Kind.REWARD),
        }
        return roles | ({"reference": Role(kind=Kind.POLICY, start="reference")} if self.tie().beta else {})

    def estimated(self, rewards: Tensor, values: Tensor, c: Completions) -> tuple[Tensor, Tensor]:
        """Advantages and returns, (B, T) both."""
        return gae(rewards, values, c.scored, self.discount, lam=1.0)

    def sampled(self, models: Models, prompts: Prompts) -> tuple[Trajectories, Tensor]:
        """A rollout, and which of it has a score, (B,) bool."""
        c = models.policy.generate(prompts, models.sampling)
        scores = models.reward(c)
        reward = c.at_last(scores.total)  # (B, T)
        old, values = models.policy.logprobs(c), models.value.values(c)
        reference = models.reference.logprobs(c) if self.tie().beta else None
        penalised = reward
        if reference is not None and self.tie().place is Place.reward:
            penalised = reward - self.tie().penalty(old, reference)
        advantages, returns = self.estimated(penalised, values, c)
        rollout = Trajectories(
            **vars(c), old_logprobs=old, values=values, advantages=advantages, returns=returns, reward=c.sum(reward),
            kl=None if reference is None else c.sum(old - reference), reference_logprobs=reference,
        )  # fmt: skip
        return rollout, scores.usable

    def tied(self, models: Models, batch: Trajectories, logprobs: Tensor, value_clip: float | None) -> dict[str, Tensor]:
        """The terms of the value model and of the KL."""
        loss = clipped_value_loss(models.value.values(batch), batch.values, batch.returns, value_clip)
        terms = {"value": self.value_coef * loss}
        if batch.reference_logprobs is not None and self.tie().place is Place.loss:
            terms["kl_penalty"] = self.tie().penalty(logprobs, batch.reference_logprobs)
        return terms


@dataclass(kw_only=True)
class PlainlyTied(ActorCritic):
    """With the KL in the reward, by a coefficient that stays as it is."""

    beta: float = field(default=0.0, metadata={"help": "KL coefficient in the reward; 0 needs no reference"})

    def __post_init__(self) -> None:
        super().__post_init__()
        self._tie = FlatKL(beta=self.beta)

    def tie(self) -> KL:
        return self._tie


@dataclass(kw_only=True)
class WithGAE(PlainlyTied):
    """Learns from all of a rollout that has a score, by generalised advantages (Schulman et al. 2016)."""

    beta: float = field(
        default=0.05,
        metadata={"help": "KL coefficient in the reward; 0 needs no reference", "search": Search(0.01, 1.0, log=True)},
    )
    gae_lambda: float = field(
        default=1.0, metadata={"help": "lambda: 1 trusts the sampled return, 0 the value model", "search": Search(0.8, 1.0)}
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        require(0 <= self.gae_lambda <= 1, "algorithm.gae_lambda", self.gae_lambda, "in [0, 1]")

    def estimated(self, rewards: Tensor, values: Tensor, c: Completions) -> tuple[Tensor, Tensor]:
        return gae(rewards, values, c.scored, self.discount, self.gae_lambda)

    def experience(self, models: Models, batch: Prompts) -> Trajectories:
        rollout, usable = self.sampled(models, batch)
        return rollout.take(usable)
