"""Kahneman-Tversky optimisation as TRL estimates its reference point."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import partial

import torch
from torch import Tensor

from alignzoo.batch import Rated
from alignzoo.contracts import Models, Search, require
from alignzoo.functional import rotations

from .mismatch import in_parts, mismatched, places
from .unpaired import Prospect, log_ratio


@dataclass(kw_only=True)
class KTOTRL(Prospect):
    """`kto` whose z is the mean of h over each `together` neighbouring records, every prompt with the completion before it.

    Ethayarajh et al. 2024, KTO, as TRL 1.16 has it, which does not look whose completion that is.
    """

    together: int = field(
        default=8, metadata={"help": "how many records share an estimate of z, TRL's micro-batch", "search": Search(2, 64)}
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        require(self.together >= 2, "algorithm.together", self.together, ">= 2: alone, a prompt has no other completion")

    def points(self, models: Models, records: Rated, at_once: int) -> Tensor:
        unfit = mismatched(records, models, partial(rotations, together=self.together))
        ratio, counted = in_parts(log_ratio, models, unfit, at_once), records.scored.any(1)
        place, count = places(records, models)
        group = place // self.together
        sums = torch.zeros(-(-count // self.together), 2, dtype=torch.double, device=ratio.device)
        both = torch.stack([torch.where(counted, ratio, 0), counted], 1).double()
        sums = models.sum(sums.index_add(0, group, both))
        return (sums[:, 0] / sums[:, 1].clamp(min=1)).clamp(min=0)[group].to(ratio.dtype)
