"""Supervised fine-tuning: the next-token loss on what should be answered."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from torch import Tensor

from alignzoo.batch import Completions
from alignzoo.contracts import Algorithm, Kind, Models, Role


@dataclass(kw_only=True)
class SFT(Algorithm):
    """L = - 1/N sum over the scored tokens of all completions of log pi(y_t | x, y_<t); prompts are not learned."""

    data = Completions
    published_rate = 2e-5  # Taori et al. 2023, Stanford Alpaca

    def roles(self) -> Mapping[str, Role]:
        return {"policy": Role(kind=Kind.POLICY, trained=True)}

    def loss(self, models: Models, batch: Completions) -> tuple[Tensor, dict[str, Tensor]]:
        return -models.policy.logprobs(batch), {}
