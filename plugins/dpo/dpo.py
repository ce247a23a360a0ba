"""Direct preference optimisation."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from torch import Tensor

from alignzoo.batch import Pairs
from alignzoo.contracts import Algorithm, Kind, Models, Role, Search, require
from alignzoo.functional import dpo_loss


@dataclass(kw_only=True)
class DPO(Algorithm):
    """L = - (1 - e) log sigma(beta Delta) - e log sigma(-beta Delta), where Delta = h_chosen - h_rejected.

    h = log pi(y|x) - log ref(y|x), summed over scored tokens. Rafailov et al. 2023, Direct preference optimization, eq. 7;
    label smoothing e: Mitchell 2023, eq. 3.
    """

    data = Pairs
    published_rate = 1e-6  # Rafailov et al. 2023, appendix B

    beta: float = field(
        default=0.1,
        metadata={"help": "strength of the tie to the reference: larger stays nearer", "search": Search(0.01, 1.0, log=True)},
    )
    label_smoothing: float = field(default=0.0, metadata={"help": "share of labels taken to be wrong (conservative DPO)"})

    def __post_init__(self) -> None:
        require(self.beta > 0, "algorithm.beta", self.beta, "> 0")
        require(0 <= self.label_smoothing < 0.5, "algorithm.label_smoothing", self.label_smoothing, "in [0, 0.5)")

    def roles(self) -> Mapping[str, Role]:
        return {"policy": Role(kind=Kind.POLICY, trained=True), "reference": Role(kind=Kind.POLICY, start="reference")}

    def loss(self, models: Models, batch: Pairs) -> tuple[Tensor, dict[str, Tensor]]:
        both = batch.both
        log_ratio = both.sum(models.policy.logprobs(both) - models.reference.logprobs(both))  # (2B,)
        chosen, rejected = log_ratio.chunk(2)
        metrics = {
            "rewards/chosen": self.beta * chosen,
            "rewards/rejected": self.beta * rejected,
            "rewards/margin": self.beta * (chosen - rejected),
            "rewards/accuracy": (chosen > rejected).float(),
        }
        return dpo_loss(chosen, rejected, self.beta, self.label_smoothing), metrics
