"""Completions of the policy that a reward learns from, as records of tokens alone: without columns, and mostly without text."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from itertools import combinations
from typing import TypeVar

import numpy as np
import torch

from alignzoo.batch import Batch, Completions, Decode, Pairs, Rated
from alignzoo.rewards.composite import State

C = TypeVar("C", bound=Completions)
B = TypeVar("B", bound=Batch)


@dataclass
class Replay:
    """The latest rollout, and of those before it the latest `size` completions."""

    size: int
    latest: Completions | None = None
    earlier: Completions | None = None

    def add(self, c: Completions) -> None:
        """A new rollout; completions of which nothing was sampled are left out."""
        sampled = bare(c).take(c.counted > 0)
        if not len(sampled):
            return
        if self.size and self.latest is not None:
            before = [] if self.earlier is None else [self.earlier]
            self.earlier = last(Completions.cat([*before, self.latest]), self.size)
        self.latest = sampled

    def draw(self, count: int, share: float, rng: np.random.Generator) -> Completions:
        """`count` completions, `share` of them earlier ones where there are any; each once, if there are enough."""
        assert self.latest is not None, "nothing was added yet"
        old = round(share * count) if self.earlier is not None else 0
        parts = [drawn(self.latest, count - old, rng)]
        if old and self.earlier is not None:
            parts.append(drawn(self.earlier, old, rng))
        return Completions.cat(parts)

    def state_dict(self) -> State:
        return {"latest": self.latest, "earlier": self.earlier}

    def load_state_dict(self, state: State) -> None:
        self.latest, self.earlier = state["latest"], state["earlier"]


def bare(records: B) -> B:
    """Without text and columns, of which the rows of a table may have others than those of a rollout."""
    if isinstance(records, Pairs):
        return replace(records, chosen=bare(records.chosen), rejected=bare(records.rejected))
    assert isinstance(records, Completions)
    return replace(records, prompts=replace(records.prompts, columns={}, decode=None))


def with_text(c: C, decode: Decode) -> C:
    return replace(c, prompts=replace(c.prompts, decode=decode))


def joined(parts: Sequence[B]) -> B:
    """All records of `parts`, bare."""
    return type(parts[0]).cat([bare(part) for part in parts])


def last(records: B, count: int) -> B:
    return records.take(range(max(0, len(records) - count), len(records)))


def drawn(records: B, count: int, rng: np.random.Generator) -> B:
    """`count` of the records at random; each once, if there are enough."""
    return records.take(rng.choice(len(records), size=count, replace=count > len(records)).tolist())


def whole_draws(c: Completions, count: int, rng: np.random.Generator) -> Completions:
    """`count` of the completions, those of a draw one after the other, so that few are without another to compare with."""
    groups = c.row.unique(return_inverse=True)[1]
    order = torch.from_numpy(rng.permutation(int(groups.max()) + 1))[groups].argsort(stable=True)
    return c.take(order[:count])


def pairs(c: Rated) -> Pairs:
    """Each two completions of a draw whose ratings differ, the better one chosen."""
    rows, prompt_of = c.row.unique(return_inverse=True)
    places = [(c.row == row).nonzero()[:, 0].tolist() for row in rows]
    compared = [(i, j) for draw in places for i, j in combinations(draw, 2) if c.rating[i] != c.rating[j]]
    ordered = [(i, j) if c.rating[i] > c.rating[j] else (j, i) for i, j in compared]
    plain = Completions(**{f.name: getattr(c, f.name) for f in fields(Completions)})
    # one prompt a draw, however often it was sampled from: both sides of a pair number the prompts alike
    prompts = c.prompts.take(c.prompt_of[[draw[0] for draw in places]])
    plain = replace(plain, prompts=prompts, prompt_of=prompt_of)
    return Pairs(chosen=plain.take([i for i, _ in ordered]), rejected=plain.take([j for _, j in ordered]))
