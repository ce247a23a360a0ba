"""A soft gate in the place of the clip."""

from __future__ import annotations

from dataclasses import dataclass, field

from torch import Tensor

from alignzoo.contracts import Search, require
from alignzoo.functional import sapo_surrogate

from .grouped import Grouped, GroupRelative, Metrics


@dataclass(kw_only=True)
class SAPO(GroupRelative):
    """L = mean_t - 4 / tau sigma(tau (r_t - 1)) A, tau by the sign of A, which is GRPO's.

    Qwen team 2025, Soft adaptive policy optimization.
    """

    temperature: float = field(
        default=1.0, metadata={"help": "tau where the advantage is positive", "search": Search(0.1, 10.0, log=True)}
    )
    temperature_negative: float = field(
        default=1.05, metadata={"help": "tau elsewhere: larger closes the gate sooner", "search": Search(0.1, 10.0, log=True)}
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("temperature", "temperature_negative"):
            require(getattr(self, name) > 0, f"algorithm.{name}", getattr(self, name), "> 0")

    def surrogate(self, batch: Grouped, new: Tensor, old: Tensor, advantages: Tensor) -> tuple[Tensor, Metrics]:
        return sapo_surrogate(new, old, advantages, self.temperature, self.temperature_negative), {}
