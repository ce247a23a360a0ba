"""`reward=overlap`: word n-grams shared with references."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from enum import Enum

from alignzoo.common.words import ngrams
from alignzoo.errors import require
from alignzoo.rewards.texts import TextReward, Written, references


class Share(Enum):
    f1 = "f1"
    precision = "precision"  # of the completion's n-grams, those that the reference has
    recall = "recall"  # of the reference's n-grams, those that the completion has


@dataclass(kw_only=True)
class Overlap(TextReward):
    """The share of word n-grams that completion and reference have in common, in [0, 1]; of several references, the best.

    With measure=f1 or recall this is ROUGE-N (Lin 2004) on lower-cased words without stemming.
    """

    reference: str = field(default="reference", metadata={"help": "data column with a text or a list of texts"})
    n: int = field(default=1, metadata={"help": "words of an n-gram"})
    measure: Share = field(default=Share.f1, metadata={"help": "f1, precision or recall"})

    def __post_init__(self) -> None:
        require(self.n >= 1, "reward.n", self.n, ">= 1")

    def rate(self, one: Written) -> float | None:
        own = ngrams(one.text, self.n)
        wanted = [ngrams(text, self.n) for text in references(one, self.reference)]
        return max((self._share(own, other) for other in wanted), default=None)

    def _share(self, own: Counter[tuple[str, ...]], wanted: Counter[tuple[str, ...]]) -> float:
        shared = (own & wanted).total()
        of = {Share.f1: (own.total() + wanted.total()) / 2, Share.precision: own.total(), Share.recall: wanted.total()}
        return shared / of[self.measure] if shared else 0.0
