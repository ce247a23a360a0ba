"""DiscoPOP: the log-ratio modulated loss."""

from __future__ import annotations

from dataclasses import dataclass, field

from torch import Tensor

from alignzoo.contracts import Search, require
from alignzoo.functional import discopop_loss

from .paired import Paired


@dataclass(kw_only=True)
class DiscoPOP(Paired):
    """L = - (1 - m) log sigma(beta Delta) + m exp(-beta Delta), m = sigma(beta Delta / tau), Delta = h_chosen - h_rejected.

    Found by a search of a language model over losses. Lu et al. 2024, Discovering preference optimization algorithms with and
    for large language models, eq. 5.
    """

    published_rate = 5e-7  # the model card of its authors' DiscoPOP-zephyr-7b-gemma
    leads_away = "the loss rises where beta Delta is near 0: there the blend moves from the logistic to the larger exponential"

    beta: float = field(
        default=0.05,
        metadata={"help": "strength of the tie to the reference: larger stays nearer", "search": Search(0.01, 1.0, log=True)},
    )
    tau: float = field(
        default=0.05,
        metadata={
            "help": "width, in beta Delta, of the blend from one loss to the other",
            "search": Search(0.02, 1.0, log=True),
        },
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        require(self.tau > 0, "algorithm.tau", self.tau, "> 0")

    def link(self, chosen: Tensor, rejected: Tensor) -> Tensor:
        return discopop_loss(chosen, rejected, self.beta, self.tau)
