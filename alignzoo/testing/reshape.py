"""The same records, written differently: what a loss must not notice, and what it must."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import fields, replace
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from alignzoo.batch import Batch, Completions, Prompts, Rankings

GARBAGE = 5  # a token that is in the vocabulary, standing where nothing is attended


def padded(batch: Any, left: int = 3, right: int = 2) -> Any:
    """More padding before prompts and after completions: ids hold garbage there, the algorithm's own columns 0."""
    if isinstance(batch, Prompts):
        return replace(batch, ids=F.pad(batch.ids, (left, 0), value=GARBAGE), attended=F.pad(batch.attended, (left, 0)))
    batch = nested(batch, lambda inner: padded(inner, left, right))
    if not isinstance(batch, Completions):
        return batch
    wider: dict[str, Any] = {n: F.pad(x, (0, 0) * (x.dim() - 2) + (0, right)) for n, x in _per_token(batch)}
    return replace(batch, **wider | {"ids": F.pad(batch.ids, (0, right), value=GARBAGE)})


def partly_written(batch: Completions) -> Completions:
    """Every second record's first scored token now is one the policy did not write."""
    first = batch.scored & (batch.scored.long().cumsum(1) == 1)
    chosen = (torch.arange(len(batch)) % 2 == 1) & (batch.scored.sum(1) > 1)
    given = first & chosen[:, None]
    floats: dict[str, Any] = {n: torch.where(given, 0, x) for n, x in _per_token(batch) if x.is_floating_point()}
    return replace(batch, **floats, scored=batch.scored & ~given)


def absorbed(batch: Any) -> Any:
    """Leading tokens that the policy did not write, moved to the end of the prompt: for a language model the same text."""
    if isinstance(batch, Prompts):
        return batch
    batch = nested(batch, absorbed)
    if not isinstance(batch, Completions):
        return batch
    moved = (batch.attended & ~batch.scored).long().cumprod(1).sum(1).tolist()
    given = [(p, tuple(ids[:k].tolist())) for p, ids, k in zip(batch.prompt_of.tolist(), batch.ids, moved, strict=True)]
    places = {key: place for place, key in enumerate(dict.fromkeys(given))}  # completions given the same still share a prompt
    prompts = [_attended(batch.prompts, p) + list(tokens) for p, tokens in places]
    width = max(map(len, prompts))
    columns: dict[str, Any] = {
        n: torch.stack([torch.cat([row[k:], row.new_zeros((k, *row.shape[1:]))]) for row, k in zip(x, moved, strict=True)])
        for n, x in _per_token(batch)
    }
    longer = replace(
        batch.prompts.take([p for p, _ in places]),
        ids=torch.tensor([[0] * (width - len(p)) + p for p in prompts]),
        attended=torch.tensor([[i >= width - len(p) for i in range(width)] for p in prompts]),
    )
    return replace(batch, prompts=longer, prompt_of=torch.tensor([places[key] for key in given]), **columns)


def one_token(batch: Any) -> Any:
    """Completions of one scored token, the first of each, with two columns of padding after it."""
    if isinstance(batch, Prompts):
        return batch
    batch = nested(batch, one_token)
    if not isinstance(batch, Completions):
        return batch
    kept = batch.scored.long().cumsum(1) <= 1
    mask: dict[str, Any] = {"attended": batch.attended & kept, "scored": batch.scored & kept}
    return padded(replace(batch, **mask), left=0)


def units(batch: Any) -> list[list[int]]:
    """The records that belong together: one alone, or, of rankings, those of a prompt."""
    if not isinstance(batch, Rankings):
        return [[row] for row in range(len(batch))]
    return [(batch.prompt_of == prompt).nonzero()[:, 0].tolist() for prompt in batch.prompt_of.unique()]


def without(batch: Any, rows: list[int]) -> Any:
    """The records with nothing scored in `rows`, which come last."""
    rest = [row for row in range(len(batch)) if row not in rows]
    return type(batch).cat([batch.take(rest), batch.take(rows).blank()])


def completions(batch: Any) -> list[Completions]:
    """All that there are in a record, nested ones too."""
    inner = [getattr(batch, f.name) for f in fields(batch)]
    found = [c for value in inner if isinstance(value, Batch) for c in completions(value)]
    return [batch, *found] if isinstance(batch, Completions) else found


def snapshot(value: Any) -> Any:
    """A deep copy of the tensors in a record."""
    return {path: x.clone() for path, x in tensors(value)}


def tensors(value: Any, path: str = "") -> Iterator[tuple[str, Tensor]]:
    """Every tensor in records, dicts and lists, with its path."""
    if isinstance(value, Tensor):
        yield path.removeprefix("."), value
    elif isinstance(value, Batch):
        for f in fields(value):
            yield from tensors(getattr(value, f.name), f"{path}.{f.name}")
    elif isinstance(value, dict):
        for key, inner in value.items():
            yield from tensors(inner, f"{path}.{key}")
    elif isinstance(value, list | tuple):
        for i, inner in enumerate(value):
            yield from tensors(inner, f"{path}.{i}")


def nested(batch: Any, change: Callable[[Any], Any]) -> Any:
    columns = {f.name: getattr(batch, f.name) for f in fields(batch)}
    return replace(batch, **{n: change(v) for n, v in columns.items() if isinstance(v, Batch)})


def _per_token(batch: Completions) -> list[tuple[str, Tensor]]:
    """The columns (B, T, ...)."""
    columns = [(f.name, getattr(batch, f.name)) for f in fields(batch)]
    return [(n, x) for n, x in columns if isinstance(x, Tensor) and x.dim() >= 2]


def _attended(prompts: Prompts, row: int) -> list[int]:
    return prompts.ids[row][prompts.attended[row]].tolist()
