"""Completions that were labelled on the way, as records a reward model learns from."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields, replace
from itertools import combinations
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor

from alignzoo.batch import Completions, Decode, Pairs, Rated
from alignzoo.statistics import calibration

MOST = 8192  # records of earlier refreshes that are kept
C = TypeVar("C", bound=Completions)


def some(c: Completions, count: int, rng: np.random.Generator) -> Completions:
    """`count` of the completions, those of a draw one after the other, so that few are without another to compare with."""
    groups = c.row.unique(return_inverse=True)[1]
    order = torch.from_numpy(rng.permutation(int(groups.max()) + 1))[groups].argsort(stable=True)
    return c.take(order[:count])


def pairs(c: Rated) -> Pairs:
    """Each two completions of a draw whose ratings differ, the better one chosen."""
    found = list[tuple[int, int]]()
    for row in c.row.unique().tolist():
        for i, j in combinations((c.row == row).nonzero()[:, 0].tolist(), 2):
            if c.rating[i] != c.rating[j]:
                found.append((i, j) if c.rating[i] > c.rating[j] else (j, i))
    plain = _by_draw(Completions(**{f.name: getattr(c, f.name) for f in fields(Completions)}))
    return Pairs(chosen=plain.take([i for i, _ in found]), rejected=plain.take([j for _, j in found]))


def _by_draw(c: Completions) -> Completions:
    """With one prompt a draw, however often it was sampled from: both sides of a pair number the prompts alike."""
    rows, prompt_of = c.row.unique(return_inverse=True)
    first = torch.stack([(c.row == row).nonzero()[0, 0] for row in rows]) if len(rows) else c.prompt_of[:0]
    return replace(c, prompts=c.prompts.take(c.prompt_of[first]), prompt_of=prompt_of)


def latest(records: Any) -> Any:
    return records.take(range(max(0, len(records) - MOST), len(records)))


def joined(parts: Sequence[Any]) -> Any:
    """All records of `parts`, with those columns of their prompts that all have, and without text."""
    common = set.intersection(*(_columns(part) for part in parts))
    return type(parts[0]).cat([_with(part, common, None) for part in parts])


def spoken(c: C, decode: Decode) -> C:
    """With text."""
    return replace(c, prompts=replace(c.prompts, decode=decode))


def correlation(a: Tensor, b: Tensor) -> float:
    """Pearson's; 0 where one of them is constant."""
    return calibration.correlation(*(x.double().cpu().numpy() for x in (a, b)))


def _columns(records: Any) -> set[str]:
    return set((records.chosen if isinstance(records, Pairs) else records).prompts.columns)


def _with(records: Any, columns: set[str], decode: Decode | None) -> Any:
    if isinstance(records, Pairs):
        sides = {name: _with(getattr(records, name), columns, decode) for name in ("chosen", "rejected")}
        return replace(records, **sides)
    kept = {name: values for name, values in records.prompts.columns.items() if name in columns}
    changed: dict[str, Any] = {"prompts": replace(records.prompts, columns=kept, decode=decode)}
    return replace(records, **changed)
