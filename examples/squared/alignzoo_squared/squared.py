"""Identity preference optimisation."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from torch import Tensor

from alignzoo.batch import Pairs
from alignzoo.contracts import Algorithm, Kind, Models, Role, require


@dataclass(kw_only=True)
class Squared(Algorithm):
    """L = (h_chosen - h_rejected - 1 / (2 tau))^2, h = log pi(y|x) - log ref(y|x), summed. Azar et al. 2023, eq. 17."""

    data = Pairs

    tau: float = field(
        default=0.1, metadata={"help": "strength of the tie to the reference: the margin aimed at is 1 / (2 tau)"}
    )

    def __post_init__(self) -> None:
        require(self.tau > 0, "algorithm.tau", self.tau, "> 0")

    def roles(self) -> Mapping[str, Role]:
        return {"policy": Role(kind=Kind.POLICY, trained=True), "reference": Role(kind=Kind.POLICY, start="reference")}

    def loss(self, models: Models, batch: Pairs) -> tuple[Tensor, dict[str, Tensor]]:
        both = batch.both
        log_ratio = both.sum(models.policy.logprobs(both) - models.reference.logprobs(both))  # (2B,)
        chosen, rejected = log_ratio.chunk(2)
        margin = chosen - rejected
        return (margin - 1 / (2 * self.tau)) ** 2, {"rewards/margin": margin, "rewards/accuracy": (margin > 0).float()}
