"""`reward=constrained`: as helpful as can be, as safe as must be."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from alignzoo.contracts import Reward, Scores, Source
from alignzoo.errors import UserError, nearest, require
from alignzoo.rewards.composite import Composite
from alignzoo.rewards.mixture import sum_of


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
                known = f"{nearest(name, self.parts)} The parts are {', '.join(self.parts)}"
                raise UserError(f"reward.costs names {name!r}, which is no part.{known}")
        if not self.costs or len(set(self.costs)) == len(self.parts):
            raise UserError("reward=constrained needs parts that are costs and parts that are not: reward.costs=[NAME, ...]")
        return self

    def combine(self, values: dict[str, Tensor], valid: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        cost = sum_of({name: value for name, value in values.items() if name in self.costs})
        reward = sum_of({name: value for name, value in values.items() if name not in self.costs})
        now = math.exp(self._log)
        return (reward - now * cost) / (1 + now), {"cost": cost, "multiplier": torch.full_like(cost, now)}

    def after_rollout(self, scores: Scores) -> None:
        super().after_rollout(scores)
        cost = scores.parts["cost"][scores.usable].double()
        if len(cost):
            step = self.rate * math.exp(self._log) * (cost.mean().item() - self.limit)
            self._log = min(self._log + step, math.log(self.most))

    def state_dict(self) -> dict[str, Any]:
        return {"parts": super().state_dict(), "log_multiplier": self._log}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        super().load_state_dict(state["parts"])
        self._log = state["log_multiplier"]
