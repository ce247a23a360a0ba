"""A literal batch: bigram tables for policy, sampler and reference, pairs of completions, two groups of three with rewards; and
what an algorithm of ours makes of it, as the engine weighs it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from alignzoo.batch import Completions, Pairs, Prompts
from alignzoo.contracts import Algorithm, OnlineAlgorithm
from alignzoo.engine.objective import named_terms, weight_of, weighted_sum, weights_of
from alignzoo.settings import Sampling
from alignzoo.testing.fakes import FakeModels, TablePolicy, completions, constant, prompts

LONGEST = 5  # generation.max_new_tokens, and no completion has as many
NOW = [[0.9, -0.4, 0.3, 0.1], [-0.7, 0.8, 0.2, -0.1], [0.4, 0.6, -0.9, 0.5], [0.2, -0.3, 0.7, -0.6]]
SAMPLER = [[0.5, -0.1, 0.4, 0.0], [-0.2, 0.6, -0.3, 0.1], [0.1, 0.9, -0.5, 0.2], [0.6, -0.8, 0.4, -0.2]]
REFERENCE = [[0.1, 0.2, -0.3, 0.4], [0.3, 0.1, 0.0, -0.4], [-0.2, 0.5, 0.1, 0.3], [0.0, -0.1, 0.2, 0.6]]
CHOSEN, REJECTED = [[0, 2, 1], [3, 0], [1, 1, 2, 0]], [[2, 3], [1, 3, 2, 2], [0]]
SAMPLES = [[0, 1, 2], [3, 1], [2, 0, 3, 1], [1], [0, 0, 2], [3, 2, 1, 1]]
REWARDS = [0.3, 1.4, -0.8, 2.0, 0.5, 0.9]


def tensor(values: list[Any]) -> Tensor:
    return torch.tensor(values, dtype=torch.float64)


@dataclass(frozen=True)
class OnPairs:
    """Of both sides (3, T): log-probs of tokens under policy and reference, and which there are."""

    chosen: Tensor
    rejected: Tensor
    reference_chosen: Tensor
    reference_rejected: Tensor
    tokens_chosen: Tensor
    tokens_rejected: Tensor

    @property
    def ratios(self) -> tuple[Tensor, Tensor]:
        """(3,) each: log pi / ref of whole completions."""
        return (self.chosen - self.reference_chosen).sum(1), (self.rejected - self.reference_rejected).sum(1)

    @property
    def margin(self) -> Tensor:
        chosen, rejected = self.ratios
        return chosen - rejected


@dataclass(frozen=True)
class OnPolicy:
    """Of six completions, three of each of two prompts: log-probs (6, T) now, at sampling and of the reference, 0 where there
    is no token; the tokens (6, T); rewards (6,)."""

    new: Tensor
    old: Tensor
    reference: Tensor
    tokens: Tensor
    rewards: Tensor

    @property
    def ratio(self) -> Tensor:
        return (self.new - self.old).exp()

    @property
    def groups(self) -> Tensor:
        return self.rewards.view(2, 3)


def sampled() -> tuple[Prompts, Completions]:
    of = prompts(1, 2)
    return of, completions(of, [0, 0, 0, 1, 1, 1], SAMPLES)


def pairs() -> Pairs:
    of = prompts(1, 2, 0)
    return Pairs(chosen=completions(of, [0, 1, 2], CHOSEN), rejected=completions(of, [0, 1, 2], REJECTED))


def on_pairs(now: Tensor) -> OnPairs:
    policy, reference, batch = TablePolicy(now), TablePolicy(tensor(REFERENCE)), pairs()
    sides = batch.chosen, batch.rejected
    logprobs = [model.logprobs(side) for model in (policy, reference) for side in sides]
    return OnPairs(*logprobs, *(side.scored.double() for side in sides))


def on_policy(now: Tensor) -> OnPolicy:
    _, c = sampled()
    old, reference = (TablePolicy(tensor(table)).logprobs(c) for table in (SAMPLER, REFERENCE))
    return OnPolicy(TablePolicy(now).logprobs(c), old, reference, c.scored.double(), tensor(REWARDS))


def ours(algorithm: Algorithm, now: Tensor) -> Tensor:
    """The algorithm's objective, (), of the optimizer step that has the batch."""
    batch: Any = pairs()
    models = FakeModels(TablePolicy(now), reference=TablePolicy(tensor(REFERENCE)))
    if isinstance(algorithm, OnlineAlgorithm):
        of, c = sampled()
        models.sampling, models.score = Sampling(samples=3, max_new_tokens=LONGEST), constant(REWARDS)
        models.policy = TablePolicy(tensor(SAMPLER), c)
        with torch.no_grad():
            batch = algorithm.experience(models, of)
        models.policy = TablePolicy(now)
    terms, _ = named_terms(algorithm.loss(models, batch))
    weights = weights_of(algorithm, batch)
    totals = {name: weight.sum() for name, weight in weights.items()}
    parts = [weighted_sum(term, *weight_of(name, term, weights, totals)) for name, term in terms.items()]
    return torch.stack(parts).sum()
