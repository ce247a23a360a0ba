"""TRL's KTOTrainer."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch

from alignzoo.batch import Rated
from alignzoo.contracts import Hosting, Kind, Role, Search, require
from alignzoo.functional import mismatches

from .base import Reading
from .rows import Row, judged


@dataclass(kw_only=True)
class TRLKTO(Reading):
    """TRL's KTOTrainer: the mathematics of `kto`, where a micro-batch is the whole batch."""

    data = Rated
    trainer = "KTOTrainer"
    published_rate = 1e-6

    beta: float = field(
        default=0.1, metadata={"help": "strength of the tie to the reference", "search": Search(0.01, 1.0, log=True)}
    )
    desirable_weight: float = field(default=1.0, metadata={"help": "w_D", "search": Search(0.5, 2.0, log=True)})
    undesirable_weight: float = field(default=1.0, metadata={"help": "w_U", "search": Search(0.5, 2.0, log=True)})
    threshold: float = field(default=0.5, metadata={"help": "completions rated above it are desirable"})

    def __post_init__(self) -> None:
        for name in ("beta", "desirable_weight", "undesirable_weight"):
            require(getattr(self, name) > 0, f"algorithm.{name}", getattr(self, name), "> 0")

    def roles(self) -> Mapping[str, Role]:
        return {"policy": Role(kind=Kind.POLICY, trained=True), "reference": Role(kind=Kind.POLICY, start="reference")}

    def options(self, hosting: Hosting) -> dict[str, Any]:
        weights = {"desirable_weight": self.desirable_weight, "undesirable_weight": self.undesirable_weight}
        return {"beta": self.beta, "loss_type": "kto", "max_length": None, **weights}

    def columns(self, records: Rated) -> list[Row]:
        return judged(records, self.threshold)

    def make(self, trainer: type, config: Any, hosting: Hosting) -> Any:
        instance = super().make(trainer, config, hosting)
        collate = instance.data_collator
        instance.data_collator = lambda examples: collate(mismatched(examples))
        return instance


def mismatched(examples: list[Row]) -> list[Row]:
    """Each prompt of a micro-batch with the completion of another, as in `kto`: z is estimated on these. TRL does this to its
    data when it tokenises them, with that of the row before."""
    ordered = sorted(examples, key=lambda example: example["row"])
    prompts: dict[tuple[int, ...], int] = {}
    group = torch.tensor([prompts.setdefault(tuple(example["prompt_ids"]), len(prompts)) for example in ordered])
    for example, source in zip(ordered, mismatches(group).tolist(), strict=True):
        example["KL_completion_ids"] = ordered[source]["completion_ids"]
    return examples
