"""Unlikelihood training."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from math import isfinite

import torch
from torch import Tensor

from alignzoo.batch import Completions, Rated
from alignzoo.contracts import Algorithm, Kind, Models, Role, Search, require
from alignzoo.functional import selective_log_softmax, unlikelihood


@dataclass(kw_only=True)
class Unlikelihood(Algorithm):
    """L_t = - log pi(y_t) where desirable, - alpha log(1 - pi(y_t)) elsewhere; with `repeats`, desirable tokens also
    - repeats sum_c log(1 - pi(c)), c the other tokens that the completion has had so far.

    Welleck et al. 2020, Neural text generation with unlikelihood training.
    """

    data = Rated
    published_rate = 6.25e-5  # the default of its authors' run_gpt2.py

    alpha: float = field(
        default=1.0, metadata={"help": "weight of undesirable completions", "search": Search(0.1, 10.0, log=True)}
    )
    repeats: float = field(default=0.0, metadata={"help": "weight against tokens that were there before; the paper's is 1"})
    threshold: float = field(default=0.5, metadata={"help": "completions rated above it are desirable"})

    def __post_init__(self) -> None:
        require(self.alpha > 0, "algorithm.alpha", self.alpha, "> 0: without the undesirable ones it is algorithm=sft")
        require(self.repeats >= 0, "algorithm.repeats", self.repeats, ">= 0")
        require(isfinite(self.threshold), "algorithm.threshold", self.threshold, "a number")

    def roles(self) -> Mapping[str, Role]:
        needs = frozenset({"tokens"} if self.repeats else {"logprobs"})
        return {"policy": Role(kind=Kind.POLICY, trained=True, needs=needs)}

    def loss(self, models: Models, batch: Rated) -> tuple[Tensor, dict[str, Tensor]]:
        repeated = torch.zeros((), device=batch.ids.device)
        if self.repeats:
            both = models.policy.tokens(batch, _with_repeats, batch.ids, earlier(batch))  # (B, T, 2)
            logprobs, repeated = both.unbind(-1)
        else:
            logprobs = models.policy.logprobs(batch)
        desirable = (batch.rating > self.threshold)[:, None]
        loss = torch.where(desirable, self.repeats * repeated - logprobs, self.alpha * unlikelihood(logprobs))
        return loss, {}


def earlier(c: Completions) -> Tensor:
    """(B, T, T): the scored tokens before each of a completion, each kind once and its own left out, -1 elsewhere."""
    same = c.ids[:, :, None] == c.ids[:, None, :]
    before = torch.ones_like(same).tril(-1)
    first = ~(same & before & c.scored[:, None, :]).any(2)
    return torch.where(before & ~same & (first & c.scored)[:, None, :], c.ids[:, None, :], -1)


def _with_repeats(logits: Tensor, ids: Tensor, candidates: Tensor) -> Tensor:
    """(n, 2): log p of the token, and the unlikelihood of the candidates (n, K)."""
    listed = logits.gather(-1, candidates.clamp(min=0)) - logits.logsumexp(-1, keepdim=True)
    against = torch.where(candidates >= 0, unlikelihood(listed), 0).sum(-1)
    return torch.stack([selective_log_softmax(logits, ids), against], -1)
