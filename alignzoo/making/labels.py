"""What raters say of scored completions: pure functions of the scores and a counter-based generator."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import combinations

import numpy as np

from alignzoo.common.noise import generator
from alignzoo.making.draws import Draw, ScoredCompletion
from alignzoo.settings import Made, Making, Ties

GUMBEL_MEAN = 0.5772156649015329
Marked = tuple[list[int], list[float]]  # the places of some samples of a draw, and a label's marks of them


@dataclass(frozen=True)
class Label:
    """What a rater said of some samples of a draw: chosen and rejected; the best; ranked ones and their ranks; a rated one."""

    draw: Draw
    rater: int
    samples: list[ScoredCompletion]
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
        seen = {i: score + self.making.temperature * gumbel[i] for i, score in self._usable(draw).items()}
        label = {
            Made.pairs: self._pairs, Made.rankings: self._ranking, Made.demonstrations: self._best, Made.ratings: self._ratings,
        }[self.making.kind]  # fmt: skip
        marked = label(len(draw.samples), seen, noise)
        return [Label(draw, self.number, [draw.samples[i] for i in places], marks) for places, marks in marked]

    def _usable(self, draw: Draw) -> dict[int, float]:
        """The scores of samples with a score and a text, by place; of equal ones, the first, where they would be compared."""
        texts, scores = set[str](), dict[int, float]()
        for i, sample in enumerate(draw.samples):
            twin = sample.text in texts and self.making.kind is not Made.ratings
            texts.add(sample.text)
            if sample.score is not None and sample.text.strip() and not twin:
                scores[i] = float(sample.score)
            elif self.number == 0:
                why = "unscored" if sample.score is None else "identical" if sample.text.strip() else "empty"
                self.counts[f"completions_{why}"] += 1
        return scores

    def _pairs(self, size: int, seen: dict[int, float], noise: np.random.Generator) -> list[Marked]:
        pairs: list[Marked] = []
        for a, b in combinations(range(size), 2):
            coin, turn = noise.random(2)
            if a not in seen or b not in seen:
                continue
            apart = abs(seen[a] - seen[b]) > self.making.tie_margin
            if not apart:
                self.counts["ties"] += 1
                if self.making.ties is Ties.drop:
                    continue
            first = seen[a] > seen[b] if apart else coin < 0.5
            pairs.append(([a, b] if first != self._turned(turn) else [b, a], []))
        return pairs

    def _ranking(self, size: int, seen: dict[int, float], noise: np.random.Generator) -> list[Marked]:
        ranks = self._ranks(seen)
        if self._turned(noise.random()):
            ranks = {i: max(ranks.values()) - rank for i, rank in ranks.items()}
        if self.making.ties is Ties.drop:
            firsts = {rank: i for i, rank in reversed(ranks.items())}
            ranks = {i: rank for rank, i in firsts.items()}
        if len(set(ranks.values())) < 2:
            self.counts["rankings_of_one_rank_dropped"] += 1
            return []
        order = sorted(ranks)
        return [(order, [float(ranks[i]) for i in order])]

    def _best(self, size: int, seen: dict[int, float], noise: np.random.Generator) -> list[Marked]:
        best = min if self._turned(noise.random()) else max
        return [([best(seen, key=lambda i: seen[i])], [])] if seen else []

    def _ratings(self, size: int, seen: dict[int, float], noise: np.random.Generator) -> list[Marked]:
        turns, mean = noise.random(size), GUMBEL_MEAN * self.making.temperature
        return [([i], [self._rating(value - mean, turns[i])]) for i, value in seen.items()]

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
    every = [label for draw in draws for rater in raters for label in rater(draw)]
    return every, {name: count for name, count in counts.items() if count}
