"""The task's records, in every view an algorithm may ask for: sampled from enumerated distributions, made when asked for."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from alignzoo.batch import Batch, Completions, Pairs, Prompts, Rankings, Rated
from alignzoo.data.exact.judge import Judge
from alignzoo.data.exact.language import Language
from alignzoo.data.exact.sampler import Sampler
from alignzoo.errors import UserError

RANKED = 4  # completions of one ranking
UNERRING = Judge()


@dataclass
class PromptTable:
    """Row i is prompt i modulo their number."""

    language: Language
    size: int

    def __len__(self) -> int:
        return self.size

    def batch(self, rows: Sequence[int]) -> Prompts:
        row = torch.as_tensor(rows)
        return self.language.prompts(row % len(self.language.prompt_ids), row)


@dataclass
class Drawn:
    """What the rows of a table hold, drawn at once: completions (rows, k) and, where the view has them, marks (rows, k)."""

    numbers: Tensor
    marks: Tensor | None = None


@dataclass
class RecordTable:
    """`view` records over `drawn`, which is called when rows are first asked for: by then the reference exists."""

    language: Language
    view: type[Batch]
    size: int
    draw: Callable[[], Drawn]
    drawn: Drawn | None = None

    def __len__(self) -> int:
        return self.size

    def batch(self, rows: Sequence[int]) -> Batch:
        if self.drawn is None:
            self.drawn = self.draw()
        row = torch.as_tensor(rows)
        numbers = self.drawn.numbers[row]
        prompts, prompt_of = self._prompts(row)
        if self.view is Pairs:
            sides = [self.language.completions(side) for side in numbers.unbind(1)]
            chosen, rejected = (Completions(prompts=prompts, prompt_of=prompt_of, row=row, **side) for side in sides)
            return Pairs(chosen=chosen, rejected=rejected)
        each = numbers.shape[1]
        columns = self.language.completions(numbers.flatten())
        columns |= {"prompt_of": prompt_of.repeat_interleave(each), "row": row.repeat_interleave(each)}
        if self.drawn.marks is None:
            return Completions(prompts=prompts, **columns)
        marks = self.drawn.marks[row].flatten()
        if self.view is Rated:
            return Rated(prompts=prompts, rating=marks, **columns)
        return Rankings(prompts=prompts, rank=marks, **columns)

    def _prompts(self, row: Tensor) -> tuple[Prompts, Tensor]:
        """Each prompt once, but one a ranking, since a ranking is known by its prompt."""
        prompt = row % len(self.language.prompt_ids)
        if self.view is Rankings:
            return self.language.prompts(prompt, row), torch.arange(len(row))
        used, prompt_of = prompt.unique(return_inverse=True)
        first = (prompt_of == torch.arange(len(used))[:, None]).int().argmax(1)
        return self.language.prompts(used, row[first]), prompt_of


def draw(
    view: type[Batch], size: int, seed: Sequence[int], reference: Tensor, demonstrator: Tensor, rewards: Tensor,
    judge: Judge = UNERRING,
) -> Drawn:  # fmt: skip
    """What annotators with the reward in mind would have said: all (P, completions), two of log-probs and one of rewards. The
    `judge`'s errors change labels, never completions.

    Pairs: chosen and rejected differ, and P(a over b) = sigma(r_a - r_b) (Bradley and Terry 1952)
    Rated: 1 with probability sigma(r), else 0
    Rankings: Plackett (1975) and Luce (1959), which for two is Bradley-Terry
    Completions: demonstrations, samples of the demonstrator
    """
    rng, errors = (np.random.default_rng([*seed, stream]) for stream in (4, 5))
    prompt = torch.arange(size) % len(rewards)
    uniform = lambda: torch.from_numpy(rng.random(size))  # noqa: E731
    if view is Completions:
        return Drawn(Sampler(demonstrator)(prompt, uniform())[:, None])
    sampler = Sampler(reference)
    first = sampler(prompt, uniform())
    if view is Rated:
        liked = uniform() < judge.perceived(rewards[prompt, first], errors).sigmoid()
        return Drawn(first[:, None], (liked ^ judge.turned(size, errors)).float()[:, None])
    if view is Pairs:
        second = sampler.another(prompt, first, uniform())
        both = torch.stack([first, second], 1)
        seen = judge.perceived(rewards[prompt[:, None], both], errors)
        first_wins = (uniform() < (seen[:, 0] - seen[:, 1]).sigmoid()) ^ judge.turned(size, errors)
        return Drawn(torch.where(first_wins[:, None], both, both.flip(1)))
    if view is Rankings:
        numbers = torch.stack([first, *(sampler(prompt, uniform()) for _ in range(RANKED - 1))], 1)
        perceived = judge.perceived(rewards[prompt[:, None], numbers], errors)
        rank = (perceived + torch.from_numpy(rng.gumbel(size=(size, RANKED)))).argsort(1, descending=True).argsort(1)
        return Drawn(numbers, torch.where(judge.turned(size, errors)[:, None], RANKED - 1 - rank, rank))
    raise UserError(f"data=exact makes Prompts, Completions, Pairs, Rated and Rankings, not {view.__name__}: choose other data")
