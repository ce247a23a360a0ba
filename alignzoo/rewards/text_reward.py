"""What rewards that read text share: the text and its row's columns, one number each, and mistakes told by row."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch

from alignzoo.batch import Completions
from alignzoo.contracts import Reward, Scores
from alignzoo.data.readable import originals, readable
from alignzoo.errors import UserError, nearest

Rating = float | str | None  # None: no score can be had; text: why scoring went wrong


@dataclass(frozen=True)
class Written:
    """A completion as text, with its prompt, the data's other columns, and its number of tokens."""

    text: str
    prompt: str
    columns: Mapping[str, object]
    tokens: int

    def column(self, name: str, key: str) -> object:
        """The value of a data column. Raises UserError, naming the setting `key`, where the data has no such column."""
        if name in self.columns:
            return self.columns[name]
        names = ", ".join(self.columns) or "none"
        raise UserError(
            f"{key}={name}: the data has no such column.{nearest(name, self.columns)} Beside the prompt it has: {names}"
        )

    def references(self, name: str) -> list[str]:
        """The texts to compare with, one or several a row, from the column `name`; none where the row has none."""
        value = self.column(name, "reward.reference")
        texts = list(value) if isinstance(value, list | tuple) else [value]
        wrong = [text for text in texts if not isinstance(text, str | int | float | None)]
        if wrong:
            raise UserError(f"reward.reference={name}: the column must hold a text or a list of texts, not {wrong[0]!r:.60}")
        return [str(text) for text in texts if text is not None]


def prompts(c: Completions) -> list[str]:
    """The prompt of each completion as people read it."""
    texts = [readable(prompt) for prompt in originals(c.prompts)]
    return [texts[i] for i in c.prompt_of.tolist()]


def scores(ratings: Sequence[Rating], c: Completions) -> Scores:
    """One a completion."""
    numbers = [None if isinstance(rating, str) else rating for rating in ratings]
    total = torch.tensor([0.0 if number is None else float(number) for number in numbers], device=c.ids.device)
    valid = torch.tensor([number is not None for number in numbers], dtype=torch.bool, device=c.ids.device)
    return Scores(total=total, valid=valid, failed={i: why for i, why in enumerate(ratings) if isinstance(why, str)})


def written(c: Completions) -> list[Written]:
    """Each completion as text, with its row's columns."""
    columns = [{name: values[i] for name, values in c.prompts.columns.items()} for i in range(len(c.prompts))]
    of_each = zip(c.text, prompts(c), c.prompt_of.tolist(), c.length.int().tolist(), strict=True)
    return [Written(text, prompt, columns[i], length) for text, prompt, i, length in of_each]


@dataclass(kw_only=True)
class TextReward(Reward):
    """A number for each completion's text: a subclass has `rate`, or `rate_all` where it takes several at once."""

    def rate(self, completion: Written) -> Rating:
        raise NotImplementedError

    def rate_all(self, completions: list[Written]) -> Sequence[Rating]:
        return [self.rate(completion) for completion in completions]

    def __call__(self, c: Completions) -> Scores:
        return scores(self.rate_all(written(c)), c)
