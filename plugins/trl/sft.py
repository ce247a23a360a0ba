"""TRL's SFTTrainer."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from alignzoo.batch import Completions
from alignzoo.contracts import Hosting, Kind, Role

from .base import Hosted, in_order, rows
from .rows import demonstrations


@dataclass(kw_only=True)
class TRLSFT(Hosted):
    """TRL's SFTTrainer: the mathematics of `sft`."""

    data = Completions
    trainer = "SFTTrainer"

    def roles(self) -> Mapping[str, Role]:
        return {"policy": Role(kind=Kind.POLICY, trained=True)}

    def options(self, hosting: Hosting) -> dict[str, Any]:
        return {"max_length": None, "packing": False, "loss_type": "nll"}

    def make(self, trainer: type, config: Any, hosting: Hosting) -> Any:
        data = rows(hosting, demonstrations)
        return in_order(trainer)(hosting.policy, args=config, train_dataset=data, processing_class=hosting.tokenizer)
