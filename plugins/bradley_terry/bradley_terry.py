"""Bradley-Terry reward models."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from torch import Tensor

from alignzoo.batch import Pairs
from alignzoo.contracts import Algorithm, Kind, Models, Role, Search, UserError, require
from alignzoo.functional import bradley_terry_loss


@dataclass(kw_only=True)
class BradleyTerry(Algorithm):
    """L = - (1 - e) log sigma(d) - e log sigma(-d) + c (r_chosen + r_rejected)^2, where d = r_chosen - r_rejected - k m.

    r is the scorer's score of prompt and completion, m the pair's margin. Ouyang et al. 2022, eq. 1 (K = 2); margin: Touvron
    et al. 2023 (Llama 2), eq. 2; label smoothing e: Mitchell 2023, eq. 3; centring c: Eisenstein et al. 2023.
    """

    data = Pairs
    published_rate = 9e-6  # Ouyang et al. 2022, appendix C.2

    margin: float = field(default=0.0, metadata={"help": "times the data's `margin`, by which the chosen score is to win"})
    label_smoothing: float = field(
        default=0.0, metadata={"help": "share of labels taken to be wrong, by noisy raters", "search": Search(0.0, 0.3)}
    )
    centring: float = field(
        default=0.0,
        metadata={"help": "weight of the squared sum of a pair's scores", "search": Search(options=(0.0, 0.01, 0.1))},
    )

    def __post_init__(self) -> None:
        require(self.margin >= 0, "algorithm.margin", self.margin, ">= 0")
        require(0 <= self.label_smoothing < 0.5, "algorithm.label_smoothing", self.label_smoothing, "in [0, 0.5)")
        require(self.centring >= 0, "algorithm.centring", self.centring, ">= 0")

    def roles(self) -> Mapping[str, Role]:
        return {"scorer": Role(kind=Kind.SCORER, trained=True, needs=frozenset({"scores"}))}

    def loss(self, models: Models, batch: Pairs) -> tuple[Tensor, dict[str, Tensor]]:
        chosen, rejected = models.scorer.scores(batch.both).chunk(2)
        difference = chosen - rejected
        metrics = {
            "score/chosen": chosen,
            "score/rejected": rejected,
            "score/margin": difference,
            "accuracy": (difference.sign() + 1) / 2,
        }
        return bradley_terry_loss(chosen, rejected, self._margin(batch), self.label_smoothing, self.centring), metrics

    def _margin(self, batch: Pairs) -> Tensor | float:
        if not self.margin:
            return 0.0
        if batch.margin is None:
            raise UserError(
                f"algorithm.margin={self.margin} takes the pairs' margins, and the data has none: "
                "say which column holds them with ++data.columns.margin=NAME, or leave algorithm.margin at 0"
            )
        return self.margin * batch.margin
