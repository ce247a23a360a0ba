"""Exploratory preference optimisation."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from alignzoo.batch import Prompts
from alignzoo.contracts import Kind, Models, Role, Search, require

from .online_pairs import OnlinePairs, SampledPairs, Terms, compared


@dataclass(frozen=True, eq=False, kw_only=True)
class AgainstReference(SampledPairs):
    references: Tensor  # (B,) bool: whether the chosen one is the reference's


@dataclass(kw_only=True)
class XPO(OnlinePairs):
    """L = - log sigma(beta Delta) + alpha log pi(y_ref), on a sample of the policy and one, y_ref, of the reference.

    Xie et al. 2024, Exploratory preference optimization: the bonus moves the policy away from what it has always written.
    """

    data = Prompts

    alpha: float = field(default=1e-5, metadata={"help": "weight of the bonus", "search": Search(1e-6, 1e-2, log=True)})

    def __post_init__(self) -> None:
        super().__post_init__()
        require(self.alpha >= 0, "algorithm.alpha", self.alpha, ">= 0")

    def roles(self) -> Mapping[str, Role]:
        writes = frozenset({"logprobs", "generate"})
        return {**super().roles(), "reference": Role(kind=Kind.POLICY, start="reference", needs=writes)}

    def experience(self, models: Models, batch: Prompts) -> AgainstReference:
        sides = [model.generate(batch, models.sampling) for model in (models.policy, models.reference)]
        scores = [models.reward(side) for side in sides]
        rewards = [score.summed(side) for score, side in zip(scores, sides, strict=True)]
        kept = scores[0].usable & scores[1].usable & (rewards[0] != rewards[1])
        first, second = (side.take(kept) for side in sides)
        pairs = compared(first, second, (rewards[0][kept], rewards[1][kept]))
        return AgainstReference(**vars(pairs), references=(rewards[1] > rewards[0])[kept])

    def terms(self, loss: Tensor, batch: Any, logprobs: Tensor) -> Terms:
        chosen, rejected = logprobs.chunk(2)
        return {"preference": loss, "exploration": self.alpha * torch.where(batch.references, chosen, rejected)}
