"""TRL's SFTTrainer."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from alignzoo.batch import Completions
from alignzoo.contracts import Hosting, Kind, Role

from .base import Reading
from .rows import Row, demonstrations


@dataclass(kw_only=True)
class TRLSFT(Reading):
    """TRL's SFTTrainer: the mathematics of `sft`."""

    data = Completions
    trainer = "SFTTrainer"
    published_rate = 2e-5

    def roles(self) -> Mapping[str, Role]:
        return {"policy": Role(kind=Kind.POLICY, trained=True)}

    def options(self, hosting: Hosting) -> dict[str, Any]:
        return {"max_length": None, "packing": False, "loss_type": "nll"}

    def columns(self, records: Completions) -> list[Row]:
        return demonstrations(records)
