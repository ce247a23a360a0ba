"""What learning from pairs of samples shares: who is preferred, and DPO's loss on the pairs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from alignzoo.batch import Completions, Pairs
from alignzoo.contracts import Kind, Models, OnlineAlgorithm, Role, Search, require
from alignzoo.functional import dpo_loss

Terms = Tensor | dict[str, Tensor]


@dataclass(frozen=True, eq=False, kw_only=True)
class SampledPairs(Pairs):
    """Pairs of completions that were sampled; `margin` is by how much the reward of the chosen one is higher."""

    reward: Tensor  # (B,), the mean of both


@dataclass(kw_only=True)
class OnlinePairs(OnlineAlgorithm):
    """L = - log sigma(beta Delta), Delta = h_chosen - h_rejected, h = log pi(y|x) - log ref(y|x), on pairs that are sampled."""

    published_rate = 5e-7  # the default of TRL 1.16's OnlineDPOTrainer
    needs_logprobs_of_samples = False

    beta: float = field(
        default=0.1,
        metadata={"help": "strength of the tie to the reference: larger stays nearer", "search": Search(0.01, 1.0, log=True)},
    )

    def __post_init__(self) -> None:
        require(self.beta > 0, "algorithm.beta", self.beta, "> 0")

    def against(self) -> str:
        """The role that h is relative to."""
        return "reference"

    def roles(self) -> Mapping[str, Role]:
        return {
            "policy": Role(kind=Kind.POLICY, trained=True, needs=frozenset({"logprobs", "generate"})),
            "reference": Role(kind=Kind.POLICY, start="reference"),
            "reward": Role(kind=Kind.REWARD),
        }

    def terms(self, loss: Tensor, batch: Any, logprobs: Tensor) -> Terms:
        """What is minimised: DPO's loss (B,), unless an algorithm adds to it; `logprobs` (2B,): log pi of both sides."""
        return loss

    def loss(self, models: Models, batch: Pairs) -> tuple[Terms, dict[str, Tensor]]:
        both = batch.both
        logprobs = both.sum(models.policy.logprobs(both))
        chosen, rejected = (logprobs - both.sum(getattr(models, self.against()).logprobs(both))).chunk(2)
        sides = {"chosen": chosen, "rejected": rejected, "margin": chosen - rejected}
        metrics = {f"rewards/{name}": self.beta * value for name, value in sides.items()}
        accuracy = {"rewards/accuracy": (chosen > rejected).float()}
        return self.terms(dpo_loss(chosen, rejected, self.beta), batch, logprobs), accuracy | metrics


def compared(first: Completions, second: Completions, rewards: tuple[Tensor, Tensor]) -> SampledPairs:
    """Of two completions each (B,), the one with the higher reward (B,) is chosen."""
    both, size = type(first).cat([first, second]), len(first)
    places, swapped = torch.arange(size, device=rewards[0].device), rewards[1] > rewards[0]
    return SampledPairs(
        chosen=both.take(places + size * swapped), rejected=both.take(places + size * ~swapped),
        margin=(rewards[0] - rewards[1]).abs(), reward=(rewards[0] + rewards[1]) / 2,
    )  # fmt: skip
