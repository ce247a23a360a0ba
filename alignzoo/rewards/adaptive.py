"""`reward=normalise`, `reward=constrained`: sums of rewards whose scale or weighing follows the rollouts."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import torch
from torch import Tensor

from alignzoo.contracts import Reward, Scores, Source
from alignzoo.errors import UserError, nearest, require
from alignzoo.functional.advantages import rounding
from alignzoo.rewards.combinations import scaled
from alignzoo.rewards.composite import Composite, State


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

    def combine(self, values: Tensor, valid: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        total = values.sum(0)
        if self.count < 2:
            return total, {"unnormalised": total}
        mean, variance = torch.tensor([self.mean, self.squares / self.count], dtype=torch.float64, device=total.device)
        normal = scaled(total, mean, torch.where(variance > rounding(mean, total.dtype), variance, 0), self.centre)
        return normal.clamp(-self.clip, self.clip) if self.clip else normal, {"unnormalised": total}

    def after_rollout(self, scores: Scores) -> None:
        super().after_rollout(scores)
        new = scores.parts["unnormalised"][scores.usable].double()
        if not len(new):
            return
        mean, apart, count = new.mean().item(), new.mean().item() - self.mean, self.count + len(new)
        self.squares += ((new - mean) ** 2).sum().item() + apart**2 * self.count * len(new) / count
        self.mean += apart * len(new) / count
        self.count = count

    def state_dict(self) -> State:
        return {"parts": super().state_dict(), "count": self.count, "mean": self.mean, "squares": self.squares}

    def load_state_dict(self, state: State) -> None:
        super().load_state_dict(state["parts"])
        self.count, self.mean, self.squares = state["count"], state["mean"], state["squares"]


@dataclass(kw_only=True)
class Constrained(Composite):
    """(r - lambda c) / (1 + lambda): reward r, subject to a mean cost c of at most `limit` (Safe RLHF, Dai et al. 2023).

    c is the sum of the parts named in `costs`, r that of the others. After each rollout the Lagrange multiplier follows the
    cost: log lambda grows by rate * lambda * (mean cost - limit). It is part of a checkpoint, and reported as
    `reward/multiplier`.
    """

    costs: list[str] = field(default_factory=list, metadata={"help": "the parts that are costs: high is bad"})
    limit: float = field(default=0.0, metadata={"help": "what the mean cost may be"})
    multiplier: float = field(default=1.0, metadata={"help": "lambda at the start"})
    rate: float = field(default=0.1, metadata={"help": "how fast log lambda follows"})
    most: float = field(default=100.0, metadata={"help": "lambda is not made greater than that"})

    def __post_init__(self) -> None:
        super().__post_init__()
        require(self.rate >= 0, "reward.rate", self.rate, ">= 0")
        require(0 < self.multiplier <= self.most, "reward.multiplier", self.multiplier, f"in (0, reward.most={self.most:g}]")
        self._log = math.log(self.multiplier)

    def resolve(self, source: Source) -> Reward:
        super().resolve(source)
        for name in self.costs:
            if name not in self.parts:
                parts = f"{nearest(name, self.parts)} The parts are {', '.join(self.parts)}"
                raise UserError(f"reward.costs names {name!r}, which is no part.{parts}")
        if not self.costs or len(set(self.costs)) == len(self.parts):
            raise UserError("reward=constrained needs parts that are costs and parts that are not: reward.costs=[NAME, ...]")
        return self

    def combine(self, values: Tensor, valid: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        costs = torch.tensor([name in self.costs for name in self.parts], device=values.device)
        cost, reward, multiplier = values[costs].sum(0), values[~costs].sum(0), math.exp(self._log)
        parts = {"cost": cost, "multiplier": torch.full_like(cost, multiplier)}
        return (reward - multiplier * cost) / (1 + multiplier), parts

    def after_rollout(self, scores: Scores) -> None:
        super().after_rollout(scores)
        cost = scores.parts["cost"][scores.usable].double()
        if len(cost):
            step = self.rate * math.exp(self._log) * (cost.mean().item() - self.limit)
            self._log = min(self._log + step, math.log(self.most))

    def state_dict(self) -> State:
        return {"parts": super().state_dict(), "log_multiplier": self._log}

    def load_state_dict(self, state: State) -> None:
        super().load_state_dict(state["parts"])
        self._log = state["log_multiplier"]
