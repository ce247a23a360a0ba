"""REINFORCE++ with the group's mean as baseline."""

from __future__ import annotations

from dataclasses import dataclass, field

from torch import Tensor

from alignzoo.batch import Completions
from alignzoo.contracts import Models, Scores, Search
from alignzoo.functional import group_advantages, whiten
from alignzoo.kl import Estimator, FlatKL, Place

from .grouped import Clipped, Grouped


@dataclass(kw_only=True)
class ReinforcePPBaseline(Clipped):
    """PPO's surrogate + beta k2, with A = R - mean R over the prompt's samples, normalised over the tokens of the rollout.

    Hu et al. 2025, REINFORCE++: stabilizing critic-free policy optimization with global normalization.
    """

    beta: float = field(
        default=0.01,
        metadata={"help": "weight of the KL in the loss; 0 needs no reference", "search": Search(0.001, 1.0, log=True)},
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        self.kl = FlatKL(beta=self.beta, place=Place.loss, estimator=Estimator.k2)

    def advantages(self, models: Models, rollout: Grouped, scores: Scores) -> Tensor:
        above = group_advantages(rollout.reward, rollout.prompt_of, scores.usable, scale=False)
        tokens = rollout.scored & scores.usable[:, None]
        return whiten(above[:, None].expand(tokens.shape), tokens, models.sum)

    def penalty(self, logprobs: Tensor, reference: Tensor, ratio: Tensor) -> Tensor:
        return self.kl.penalty(logprobs, reference)

    def averaged(self, c: Completions, loss: Tensor, longest: int) -> Tensor:
        return loss
