"""Scheduled sampling."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from enum import Enum
from typing import Any

import torch
from torch import Tensor

from alignzoo.batch import Completions
from alignzoo.contracts import Kind, Models, Next, Role, Search, require
from alignzoo.functional import exponential_decay, inverse_sigmoid_decay, linear_decay, selective_log_softmax

from .sft import SFT


class Schedule(Enum):
    linear = "linear"
    exponential = "exponential"
    inverse_sigmoid = "inverse_sigmoid"


class Prediction(Enum):
    likeliest = "likeliest"
    sampled = "sampled"


DECAYS: dict[Schedule, Callable[[float, float], float]] = {
    Schedule.linear: linear_decay, Schedule.exponential: exponential_decay, Schedule.inverse_sigmoid: inverse_sigmoid_decay,
}  # fmt: skip


@dataclass(kw_only=True)
class ScheduledSampling(SFT):
    """L = - 1/N sum_t log pi(y_t | x, z_<t), z_t = y_t with probability e_i, else the prediction after y_<t.

    Bengio et al. 2015, Scheduled sampling for sequence prediction; in two passes, Mihaylova and Martins 2019, Scheduled
    sampling for transformers.
    """

    schedule: Schedule = field(default=Schedule.inverse_sigmoid, metadata={"help": "how e falls with the optimizer steps"})
    pace: float = field(
        default=100.0,
        metadata={
            "help": "how slowly, in steps: see the card for what it is in each schedule",
            "search": Search(10, 1e4, log=True),
        },
    )
    least: float = field(default=0.0, metadata={"help": "e never falls below it", "search": Search(0.0, 0.9)})
    prediction: Prediction = field(
        default=Prediction.likeliest, metadata={"help": "which token stands in for a demonstrated one"}
    )

    def __post_init__(self) -> None:
        require(self.pace > 0, "algorithm.pace", self.pace, "> 0")
        require(0 <= self.least < 1, "algorithm.least", self.least, "in [0, 1): at 1 it is algorithm=sft")
        self.steps = 0

    def roles(self) -> Mapping[str, Role]:
        return {"policy": Role(kind=Kind.POLICY, trained=True, needs=frozenset({"tokens"}))}

    def loss(self, models: Models, batch: Completions) -> tuple[Tensor, dict[str, Tensor]]:
        kept = max(self.least, DECAYS[self.schedule](self.steps, self.pace))
        replaced = batch.scored & (_by_token(models, batch, "replaced") >= kept)
        with torch.no_grad():
            if self.prediction is Prediction.likeliest:
                predicted = models.policy.tokens(batch, _argmax)
            else:
                predicted = models.policy.tokens(batch, _drawn, _by_token(models, batch, "predicted"))
        mixed = replace(batch, ids=torch.where(replaced, predicted, batch.ids), logprobs=None)
        return -models.policy.tokens(mixed, selective_log_softmax, batch.ids), {"replaced": replaced.float()}

    def after_step(self, metrics: Mapping[str, float]) -> Next:
        self.steps += 1
        return Next.CONTINUE

    def state_dict(self) -> dict[str, object]:
        return {"steps": self.steps}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.steps = state["steps"]


def _by_token(models: Models, c: Completions, purpose: str) -> Tensor:
    """(B, T) in [0, 1): one for each scored token, counted from the first of them."""
    uniforms = models.uniform(purpose, c.row, c.ids.shape[1])
    return uniforms.gather(1, (c.scored.cumsum(1) - 1).clamp(min=0))


def _argmax(logits: Tensor) -> Tensor:
    return logits.argmax(-1)


def _drawn(logits: Tensor, uniform: Tensor) -> Tensor:
    """(n,): the token at which the cumulated probabilities pass the uniform."""
    mass = logits.double().softmax(-1).cumsum(-1)
    return torch.searchsorted(mass, uniform[:, None].double() * mass[:, -1:], right=True)[:, 0].clamp(max=logits.shape[-1] - 1)
