"""TRL's RewardTrainer."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar

from alignzoo.batch import Pairs
from alignzoo.contracts import Hosting, Kind, Role, Search, require

from .base import Hosted, Reading
from .rows import Row, compared


@dataclass(kw_only=True)
class TRLReward(Reading):
    """TRL's RewardTrainer: the mathematics of `bradley_terry`. Trains a scorer, no policy."""

    data = Pairs
    trainer = "RewardTrainer"
    published_rate = 9e-6
    renamed: ClassVar[Mapping[str, str | None]] = {
        **Hosted.renamed, "margin": "score/margin", "mean_reward": "score", "min_reward": None, "max_reward": None,
    }  # fmt: skip

    margin: float = field(default=0.0, metadata={"help": "times the data's `margin`, by which the chosen score is to win"})
    centring: float = field(
        default=0.0,
        metadata={"help": "weight of the squared sum of a pair's scores", "search": Search(options=(0.0, 0.01, 0.1))},
    )

    def __post_init__(self) -> None:
        require(self.margin >= 0, "algorithm.margin", self.margin, ">= 0")
        require(self.centring >= 0, "algorithm.centring", self.centring, ">= 0")

    def roles(self) -> Mapping[str, Role]:
        return {"scorer": Role(kind=Kind.SCORER, trained=True, needs=frozenset({"scores"}))}

    def options(self, hosting: Hosting) -> dict[str, Any]:
        return {"max_length": None, "center_rewards_coefficient": self.centring or None}

    def columns(self, records: Pairs) -> list[Row]:
        return compared(records, self.margin)
