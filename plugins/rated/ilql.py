"""Implicit language Q-learning."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from alignzoo.batch import Rated
from alignzoo.contracts import EMA, Algorithm, Kind, Models, Role, Search, require
from alignzoo.functional import expectile_loss, gae, selective_log_softmax

Q, TWIN, TARGET, TARGET_TWIN = "q", "twin_q", "target_q", "target_twin_q"


@dataclass(kw_only=True)
class ILQL(Algorithm):
    """L = E_t[ sum_i (R_t + gamma V(s_{t+1}) - Q_i)^2 + |tau - 1[u < 0]| u^2 - c sum_i log softmax Q_i - log pi ], each at y_t.

    u = min_i Q'_i(s_t, y_t) - V(s_t), Q' a moving average of Q. What is written has logits log pi + beta (min_i Q'_i - V).
    Snell et al. 2023, Offline RL for natural language generation with implicit language Q learning.
    """

    data = Rated
    published_rate = 1e-4  # its authors' code

    beta: float = field(
        default=8.0,
        metadata={"help": "how much an advantage counts when the policy is sampled", "search": Search(0.5, 32.0, log=True)},
    )
    tau: float = field(
        default=0.6, metadata={"help": "expectile of Q that V is: 1/2 the mean, 1 the best", "search": Search(0.5, 0.95)}
    )
    conservatism: float = field(
        default=0.25,
        metadata={"help": "c, weight of the term that keeps Q low off the data", "search": Search(0.001, 1.0, log=True)},
    )
    discount: float = field(default=0.99, metadata={"help": "gamma: how much less a rating is worth one token later"})
    decay: float = field(
        default=0.995, metadata={"help": "of the average that the target Q are", "search": Search(options=(0.9, 0.98, 0.995))}
    )
    shared: bool = field(default=False, metadata={"help": "heads on the policy's trunk, in place of one of their own"})

    def __post_init__(self) -> None:
        require(self.beta >= 0, "algorithm.beta", self.beta, ">= 0")
        require(0.5 <= self.tau < 1, "algorithm.tau", self.tau, "in [0.5, 1)")
        require(self.conservatism >= 0, "algorithm.conservatism", self.conservatism, ">= 0")
        require(0 <= self.discount <= 1, "algorithm.discount", self.discount, "in [0, 1]")
        require(0 <= self.decay < 1, "algorithm.decay", self.decay, "in [0, 1)")

    def roles(self) -> Mapping[str, Role]:
        trunk, target = ("policy", "policy") if self.shared else (Q, TARGET)

        def head(kind: Kind, need: str, shares: str | None, follows: str | None = None) -> Role:
            average = EMA(self.decay, role=follows) if follows else None
            return Role(kind=kind, trained=not follows, needs=frozenset({need}), shares=shares, follows=average)

        return {
            "policy": Role(kind=Kind.POLICY, trained=True, needs=frozenset({"tokens"})),
            Q: head(Kind.ACTION_VALUE, "tokens", "policy" if self.shared else None),
            TWIN: head(Kind.ACTION_VALUE, "tokens", trunk),
            "value": head(Kind.VALUE, "values", trunk),
            TARGET: head(Kind.ACTION_VALUE, "tokens", "policy" if self.shared else None, Q),
            TARGET_TWIN: head(Kind.ACTION_VALUE, "tokens", target, TWIN),
        }

    def loss(self, models: Models, batch: Rated) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        heads = [getattr(models, role) for role in (Q, TWIN, TARGET, TARGET_TWIN, "value")]
        read = models.policy.tokens(batch, _at_written, batch.ids, beside=heads)
        logprobs, target, values, conservative = (read[..., i] for i in range(4))
        returns = gae(batch.at_last(batch.rating.to(values.dtype)), values.detach(), batch.scored, self.discount, 0.0)[1]
        errors = ((read[..., 4:] - returns[..., None]) ** 2).sum(-1)
        terms = {
            "q": errors,
            "value": expectile_loss(values, target, self.tau),
            "conservative": self.conservatism * conservative,
            "policy": -logprobs,
        }
        return terms, {"q": read[..., 4], "value": values, "advantage": target - values}

    def evaluation(self, models: Models) -> Mapping[str, Any]:
        def decoded(logits: Tensor, q: Tensor, twin: Tensor, value: Tensor) -> Tensor:
            return logits + self.beta * (torch.minimum(q, twin) - value)

        beside = [getattr(models, role) for role in (TARGET, TARGET_TWIN, "value")]
        return {"policy": models.policy.adjusted(decoded, beside)}


def _at_written(
    logits: Tensor, q: Tensor, twin: Tensor, target: Tensor, target_twin: Tensor, value: Tensor, ids: Tensor
) -> Tensor:
    """(n, 6), of the tokens that were written: log pi, the lower target Q, V, the conservative term of both Q, both Q."""

    def at(x: Tensor) -> Tensor:
        return x.gather(1, ids[:, None])[:, 0]

    conservative = -selective_log_softmax(q, ids) - selective_log_softmax(twin, ids)
    lower = torch.minimum(at(target), at(target_twin))
    return torch.stack([selective_log_softmax(logits, ids), lower, value[:, 0], conservative, at(q), at(twin)], 1)
