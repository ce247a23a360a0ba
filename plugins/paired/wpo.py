"""Weighted preference optimisation."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from alignzoo.batch import Completions
from alignzoo.contracts import Kind, Models, Role
from alignzoo.functional import dpo_loss

from .paired import Paired, Terms


def aligned(logits: Tensor, ids: Tensor) -> Tensor:
    """log pi(token) less log sum_v pi(v)^2, (n,): 0 on average where the token is drawn from pi."""
    logprobs = logits.log_softmax(-1)
    return logprobs.gather(-1, ids[:, None])[:, 0] - (2 * logprobs).logsumexp(-1)


@dataclass(kw_only=True)
class WPO(Paired):
    """L = w(y_c) w(y_r) (- log sigma(beta Delta)), w = exp(mean over tokens of log pi(y_t) - log sum_v pi(v)^2), no gradient.

    Pairs that the policy would write itself count more. Zhou et al. 2024, WPO: enhancing RLHF with weighted preference
    optimization, eq. 2 and 4, with the alignment of weights by sampled tokens.
    """

    def roles(self) -> Mapping[str, Role]:
        both = frozenset({"logprobs", "tokens"})
        return {**super().roles(), "policy": Role(kind=Kind.POLICY, trained=True, needs=both)}

    def link(self, chosen: Tensor, rejected: Tensor) -> Tensor:
        return dpo_loss(chosen, rejected, self.beta)

    def terms(self, loss: Tensor, models: Models, both: Completions, logprobs: Tensor) -> Terms:
        with torch.no_grad():
            weight = both.mean(models.policy.tokens(both, aligned, both.ids)).view(2, -1).sum(0).exp()
        return weight * loss
