"""Advantage-weighted regression."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor

from alignzoo.batch import Rated
from alignzoo.contracts import Algorithm, Couples, Kind, Models, Role, Search, require
from alignzoo.functional import advantage_weights, clipped_value_loss, gae, reinforce, whiten


@dataclass(frozen=True, eq=False, kw_only=True)
class Returned(Rated):
    returns: Tensor  # (B, T)
    weight: Tensor  # (B, T)


@dataclass(kw_only=True)
class AWR(Algorithm):
    """L = E_t[- min(exp(A_t / beta), limit) log pi(y_t | s_t)] + c E_t[(V(s_t) - G_t)^2 / 2], A = G - V.

    Peng et al. 2019, Advantage-weighted regression. A completion is an episode, whose last token has the rating.
    """

    data = Rated
    published_rate = 2e-5  # that of `sft`, whose loss it weighs; no paper has one for language models
    couples = Couples.STEP

    temperature: float = field(
        default=1.0, metadata={"help": "beta: smaller is greedier", "search": Search(0.1, 10.0, log=True)}
    )
    limit: float = field(default=20.0, metadata={"help": "the largest weight", "search": Search(2.0, 100.0, log=True)})
    gae_lambda: float = field(
        default=0.95, metadata={"help": "lambda of G: 1 is the rating, 0 the next value", "search": Search(0.8, 1.0)}
    )
    value_coef: float = field(default=0.1, metadata={"help": "weight of the value loss", "search": Search(0.01, 1.0, log=True)})
    whiten: bool = field(default=True, metadata={"help": "advantages of a step to mean 0 and variance 1"})

    def __post_init__(self) -> None:
        for name in ("temperature", "limit", "value_coef"):
            require(getattr(self, name) > 0, f"algorithm.{name}", getattr(self, name), "> 0")
        require(0 <= self.gae_lambda <= 1, "algorithm.gae_lambda", self.gae_lambda, "in [0, 1]")

    def roles(self) -> Mapping[str, Role]:
        value = Role(kind=Kind.VALUE, trained=True, needs=frozenset({"values"}), start="policy")
        return {"policy": Role(kind=Kind.POLICY, trained=True), "value": value}

    def prepare(self, models: Models, batches: list[Rated]) -> list[Returned]:
        estimates = [
            gae(batch.at_last(batch.rating), models.value.values(batch), batch.scored, 1.0, self.gae_lambda)
            for batch in batches
        ]
        advantages = [advantage for advantage, _ in estimates]
        if self.whiten:
            flat = torch.cat([a[b.scored] for a, b in zip(advantages, batches, strict=True)])
            parts = whiten(flat, torch.ones_like(flat, dtype=torch.bool), models.sum).split(
                [int(b.scored.sum()) for b in batches]
            )
            advantages = [
                torch.zeros_like(a).masked_scatter(b.scored, part)
                for a, b, part in zip(advantages, batches, parts, strict=True)
            ]
        return [
            Returned(**vars(batch), returns=returns, weight=advantage_weights(advantage, self.temperature, self.limit))
            for batch, advantage, (_, returns) in zip(batches, advantages, estimates, strict=True)
        ]

    def loss(self, models: Models, batch: Returned) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        values = models.value.values(batch)
        value = clipped_value_loss(values, values, batch.returns, None)
        policy = reinforce(models.policy.logprobs(batch), batch.weight)
        return {"policy": policy, "value": self.value_coef * value}, {"weight": batch.weight}
