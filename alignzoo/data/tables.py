"""Tokenised rows, kept flat, and collated into records when asked for."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, replace
from typing import TypedDict, TypeVar

import torch
from torch import Tensor

from alignzoo.batch import Batch, Completions, Decode, Pairs, Prompts, Rankings, Rated, Triples
from alignzoo.data.encode import Tokens
from alignzoo.data.messages import Json, Text

SIDES: dict[type[Batch], tuple[str, ...]] = {  # columns of completions, in a row's order
    Pairs: ("chosen", "rejected"),
    Triples: ("chosen", "rejected", "demonstration"),
}
B = TypeVar("B", bound=Batch)


class TokenColumns(TypedDict):
    """Of completions: ids (B, T), and attended, scored (B, T), truncated (B,) bool."""

    ids: Tensor
    attended: Tensor
    scored: Tensor
    truncated: Tensor


class Ragged:
    """Sequences of unequal length, as one flat tensor."""

    def __init__(self, sequences: Sequence[Sequence[int]]) -> None:
        self.starts = torch.tensor([0] + [len(s) for s in sequences]).cumsum(0)
        self.values = torch.tensor([token for s in sequences for token in s] + [0], dtype=torch.int32)

    def padded(self, rows: Tensor, left: bool = False) -> tuple[Tensor, Tensor]:
        """(R, L) the sequences at `rows`, padded with 0 on one side, and (R, L) bool which of it is theirs."""
        start, stop = self.starts[rows][:, None], self.starts[rows + 1][:, None]
        length = stop - start
        width = max(1, int(length.max())) if len(rows) else 1
        place = torch.arange(width) - (width - length if left else 0)
        inside = (place >= 0) & (place < length)
        return self.values[torch.where(inside, start + place, 0)].long().where(inside, torch.tensor(0)), inside


@dataclass(kw_only=True)
class PromptTable:
    """Prompts with the data set's columns, and what they were made of."""

    ids: Ragged
    columns: dict[str, list[Json]]
    decode: Decode
    made_of: list[Text]

    def __len__(self) -> int:
        return len(self.made_of)

    def batch(self, rows: Sequence[int]) -> Prompts:
        return self.prompts(torch.as_tensor(rows), torch.as_tensor(rows))

    def prompts(self, places: Tensor, row: Tensor) -> Prompts:
        ids, attended = self.ids.padded(places, left=True)
        columns = {name: [values[i] for i in places.tolist()] for name, values in self.columns.items()}
        made_of = [self.made_of[i] for i in places.tolist()]
        return Prompts(ids=ids, attended=attended, row=row, columns=columns, decode=self.decode, made_of=made_of)


class CompletionTable:
    """Rows of one or more completions of one prompt each, as `view` records: Completions, Pairs, Triples, Rated or Rankings.

    `prompt_of` places each row's prompt in `prompts`; `marks` are each row's ratings or ranks, one a completion; of pairs the
    margin, where there is one.
    """

    def __init__(
        self, view: type[Batch], prompts: PromptTable, prompt_of: Sequence[int], completions: Sequence[Sequence[Tokens]],
        marks: Sequence[Sequence[float]],
    ) -> None:  # fmt: skip
        flat = [tokens for row in completions for tokens in row]
        self.view, self.prompts = view, prompts
        self.prompt_of = torch.tensor(prompt_of, dtype=torch.long)
        self.first = torch.tensor([0] + [len(row) for row in completions]).cumsum(0)  # (N + 1,) each row's first completion
        self.ids = Ragged([tokens.ids for tokens in flat])
        self.scored = Ragged([tokens.scored for tokens in flat])
        self.truncated = torch.tensor([tokens.truncated for tokens in flat], dtype=torch.bool)
        marked = view in (Rated, Rankings) or any(marks)
        self.marks = torch.tensor([mark for row in marks for mark in row], dtype=torch.float) if marked else None

    def __len__(self) -> int:
        return len(self.prompt_of)

    def batch(self, rows: Sequence[int]) -> Batch:
        row = torch.as_tensor(rows)
        if sides_of := SIDES.get(self.view):
            sides, marked = [self.first[row] + place for place in range(len(sides_of))], row
        else:
            repeats = self.first[row + 1] - self.first[row]
            within = torch.arange(int(repeats.sum())) - (repeats.cumsum(0) - repeats).repeat_interleave(repeats)
            row = row.repeat_interleave(repeats)
            sides = [marked := self.first[row] + within]
        used, prompt_of, first = each_once(self.prompt_of[row])
        return records(
            self.view,
            [self._columns(places) for places in sides],
            None if self.marks is None else self.marks[marked],
            prompts=self.prompts.prompts(used, row[first]),
            prompt_of=prompt_of,
            row=row,
        )

    def _columns(self, places: Tensor) -> TokenColumns:
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


def each_once(prompt: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """(B,) numbers of prompts -> each once (P,), which of them is whose (B,), and the first place of each (P,)."""
    used, prompt_of = prompt.unique(return_inverse=True)
    return used, prompt_of, torch.full_like(used, len(prompt)).scatter_reduce(0, prompt_of, torch.arange(len(prompt)), "amin")


def records(
    view: type[Batch], sides: Sequence[TokenColumns], marks: Tensor | None, prompts: Prompts, prompt_of: Tensor,
    row: Tensor,
) -> Batch:  # fmt: skip
    """Completions, Pairs, Triples, Rated or Rankings of these token columns: of pairs those of the chosen and of the rejected,
    which `marks`, where there are any, are the margins of; else one, with ratings or ranks."""
    if view is Rated and marks is not None:
        return Rated(rating=marks, prompts=prompts, prompt_of=prompt_of, row=row, **sides[0])
    if view is Rankings and marks is not None:
        return Rankings(rank=marks, prompts=prompts, prompt_of=prompt_of, row=row, **sides[0])
    parts = [Completions(prompts=prompts, prompt_of=prompt_of, row=row, **columns) for columns in sides]
    if view is Triples:
        return Triples(chosen=parts[0], rejected=parts[1], demonstration=parts[2], margin=marks)
    return Pairs(chosen=parts[0], rejected=parts[1], margin=marks) if view is Pairs else parts[0]


def renumbered(batch: B, change: Callable[[Tensor], Tensor]) -> B:
    """The records with every row number changed."""
    columns = {f.name: getattr(batch, f.name) for f in fields(batch)}
    changes = {name: renumbered(value, change) for name, value in columns.items() if isinstance(value, Batch)}
    return replace(batch, **changes | ({"row": change(columns["row"])} if "row" in columns else {}))
