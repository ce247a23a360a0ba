"""`reward=length`, `repetition`, `truncation`, `overlong`, `constraints`, `sentiment`: measures of a completion by itself."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from enum import Enum

import torch

from alignzoo.batch import Completions
from alignzoo.common.words import ngrams, sentences, whole, words
from alignzoo.contracts import Context, Reward, Scores
from alignzoo.errors import UserError, nearest, require
from alignzoo.rewards.text_reward import TextReward, Written


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

    def rate(self, completion: Written) -> float:
        lengths = {LengthUnit.tokens: completion.tokens, LengthUnit.characters: len(completion.text)}
        length = lengths[self.unit] if self.unit in lengths else len(words(completion.text))
        return -float(max(0, self.least - length) + (0 if self.most is None else max(0, length - self.most)))


@dataclass(kw_only=True)
class Repetition(TextReward):
    """Minus the share of word n-grams that repeat an earlier one, 1 - distinct / all, in (-1, 0]; 0 without any n-gram."""

    n: int = field(default=3, metadata={"help": "words of an n-gram"})

    def __post_init__(self) -> None:
        require(self.n >= 1, "reward.n", self.n, ">= 1")

    def rate(self, completion: Written) -> float:
        grams = ngrams(completion.text, self.n)
        return len(grams) / grams.total() - 1 if grams else 0.0


@dataclass(kw_only=True)
class TruncationPenalty(Reward):
    """Minus `penalty` for a completion that was cut at the length limit, 0 for one that ended by itself."""

    penalty: float = field(default=1.0, metadata={"help": "what being cut costs"})

    def __post_init__(self) -> None:
        if not 0 < self.penalty < float("inf"):
            raise UserError(f"reward.penalty={self.penalty:g}: must be > 0, and finite")

    def __call__(self, c: Completions) -> Scores:
        return Scores(total=torch.where(c.truncated, -self.penalty, 0.0))


@dataclass(kw_only=True)
class SoftOverlong(Reward):
    """0 up to `most` - `buffer` tokens, from there down in a straight line to minus `penalty` at `most`, and no lower.

    Yu et al. 2025, DAPO, eq. 13: a warning before the length limit, to be added to a task's reward.
    """

    most: int | None = field(default=None, metadata={"help": "the longest, in tokens; null: generation.max_new_tokens"})
    buffer: int | None = field(
        default=None, metadata={"help": "tokens before it in which the penalty grows; null: a fifth of it, as 4,096 of 20,480"}
    )
    penalty: float = field(default=1.0, metadata={"help": "what the longest costs"})

    def __post_init__(self) -> None:
        require(self.most is None or self.most >= 1, "reward.most", self.most, ">= 1, or null")
        require(self.buffer is None or self.buffer >= 1, "reward.buffer", self.buffer, ">= 1, or null")
        require(0 < self.penalty < float("inf"), "reward.penalty", self.penalty, "> 0, and finite")

    def setup(self, context: Context) -> None:
        self._most = context.sampling.max_new_tokens if self.most is None else self.most
        self._buffer = max(1, self._most // 5) if self.buffer is None else self.buffer
        if self._buffer > self._most:
            raise UserError(f"reward.buffer={self._buffer} is more than the longest completion, {self._most} tokens")
        limit = context.sampling.max_new_tokens
        if (free := self._most - self._buffer) >= limit:
            raise UserError(
                f"reward.most={self._most} is out of reach: up to {free} tokens nothing is taken off, and "
                f"generation.max_new_tokens={limit} allows no more; lower it, or leave it out"
            )

    def __call__(self, c: Completions) -> Scores:
        over = (c.length - (self._most - self._buffer)) / self._buffer
        return Scores(total=-self.penalty * over.clamp(0, 1))


class Case(Enum):
    any = "any"
    lower = "lower"  # no capital letter, and a small one
    upper = "upper"  # no small letter, and a capital one


@dataclass(kw_only=True)
class Constraints(TextReward):
    """The share of the constraints that the completion satisfies, or with strict=true whether it satisfies all, in [0, 1].

    Checkable instructions in the manner of IFEval (Zhou et al. 2023). A data column may hold each row's own, as a mapping of
    the same names, which then replace those given here. A row without any has no score.
    """

    least_words: int = field(default=0, metadata={"help": "fewest words; 0: any number"})
    most_words: int = field(default=0, metadata={"help": "most words; 0: any number"})
    least_sentences: int = field(default=0, metadata={"help": "fewest sentences; 0: any number"})
    most_sentences: int = field(default=0, metadata={"help": "most sentences; 0: any number"})
    case: Case = field(default=Case.any, metadata={"help": "lower or upper: of all letters"})
    include: list[str] = field(default_factory=list, metadata={"help": "words or phrases that must be there, in any case"})
    forbid: list[str] = field(default_factory=list, metadata={"help": "words or phrases that must not be there"})
    start: str = field(default="", metadata={"help": "what the completion must begin with, blanks apart"})
    end: str = field(default="", metadata={"help": "what the completion must end with, blanks apart"})
    column: str = field(default="", metadata={"help": "data column with each row's own constraints; none: the same for all"})
    strict: bool = field(default=False, metadata={"help": "1 if all are satisfied, else 0"})

    def __post_init__(self) -> None:
        try:
            self.case = Case(self.case)  # rows have it as text
        except ValueError:
            raise UserError(f"reward.case={self.case}: must be {', '.join(case.value for case in Case)}") from None
        for unit in ("words", "sentences"):
            least, most = getattr(self, f"least_{unit}"), getattr(self, f"most_{unit}")
            require(least >= 0, f"reward.least_{unit}", least, ">= 0")
            require(most >= 0, f"reward.most_{unit}", most, ">= 0")
            if most and least > most:
                raise UserError(f"reward.least_{unit}={least} is more than reward.most_{unit}={most}")
        if all(getattr(self, f.name) == getattr(Constraints, f.name, []) for f in fields(self) if f.name != "strict"):
            raise UserError("reward=constraints has none: give reward.most_words, reward.include, reward.forbid or the like")

    def rate(self, completion: Written) -> float | None:
        satisfied = self._of_row(completion)._satisfied(completion.text)
        if not satisfied:
            return None
        return float(all(satisfied)) if self.strict else sum(satisfied) / len(satisfied)

    def _of_row(self, completion: Written) -> Constraints:
        """With what the row asks for."""
        row = completion.column(self.column, "reward.column") if self.column else None
        if row is None:
            return self
        names = [f.name for f in fields(self) if f.name not in ("column", "strict")]
        if not isinstance(row, Mapping):
            raise UserError(f"reward.column={self.column}: must hold mappings of {', '.join(names)}, not {row!r:.60}")
        for name in row:
            if name not in names and row[name] is not None:
                raise UserError(f"reward.column={self.column}: no constraint {name!r}.{nearest(name, names)}")
        return replace(self, **{name: value for name, value in row.items() if value is not None})

    def _satisfied(self, text: str) -> list[bool]:
        satisfied, bare = list[bool](), text.strip()
        for unit, least, most in (
            (words, self.least_words, self.most_words),
            (sentences, self.least_sentences, self.most_sentences),
        ):
            count = len(unit(text))
            satisfied += ([count >= least] if least else []) + ([count <= most] if most else [])
        if self.case is not Case.any:
            satisfied += [text.islower() if self.case is Case.lower else text.isupper()]
        satisfied += [_contains(text, phrase) for phrase in self.include]
        satisfied += [not _contains(text, phrase) for phrase in self.forbid]
        satisfied += [bare.startswith(self.start.strip())] if self.start else []
        return satisfied + ([bare.endswith(self.end.strip())] if self.end else [])


def _contains(text: str, phrase: str) -> bool:
    """As whole words: "cat" is not in "category"."""
    return whole(phrase.strip()).search(text) is not None


class Feeling(Enum):
    compound = "compound"  # from -1, most negative, to 1, most positive
    pos = "pos"
    neu = "neu"
    neg = "neg"


@dataclass(kw_only=True)
class Sentiment(TextReward):
    """The sentiment of the completion by VADER (Hutto and Gilbert 2014), whose lexicon of English words needs no network.

    The compound score is s / sqrt(s^2 + 15) of the summed valence s, in [-1, 1]; pos, neu and neg are shares in [0, 1].
    """

    score: Feeling = field(default=Feeling.compound, metadata={"help": "compound, pos, neu or neg"})
    prompt: bool = field(default=False, metadata={"help": "whether the prompt is read too, as one text with the completion"})

    def setup(self, context: Context) -> None:
        try:
            from vaderSentiment.vaderSentiment import SentimentIntensityAnalyzer
        except ModuleNotFoundError as error:
            raise UserError(
                f"reward=sentiment needs {error.name}, which isn't installed: pip install alignzoo[text]"
            ) from error
        self._analyzer = SentimentIntensityAnalyzer()

    def rate(self, completion: Written) -> float:
        text = completion.prompt + completion.text if self.prompt else completion.text
        return float(self._analyzer.polarity_scores(text)[self.score.value])
