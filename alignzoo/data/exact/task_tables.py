"""The task's records, in every view an algorithm may ask for: sampled from enumerated distributions, made when asked for."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from torch import Tensor

from alignzoo.batch import Batch, Completions, Pairs, Prompts, Rankings, Rated
from alignzoo.data.exact.annotator import Annotator
from alignzoo.data.exact.language import Language
from alignzoo.data.tables import SIDES, each_once, records

RANKED = 4  # completions of one ranking
UNERRING = Annotator()


class CompletionSampler:
    """Completions by inverse CDF, from a table of log-probs (P, completions)."""

    def __init__(self, logprobs: Tensor) -> None:
        probs = logprobs.exp()
        self.probs = probs / probs.sum(1, keepdim=True)
        self.mass = self.probs.cumsum(1)
        # one ascending row for all prompts: prompt p occupies [p, p + 1)
        self.line = (self.mass.clamp(max=1 - 1e-12) + torch.arange(len(probs))[:, None]).flatten()

    def __call__(self, prompt_of: Tensor, uniform: Tensor) -> Tensor:
        """(B,) prompts and uniforms -> (B,) completion numbers."""
        place = torch.searchsorted(self.line, prompt_of + uniform, right=True) - prompt_of * self.mass.shape[1]
        return place.clamp(max=self.mass.shape[1] - 1)

    def another(self, prompt_of: Tensor, first: Tensor, uniform: Tensor) -> Tensor:
        """(B,) completion numbers that differ from `first`, with probabilities in proportion."""
        excluded = self.probs[prompt_of, first]
        scaled = uniform * (1 - excluded)
        skipped = scaled + torch.where(scaled >= self.mass[prompt_of, first] - excluded, excluded, 0)
        number = self(prompt_of, skipped.clamp(max=1 - 1e-9))
        # rounding at the edge of the skipped interval
        last = self.mass.shape[1] - 1
        return torch.where(number == first, torch.where(first < last, first + 1, first - 1), number)


@dataclass
class Drawn:
    """What the rows of a table hold, drawn at once: completions (rows, k) and, where the view has them, marks (rows, k)."""

    numbers: Tensor
    marks: Tensor | None = None


@dataclass
class TaskPrompts:
    """Row i is prompt i modulo their number."""

    language: Language
    size: int

    def __len__(self) -> int:
        return self.size

    def batch(self, rows: Sequence[int]) -> Prompts:
        row = torch.as_tensor(rows)
        return self.language.prompts(row % len(self.language.prompt_ids), row)


@dataclass
class TaskRecords:
    """`view` records over what `draw` gives, which is called when rows are first asked for: by then the reference exists."""

    language: Language
    view: type[Batch]
    size: int
    draw: Callable[[], Drawn]

    @cached_property
    def drawn(self) -> Drawn:
        return self.draw()

    def __len__(self) -> int:
        return self.size

    def batch(self, rows: Sequence[int]) -> Batch:
        row = torch.as_tensor(rows)
        numbers, marks = self.drawn.numbers[row], self.drawn.marks
        place = row % len(self.language.prompt_ids)
        # a ranking is known by its prompt, and so has one of its own
        used, prompt_of, first = (place, *[torch.arange(len(row))] * 2) if self.view is Rankings else each_once(place)
        prompts = self.language.prompts(used, row[first])
        sides, each = (numbers.unbind(1), 1) if self.view in SIDES else ([numbers.flatten()], numbers.shape[1])
        return records(
            self.view,
            [self.language.completions(side) for side in sides],
            None if marks is None else marks[row].flatten(),
            prompts=prompts,
            prompt_of=prompt_of.repeat_interleave(each),
            row=row.repeat_interleave(each),
        )


def draw(
    view: type[Batch], size: int, seed: Sequence[int], reference: Tensor, demonstrator: Tensor, rewards: Tensor,
    annotator: Annotator = UNERRING,
) -> Drawn:  # fmt: skip
    """What annotators with the reward in mind would have said: all (P, completions), two of log-probs and one of rewards. The
    `annotator`'s errors change labels, never completions.

    Pairs: chosen and rejected differ, and P(a over b) = sigma(r_a - r_b) (Bradley and Terry 1952)
    Triples: the same pairs, and a demonstration
    Rated: 1 with probability sigma(r), else 0
    Rankings: Plackett (1975) and Luce (1959), which for two is Bradley-Terry
    Completions: demonstrations, samples of the demonstrator
    """
    # errors have a stream of their own, so that a judge who errs sees the same completions as one who doesn't
    rng, errors = (np.random.default_rng([*seed, stream]) for stream in (4, 5))
    prompt = torch.arange(size) % len(rewards)
    uniform = lambda: torch.from_numpy(rng.random(size))  # noqa: E731
    if view is Completions:
        return Drawn(CompletionSampler(demonstrator)(prompt, uniform())[:, None])
    sampler = CompletionSampler(reference)
    first = sampler(prompt, uniform())
    if view is Rated:
        liked = uniform() < annotator.perceived(rewards[prompt, first], errors).sigmoid()
        return Drawn(first[:, None], (liked ^ annotator.turned(size, errors)).float()[:, None])
    if view in SIDES:
        both = torch.stack([first, sampler.another(prompt, first, uniform())], 1)
        perceived = annotator.perceived(rewards[prompt[:, None], both], errors)
        first_wins = (uniform() < (perceived[:, 0] - perceived[:, 1]).sigmoid()) ^ annotator.turned(size, errors)
        pairs = torch.where(first_wins[:, None], both, both.flip(1))
        if view is Pairs:
            return Drawn(pairs)
        return Drawn(torch.cat([pairs, CompletionSampler(demonstrator)(prompt, uniform())[:, None]], 1))
    numbers = torch.stack([first, *(sampler(prompt, uniform()) for _ in range(RANKED - 1))], 1)
    perceived = annotator.perceived(rewards[prompt[:, None], numbers], errors)
    rank = (perceived + torch.from_numpy(rng.gumbel(size=(size, RANKED)))).argsort(1, descending=True).argsort(1)
    return Drawn(numbers, torch.where(annotator.turned(size, errors)[:, None], RANKED - 1 - rank, rank))
