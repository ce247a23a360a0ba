"""A reward for being brief."""

from __future__ import annotations

from dataclasses import dataclass, field

from alignzoo.batch import Completions
from alignzoo.contracts import Reward, Scores, require


@dataclass(kw_only=True)
class Brevity(Reward):
    """1 for a completion of at most `limit` tokens, falling by `slope` for each token more."""

    limit: int = field(default=8, metadata={"help": "tokens that cost nothing"})
    slope: float = field(default=0.1, metadata={"help": "what each further token costs"})

    def __post_init__(self) -> None:
        require(self.limit >= 0, "reward.limit", self.limit, ">= 0")
        require(self.slope > 0, "reward.slope", self.slope, "> 0")

    def __call__(self, c: Completions) -> Scores:
        excess = (c.length - self.limit).clamp(min=0)
        return Scores(total=1 - self.slope * excess, parts={"excess": excess})
