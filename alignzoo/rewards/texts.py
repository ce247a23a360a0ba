"""What rewards that read text share: the text and its row's columns, one number each, and mistakes told by row."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from alignzoo.batch import Completions
from alignzoo.contracts import Reward, Scores
from alignzoo.data.readable import originals, readable
from alignzoo.errors import UserError, nearest


@dataclass(frozen=True)
class Written:
    """A completion as text, with its prompt, the data's other columns, its number of tokens, and whether it was cut."""

    text: str
    prompt: str
    columns: Mapping[str, Any]
    tokens: int
    truncated: bool


def written(c: Completions) -> list[Written]:
    """The completions of a batch as text."""
    prompts, texts, columns = [readable(p) for p in originals(c.prompts)], c.text, c.prompts.columns
    lengths, cut = c.length.int().tolist(), c.truncated.tolist()
    return [
        Written(texts[i], prompts[p], {name: values[p] for name, values in columns.items()}, lengths[i], cut[i])
        for i, p in enumerate(c.prompt_of.tolist())
    ]


def scores(numbers: Sequence[float | None], c: Completions, failed: Mapping[int, str] | None = None) -> Scores:
    """One number a completion; None where no score can be had. failed: why, by place, for those that went wrong."""
    total = torch.tensor([0.0 if number is None else float(number) for number in numbers], device=c.ids.device)
    valid = torch.tensor([number is not None for number in numbers], dtype=torch.bool, device=c.ids.device)
    return Scores(total=total.float(), valid=valid, failed=dict(failed or {}))


@dataclass(kw_only=True)
class TextReward(Reward):
    """A number for each completion's text, by itself."""

    @abstractmethod
    def rate(self, one: Written) -> float | None:
        """None where no score can be had."""

    def __call__(self, c: Completions) -> Scores:
        return scores([self.rate(one) for one in written(c)], c)


def column(one: Written, name: str, key: str) -> Any:
    """The value of a data column. Raises UserError, naming the setting `key`, where the data has no such column."""
    if name in one.columns:
        return one.columns[name]
    known = ", ".join(one.columns) or "none"
    raise UserError(f"{key}={name}: the data has no such column.{nearest(name, one.columns)} Beside the prompt it has: {known}")


def references(one: Written, name: str) -> list[str]:
    """The texts to compare with, one or several a row; none where the row has none."""
    value = column(one, name, "reward.reference")
    values = list(value) if isinstance(value, list | tuple) else [value]
    wrong = [entry for entry in values if entry is not None and not isinstance(entry, str | int | float)]
    if wrong:
        raise UserError(f"reward.reference={name}: the column must hold a text or a list of texts, not {wrong[0]!r:.60}")
    return [str(entry) for entry in values if entry is not None]
