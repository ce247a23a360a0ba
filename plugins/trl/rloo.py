"""TRL's RLOOTrainer."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from alignzoo.contracts import Hosting, Search, require

from .group import Grouped


@dataclass(kw_only=True)
class TRLRLOO(Grouped):
    """TRL's RLOOTrainer: the mathematics of `rloo`, until the ratio of a second pass leaves 1."""

    trainer = "RLOOTrainer"
    published_rate = 1e-6

    beta: float = field(
        default=0.05, metadata={"help": "KL coefficient in the reward; 0: none", "search": Search(0.01, 1.0, log=True)}
    )
    clip: float = field(default=0.2, metadata={"help": "epsilon of a completion's ratio; idle with epochs=1"})
    epochs: int = field(default=1, metadata={"help": "passes over a rollout"})

    def __post_init__(self) -> None:
        require(self.beta >= 0, "algorithm.beta", self.beta, ">= 0")
        require(self.clip > 0, "algorithm.clip", self.clip, "> 0")
        require(self.epochs >= 1, "algorithm.epochs", self.epochs, ">= 1")

    def options(self, hosting: Hosting) -> dict[str, Any]:
        return super().options(hosting) | {"normalize_advantages": False, "reward_clip_range": None}
