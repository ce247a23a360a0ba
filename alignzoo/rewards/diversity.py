"""Measures of how varied completions are, as metric plugins."""

from __future__ import annotations

import torch
from torch import Tensor

from alignzoo.batch import Completions


def distinct_tokens(c: Completions) -> Tensor:
    """The share of a completion's scored tokens that are different ones; 1 for a completion without repetition."""
    different = [ids[mask].unique().numel() for ids, mask in zip(c.ids, c.scored, strict=True)]
    return torch.tensor(different, device=c.ids.device) / c.length.clamp(min=1)
