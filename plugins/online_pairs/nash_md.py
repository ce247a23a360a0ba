"""Nash-MD."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor

from alignzoo.batch import Completions, Prompts
from alignzoo.contracts import Kind, Models, OnlineAlgorithm, Role, Search, require
from alignzoo.functional import nash_advantages, reinforce


@dataclass(frozen=True, eq=False, kw_only=True)
class Opposed(Completions):
    """What a rollout leaves behind, per completion (B,)."""

    advantages: Tensor
    preference: Tensor
    kl: Tensor


@dataclass(kw_only=True)
class NashMD(OnlineAlgorithm):
    """L = - (P(y beats y') - 1/2 - tau log(pi(y|x) / ref(y|x))) log pi(y|x), y' of a mixture, the bracket constant.

    The mixture writes each token by softmax((1 - m) log pi + m log ref): with m = 0 the policy, with m = 1 the reference. Munos
    et al. 2024, Nash learning from human feedback: Nash-MD-PG.
    """

    api_version = "1.1"
    data = Prompts
    published_rate = 5e-7  # the default of TRL 1.16's OnlineDPOTrainer, from which TRL's NashMDTrainer was made

    tau: float = field(
        default=0.1, metadata={"help": "strength of the tie to the reference", "search": Search(0.001, 1.0, log=True)}
    )
    mixture: float = field(
        default=0.5, metadata={"help": "m, share of the reference in the opponent", "search": Search(0.0, 1.0)}
    )

    def __post_init__(self) -> None:
        require(self.tau >= 0, "algorithm.tau", self.tau, ">= 0")
        require(0 <= self.mixture <= 1, "algorithm.mixture", self.mixture, "in [0, 1]")

    def roles(self) -> Mapping[str, Role]:
        writes = frozenset({"logprobs", "generate"})
        return {
            "policy": Role(kind=Kind.POLICY, trained=True, needs=writes),
            "reference": Role(kind=Kind.POLICY, start="reference", needs=writes),
            "reward": Role(kind=Kind.REWARD),
        }

    def experience(self, models: Models, batch: Prompts) -> Opposed:
        def mixed(logits: Tensor, reference: Tensor) -> Tensor:
            both = (1 - self.mixture) * logits + self.mixture * reference
            return torch.where(logits.isneginf(), logits, both)  # outside the support 0 times infinity is no number

        c = models.policy.generate(batch, models.sampling)
        opponent = models.policy.generate(batch, models.sampling, mixed, beside=[models.reference], purpose="opponent")
        wins = models.preference(c, opponent)
        ratio = c.sum(models.policy.logprobs(c) - models.reference.logprobs(c))
        preference = wins.total.to(ratio.dtype)
        advantages = nash_advantages(preference, ratio, self.tau)
        return Opposed(**vars(c), advantages=advantages, preference=preference, kl=ratio).take(wins.usable)

    def loss(self, models: Models, batch: Opposed) -> tuple[Tensor, dict[str, Tensor]]:
        return batch.sum(reinforce(models.policy.logprobs(batch), batch.advantages[:, None])), {}
