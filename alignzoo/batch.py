"""The records that flow between data, algorithms and the engine.

A record is a frozen dataclass whose fields are tensors with one row a record, or other records with the same number of rows.
A plugin adds its own columns by subclassing (``class Trajectories(Completions): advantages: Tensor``); `take`, `cat`, `to`
and the checkpoint then know them. In a `Completions` (or subclass) every two-dimensional tensor is per token, (B, T).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from itertools import accumulate
from typing import Any, Self

import torch
from torch import Tensor
from torch.nn import functional as F

Decode = Callable[[list[list[int]]], list[str]]


@dataclass(frozen=True, eq=False, kw_only=True)
class Batch:
    """A number of records; the base of everything `Algorithm.loss` receives."""

    def __len__(self) -> int:
        return len(next(value for value in self._columns().values() if value is not None))

    def _columns(self) -> dict[str, Any]:
        return {f.name: getattr(self, f.name) for f in fields(self)}

    def take(self, rows: Tensor | Sequence[int]) -> Self:
        """The records at `rows` (indices, or a boolean mask (B,)), in that order."""
        rows = _indices(rows, len(self))
        return replace(self, **{name: _take(value, rows) for name, value in self._columns().items()})

    def to(self, device: torch.device | str) -> Self:
        moved = {n: v.to(device) for n, v in self._columns().items() if isinstance(v, Tensor | Batch)}
        return replace(self, **moved)

    @classmethod
    def cat(cls, batches: Sequence[Self]) -> Self:
        """All records of `batches`, in order; per-token columns are padded to the longest."""
        first = batches[0]
        return replace(first, **{f.name: _cat([getattr(b, f.name) for b in batches]) for f in fields(first)})

    @property
    def counted(self) -> Tensor:
        """(B,) float: 1 where a record has something to learn from, 0 for filler rows and records without a scored token."""
        return torch.ones(len(self), device=_device(self))

    def blank(self) -> Self:
        """The same records with nothing scored: filler of weight 0."""
        blanked = {n: v.blank() for n, v in self._columns().items() if isinstance(v, Batch)}
        return replace(self, **blanked)


@dataclass(frozen=True, eq=False, kw_only=True)
class Prompts(Batch):
    """Prompts, padded on the left.

    ids (P, L) and attended (P, L) bool; row (P,) identifies the draw within a rollout (the seed of its randomness; modulo the
    data's length it is the row number); `columns` holds the data's columns, one list entry a prompt; `made_of`, where it is
    known, the text, or the messages, that each prompt was made of.
    """

    ids: Tensor
    attended: Tensor
    row: Tensor
    columns: Mapping[str, list[Any]] = field(default_factory=dict)
    decode: Decode | None = field(default=None, repr=False)
    made_of: list[Any] | None = field(default=None, repr=False)

    @property
    def text(self) -> list[str]:
        return _text(self.decode, self.ids, self.attended)

    def take(self, rows: Tensor | Sequence[int]) -> Self:
        rows = _indices(rows, len(self))
        taken: dict[str, Any] = {name: _take(value, rows) for name, value in self._columns().items()}
        start = self.ids.shape[1] - _longest(taken["attended"].flip(1))
        taken |= {name: taken[name][:, start:] for name in ("ids", "attended")}
        columns = {name: [values[i] for i in rows.tolist()] for name, values in self.columns.items()}
        made_of = None if self.made_of is None else [self.made_of[i] for i in rows.tolist()]
        return replace(self, **taken | {"columns": columns, "made_of": made_of})

    @classmethod
    def cat(cls, batches: Sequence[Self]) -> Self:
        first, width = batches[0], max(b.ids.shape[1] for b in batches)
        left = {n: [F.pad(getattr(b, n), (width - b.ids.shape[1], 0)) for b in batches] for n in ("ids", "attended")}
        rest = {f.name: _cat([getattr(b, f.name) for b in batches]) for f in fields(first) if f.name not in (*left, "columns")}
        columns = {name: [v for b in batches for v in b.columns[name]] for name in first.columns}
        padded = {name: torch.cat(values) for name, values in left.items()}
        texts = [b.made_of for b in batches]
        made_of = None if None in texts else [text for part in texts for text in part or []]
        return replace(first, **rest | padded | {"columns": columns, "decode": first.decode, "made_of": made_of})


@dataclass(frozen=True, eq=False, kw_only=True)
class Completions(Batch):
    """Completions, padded on the right, over prompts that are kept once.

    prompt_of (B,) indexes `prompts`; ids (B, T); attended (B, T) bool; scored (B, T) bool, a part of attended, marks what the
    policy wrote (tool output and user turns are attended, not scored); truncated (B,) bool: cut at the length limit, so the
    last token is not an end; row (B,) the draw it belongs to. logprobs (B, T), or None: those of the sampler, valid while
    `stamp` names the weights and temperature it had.
    """

    prompts: Prompts
    prompt_of: Tensor
    ids: Tensor
    attended: Tensor
    scored: Tensor
    truncated: Tensor
    row: Tensor
    logprobs: Tensor | None = None
    stamp: str | None = None

    def __len__(self) -> int:
        return len(self.prompt_of)

    @property
    def text(self) -> list[str]:
        return _text(self.prompts.decode, self.ids, self.attended)

    @property
    def length(self) -> Tensor:
        """(B,) float: the number of scored tokens."""
        return self.scored.sum(1).float()

    @property
    def counted(self) -> Tensor:
        return self.scored.any(1).float()

    def sum(self, x: Tensor) -> Tensor:
        """(B, T) -> (B,): the sum over scored tokens; whatever stands elsewhere, NaN included, is not read."""
        return torch.where(self.scored, x, 0).sum(1)

    def mean(self, x: Tensor) -> Tensor:
        """(B, T) -> (B,): the mean over scored tokens, 0 where there are none."""
        return self.sum(x) / self.length.clamp(min=1)

    def at_last(self, x: Tensor) -> Tensor:
        """(B,) -> (B, T): x on the last scored token, 0 elsewhere. (B, T) is returned as it is."""
        if x.dim() == 2:
            return x
        positions = torch.arange(self.ids.shape[1], device=x.device)
        last = torch.where(self.scored, positions, -1).amax(1, keepdim=True)
        return torch.where(positions == last, x[:, None], 0)

    def take(self, rows: Tensor | Sequence[int]) -> Self:
        rows = _indices(rows, len(self))
        used, prompt_of = self.prompt_of[rows].unique(return_inverse=True)
        width = _longest(self.attended[rows])
        taken: dict[str, Any] = {n: _take(v, rows) for n, v in self._columns().items() if n not in ("prompts", "prompt_of")}
        trimmed: dict[str, Any] = {n: v[:, :width] if isinstance(v, Tensor) and v.dim() == 2 else v for n, v in taken.items()}
        return replace(self, prompts=self.prompts.take(used), prompt_of=prompt_of, **trimmed)

    def best(self, scores: Tensor, k: int = 1, valid: Tensor | None = None) -> Tensor:
        """(n,): the places of each draw's (`row`) k records with the highest valid scores (B,), the highest and the earlier of
        equals first; of all it has, where these are fewer. Draws are in the order of their rows. `c.take(c.best(scores))`
        """
        places = scores.argsort(descending=True, stable=True)
        places = places if valid is None else places[valid[places]]
        places = places[self.row[places].argsort(stable=True)]
        row = self.row[places]
        first = torch.searchsorted(row, row)  # where each draw's begin
        return places[torch.arange(len(places), device=places.device) - first < k]

    def draws(self) -> Self:
        """The first record of each draw (`row`), in the order of their rows, each over a prompt of its own that has its row.

        What to sample from where an algorithm learns from samples beside the data: in the data's records prompts that repeat
        are kept once, and how many that is depends on what else is in the batch, hence on ranks.
        """
        row, which = self.row.unique(return_inverse=True)
        records = self.take(_first(which, len(row)))
        prompts = replace(records.prompts.take(records.prompt_of), row=row)
        return replace(records, prompts=prompts, prompt_of=torch.arange(len(row), device=row.device))

    @classmethod
    def cat(cls, batches: Sequence[Self]) -> Self:
        first, shift = batches[0], 0
        columns = {f.name: [getattr(b, f.name) for b in batches] for f in fields(first)}
        columns["prompt_of"] = []
        for b in batches:
            columns["prompt_of"].append(b.prompt_of + shift)
            shift += len(b.prompts)
        merged = {name: _cat(values) for name, values in columns.items()}
        return replace(first, **merged)

    def blank(self) -> Self:
        return replace(super().blank(), scored=torch.zeros_like(self.scored))


@dataclass(frozen=True, eq=False, kw_only=True)
class Pairs(Batch):
    """Two completions of the same prompt, of which `chosen` is preferred. Each side has its prompts in an order of its own.

    margin (B,), where the data has it: how much better the chosen one is.
    """

    chosen: Completions
    rejected: Completions
    margin: Tensor | None = None

    @property
    def both(self) -> Completions:
        """Chosen, then rejected, (2B,), over one copy of each prompt."""
        return _stacked([self.chosen, self.rejected])

    @property
    def counted(self) -> Tensor:
        return self.chosen.counted * self.rejected.counted

    @property
    def row(self) -> Tensor:
        return self.chosen.row


@dataclass(frozen=True, eq=False, kw_only=True)
class Triples(Pairs):
    """Pairs, and beside each a completion of the same prompt that is to be imitated."""

    demonstration: Completions

    @property
    def three(self) -> Completions:
        """Chosen, then rejected, then demonstrations, (3B,), over one copy of each prompt."""
        return _stacked([self.chosen, self.rejected, self.demonstration])

    @property
    def counted(self) -> Tensor:
        return super().counted * self.demonstration.counted


@dataclass(frozen=True, eq=False, kw_only=True)
class Rated(Completions):
    """Completions with a rating (B,) each: a score, or 1 for desirable and 0 for undesirable."""

    rating: Tensor


@dataclass(frozen=True, eq=False, kw_only=True)
class Rankings(Completions):
    """Completions ranked within their prompt: rank (B,), 0 is best. One row a completion; a prompt's rows stay together."""

    rank: Tensor


def _indices(rows: Tensor | Sequence[int], size: int) -> Tensor:
    rows = torch.as_tensor(rows)
    return torch.arange(size, device=rows.device)[rows] if rows.dtype == torch.bool else rows.long()


def _longest(attended: Tensor) -> int:
    """The width that holds every attended token; at least 1, so that shapes never vanish."""
    used = attended.any(0).nonzero()
    return int(used.max()) + 1 if len(used) else 1


def _device(batch: Batch) -> torch.device:
    """Where its first tensor is."""
    values = batch._columns().values()
    return next(_device(v) if isinstance(v, Batch) else v.device for v in values if isinstance(v, Tensor | Batch))


def _take(value: Any, rows: Tensor) -> Any:
    if isinstance(value, Batch):
        return value.take(rows)
    return value[rows] if isinstance(value, Tensor) else value


def _cat(values: list[Any]) -> Any:
    first = values[0]
    if isinstance(first, Batch):
        return type(first).cat(values)
    if not isinstance(first, Tensor):
        return first if all(v == first for v in values) else None
    if any(v is None for v in values):
        return None
    if first.dim() >= 2:
        width = max(v.shape[1] for v in values)
        values = [F.pad(v, (0, 0) * (v.dim() - 2) + (0, width - v.shape[1])) for v in values]
    return torch.cat(values)


def _stacked(sides: Sequence[Completions]) -> Completions:
    """All sides, one after the other, over one copy of each prompt."""
    stacked = {f.name: _cat([getattr(side, f.name) for side in sides]) for f in fields(Completions) if f.name != "prompts"}
    prompts, which = _merged([side.prompts for side in sides])
    if which is not None:
        starts = accumulate([0, *(len(side.prompts) for side in sides)])
        stacked["prompt_of"] = which[torch.cat([side.prompt_of + start for side, start in zip(sides, starts, strict=False)])]
    return Completions(prompts=prompts, **stacked)


def _merged(several: Sequence[Prompts]) -> tuple[Prompts, Tensor | None]:
    """One copy of each prompt of all, and which of them each of theirs is; None where all are the first's, in its order."""
    first, *rest = several
    if all(p is first or all(torch.equal(getattr(p, n), getattr(first, n)) for n in ("row", "attended", "ids")) for p in rest):
        return first, None
    every = type(first).cat(several)
    key = torch.cat([torch.where(every.attended, every.ids, -1), every.row[:, None]], 1)
    copies, which = key.unique(dim=0, return_inverse=True)
    return every.take(_first(which, len(copies))), which


def _first(which: Tensor, groups: int) -> Tensor:
    """(groups,): where each group's first member stands in `which` (N,)."""
    places = torch.arange(len(which), device=which.device)
    return torch.full((groups,), len(which), device=which.device).scatter_reduce(0, which, places, "amin")


def _text(decode: Decode | None, ids: Tensor, attended: Tensor) -> list[str]:
    if decode is None:
        raise ValueError("these records carry no tokenizer, so they have no text")
    return decode(token_lists(ids, attended))


def token_lists(ids: Tensor, attended: Tensor) -> list[list[int]]:
    """The attended ones of (N, T) tokens, row by row, without padding."""
    return [row[mask].tolist() for row, mask in zip(ids, attended, strict=True)]
