"""Plain functions of completions: rewards for `reward=function reward.path=alignzoo.rewards.text:NAME`, and a metric."""

from __future__ import annotations

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
    lowered = [words(text.lower()) for text in completions]
    return [spoken.count(word.lower()) / max(1, len(spoken)) for spoken in lowered]


def token_frequency(record: Completions, token: int) -> Tensor:
    """(B,) the share of scored tokens that are the token id `token`."""
    return record.mean((record.ids == token).float())


def each_token(record: Completions, token: int) -> Tensor:
    """(B, T) 1 at every token that is the token id `token`: a reward a token."""
    return torch.where(record.scored, (record.ids == token).float(), 0)


def overlap(completions: Sequence[str], reference: Sequence[str], n: int = 1) -> list[float]:
    """The F1 of word n-grams shared with the data's column `reference`, as in ROUGE-N (Lin 2004); 0 where either has none."""
    both = [(ngrams(text, n), ngrams(wanted, n)) for text, wanted in zip(completions, reference, strict=True)]
    return [2 * (a & b).total() / max(1, a.total() + b.total()) for a, b in both]


def distinct_tokens(c: Completions) -> Tensor:
    """The share of a completion's scored tokens that are different ones, (B,); 1 for a completion without repetition."""
    different = [ids[mask].unique().numel() for ids, mask in zip(c.ids, c.scored, strict=True)]
    return torch.tensor(different, device=c.ids.device) / c.length.clamp(min=1)
