"""`reward=constraints`: how long a completion is and what it must and must not contain, as instructions ask for it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from typing import Any

from alignzoo.common.words import whole, words
from alignzoo.errors import UserError, nearest, require
from alignzoo.rewards.texts import TextReward, Written, column


@dataclass(kw_only=True)
class Constraints(TextReward):
    """The share of the constraints that the completion satisfies, or with strict=true whether it satisfies all, in [0, 1].

    Checkable instructions in the manner of IFEval (Zhou et al. 2023). A data column may hold each row's own, as a mapping of
    the same names, which then replace those given here. A row without any has no score.
    """

    least_words: int = field(default=0, metadata={"help": "fewest words; 0: any number"})
    most_words: int = field(default=0, metadata={"help": "most words; 0: any number"})
    include: list[str] = field(default_factory=list, metadata={"help": "words or phrases that must be there, in any case"})
    forbid: list[str] = field(default_factory=list, metadata={"help": "words or phrases that must not be there"})
    start: str = field(default="", metadata={"help": "what the completion must begin with, blanks apart"})
    end: str = field(default="", metadata={"help": "what the completion must end with, blanks apart"})
    column: str = field(default="", metadata={"help": "data column with each row's own constraints; none: the same for all"})
    strict: bool = field(default=False, metadata={"help": "1 if all are satisfied, else 0"})

    def __post_init__(self) -> None:
        require(self.least_words >= 0, "reward.least_words", self.least_words, ">= 0")
        require(self.most_words >= 0, "reward.most_words", self.most_words, ">= 0")
        if self.most_words and self.least_words > self.most_words:
            raise UserError(f"reward.least_words={self.least_words} is more than reward.most_words={self.most_words}")
        words = self.least_words or self.most_words
        if not (words or self.include or self.forbid or self.start or self.end or self.column):
            raise UserError("reward=constraints has none: give reward.most_words, reward.include, reward.forbid or the like")

    def rate(self, one: Written) -> float | None:
        held = self._own(one)._held(one.text)
        if not held:
            return None
        return float(all(held)) if self.strict else sum(held) / len(held)

    def _own(self, one: Written) -> Constraints:
        """With what the row asks for."""
        given = column(one, self.column, "reward.column") if self.column else None
        if given is None:
            return self
        known = [f.name for f in fields(self) if f.name not in ("column", "strict")]
        if not isinstance(given, Mapping):
            raise UserError(f"reward.column={self.column}: must hold mappings of {', '.join(known)}, not {given!r:.60}")
        asked: dict[str, Any] = {name: value for name, value in given.items() if value is not None}
        for name in asked:
            if name not in known:
                raise UserError(f"reward.column={self.column}: no constraint {name!r}.{nearest(name, known)}")
        return replace(self, **asked)

    def _held(self, text: str) -> list[bool]:
        count = len(words(text))
        held = [count >= self.least_words] if self.least_words else []
        held += [count <= self.most_words] if self.most_words else []
        held += [_contains(text, phrase) for phrase in self.include]
        held += [not _contains(text, phrase) for phrase in self.forbid]
        held += [text.strip().startswith(self.start.strip())] if self.start else []
        return held + ([text.strip().endswith(self.end.strip())] if self.end else [])


def _contains(text: str, phrase: str) -> bool:
    """As whole words: "cat" is not in "category"."""
    return whole(phrase.strip()).search(text) is not None
