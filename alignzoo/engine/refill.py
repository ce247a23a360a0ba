"""Dynamic sampling: a rollout's prompts from which nothing can be learnt are left out, and the next ones take their place."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from alignzoo.batch import Batch
from alignzoo.contracts import Models
from alignzoo.functional import spread


@dataclass(frozen=True)
class Refilled:
    """This rank's part of a rollout; over all ranks, the prompts that were wanted, drawn and kept; and the refills it took."""

    experience: Batch
    wanted: int
    drawn: int
    kept: int
    refills: int


def refilled(experience: Callable[[Batch], Batch], models: Models, records: Batch, most: int) -> Refilled:
    """The experience of as many prompts as `records` has, over all ranks, from all of which something can be learnt; of fewer
    where `most` refills don't get there."""
    wanted = drawn = prompts_of(models, records)
    parts, kept, refills = list[Batch](), 0, 0
    while True:
        parts.append(_telling(experience(records)))
        kept += prompts_of(models, parts[-1])
        if kept >= wanted or refills == most:
            break
        refills += 1
        drawn += wanted - kept
        records = models.more_prompts(wanted - kept)
    full = [part for part in parts if len(part)]
    return Refilled(type(parts[0]).cat(full) if full else parts[0], wanted, drawn, kept, refills)


def _telling(records: Batch) -> Batch:
    """Those records whose column `equal_groups` (B,) is 0; without one, those whose prompt's records differ in their `reward`,
    a column (B,), or are not several; all where they have neither."""
    if not len(records):
        return records
    equal, reward = (getattr(records, name, None) for name in ("equal_groups", "reward"))
    if equal is None and reward is not None:
        row: Tensor = records.row  # type: ignore[attr-defined]
        _, draw, count = row.unique(return_inverse=True, return_counts=True)
        equal = (spread(reward, row) == 0) & (count[draw] > 1)
    return records if equal is None else records.take(equal == 0)


def prompts_of(models: Models, records: Batch) -> int:
    """How many draws of the data there are records of, on all ranks."""
    row: Tensor = records.row  # type: ignore[attr-defined]
    return int(models.sum(torch.tensor(len(row.unique()), device=row.device)))
