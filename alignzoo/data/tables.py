"""Tokenised rows, kept flat, and collated into records when asked for."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

import torch
from torch import Tensor

from alignzoo.batch import Batch, Completions, Pairs, Prompts, Rankings, Rated
from alignzoo.data.encode import Tokens
from alignzoo.data.rows import Text


class Ragged:
    """Sequences of unequal length, as one flat tensor."""

    def __init__(self, sequences: Sequence[Sequence[int]]) -> None:
        lengths = torch.tensor([0] + [len(s) for s in sequences])
        self.starts = lengths.cumsum(0)
        self.values = torch.tensor([token for s in sequences for token in s] + [0], dtype=torch.int32)

    def padded(self, rows: Tensor, left: bool = False) -> tuple[Tensor, Tensor]:
        """(R, L) the sequences at `rows`, padded with 0 on one side, and (R, L) bool which of it is theirs."""
        start, stop = self.starts[rows][:, None], self.starts[rows + 1][:, None]
        length = stop - start
        width = max(1, int(length.max())) if len(rows) else 1
        place = torch.arange(width) - (width - length if left else 0)
        own = (place >= 0) & (place < length)
        return self.values[torch.where(own, start + place, 0)].long().where(own, torch.tensor(0)), own


@dataclass(kw_only=True)
class PromptTable:
    """Prompts with the data set's columns."""

    ids: Ragged
    columns: dict[str, list[Any]]
    decode: Callable[[list[list[int]]], list[str]]
    size: int
    made_of: list[Text] | None = None

    def __len__(self) -> int:
        return self.size

    def batch(self, rows: Sequence[int]) -> Prompts:
        return self.prompts(torch.as_tensor(rows), torch.as_tensor(rows))

    def prompts(self, places: Tensor, row: Tensor) -> Prompts:
        ids, attended = self.ids.padded(places, left=True)
        columns = {name: [values[i] for i in places.tolist()] for name, values in self.columns.items()}
        made_of = None if self.made_of is None else [self.made_of[i] for i in places.tolist()]
        return Prompts(ids=ids, attended=attended, row=row, columns=columns, decode=self.decode, made_of=made_of)


@dataclass(kw_only=True)
class CompletionTable:
    """Rows of one or more completions of one prompt each, as `view` records: Completions, Pairs, Rated or Rankings.

    prompt_of (N,) places each row's prompt in `prompts`; first (N + 1,) each row's first completion; marks: ratings or ranks,
    one a completion; of pairs the margins, one a row, where there are any.
    """

    view: type[Batch]
    prompts: PromptTable
    prompt_of: Tensor
    first: Tensor
    ids: Ragged
    scored: Ragged
    truncated: Tensor
    marks: Tensor

    def __len__(self) -> int:
        return len(self.prompt_of)

    def batch(self, rows: Sequence[int]) -> Batch:
        chosen = torch.as_tensor(rows)
        if self.view is Pairs:
            prompts, prompt_of = self._prompts(chosen)
            sides = [self._columns(self.first[chosen] + side) for side in (0, 1)]
            good, bad = (Completions(prompts=prompts, prompt_of=prompt_of, row=chosen, **columns) for columns in sides)
            return Pairs(chosen=good, rejected=bad, margin=self.marks[chosen] if len(self.marks) else None)
        repeats = self.first[chosen + 1] - self.first[chosen]
        row = chosen.repeat_interleave(repeats)
        within = torch.arange(len(row)) - (repeats.cumsum(0) - repeats).repeat_interleave(repeats)
        places = self.first[row] + within
        prompts, prompt_of = self._prompts(row)
        shared: dict[str, Any] = {"prompts": prompts, "prompt_of": prompt_of, "row": row, **self._columns(places)}
        if self.view is Rated:
            return Rated(rating=self.marks[places], **shared)
        if self.view is Rankings:
            return Rankings(rank=self.marks[places], **shared)
        return Completions(**shared)

    def _prompts(self, row: Tensor) -> tuple[Prompts, Tensor]:
        """The prompts of these rows, each once, numbered by the first of the rows that has it; and which is whose."""
        used, prompt_of = self.prompt_of[row].unique(return_inverse=True)
        place = torch.full_like(used, len(row)).scatter_reduce(0, prompt_of, torch.arange(len(row)), "amin")
        return self.prompts.prompts(used, row[place]), prompt_of

    def _columns(self, places: Tensor) -> dict[str, Any]:
        ids, attended = self.ids.padded(places)
        scored, _ = self.scored.padded(places)
        return {"ids": ids, "attended": attended, "scored": scored.bool(), "truncated": self.truncated[places]}


@dataclass(kw_only=True)
class WholeTable:
    """The records of a plugin's own `collate`, made at once."""

    records: Batch

    def __len__(self) -> int:
        return len(self.records)

    def batch(self, rows: Sequence[int]) -> Batch:
        return self.records.take(rows)


def renumbered(batch: Any, change: Callable[[Tensor], Tensor]) -> Any:
    """The records with every row number changed."""
    changes = {f.name: getattr(batch, f.name) for f in fields(batch)}
    changes = {name: renumbered(value, change) if isinstance(value, Batch) else value for name, value in changes.items()}
    return replace(batch, **changes | ({"row": change(batch.row)} if "row" in changes else {}))


def completion_table(
    view: type[Batch], prompts: PromptTable, prompt_of: list[int], completions: list[list[Tokens]], marks: list[list[float]]
) -> CompletionTable:
    flat = [tokens for row in completions for tokens in row]
    return CompletionTable(
        view=view,
        prompts=prompts,
        prompt_of=torch.tensor(prompt_of, dtype=torch.long),
        first=torch.tensor([0] + [len(row) for row in completions]).cumsum(0),
        ids=Ragged([tokens.ids for tokens in flat]),
        scored=Ragged([tokens.scored for tokens in flat]),
        truncated=torch.tensor([tokens.truncated for tokens in flat], dtype=torch.bool),
        marks=torch.tensor([mark for row in marks for mark in row], dtype=torch.float),
    )
