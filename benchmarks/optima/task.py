"""One prompt whose completions are enumerated, and all data that there is about it."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from alignzoo.batch import Batch, Completions, Pairs, Prompts, Rated
from alignzoo.data.exact.grammar import rewards, source_policy
from alignzoo.data.exact.optimum import StringTree, completion_logprobs, optimal_policy
from alignzoo.testing.fakes import TablePolicy


def divergence(p: Tensor, q: Tensor) -> float:
    """KL(p || q), from log-probs."""
    return float((p.exp() * (p - q)).sum())


@dataclass(frozen=True)
class Task:
    """Strings of at most `length` letters out of `tokens`; rewards of standard deviation `scale`."""

    tokens: int = 4
    length: int = 3
    scale: float = 2.0
    seed: int = 0

    @cached_property
    def tree(self) -> StringTree:
        return StringTree(self.tokens, self.length)

    @cached_property
    def reference(self) -> Tensor:
        """(completions,) log-probs."""
        return completion_logprobs(self.tree, source_policy(self.tree, 1, self.seed))[0]

    @cached_property
    def rewards(self) -> Tensor:
        """(completions,)"""
        return self.scale * rewards(self.tree, 1, self.seed, interaction=0.5, roughness=0.1)[0]

    def tilted(self, inverse: float) -> Tensor:
        """(completions,) log-probs of pi*, which maximises E[r] - beta KL(pi || reference), for beta = 1 / `inverse`."""
        return (self.reference + self.rewards * inverse).log_softmax(0)

    def completions(self, numbers: Tensor) -> Completions:
        """These completions, (B,), of the one prompt. Letters are tokens 0 ..., the end is token `tokens`."""
        digits, lengths = (x[numbers] for x in self.tree.digits())
        ended, place = lengths < self.length, torch.arange(self.length)
        ids = torch.where(place == lengths[:, None], self.tokens, digits)
        attended = place < (lengths + ended)[:, None]
        one = torch.zeros(1, 1, dtype=torch.long)
        prompts = Prompts(ids=one, attended=one == 0, row=one[0])
        rows = torch.arange(len(numbers))
        return Completions(
            prompts=prompts, prompt_of=torch.zeros_like(rows), ids=ids, attended=attended, scored=attended, truncated=~ended,
            row=rows,
        )  # fmt: skip

    def records(self, view: type[Batch]) -> tuple[Batch, Tensor] | None:
        """All records and their probabilities, where they are few enough."""
        properties = {Pairs: "pairs", Rated: "rated", Completions: "demonstrations"}
        return getattr(self, properties[view]) if view in properties else None

    @cached_property
    def pairs(self) -> tuple[Pairs, Tensor]:
        """Every ordered pair of completions, and its probability: both drawn from the reference, the better one by Bradley and
        Terry chosen."""
        a, b = torch.cartesian_prod(*[torch.arange(self.tree.completions)] * 2).T
        drawn = (self.reference[a] + self.reference[b]).exp()
        preferred = (self.rewards[a] - self.rewards[b]).sigmoid()
        return Pairs(chosen=self.completions(a), rejected=self.completions(b)), 2 * drawn * preferred

    @cached_property
    def rated(self) -> tuple[Rated, Tensor]:
        """Every completion with a rating of 1, then of 0: drawn from the reference, liked with probability sigma(r)."""
        count = self.tree.completions
        c = self.completions(torch.arange(count).repeat(2))
        rating = torch.arange(2).flip(0).repeat_interleave(count).double()
        liked = torch.cat([self.rewards.sigmoid(), (-self.rewards).sigmoid()])
        return Rated(**vars(c), rating=rating), self.reference.exp().repeat(2) * liked

    @cached_property
    def demonstrations(self) -> tuple[Completions, Tensor]:
        """Every completion, written by pi* of beta 1."""
        return self.completions(torch.arange(self.tree.completions)), self.tilted(1.0).exp()


class Categorical(TablePolicy):
    """A policy with a free log-odds for each completion."""

    def __init__(self, task: Task, scores: Tensor) -> None:
        self.task = task
        start = scores.new_zeros(1, task.tree.prefixes, task.tokens + 1)
        super().__init__(
            optimal_policy(task.tree, start, scores[None], 1.0)[0][0]
        )  # in which all is as likely as its exp(score)

    def prefixes(self, c: Completions) -> Tensor:
        """(B, T): the number of the prefix before each token."""
        numbers, code = [torch.zeros_like(c.ids[:, 0])], torch.zeros_like(c.ids[:, 0])
        for t in range(1, c.ids.shape[1]):
            code = code * self.task.tokens + c.ids[:, t - 1].clamp(max=self.task.tokens - 1)
            numbers.append(self.task.tree.first(t) + code)
        return torch.stack(numbers, 1)

    def logits(self, c: Completions) -> Tensor:
        return self.table[self.prefixes(c)]

    def logprobs(self, c: Completions) -> Tensor:
        """Without the logits of each record: Hessians are taken of this."""
        return torch.where(c.scored, self.table[self.prefixes(c), c.ids], 0)
