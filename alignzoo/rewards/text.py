"""Rewards that are plain functions of text, for `reward=function reward.path=alignzoo.rewards.text:NAME`."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import torch
from torch import Tensor

from alignzoo.batch import Completions
from alignzoo.common.words import ngrams, words


def length(completions: Sequence[str], target: int = 0) -> list[float]:
    """The number of words; with a `target`, minus the distance to it."""
    counts = [len(words(text)) for text in completions]
    return [float(-abs(count - target) if target else count) for count in counts]


def word_frequency(completions: Sequence[str], word: str) -> list[float]:
    """The share of the words that are `word`, upper or lower case; 0 where there are no words."""
    counted = [words(text.lower()) for text in completions]
    return [said.count(word.lower()) / len(said) if said else 0.0 for said in counted]


def token_frequency(record: Completions, token: int) -> Tensor:
    """(B,) the share of scored tokens that are the token id `token`."""
    return record.mean((record.ids == token).float())


def each_token(record: Completions, token: int) -> Tensor:
    """(B, T) 1 at every token that is the token id `token`: a reward a token."""
    return torch.where(record.scored, (record.ids == token).float(), 0)


def overlap(completions: Sequence[str], reference: Sequence[str], n: int = 1) -> list[float]:
    """The F1 of word n-grams shared with the data's column `reference`, as in ROUGE-N (Lin 2004); 0 where either has none."""
    return [_f1(ngrams(text, n), ngrams(wanted, n)) for text, wanted in zip(completions, reference, strict=True)]


def _f1(one: Counter[tuple[str, ...]], other: Counter[tuple[str, ...]]) -> float:
    shared = (one & other).total()
    return 2 * shared / (one.total() + other.total()) if shared else 0.0
