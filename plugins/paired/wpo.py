"""Weighted preference optimisation."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from alignzoo.batch import Pairs
from alignzoo.contracts import Kind, Models, Role
from alignzoo.functional import dpo_loss

from .paired import Paired, Terms


def read(logits: Tensor, ids: Tensor) -> Tensor:
    """(n, 2): log pi(token), and that less log sum_v pi(v)^2: 0 on average where the token is drawn from pi."""
    logprobs = logits.log_softmax(-1)
    chosen = logprobs.gather(-1, ids[:, None])[:, 0]
    return torch.stack([chosen, chosen.detach() - (2 * logprobs.detach()).logsumexp(-1)], -1)


@dataclass(kw_only=True)
class WPO(Paired):
    """L = w(y_c) w(y_r) (- log sigma(beta Delta)), w = exp(mean over tokens of log pi(y_t) - log sum_v pi(v)^2), no gradient.

    Pairs that the policy would write itself count more. Zhou et al. 2024, WPO: enhancing RLHF with weighted preference
    optimization, eq. 2 and 4, with the alignment of weights by sampled tokens.
    """

    def roles(self) -> Mapping[str, Role]:
        return {**super().roles(), "policy": Role(kind=Kind.POLICY, trained=True, needs=frozenset({"tokens"}))}

    def link(self, chosen: Tensor, rejected: Tensor) -> Tensor:
        return dpo_loss(chosen, rejected, self.beta)

    def loss(self, models: Models, batch: Pairs) -> tuple[Terms, dict[str, Tensor]]:
        both = batch.both
        logprobs, alignment = models.policy.tokens(both, read, both.ids).unbind(-1)
        chosen, rejected = both.sum(self.per_token(models, both, logprobs)).chunk(2)
        weight = both.mean(alignment).view(2, -1).sum(0).exp()
        return weight * self.link(chosen, rejected), self.measured(chosen, rejected)
