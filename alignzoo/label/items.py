"""What a person is asked, and what an answer may be."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Any

Text = str | list[dict[str, Any]]
Answer = float | list[int] | None  # a rating, or a rank for each completion, 1 is best; None: skipped

PREFERRED: dict[str, list[int]] = {"first": [1, 2], "second": [2, 1], "tie": [1, 1]}
SKIPPED = "skip"


class Kind(Enum):
    """What is asked: which of two is better, how good one is, or the order of several."""

    pairs = "pairs"
    ratings = "ratings"
    rankings = "rankings"


@dataclass(frozen=True)
class Scale:
    """The ratings there are, both ends included."""

    low: float = 1.0
    high: float = 5.0

    @property
    def keys(self) -> list[str]:
        """One key for each rating, where the scale is one of whole numbers of one digit; else none."""
        whole = {self.low, self.high} <= set(range(10))
        return [str(number) for number in range(int(self.low), int(self.high) + 1)] if whole else []

    def __str__(self) -> str:
        return f"from {self.low:g} to {self.high:g}"


@dataclass(frozen=True)
class Item:
    """One question: a prompt with one completion to rate, two to compare, or more to rank. `writers` say who wrote each."""

    kind: Kind
    prompt: Text
    completions: tuple[Text, ...]
    writers: tuple[str, ...] = ()

    @property
    def id(self) -> str:
        """Made from the texts alone: the same question has the same id, whoever asks it, and however often."""
        return _hash([self.kind.value, self.prompt, *self.completions])[:12]

    def described(self) -> dict[str, Any]:
        """Everything but who wrote it."""
        return {"id": self.id, "as": self.kind.value, "prompt": self.prompt, "completions": list(self.completions)}


def item(kind: Kind, prompt: Text, completions: Sequence[Text], writers: Sequence[str] = ()) -> Item:
    """The completions in an order that depends on their texts alone, and so says nothing of who wrote them."""
    places = sorted(range(len(completions)), key=lambda i: _hash([prompt, completions[i]]))
    return Item(kind, prompt, tuple(completions[i] for i in places), tuple(writers[i] for i in places if writers))


def parsed(said: Any, kind: Kind, scale: Scale, size: int) -> Answer:
    """An answer as a file or a cell holds it. Raises ValueError, saying what it must be.

    Ratings: a number of the scale. Pairs: first, second or tie. Rankings: `size` ranks, 1 is best and equal ones tie, as a
    list or as text such as "2 1 1". null or skip: no answer is wanted from this rater.
    """
    if said is None or said == SKIPPED:
        return None
    if kind is Kind.ratings:
        return _rating(said, scale)
    if kind is Kind.pairs and isinstance(said, str):
        if said.strip().lower() not in PREFERRED:
            raise ValueError(f"{said!r:.40} must be first, second, tie or skip")
        return PREFERRED[said.strip().lower()]
    return _ranks(said, size)


def written(answer: Answer, kind: Kind) -> Any:
    """The answer as files hold it: what `parsed` reads."""
    if kind is Kind.pairs and answer is not None:
        return next(name for name, ranks in PREFERRED.items() if ranks == answer)
    return answer


def _rating(said: Any, scale: Scale) -> float:
    try:
        rating = math.nan if isinstance(said, bool) else float(said)
    except (TypeError, ValueError):
        rating = math.nan
    if not scale.low <= rating <= scale.high:
        raise ValueError(f"{said!r:.40} must be a number {scale}, or skip")
    return rating


def _ranks(said: Any, size: int) -> list[int]:
    parts = said.replace(",", " ").split() if isinstance(said, str) else said
    try:
        ranks = [int(str(part)) for part in parts]
    except (TypeError, ValueError):
        ranks = []
    if len(ranks) != size or not all(1 <= rank <= size for rank in ranks):
        raise ValueError(f"{said!r:.40} must be {size} ranks from 1, the best, to at most {size}, such as {_example(size)!r}")
    levels = sorted(set(ranks))
    return [levels.index(rank) + 1 for rank in ranks]


def _example(size: int) -> str:
    return " ".join(map(str, [2, 1, *range(3, size + 1)][:size]))


def _hash(content: Any) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True, ensure_ascii=False).encode()).hexdigest()
