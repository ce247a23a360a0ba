"""`reward=length`, `reward=repetition`, `reward=truncation`: what a completion is marked down for, 0 or less."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum

import torch

from alignzoo.batch import Completions
from alignzoo.common.words import ngrams, words
from alignzoo.contracts import Reward, Scores
from alignzoo.errors import UserError, require
from alignzoo.rewards.texts import TextReward, Written


class LengthUnit(Enum):
    tokens = "tokens"
    words = "words"
    characters = "characters"


@dataclass(kw_only=True)
class Length(TextReward):
    """Minus the number of tokens (or words, or characters) that the completion is shorter than `least` or longer than `most`.

    With most=0, the default, every token costs 1: give it a small weight in a sum.
    """

    least: int = field(default=0, metadata={"help": "shorter ones are marked down"})
    most: int | None = field(default=0, metadata={"help": "longer ones are marked down; null: none are"})
    unit: LengthUnit = field(default=LengthUnit.tokens, metadata={"help": "tokens that the policy wrote, words or characters"})

    def __post_init__(self) -> None:
        require(self.least >= 0, "reward.least", self.least, ">= 0")
        if self.most is not None and self.most < self.least:
            raise UserError(f"reward.most={self.most}: must be >= reward.least={self.least}, or null for no upper limit")

    def rate(self, one: Written) -> float:
        counted = {LengthUnit.tokens: one.tokens, LengthUnit.characters: len(one.text)}
        length = counted[self.unit] if self.unit in counted else len(words(one.text))
        return -float(max(0, self.least - length) + (0 if self.most is None else max(0, length - self.most)))


@dataclass(kw_only=True)
class Repetition(TextReward):
    """Minus the share of word n-grams that repeat an earlier one, 1 - distinct / all, in (-1, 0]; 0 without any n-gram."""

    n: int = field(default=3, metadata={"help": "words of an n-gram"})

    def __post_init__(self) -> None:
        require(self.n >= 1, "reward.n", self.n, ">= 1")

    def rate(self, one: Written) -> float:
        grams = ngrams(one.text, self.n)
        return len(grams) / grams.total() - 1 if grams else 0.0


@dataclass(kw_only=True)
class Truncation(Reward):
    """Minus `penalty` for a completion that was cut at the length limit, 0 for one that ended by itself."""

    penalty: float = field(default=1.0, metadata={"help": "what being cut costs"})

    def __post_init__(self) -> None:
        if not 0 < self.penalty < float("inf"):
            raise UserError(f"reward.penalty={self.penalty:g}: must be > 0, and finite")

    def __call__(self, c: Completions) -> Scores:
        return Scores(total=torch.where(c.truncated, -self.penalty, 0.0))
