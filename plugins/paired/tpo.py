"""Triple preference optimisation."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

from alignzoo.batch import Triples
from alignzoo.contracts import Models, Search, require
from alignzoo.functional import dpo_loss

from .paired import Sides, Terms


@dataclass(kw_only=True)
class TPO(Sides):
    """L = - log sigma( beta (log pi(y_c) - log pi(y_r)) ) - alpha log pi(y_gold), the second the mean over the step's tokens.

    Saeidi et al. 2024, Triple preference optimization, as TRL 1.16 has it: what is imitated is a completion of its own.
    """

    data = Triples
    published_rate = 5e-7  # the default of TRL 1.16's trainer

    beta: float = field(default=0.01, metadata={"help": "scale of the log-probs", "search": Search(0.001, 1.0, log=True)})
    alpha: float = field(
        default=1.0, metadata={"help": "weight of the demonstration's likelihood", "search": Search(0.1, 2.0, log=True)}
    )

    def __post_init__(self) -> None:
        require(self.beta > 0, "algorithm.beta", self.beta, "> 0")
        require(
            self.alpha > 0, "algorithm.alpha", self.alpha, "> 0: without the demonstration it is algorithm=cpo's first term"
        )

    def link(self, chosen: Tensor, rejected: Tensor) -> Tensor:
        return dpo_loss(chosen, rejected, self.beta)

    def weights(self, batch: Any) -> dict[str, Tensor]:
        return {"nll": batch.three.scored.chunk(3)[2] * batch.counted[:, None]}

    def loss(self, models: Models, batch: Any) -> tuple[Terms, dict[str, Tensor]]:
        three = batch.three
        logprobs = models.policy.logprobs(three)
        chosen, rejected, _ = three.sum(logprobs).chunk(3)
        terms = {"preference": self.link(chosen, rejected), "nll": -self.alpha * logprobs.chunk(3)[2]}
        return terms, self.measured(chosen, rejected)
