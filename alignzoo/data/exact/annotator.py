"""Whoever judges completions during training, and errs: in the labels of records and in the scores of rollouts alike."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from alignzoo.common.noise import Noise


@dataclass(frozen=True)
class Annotator:
    """Sees a reward with normal errors of standard deviation `noise`, and turns a judgement round with probability `flips`:
    sides of a pair, a rating, a ranking, the sign of a score. Every judgement errs by itself.
    """

    flips: float = 0.0
    noise: float = 0.0

    @property
    def errs(self) -> bool:
        return self.flips > 0 or self.noise > 0

    def perceived(self, rewards: Tensor, rng: np.random.Generator) -> Tensor:
        """What the annotator takes these rewards, of any shape, for."""
        return rewards + self.noise * torch.from_numpy(rng.standard_normal(rewards.shape))

    def turned(self, count: int, rng: np.random.Generator) -> Tensor:
        """(count,) bool: which judgements are turned round."""
        return torch.from_numpy(rng.random(count) < self.flips)

    def scores(self, rewards: Tensor, row: Tensor, noise: Noise) -> Tensor:
        """(B,) rewards as the annotator would score them, drawn anew by every call. `row` (B,) names the draws that completions
        belong to: the result depends on neither batch shape nor rank.
        """
        rows, place, counts = row.cpu().unique(return_inverse=True, return_counts=True)
        order, starts = place.argsort(stable=True), counts.cumsum(0) - counts
        occurrence = torch.empty_like(place).index_put_((order,), torch.arange(len(place)) - starts[place[order]])
        uniform = noise.positions(rows, int(counts.max()), 2).view(len(rows), -1, 2)[place, occurrence]
        normal = torch.special.ndtri(uniform[:, 0].clamp(min=2.0**-54)).to(rewards)  # 0 is a uniform too
        sign = torch.where(uniform[:, 1] < self.flips, -1, 1).to(rewards)
        return sign * (rewards + self.noise * normal)
