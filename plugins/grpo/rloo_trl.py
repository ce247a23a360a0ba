"""RLOO as TRL has it."""

from __future__ import annotations

from dataclasses import dataclass, field

from torch import Tensor

from alignzoo.batch import Completions
from alignzoo.contracts import Models, Scores, Search
from alignzoo.functional import leave_one_out
from alignzoo.kl import FlatKL

from .grouped import Clipped, Grouped


@dataclass(kw_only=True)
class RLOOTRL(Clipped):
    """L = - min(w A, clip(w, 1 - e, 1 + e_high) A), w = pi(y|x) / pi_sampler(y|x), of whole completions.

    A = R - beta (log pi - log ref)(y|x), less the mean of the prompt's others. Ahmadian et al. 2024, Back to basics, as TRL
    1.16's RLOOTrainer has it.
    """

    beta: float = field(
        default=0.05,
        metadata={"help": "weight of the KL in the reward; 0 needs no reference", "search": Search(0.01, 1.0, log=True)},
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        self.kl = FlatKL(beta=self.beta)

    def advantages(self, models: Models, rollout: Grouped, scores: Scores) -> Tensor:
        total = rollout.reward if rollout.kl is None else rollout.reward - self.beta * rollout.kl
        return total - leave_one_out(total, rollout.prompt_of, scores.usable)

    def compared(self, batch: Grouped, logprobs: Tensor) -> tuple[Tensor, Tensor]:
        new, old = (batch.sum(x)[:, None].expand_as(x) for x in (logprobs, batch.old_logprobs))
        return new, old

    def averaged(self, c: Completions, loss: Tensor, longest: int) -> Tensor:
        return c.mean(loss)
