"""Reward models fitted to ratings."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum

from torch import Tensor

from alignzoo.batch import Rated
from alignzoo.contracts import Algorithm, Kind, Models, Role, Search, UserError, require
from alignzoo.functional import rating_cross_entropy, rating_squared_error


class Fit(Enum):
    squared = "squared"  # the score is the rating
    logistic = "logistic"  # the score is its log-odds


@dataclass(kw_only=True)
class RatingRegression(Algorithm):
    """L = (r - z)^2, or L = - z log sigma(r) - (1 - z) log(1 - sigma(r)), where z = (rating - low) / (high - low).

    Squared: as Wang et al. 2024 (HelpSteer2); logistic: as Cobbe et al. 2021, where ratings are 0 or 1.
    """

    data = Rated
    published_rate = 9e-6  # as bradley_terry

    fit: Fit = field(
        default=Fit.squared,
        metadata={"help": "what the score says: the rating, or its log-odds", "search": Search(options=tuple(Fit))},
    )
    low: float = field(default=0.0, metadata={"help": "the lowest rating of the scale"})
    high: float = field(default=1.0, metadata={"help": "the highest rating of the scale"})

    def __post_init__(self) -> None:
        require(self.high > self.low, "algorithm.high", self.high, f"> algorithm.low={self.low}")

    def roles(self) -> Mapping[str, Role]:
        return {"scorer": Role(kind=Kind.SCORER, trained=True, needs=frozenset({"scores"}))}

    def loss(self, models: Models, batch: Rated) -> tuple[Tensor, dict[str, Tensor]]:
        self._check(batch)
        score = models.scorer.scores(batch)
        rating = (batch.rating.to(score.dtype) - self.low) / (self.high - self.low)
        formula = rating_squared_error if self.fit is Fit.squared else rating_cross_entropy
        predicted = score.detach() if self.fit is Fit.squared else score.detach().sigmoid()
        return formula(score, rating), {"score": score, "rating_error": (predicted - rating).abs() * (self.high - self.low)}

    def _check(self, batch: Rated) -> None:
        """Raises UserError for a rating outside the scale."""
        bad = (~((batch.rating >= self.low) & (batch.rating <= self.high))).nonzero()[:, 0]
        if len(bad):
            first = int(bad[0])
            prompt = batch.prompts.text[int(batch.prompt_of[first])]
            raise UserError(
                f"the rating {batch.rating[first].item():g} in row {int(batch.row[first])} (prompt {prompt[:40]!r}) is outside "
                f"the scale, {self.low:g} to {self.high:g}: set algorithm.low and algorithm.high, or mend the row"
            )
