"""Averages between two log lines."""

from __future__ import annotations

import torch
from torch import Tensor

from alignzoo.common.ranks import gather_objects


class Meter:
    """Weighted means by name, summed in float64 on the device, read only when a line is due."""

    def __init__(self) -> None:
        self.sums: dict[str, Tensor] = {}

    def add(self, name: str, value: Tensor | float, weight: Tensor | float = 1.0) -> None:
        """Adds sum(value * weight) over sum(weight); entries of weight 0 are not read."""
        value, weight = torch.as_tensor(value).detach().double(), torch.as_tensor(weight).double()
        weight = weight.to(value.device).expand_as(value)
        self._add(name, torch.stack([torch.where(weight > 0, value * weight, 0).sum(), weight.sum()]))

    def add_share(self, name: str, share: Tensor, weight: float) -> None:
        """Adds a part of a sum that is already divided: the mean is then the sum of shares over the sum of weights."""
        self._add(name, torch.stack([share.detach().double(), torch.tensor(weight, dtype=torch.float64, device=share.device)]))

    def _add(self, name: str, total: Tensor) -> None:
        self.sums[name] = self.sums[name] + total if name in self.sums else total

    def merge(self, meter: Meter) -> None:
        for name, total in meter.sums.items():
            self._add(name, total)

    def means(self) -> dict[str, float]:
        """The means over all ranks; a name without weight is absent."""
        totals: dict[str, list[float]] = {}
        for state in gather_objects(self.state_dict()):
            for name, (value, weight) in state.items():
                before = totals.get(name, [0.0, 0.0])
                totals[name] = [before[0] + value, before[1] + weight]
        return {name: value / weight for name, (value, weight) in totals.items() if weight > 0}

    def clear(self) -> None:
        self.sums = {}

    def state_dict(self) -> dict[str, list[float]]:
        return {name: total.tolist() for name, total in self.sums.items()}

    def load_state_dict(self, state: dict[str, list[float]]) -> None:
        self.sums = {name: torch.tensor(total, dtype=torch.float64) for name, total in state.items()}
