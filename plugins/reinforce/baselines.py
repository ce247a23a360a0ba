"""What REINFORCE may subtract from a return without moving its gradient's expectation."""

from __future__ import annotations

from enum import Enum

import torch
from torch import Tensor

from alignzoo.batch import Completions
from alignzoo.contracts import Models
from alignzoo.functional import leave_one_out, length_weighted_baseline, masked_mean


class Baseline(Enum):
    none = "none"
    mean = "mean"  # of the rollout
    moving_average = "moving_average"  # of past rollouts
    leave_one_out = "leave_one_out"  # of the prompt's other samples: RLOO
    length_weighted = "length_weighted"  # mean of the prompt's samples, by their tokens: OPO
    greedy = "greedy"  # the reward of the greedy completion: ReMax


def baseline(
    kind: Baseline, models: Models, c: Completions, returns: Tensor, usable: Tensor, average: float | None
) -> tuple[Tensor, Tensor]:
    """The baseline (B,) of each completion, and which completions can still be used (B,).

    returns (B,), not read where not `usable` (B,) bool; `average`: that of past rollouts, None at first.
    """
    if kind is Baseline.none:
        return torch.zeros_like(returns), usable
    if kind is Baseline.greedy:
        return _greedy(models, c, usable)
    if kind is Baseline.leave_one_out:
        return leave_one_out(returns, c.prompt_of, usable), usable
    if kind is Baseline.length_weighted:
        return length_weighted_baseline(returns, c.length, c.prompt_of, usable), usable
    if kind is Baseline.moving_average and average is not None:
        return torch.full_like(returns, average), usable
    return masked_mean(returns, usable, models.sum).expand_as(returns), usable


def _greedy(models: Models, c: Completions, usable: Tensor) -> tuple[Tensor, Tensor]:
    greedy = models.policy.generate(c.prompts, models.sampling.greedy())
    scores = models.reward(greedy)
    rewards = greedy.sum(greedy.at_last(scores.total))  # (P,)
    return rewards[c.prompt_of], usable & scores.usable[c.prompt_of]
