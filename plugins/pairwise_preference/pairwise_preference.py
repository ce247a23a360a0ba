"""Preference models that read both completions."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from torch import Tensor

from alignzoo.batch import Pairs
from alignzoo.contracts import Algorithm, Kind, Models, Role, Search, require
from alignzoo.functional import bradley_terry_loss


@dataclass(kw_only=True)
class PairwisePreference(Algorithm):
    """L = - (1 - e) log P - e log(1 - P), P(a beats b | x) = sigma(s(x, a, b) - s(x, b, a)), a the chosen and b the rejected.

    s reads both completions, so P need not be transitive, and P(a beats b) = 1 - P(b beats a). Munos et al. 2024, Nash learning
    from human feedback, section 4; Jiang et al. 2023, LLM-Blender (both orders).
    """

    api_version = "1.1"
    data = Pairs
    published_rate = 9e-6  # as bradley_terry

    label_smoothing: float = field(
        default=0.0, metadata={"help": "share of labels taken to be wrong, by noisy raters", "search": Search(0.0, 0.3)}
    )

    def __post_init__(self) -> None:
        require(0 <= self.label_smoothing < 0.5, "algorithm.label_smoothing", self.label_smoothing, "in [0, 0.5)")

    def roles(self) -> Mapping[str, Role]:
        return {"scorer": Role(kind=Kind.SCORER, trained=True, needs=frozenset({"comparisons"}))}

    def loss(self, models: Models, batch: Pairs) -> tuple[Tensor, dict[str, Tensor]]:
        log_odds = models.scorer.comparisons(batch.chosen, batch.rejected)
        loss = bradley_terry_loss(log_odds, log_odds.new_zeros(()), label_smoothing=self.label_smoothing)
        return loss, {"log_odds": log_odds, "accuracy": (log_odds.sign() + 1) / 2}
