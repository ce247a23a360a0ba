"""Networks that are tables, so that algorithms can be tested without an engine: every value can be worked out by hand."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor

from alignzoo.batch import Completions, Prompts
from alignzoo.contracts import Sampling, Scores
from alignzoo.functional import entropy, selective_log_softmax
from alignzoo.testing.reshape import ragged


class TablePolicy:
    """A bigram model: the logits of a token are the row of the token before it. It "samples" what it is told to, for a purpose
    that has some, those."""

    def __init__(
        self, table: Tensor, samples: Completions | None = None, greedy: Completions | None = None, **by_purpose: Completions
    ) -> None:
        self.table, self.samples, self.greedy, self.by_purpose = table, samples, greedy, by_purpose

    def logits(self, c: Completions) -> Tensor:
        last = c.prompts.ids[c.prompt_of, -1:]
        return self.table[torch.cat([last, c.ids[:, :-1]], 1)]

    def tokens(self, c: Completions, fn: Callable[..., Tensor], *aligned: Tensor, beside: Sequence[Any] = ()) -> Tensor:
        read = [p if isinstance(p, tuple) else (p, c) for p in (self, *beside)]
        columns = [p.logits(records)[records.scored] for p, records in read] + [x[c.scored] for x in aligned]
        result = fn(*columns)
        return result.new_zeros(*c.scored.shape, *result.shape[1:]).index_put((c.scored,), result)

    def logprobs(self, c: Completions) -> Tensor:
        return self.tokens(c, selective_log_softmax, c.ids)

    def entropy(self, c: Completions) -> Tensor:
        return self.tokens(c, entropy)

    def generate(
        self, prompts: Prompts, sampling: Sampling, adjust: Callable[..., Tensor] | None = None,
        beside: Sequence[TablePolicy] = (), purpose: str = "",
    ) -> Completions:  # fmt: skip
        samples = self.greedy if sampling.temperature == 0 else self.by_purpose.get(purpose, self.samples)
        assert samples is not None
        keep = torch.isin(samples.row, prompts.row)
        return replace(samples.take(keep), prompts=prompts) if keep.any() else samples.take(keep)


@dataclass
class TableValue:
    """V(s_t) by position, one trained number each."""

    at: Tensor  # (T,)

    def logits(self, c: Completions) -> Tensor:
        """(B, T, 1): for `tokens` beside a policy."""
        return self.values(c)[..., None]

    def values(self, c: Completions) -> Tensor:
        return torch.where(c.scored, self.at[: c.ids.shape[1]], 0)


@dataclass
class FakeModels:
    """`contracts.Models` in one process; `score` maps completions to scores, `uniforms` rows to numbers, or to lists, one a
    token; `others` are networks of other roles, by name."""

    policy: TablePolicy
    reference: TablePolicy | None = None
    value: TableValue | None = None
    teacher: TablePolicy | None = None
    score: Callable[[Completions], Scores] | None = None
    sampling: Sampling = field(default_factory=lambda: Sampling(samples=2))
    uniforms: Mapping[int, float | list[float]] = field(default_factory=dict)
    others: dict[str, Any] = field(default_factory=dict)
    more: Callable[[int], Prompts] | None = None  # what `more_prompts` gives
    tokenizer: Any = None

    def __getattr__(self, role: str) -> Any:
        try:
            return self.__dict__["others"][role]
        except KeyError:
            raise AttributeError(role) from None

    def reward(self, c: Completions) -> Scores:
        assert self.score is not None
        return self.score(c)

    def preference(self, first: Completions, second: Completions) -> Scores:
        scores = self.reward(first), self.reward(second)
        return Scores(total=(scores[0].total - scores[1].total).sigmoid(), valid=scores[0].usable & scores[1].usable)

    def sum(self, x: Tensor) -> Tensor:
        return x

    any = gather = sum

    def more_prompts(self, n: int) -> Prompts:
        assert self.more is not None
        return self.more(n)

    def uniform(self, purpose: str, row: Tensor, tokens: int | None = None) -> Tensor:
        return torch.tensor([self.uniforms[r] for r in row.tolist()])[..., :tokens]


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
    padded, attended = ragged(ids, "right")
    marks = attended if scored is None else ragged(scored, "right")[0].bool()
    index, truncated = torch.tensor(prompt_of), torch.zeros(len(ids), dtype=torch.bool)
    return Completions(
        prompts=of, prompt_of=index, ids=padded, attended=attended, scored=marks, truncated=truncated, row=of.row[index]
    )


def table(seed: int, vocabulary: int = 4) -> Tensor:
    """A random bigram table, float64, that takes gradient."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(vocabulary, vocabulary, generator=generator, dtype=torch.float64).requires_grad_()


def constant(values: list[float] | list[list[float]], valid: list[bool] | None = None) -> Callable[[Completions], Scores]:
    """A reward that gives these scores, whatever the completions."""
    total = torch.tensor(values, dtype=torch.float64)
    return lambda c: Scores(total=total, valid=None if valid is None else torch.tensor(valid))
