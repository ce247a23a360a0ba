"""The same records, written differently: what a loss must not notice, and what it must."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import fields, replace
from typing import TypeVar

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.nn.utils.rnn import pad_sequence

from alignzoo.batch import Batch, Completions, Prompts, Rankings

GARBAGE = 5  # a token that is in the vocabulary, standing where nothing is attended
B = TypeVar("B", bound=Batch)
Columns = Mapping[str, object]
Path = tuple[object, ...]  # the keys, places and fields that lead to something


def each_completions(batch: B, change: Callable[[Completions], Columns]) -> B:
    """The records with new columns in all their completions, nested ones too."""
    values = {f.name: getattr(batch, f.name) for f in fields(batch)}
    nested = {name: each_completions(value, change) for name, value in values.items() if isinstance(value, Batch)}
    return replace(batch, **{**nested, **(change(batch) if isinstance(batch, Completions) else {})})


def padded(batch: B, left: int = 3, right: int = 2) -> B:
    """More padding before prompts and after completions: ids hold garbage there, the algorithm's own columns 0."""

    def wider(c: Completions) -> Columns:
        columns = {n: F.pad(x, (0, 0) * (x.dim() - 2) + (0, right)) for n, x in _per_token(c)}
        return columns | {"ids": F.pad(c.ids, (0, right), value=GARBAGE), "prompts": padded(c.prompts, left)}

    if isinstance(batch, Prompts):
        ids, attended = F.pad(batch.ids, (left, 0), value=GARBAGE), F.pad(batch.attended, (left, 0))
        return replace(batch, ids=ids, attended=attended)
    return each_completions(batch, wider)


def partly_written(batch: B) -> B:
    """Every second record's first scored token now is one the policy did not write."""
    return each_completions(batch, _partly_written)


def _partly_written(c: Completions) -> Columns:
    first = c.scored & (c.scored.long().cumsum(1) == 1)
    chosen = (torch.arange(len(c)) % 2 == 1) & (c.scored.sum(1) > 1)
    begun = first & chosen[:, None]
    floats = {n: torch.where(begun, 0, x) for n, x in _per_token(c) if x.is_floating_point()}
    return floats | {"scored": c.scored & ~begun}


def absorbed(batch: B) -> B:
    """Leading tokens that the policy did not write, moved to the end of the prompt: for a language model the same text."""
    return each_completions(batch, _absorbed)


def _absorbed(c: Completions) -> Columns:
    moved = (c.attended & ~c.scored).long().cumprod(1).sum(1).tolist()
    starts = [(p, tuple(ids[:k].tolist())) for p, ids, k in zip(c.prompt_of.tolist(), c.ids, moved, strict=True)]
    places = {start: place for place, start in enumerate(dict.fromkeys(starts))}  # where they start alike they share a prompt
    kept = [p for p, _ in places]
    texts = [[*c.prompts.ids[p][c.prompts.attended[p]].tolist(), *tokens] for p, tokens in places]
    columns = {n: pad_sequence([row[k:] for row, k in zip(x, moved, strict=True)], True) for n, x in _per_token(c)}
    ids, attended = ragged(texts, "left")
    prompts = replace(c.prompts.take(kept), ids=ids, attended=attended)
    return {"prompts": prompts, "prompt_of": torch.tensor([places[start] for start in starts]), **columns}


def ragged(rows: list[list[int]], side: str) -> tuple[Tensor, Tensor]:
    """Rows of tokens as one tensor, padded with 0 on this side, and where they stand, bool."""
    ids = pad_sequence([torch.tensor(row, dtype=torch.long) for row in rows], True, padding_side=side)
    attended = pad_sequence([torch.ones(len(row), dtype=torch.bool) for row in rows], True, padding_side=side)
    return ids, attended


def one_token(batch: B) -> B:
    """Completions of one scored token, the first of each, with two columns of padding after it."""

    def first(c: Completions) -> Columns:
        kept = c.scored.long().cumsum(1) <= 1
        return {"attended": c.attended & kept, "scored": c.scored & kept}

    return padded(each_completions(batch, first), left=0)


def units(batch: Batch) -> list[list[int]]:
    """The records that belong together: one alone, or, of rankings, those of a prompt."""
    if not isinstance(batch, Rankings):
        return [[row] for row in range(len(batch))]
    return [(batch.prompt_of == prompt).nonzero()[:, 0].tolist() for prompt in batch.prompt_of.unique()]


def completions(batch: Batch) -> list[Completions]:
    """All that there are in a record, nested ones too."""
    inner = [getattr(batch, f.name) for f in fields(batch)]
    nested = [c for value in inner if isinstance(value, Batch) for c in completions(value)]
    return [batch, *nested] if isinstance(batch, Completions) else nested


def leaves(value: object, whole: bool = False, path: Path = ()) -> Iterator[tuple[Path, object]]:
    """(path, what stands there) of everything in nested mappings and lists; of records their tensors, unless kept `whole`."""
    if isinstance(value, Batch) and not whole:
        columns = {f.name: getattr(value, f.name) for f in fields(value)}
        value = {name: column for name, column in columns.items() if isinstance(column, Tensor | Batch)}
    inner = value.items() if isinstance(value, Mapping) else enumerate(value) if isinstance(value, list | tuple) else None
    if inner is None:
        yield path, value
    for key, part in inner or ():
        yield from leaves(part, whole, (*path, key))


def tensors(batch: Batch) -> dict[str, Tensor]:
    """Those of the records, nested ones too, by path."""
    return {".".join(map(str, path)): x for path, x in leaves(batch) if isinstance(x, Tensor)}


def _per_token(c: Completions) -> list[tuple[str, Tensor]]:
    """The columns (B, T, ...)."""
    columns = [(f.name, getattr(c, f.name)) for f in fields(c)]
    return [(n, x) for n, x in columns if isinstance(x, Tensor) and x.dim() >= 2]
