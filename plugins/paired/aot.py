"""Alignment by optimal transport, paired."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor

from alignzoo.batch import Pairs
from alignzoo.contracts import Couples, Models, require
from alignzoo.functional import dpo_loss

from .paired import Paired, Terms


@dataclass(kw_only=True)
class AOT(Paired):
    """L = - (1 - e) log sigma(beta d_i) - e log sigma(-beta d_i), d_i the i-th smallest log pi(y_c) / pi(y_r) of the batch less
    the i-th smallest of the reference: the policy's distribution of margins is to dominate the reference's.

    Melnyk et al. 2024, Distributional preference alignment of LLMs via optimal transport, eq. 10 with the logistic loss.
    """

    couples = Couples.MICROBATCH

    label_smoothing: float = field(default=0.0, metadata={"help": "e, the share of labels taken to be wrong"})

    def __post_init__(self) -> None:
        super().__post_init__()
        require(0 <= self.label_smoothing < 0.5, "algorithm.label_smoothing", self.label_smoothing, "in [0, 0.5)")

    def link(self, chosen: Tensor, rejected: Tensor) -> Tensor:
        """Of sorted margins of policy and reference."""
        return dpo_loss(chosen, rejected, self.beta, self.label_smoothing)

    def loss(self, models: Models, batch: Pairs) -> tuple[Terms, dict[str, Tensor]]:
        both = batch.both
        counted = batch.counted > 0  # pairs with an empty side take no place in the order
        policy, reference = (both.sum(m.logprobs(both)).view(2, -1) for m in (models.policy, models.reference))
        margins = [(sides[0] - sides[1])[counted].sort().values for sides in (policy, reference)]
        loss = torch.zeros_like(policy[0]).index_put((counted,), self.link(*margins))
        return loss, self.measured(*(policy - reference))
