"""A soft weight of whole completions in the place of the clip."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor

from alignzoo.batch import Completions
from alignzoo.contracts import Search, require
from alignzoo.functional import reinforce, vespo_weight

from .grouped import Grouped, GroupRelative, Metrics


@dataclass(kw_only=True)
class VESPO(GroupRelative):
    """L = mean over the step's tokens of - sg(phi(w)) A log pi(y_t), phi(w) = w^k exp(lambda (1 - w)).

    w = pi(y|x) / pi_sampler(y|x), of the whole completion, A as GRPO's. VESPO: variational sequence-level soft policy
    optimization, arXiv 2602.10693.
    """

    k: float = field(default=2.0, metadata={"help": "k where A >= 0: how fast rare ones fade", "search": Search(0.5, 5.0)})
    lam: float = field(
        default=3.0, metadata={"help": "lambda where A >= 0: how fast likely ones do", "search": Search(0.5, 5.0)}
    )
    k_negative: float = field(default=3.0, metadata={"help": "k where A < 0", "search": Search(0.5, 5.0)})
    lam_negative: float = field(default=2.0, metadata={"help": "lambda where A < 0", "search": Search(0.5, 5.0)})

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("k", "lam", "k_negative", "lam_negative"):
            require(getattr(self, name) > 0, f"algorithm.{name}", getattr(self, name), "> 0")

    def surrogate(self, batch: Grouped, new: Tensor, old: Tensor, advantages: Tensor) -> tuple[Tensor, Metrics]:
        positive = batch.advantages >= 0
        k, lam = (torch.where(positive, *by_sign) for by_sign in ((self.k, self.k_negative), (self.lam, self.lam_negative)))
        weight = vespo_weight(batch.sum(new - old), k, lam)
        return reinforce(new, weight[:, None] * advantages), {"weight": weight}

    def averaged(self, c: Completions, loss: Tensor, longest: int) -> Tensor:
        return loss
