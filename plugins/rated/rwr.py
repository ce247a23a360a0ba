"""Reward-weighted regression."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from alignzoo.batch import Rated
from alignzoo.contracts import Algorithm, Couples, Kind, Models, Role, Search, require
from alignzoo.functional import advantage_weights


@dataclass(frozen=True, eq=False, kw_only=True)
class Weighed(Rated):
    weight: Tensor  # (B,)


@dataclass(kw_only=True)
class RWR(Algorithm):
    """L = - sum_i w_i log pi(y_i|x_i) / sum_i w_i, w = exp(r / beta), over the optimizer step.

    Peters and Schaal 2007, Reinforcement learning by reward-weighted regression for operational space control.
    """

    data = Rated
    published_rate = 2e-5  # that of `sft`, whose loss it weighs; no paper has one for language models
    couples = Couples.STEP

    temperature: float = field(
        default=1.0,
        metadata={"help": "beta, in units of the rating: smaller is greedier", "search": Search(0.1, 10.0, log=True)},
    )

    def __post_init__(self) -> None:
        require(self.temperature > 0, "algorithm.temperature", self.temperature, "> 0")

    def roles(self) -> Mapping[str, Role]:
        return {"policy": Role(kind=Kind.POLICY, trained=True)}

    def prepare(self, models: Models, batches: list[Rated]) -> list[Weighed]:
        ratings = models.gather(torch.cat([batch.rating[batch.counted > 0] for batch in batches]))
        best = ratings.max() if len(ratings) else 0.0  # subtracted, so that no weight overflows: the shares are the same
        return [Weighed(**vars(b), weight=advantage_weights((b.rating - best).clamp(max=0), self.temperature)) for b in batches]

    def weights(self, batch: Any) -> dict[str, Tensor]:
        return {"loss": batch.weight * batch.counted}

    def loss(self, models: Models, batch: Weighed) -> tuple[Tensor, dict[str, Tensor]]:
        return -batch.sum(models.policy.logprobs(batch)), {"weight": batch.weight}
