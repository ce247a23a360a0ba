"""TRL's DPOTrainer."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from alignzoo.batch import Pairs
from alignzoo.contracts import Hosting, Kind, Role, Search, require

from .base import Reading
from .rows import Row, pairs


@dataclass(kw_only=True)
class TRLDPO(Reading):
    """TRL's DPOTrainer: the mathematics of `dpo`."""

    data = Pairs
    trainer = "DPOTrainer"
    published_rate = 1e-6

    beta: float = field(
        default=0.1, metadata={"help": "strength of the tie to the reference", "search": Search(0.01, 1.0, log=True)}
    )

    def __post_init__(self) -> None:
        require(self.beta > 0, "algorithm.beta", self.beta, "> 0")

    def roles(self) -> Mapping[str, Role]:
        return {"policy": Role(kind=Kind.POLICY, trained=True), "reference": Role(kind=Kind.POLICY, start="reference")}

    def options(self, hosting: Hosting) -> dict[str, Any]:
        return {"beta": self.beta, "loss_type": ["sigmoid"], "max_length": None}

    def columns(self, records: Pairs) -> list[Row]:
        return pairs(records)
