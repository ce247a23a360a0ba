"""Networks that are tables, so that algorithms can be tested without an engine: every value can be worked out by hand."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor

from alignzoo.batch import Completions, Prompts
from alignzoo.contracts import Sampling, Scores
from alignzoo.functional import entropy, selective_log_softmax


class TablePolicy:
    """A bigram model: the logits of a token are the row of the token before it. It "samples" what it is told to."""

    def __init__(self, table: Tensor, samples: Completions | None = None, greedy: Completions | None = None) -> None:
        self.table, self.samples, self.greedy = table, samples, greedy

    def logits(self, c: Completions) -> Tensor:
        last = c.prompts.ids[c.prompt_of, -1:]
        return self.table[torch.cat([last, c.ids[:, :-1]], 1)]

    def tokens(self, c: Completions, fn: Callable[..., Tensor], *aligned: Tensor, beside: Sequence[Any] = ()) -> Tensor:
        columns = [p.logits(c)[c.scored] for p in (self, *beside)] + [x[c.scored] for x in aligned]
        result = fn(*columns)
        return result.new_zeros(*c.scored.shape, *result.shape[1:]).index_put((c.scored,), result)

    def logprobs(self, c: Completions) -> Tensor:
        return self.tokens(c, selective_log_softmax, c.ids)

    def entropy(self, c: Completions) -> Tensor:
        return self.tokens(c, entropy)

    def generate(self, prompts: Prompts, sampling: Sampling, adjust: Any = None) -> Completions:
        made = self.greedy if sampling.temperature == 0 else self.samples
        assert made is not None
        keep = torch.isin(made.row, prompts.row)
        return replace(made.take(keep), prompts=prompts) if keep.any() else made.take(keep)


@dataclass
class TableValue:
    """V(s_t) by position, one trained number each."""

    at: Tensor  # (T,)

    def values(self, c: Completions) -> Tensor:
        return torch.where(c.scored, self.at[: c.ids.shape[1]], 0)


@dataclass
class FakeModels:
    """`contracts.Models` in one process; `score` maps completions to scores, `uniforms` rows to numbers."""

    policy: TablePolicy
    reference: Any = None
    value: Any = None
    teacher: Any = None
    score: Callable[[Completions], Scores] | None = None
    sampling: Sampling = field(default_factory=lambda: Sampling(samples=2))
    uniforms: dict[int, float] = field(default_factory=dict)

    def reward(self, c: Completions) -> Scores:
        assert self.score is not None
        return self.score(c)

    def sum(self, x: Tensor) -> Tensor:
        return x

    any = gather = sum

    def uniform(self, purpose: str, row: Tensor) -> Tensor:
        return torch.tensor([self.uniforms[r] for r in row.tolist()])


def biased(vocabulary: int = 4) -> Tensor:
    """A bigram table under which, after any token, token 1 has probability 1/2 and the others share the rest."""
    logits = torch.zeros(vocabulary, vocabulary)
    logits[:, 1] = math.log(vocabulary - 1)
    return logits


def prompts(*last: int) -> Prompts:
    """One prompt for each of `last`, two tokens long; rows 0, 1, ..."""
    ids = torch.tensor([[0, token] for token in last])
    return Prompts(ids=ids, attended=torch.ones_like(ids, dtype=torch.bool), row=torch.arange(len(last)))


def completions(of: Prompts, prompt_of: list[int], ids: list[list[int]], scored: list[list[int]] | None = None) -> Completions:
    """Rows padded with 0 to the longest; `scored` as ones and zeros, default every token that was given."""
    width = max(len(row) for row in ids)
    attended = torch.tensor([[i < len(row) for i in range(width)] for row in ids])
    marks = attended if scored is None else torch.tensor([row + [0] * (width - len(row)) for row in scored]).bool()
    index = torch.tensor(prompt_of)
    return Completions(
        prompts=of, prompt_of=index, ids=torch.tensor([row + [0] * (width - len(row)) for row in ids]), attended=attended,
        scored=marks, truncated=torch.zeros(len(ids), dtype=torch.bool), row=of.row[index],
    )  # fmt: skip


def table(seed: int, vocabulary: int = 4) -> Tensor:
    """A random bigram table, float64, that takes gradient."""
    return torch.randn(
        vocabulary, vocabulary, generator=torch.Generator().manual_seed(seed), dtype=torch.float64
    ).requires_grad_()


def constant(values: list[float] | list[list[float]], valid: list[bool] | None = None) -> Callable[[Completions], Scores]:
    """A reward that gives these scores, whatever the completions."""
    total = torch.tensor(values, dtype=torch.float64)
    return lambda c: Scores(total=total, valid=None if valid is None else torch.tensor(valid))
