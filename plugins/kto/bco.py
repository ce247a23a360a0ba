"""Binary classifier optimisation."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from alignzoo.batch import Rated
from alignzoo.contracts import Models, Next, Search, require
from alignzoo.functional import bco_loss, masked_mean

from .mismatch import in_parts
from .unpaired import Unpaired, log_ratio


@dataclass(kw_only=True)
class BCO(Unpaired):
    """L = - log sigma(beta h - delta) where desirable, - log sigma(delta - beta h) elsewhere, h = log pi / ref.

    delta, a moving average, is half the sum of the mean beta h of both kinds. Jung et al. 2024, Binary classifier optimization.
    """

    decay: float | None = field(
        default=None,
        metadata={
            "help": "weight of the past in delta; none: all steps weigh the same",
            "search": Search(options=(None, 0.9, 0.99)),
        },
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        require(self.decay is None or 0 <= self.decay < 1, "algorithm.decay", self.decay, "in [0, 1), or none")
        self.shift, self.steps = 0.0, 0

    def link(self, ratio: Tensor, desirable: Tensor, point: Tensor) -> Tensor:
        return bco_loss(ratio, desirable, point, self.beta)

    def points(self, models: Models, records: Rated, at_once: int) -> Tensor:
        ratio = in_parts(log_ratio, models, records, at_once).double()
        kinds = [k & records.scored.any(1) for k in (records.rating > self.threshold, records.rating <= self.threshold)]
        present = torch.stack([models.sum(kind.sum()) > 0 for kind in kinds])
        means = torch.stack([masked_mean(ratio, kind, models.sum) for kind in kinds])
        past = self.steps / (self.steps + 1) if self.decay is None or not self.steps else self.decay
        return past * self.shift / self.beta + (1 - past) * means.sum() / present.sum().clamp(min=1)

    def after_step(self, metrics: Mapping[str, float]) -> Next:
        if "reference_point" in metrics:
            self.shift, self.steps = metrics["reference_point"], self.steps + 1
        return Next.CONTINUE

    def state_dict(self) -> dict[str, object]:
        return {"shift": self.shift, "steps": self.steps}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.shift, self.steps = state["shift"], state["steps"]
