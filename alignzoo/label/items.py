"""What a person is asked, and what an answer may be."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from enum import Enum
from functools import cached_property
from typing import Any, Self

from alignzoo.data.rows import Text

Answer = float | list[int] | str | None  # a rating; a rank for each completion, 1 is best; a better text; None: skipped
Row = Mapping[str, Any]  # of a JSON Lines file

PREFERRED: dict[str, list[int]] = {"first": [1, 2], "second": [2, 1], "tie": [1, 1]}
SKIPPED = "skip"


class QuestionKind(Enum):
    """What is asked: which of two is better, how good one is, the order of several, or what one should have been."""

    pairs = "pairs"
    ratings = "ratings"
    rankings = "rankings"
    corrections = "corrections"

    @property
    def of_one(self) -> bool:
        """Whether it is about one completion."""
        return self in (QuestionKind.ratings, QuestionKind.corrections)


@dataclass(frozen=True)
class Scale:
    """The ratings there are, both ends included."""

    low: float = 1.0
    high: float = 5.0

    @classmethod
    def read(cls, row: Row) -> Self:
        return cls(*map(float, row["scale"])) if "scale" in row else cls()

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

    kind: QuestionKind
    prompt: Text
    completions: tuple[Text, ...]
    writers: tuple[str, ...] = ()

    @cached_property
    def id(self) -> str:
        """Made from the texts alone: the same question has the same id, whoever asks it, and however often."""
        return _hash([self.kind.value, self.prompt, *self.completions])[:12]

    def described(self) -> dict[str, object]:
        """Everything but who wrote it."""
        return {"id": self.id, "as": self.kind.value, "prompt": self.prompt, "completions": list(self.completions)}


def item(kind: QuestionKind, prompt: Text, completions: Sequence[Text], writers: Sequence[str] = ()) -> Item:
    """The completions in an order that depends on their texts alone, and so says nothing of who wrote them."""
    places = sorted(range(len(completions)), key=lambda i: _hash([prompt, completions[i]]))
    return Item(kind, prompt, tuple(completions[i] for i in places), tuple(writers[i] for i in places if writers))


def read_item(row: Row) -> Item:
    """From a row that `Item.described` made. Raises KeyError, TypeError or ValueError for any other."""
    question = item(QuestionKind(row["as"]), row["prompt"], row["completions"])
    if question.id != row["id"] or list(question.completions) != row["completions"]:
        raise ValueError("its id is not that of its texts")
    return replace(question, writers=tuple(row.get("written_by", ())))


def read_answer(value: object, question: Item, scale: Scale) -> Answer:
    """An answer as a file or a cell holds it. Raises ValueError, saying what it must be.

    Ratings: a number of the scale. Pairs: first, second or tie. Rankings: a rank for each completion, 1 is best and equal ones
    tie, as a list or as text such as "2 1 1". Corrections: text. null or skip: no answer is wanted from this rater.
    """
    if value is None or value == SKIPPED:
        return None
    if question.kind is QuestionKind.ratings:
        return _rating(value, scale)
    if question.kind is QuestionKind.corrections:
        if not isinstance(value, str) or not value.strip():
            raise ValueError(f"{value!r:.40} must be text, or skip")
        return value
    if question.kind is QuestionKind.pairs and isinstance(value, str):
        if value.strip().lower() not in PREFERRED:
            raise ValueError(f"{value!r:.40} must be first, second, tie or skip")
        return PREFERRED[value.strip().lower()]
    return _ranks(value, len(question.completions))


def stored(answer: Answer, kind: QuestionKind) -> object:
    """The answer as files hold it: what `read_answer` reads."""
    if kind is QuestionKind.pairs and answer is not None:
        return next(name for name, ranks in PREFERRED.items() if ranks == answer)
    return answer


def last_content(completion: Text) -> str:
    """What a correction is of: the text, or that of the last message."""
    return completion if isinstance(completion, str) else str(completion[-1].get("content") or "")


def corrected(completion: Text, content: str) -> Text:
    """The completion with `content` in the place of its `last_content`."""
    return content if isinstance(completion, str) else [*completion[:-1], {**completion[-1], "content": content}]


def _rating(value: object, scale: Scale) -> float:
    try:
        rating = float(value) if isinstance(value, str | int | float) and not isinstance(value, bool) else math.nan
    except ValueError:
        rating = math.nan
    if not scale.low <= rating <= scale.high:
        raise ValueError(f"{value!r:.40} must be a number {scale}, or skip")
    return rating


def _ranks(value: object, size: int) -> list[int]:
    parts = value.replace(",", " ").split() if isinstance(value, str) else value
    try:
        ranks = [int(str(part)) for part in parts] if isinstance(parts, list) else []
    except ValueError:
        ranks = []
    if len(ranks) != size or not all(1 <= rank <= size for rank in ranks):
        example = " ".join(map(str, [2, 1, *range(3, size + 1)][:size]))
        raise ValueError(f"{value!r:.40} must be {size} ranks from 1, the best, to at most {size}, such as {example!r}")
    levels = sorted(set(ranks))
    return [levels.index(rank) + 1 for rank in ranks]


def _hash(content: object) -> str:
    text = json.dumps(content, sort_keys=True, ensure_ascii=False)
    return hashlib.sha256(text.encode("utf-8", "backslashreplace")).hexdigest()  # half a surrogate pair is no UTF-8
