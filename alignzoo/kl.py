"""What ties the policy to the reference in every online algorithm: where the KL goes, how it is estimated, how its coefficient
is controlled. A new estimator is a formula of `alignzoo.functional` and its name here."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum
from typing import ClassVar

from torch import Tensor

from alignzoo.errors import require
from alignzoo.functional import adapted_kl_coefficient, k1, k2, k3
from alignzoo.settings import Search


class Place(Enum):
    reward = "reward"
    loss = "loss"


class Estimator(Enum):
    k1 = "k1"
    k2 = "k2"
    k3 = "k3"


FUNCTIONS = {Estimator.k1: k1, Estimator.k2: k2, Estimator.k3: k3}
HORIZON = 10_000.0


@dataclass(kw_only=True)
class KL:
    """`coefficient` starts at beta and, with a target, is adapted after each rollout (Ziegler et al. 2019, section 2.2)."""

    beta: float = field(
        default=0.2, metadata={"help": "coefficient; 0 needs no reference", "search": Search(0.01, 1.0, log=True)}
    )
    place: Place = field(default=Place.reward, metadata={"help": "subtract it from each token's reward, or add it to the loss"})
    estimator: Estimator = field(default=Estimator.k1, metadata={"help": "of the KL of one token"})
    target: float | None = field(default=None, metadata={"help": "KL of a completion to adapt beta towards; none: fixed"})
    horizon: float = field(
        default=HORIZON,
        metadata={"help": "samples over which the adaptation acts", "search": Search(1e3, 1e5, log=True)},
    )

    key: ClassVar[str] = "algorithm.kl."  # of its fields in the config, for messages

    def __post_init__(self) -> None:
        require(self.beta >= 0, f"{self.key}beta", self.beta, ">= 0")
        require(self.target is None or self.target > 0, f"{self.key}target", self.target, "> 0, or none")
        require(self.target is None or self.beta > 0, f"{self.key}beta", self.beta, f"> 0 where {self.key}target adapts it")
        require(self.horizon > 0, f"{self.key}horizon", self.horizon, "> 0")
        used = self.target is not None or self.horizon == HORIZON
        require(used, f"{self.key}horizon", self.horizon, f"left at {HORIZON:g} unless {self.key}target is set")
        learns = self.place is Place.reward or self.estimator is not Estimator.k1
        require(learns, f"{self.key}estimator", self.estimator.value, "k2 or k3 in the loss: k1 has no gradient there")
        self.coefficient = self.beta

    def penalty(self, logprobs: Tensor, reference: Tensor) -> Tensor:
        """The coefficient times the estimated KL of each token, (B, T)."""
        return self.coefficient * FUNCTIONS[self.estimator](logprobs, reference)

    def adapt(self, metrics: Mapping[str, float]) -> None:
        """After a rollout of `samples` completions whose mean KL was `kl`."""
        if self.target is not None and "kl" in metrics:
            n = metrics["samples"]
            self.coefficient = adapted_kl_coefficient(self.coefficient, metrics["kl"], self.target, n, self.horizon)


class FlatKL(KL):
    """One whose settings are fields of the algorithm itself."""

    key = "algorithm.kl_"
