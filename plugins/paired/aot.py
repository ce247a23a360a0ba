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

    def compared(self, policy: Tensor, reference: Tensor) -> tuple[Tensor, Tensor]:
        """Two samples (B,), of which the first is to dominate, of the log-probs of both sides, chosen and rejected, (2, B)."""
        return policy[0] - policy[1], reference[0] - reference[1]

    def link(self, chosen: Tensor, rejected: Tensor) -> Tensor:
        """Of both samples, sorted."""
        return dpo_loss(chosen, rejected, self.beta, self.label_smoothing)

    def loss(self, models: Models, batch: Pairs) -> tuple[Terms, dict[str, Tensor]]:
        both = batch.both
        counted = batch.counted > 0  # pairs with an empty side take no place in the order
        policy, reference = (both.sum(m.logprobs(both)).view(2, -1) for m in (models.policy, models.reference))
        first, second = (values[counted].sort().values for values in self.compared(policy, reference))
        loss = torch.zeros_like(policy[0]).index_put((counted,), self.link(first, second))
        return loss, self.measured(*(policy - reference))
