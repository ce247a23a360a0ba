"""DPO whose reference follows the policy."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from torch import Tensor

from alignzoo.batch import Completions
from alignzoo.contracts import EMA, Kind, Models, Role, Search, require
from alignzoo.functional import dpo_loss

from .paired import Paired


@dataclass(kw_only=True)
class TRDPO(Paired):
    """L = - log sigma(beta Delta), h = log pi(y|x) - log anchor(y|x); anchor <- alpha pi + (1 - alpha) anchor every `steps`.

    Gorbatovski et al. 2024, Learn your reference model for real good alignment. alpha 1 is the hard update. The anchor starts
    as the policy; the run's reference stays where it is, so that evaluation measures the KL of all algorithms alike.
    """

    api_version = "1.1"

    beta: float = field(
        default=0.05,
        metadata={"help": "strength of the tie to the anchor: larger stays nearer", "search": Search(0.01, 1.0, log=True)},
    )
    alpha: float = field(
        default=0.6, metadata={"help": "the policy's share in an update of the anchor; 1: it is set to the policy"}
    )
    steps: int = field(default=512, metadata={"help": "optimizer steps between updates of the anchor"})

    def __post_init__(self) -> None:
        super().__post_init__()
        require(0 < self.alpha <= 1, "algorithm.alpha", self.alpha, "in (0, 1]")
        require(self.steps >= 1, "algorithm.steps", self.steps, ">= 1")

    def roles(self) -> Mapping[str, Role]:
        return {
            "policy": Role(kind=Kind.POLICY, trained=True),
            "anchor": Role(kind=Kind.POLICY, follows=EMA(1 - self.alpha, self.steps)),
        }

    def per_token(self, models: Models, both: Completions, logprobs: Tensor) -> Tensor:
        anchored: Tensor = models.anchor.logprobs(both)
        return logprobs - anchored

    def link(self, chosen: Tensor, rejected: Tensor) -> Tensor:
        return dpo_loss(chosen, rejected, self.beta)
