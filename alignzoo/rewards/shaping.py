"""`reward=clip`, `reward=whiten`, `reward=normalise`: the sum of rewards, brought to another scale."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from alignzoo.contracts import Scores
from alignzoo.errors import UserError, require
from alignzoo.functional.advantages import moments, rounding
from alignzoo.rewards.composite import Composite
from alignzoo.rewards.mixture import sum_of


@dataclass(kw_only=True)
class Clip(Composite):
    """The sum of `parts`, cut off below `low` and above `high`."""

    low: float | None = field(default=None, metadata={"help": "the least score; null: no limit"})
    high: float | None = field(default=None, metadata={"help": "the greatest score; null: no limit"})

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.low is None and self.high is None:
            raise UserError("reward=clip has no limits: give reward.low, reward.high or both")
        if self.low is not None and self.high is not None and self.low >= self.high:
            raise UserError(f"reward.low={self.low:g}: must be < reward.high={self.high:g}")

    def combine(self, values: dict[str, Tensor], valid: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        total = sum_of(values)
        return total.clamp(self.low, self.high), {"unclipped": total}


@dataclass(kw_only=True)
class Whiten(Composite):
    """The sum of `parts`, (r - mean) / standard deviation of the completions that are scored together on this process.

    A score then depends on its batch, and the mean of an evaluation is 0 by construction: read `reward/unwhitened` there.
    """

    centre: bool = field(default=True, metadata={"help": "whether the mean is taken off; without, only the scale changes"})

    def combine(self, values: dict[str, Tensor], valid: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        total = sum_of(values)
        return scaled(total, *moments(total, valid), self.centre), {"unwhitened": total}


@dataclass(kw_only=True)
class Normalise(Composite):
    """The sum of `parts`, (r - mean) / standard deviation of all rollouts before, of all ranks (Chan et al. 1979).

    The first rollout is scored as it is. Mean and variance are part of a checkpoint; `reward/unnormalised` is the sum itself.
    """

    centre: bool = field(default=True, metadata={"help": "whether the mean is taken off; without, only the scale changes"})
    clip: float = field(default=0.0, metadata={"help": "cut off beyond so many standard deviations; 0: not at all"})

    def __post_init__(self) -> None:
        super().__post_init__()
        require(self.clip >= 0, "reward.clip", self.clip, ">= 0")
        self.count, self.mean, self.squares = 0, 0.0, 0.0  # squares: the sum of squared differences from the mean

    def combine(self, values: dict[str, Tensor], valid: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        total = made = sum_of(values)
        if self.count > 1:
            mean, variance = torch.tensor([self.mean, self.squares / self.count], dtype=torch.float64, device=total.device)
            made = scaled(total, mean, torch.where(variance > rounding(mean, total.dtype), variance, 0), self.centre)
        return made.clamp(-self.clip, self.clip) if self.clip and self.count > 1 else made, {"unnormalised": total}

    def after_rollout(self, scores: Scores) -> None:
        super().after_rollout(scores)
        new = scores.parts["unnormalised"][scores.usable].double()
        if not len(new):
            return
        mean, apart, count = new.mean().item(), new.mean().item() - self.mean, self.count + len(new)
        self.squares += ((new - mean) ** 2).sum().item() + apart**2 * self.count * len(new) / count
        self.mean += apart * len(new) / count
        self.count = count

    def state_dict(self) -> dict[str, Any]:
        return {"parts": super().state_dict(), "count": self.count, "mean": self.mean, "squares": self.squares}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        super().load_state_dict(state["parts"])
        self.count, self.mean, self.squares = state["count"], state["mean"], state["squares"]


def scaled(total: Tensor, mean: Tensor, variance: Tensor, centre: bool) -> Tensor:
    """(r - mean) / sqrt(variance), or r / sqrt(variance); undivided where the variance is 0."""
    divisor = torch.where(variance > 0, variance, 1).sqrt()
    return ((total - mean if centre else total.double()) / divisor).to(total.dtype)
