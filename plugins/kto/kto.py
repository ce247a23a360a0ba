"""Kahneman-Tversky optimisation."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum

import torch
from torch import Tensor

from alignzoo.batch import Rated
from alignzoo.contracts import Models
from alignzoo.functional import masked_mean

from .mismatch import in_parts, mismatched
from .unpaired import Prospect, log_ratio


class ReferencePoint(Enum):
    kl = "kl"  # an estimate of the KL to the reference
    zero = "zero"


@dataclass(kw_only=True)
class KTO(Prospect):
    """L = w_D (1 - sigma(beta (h - z))) where desirable, w_U (1 - sigma(beta (z - h))) elsewhere, h = log pi / ref.

    Ethayarajh et al. 2024. z = max(0, mean of h over prompts with another's completion), over the optimizer step.
    """

    reference_point: ReferencePoint = field(default=ReferencePoint.kl, metadata={"help": "z, from which gains are counted"})

    def points(self, models: Models, records: Rated, at_once: int) -> Tensor:
        if self.reference_point is ReferencePoint.zero:
            return torch.zeros(())
        ratio = in_parts(log_ratio, models, mismatched(records, models), at_once)
        return masked_mean(ratio, records.scored.any(1), models.sum).clamp(min=0)
