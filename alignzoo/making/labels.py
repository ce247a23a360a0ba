"""What raters say of scored completions: pure functions of the scores and a counter-based generator."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import combinations
from typing import Any

import numpy as np

from alignzoo.common.noise import generator
from alignzoo.making.samples import Draw, Sample
from alignzoo.settings import Made, Making, Ties

GUMBEL_MEAN = 0.5772156649015329
Texts = list[Sample]


@dataclass(frozen=True)
class Label:
    """What a rater said of some samples of a draw: chosen and rejected; the best; ranked ones and their ranks; a rated one."""

    draw: Draw
    rater: int
    samples: Texts
    marks: list[float] = field(default_factory=list)


@dataclass
class Rater:
    """Sees score + temperature x standard Gumbel noise: prefers as Bradley and Terry, ranks as Plackett and Luce say."""

    making: Making
    purpose: str
    number: int
    levels: Sequence[float] = ()  # the scores at which a next level of ratings begins
    counts: Counter[str] = field(default_factory=Counter)

    def __call__(self, draw: Draw) -> list[Label]:
        """The labels of a draw. They depend on the rater and the draw alone."""
        noise = generator(self.making.seed, self.purpose, "rater", self.number, draw.number)
        gumbel = noise.gumbel(size=len(draw.samples))
        places = self._usable(draw)
        seen = {i: float(draw.samples[i].score or 0.0) + self.making.temperature * gumbel[i] for i in places}
        says = {
            Made.pairs: self._pairs, Made.rankings: self._ranking, Made.demonstrations: self._best, Made.ratings: self._ratings,
        }[self.making.kind]  # fmt: skip
        return [Label(draw, self.number, [draw.samples[i] for i in some], marks) for some, marks in says(draw, seen, noise)]

    def _usable(self, draw: Draw) -> list[int]:
        """Samples with a score and a text; of equal ones, the first, where they would be compared."""
        texts: set[str] = set()
        places = []
        for i, sample in enumerate(draw.samples):
            why = "unscored" if sample.score is None else "" if sample.text.strip() else "empty"
            if not why and sample.text in texts and self.making.kind is not Made.ratings:
                why = "identical"
            texts.add(sample.text)
            if why:
                self.counts[f"completions_{why}"] += self.number == 0
            else:
                places.append(i)
        return places

    def _pairs(self, draw: Draw, seen: dict[int, float], noise: Any) -> list[tuple[list[int], list[float]]]:
        made: list[tuple[list[int], list[float]]] = []
        for a, b in combinations(range(len(draw.samples)), 2):
            coin, turn = noise.random(2)
            if a not in seen or b not in seen:
                continue
            apart = abs(seen[a] - seen[b]) > self.making.tie_margin
            if not apart:
                self.counts["ties"] += 1
                if self.making.ties is Ties.drop:
                    continue
            first = seen[a] > seen[b] if apart else coin < 0.5
            made.append(([a, b] if first != self._turned(turn) else [b, a], []))
        return made

    def _ranking(self, draw: Draw, seen: dict[int, float], noise: Any) -> list[tuple[list[int], list[float]]]:
        ranks = self._ranks(seen)
        turned = self._turned(noise.random())
        if turned:
            ranks = {i: max(ranks.values()) - rank for i, rank in ranks.items()}
        if self.making.ties is Ties.drop:
            ranks = {rank: i for i, rank in reversed(ranks.items())}
            ranks = {i: rank for rank, i in ranks.items()}
        if len(set(ranks.values())) < 2:
            self.counts["rankings_of_one_rank_dropped"] += 1
            return []
        order = sorted(ranks)
        return [(order, [float(ranks[i]) for i in order])]

    def _best(self, draw: Draw, seen: dict[int, float], noise: Any) -> list[tuple[list[int], list[float]]]:
        worst = self._turned(noise.random())
        best = min if worst else max
        return [([best(seen, key=lambda i: seen[i])], [])] if seen else []

    def _ratings(self, draw: Draw, seen: dict[int, float], noise: Any) -> list[tuple[list[int], list[float]]]:
        made = []
        for i, turn in enumerate(noise.random(len(draw.samples))):
            if i in seen:
                made.append(([i], [self._rating(seen[i] - GUMBEL_MEAN * self.making.temperature, turn)]))
        return made

    def _rating(self, value: float, turn: float) -> float:
        if not self.levels:
            return value
        level = int(np.searchsorted(self.levels, value, side="right"))
        return float(len(self.levels) - level if self._turned(turn) else level)

    def _ranks(self, seen: dict[int, float]) -> dict[int, int]:
        """Ranks from 0, the best; a next one begins where the gap to the one before is more than the tie margin."""
        ranks, rank, before = dict[int, int](), 0, None
        for i in sorted(seen, key=lambda i: -seen[i]):
            rank += before is not None and before - seen[i] > self.making.tie_margin
            before, ranks[i] = seen[i], rank
        return ranks

    def _turned(self, uniform: float) -> bool:
        turned = bool(uniform < self.making.flip)
        self.counts["flipped"] += turned
        return turned


def thresholds(draws: Sequence[Draw], levels: int) -> list[float]:
    """The scores that part these samples into `levels` of equally many; none for 0 levels."""
    scores = [sample.score for draw in draws for sample in draw.samples if sample.score is not None]
    return np.quantile(scores, np.arange(1, levels) / levels).tolist() if levels and scores else []


def labels(draws: Sequence[Draw], making: Making, purpose: str, levels: Sequence[float]) -> tuple[list[Label], dict[str, int]]:
    """What every rater says of every draw, and counts of what was left out or turned round."""
    counts: Counter[str] = Counter()
    raters = [Rater(making, purpose, number, levels, counts) for number in range(making.raters)]
    made = [label for draw in draws for rater in raters for label in rater(draw)]
    return made, {name: count for name, count in counts.items() if count}
