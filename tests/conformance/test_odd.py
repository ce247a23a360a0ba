"""Algorithms that are odd but correct raise no false alarm."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar

import pytest
import torch
from torch import Tensor

from alignzoo.batch import Batch, Completions, Pairs, Prompts, Rated
from alignzoo.contracts import EMA, Algorithm, Couples, Kind, LearningReward, OnlineAlgorithm, Reward, Role, Scores
from alignzoo.functional import dpo_loss, leave_one_out
from alignzoo.testing import conformance
from alignzoo.testing.conformance import Part, Subject

POLICY = Role(kind=Kind.POLICY, trained=True)
REFERENCE = Role(kind=Kind.POLICY, start="reference")
REWARD = Role(kind=Kind.REWARD)


@dataclass(kw_only=True)
class Shared(Algorithm):
    """Coupled over the step: the margin of all is subtracted, as KTO's z0 is."""

    data = Pairs
    couples = Couples.STEP
    beta: float = field(default=0.1, metadata={"help": "strength"})

    def roles(self) -> Mapping[str, Role]:
        return {"policy": POLICY, "reference": REFERENCE}

    def margin(self, models, batch):
        both = batch.both
        chosen, rejected = both.sum(models.policy.logprobs(both) - models.reference.logprobs(both)).chunk(2)
        return chosen - rejected

    def prepare(self, models, batches):
        margins = torch.cat([self.margin(models, batch)[batch.counted > 0] for batch in batches])
        return [Centred(**vars(batch), centre=margins.mean().expand(len(batch))) for batch in batches]

    def loss(self, models, batch):
        margin = self.margin(models, batch)
        return -torch.nn.functional.logsigmoid(self.beta * (margin - batch.centre)), {"margin": margin}


@dataclass(frozen=True, eq=False, kw_only=True)
class Centred(Pairs):
    centre: Tensor


@dataclass(kw_only=True)
class TwoTerms(Algorithm):
    """One term a pair and one a token, each with its own weights: RPO."""

    data = Pairs
    alpha: float = field(default=0.5, metadata={"help": "weight of the likelihood"})

    def roles(self) -> Mapping[str, Role]:
        return {"policy": POLICY, "reference": REFERENCE}

    def loss(self, models, batch):
        both = batch.both
        logprobs = models.policy.logprobs(both)
        chosen, rejected = both.sum(logprobs - models.reference.logprobs(both)).chunk(2)
        likelihood = -self.alpha * models.policy.logprobs(batch.chosen)
        return {"preference": dpo_loss(chosen, rejected, 0.1), "likelihood": likelihood}, {}

    def weights(self, batch):
        return {"likelihood": batch.chosen.scored.float()}


@dataclass(kw_only=True)
class NoReference(Algorithm):
    """SimPO: averages over tokens, and no reference."""

    data = Pairs
    gamma: float = field(default=0.5, metadata={"help": "margin aimed at"})

    def roles(self) -> Mapping[str, Role]:
        return {"policy": POLICY}

    def loss(self, models, batch):
        both = batch.both
        chosen, rejected = both.mean(models.policy.logprobs(both)).chunk(2)
        return -torch.nn.functional.logsigmoid(2 * (chosen - rejected) - self.gamma), {}


@dataclass(kw_only=True)
class Winners(OnlineAlgorithm):
    """A variable number of records: what is better than the mean of the prompt's others is learned, the rest is dropped."""

    data = Prompts

    def roles(self) -> Mapping[str, Role]:
        return {"policy": POLICY, "reward": REWARD}

    def least_samples(self) -> int:
        return 2

    def experience(self, models, batch):
        c = models.policy.generate(batch, models.sampling)
        scores = models.reward(c)
        return c.take(scores.usable & (scores.total > leave_one_out(scores.total, c.prompt_of, scores.usable)))

    def loss(self, models, batch):
        return -batch.mean(models.policy.logprobs(batch)), {}


@dataclass(kw_only=True)
class Contrast(Algorithm):
    """Coupled over the micro-batch: each completion against those of all other prompts."""

    data = Completions
    couples = Couples.MICROBATCH

    def roles(self) -> Mapping[str, Role]:
        return {"policy": POLICY}

    def loss(self, models, batch):
        score = batch.mean(models.policy.logprobs(batch))
        others = torch.where(batch.counted > 0, score, -torch.inf)
        return torch.logsumexp(others, 0) - 2 * score, {}


@dataclass(frozen=True, eq=False, kw_only=True)
class Graded(Completions):
    """Records of its own, made by `collate` from the data's columns."""

    grade: Tensor
    examples: ClassVar[list[dict[str, Any]]] = [
        {"prompt": f"{i} + 1 =", "completion": f" {i + 1}", "grade": 1.0 + i % 3} for i in range(24)
    ]

    @classmethod
    def collate(cls, rows, encoder):
        made = encoder_completions(rows, encoder)
        return cls(**vars(made), grade=torch.tensor([float(row.columns["grade"]) for row in rows]))


def encoder_completions(rows, encoder):
    """Prompts and completions as token ids."""
    tokenizer = encoder.tokenizer
    prompts = [tokenizer.encode(row["prompt"], add_special_tokens=False) for row in rows]
    texts = [[*tokenizer.encode(row["completion"], add_special_tokens=False), tokenizer.eos_token_id] for row in rows]
    left, width = max(map(len, prompts)), max(map(len, texts))
    attended = torch.tensor([[i < len(text) for i in range(width)] for text in texts])
    numbers = torch.arange(len(rows))
    return Completions(
        prompts=Prompts(
            ids=torch.tensor([[0] * (left - len(p)) + p for p in prompts]),
            attended=torch.tensor([[i >= left - len(p) for i in range(left)] for p in prompts]), row=numbers,
        ),
        prompt_of=numbers, ids=torch.tensor([text + [0] * (width - len(text)) for text in texts]), attended=attended,
        scored=attended.clone(), truncated=torch.zeros(len(rows), dtype=torch.bool), row=numbers,
    )  # fmt: skip


@dataclass(kw_only=True)
class ByGrade(Algorithm):
    """Its own record type."""

    data = Graded

    def roles(self) -> Mapping[str, Role]:
        return {"policy": POLICY}

    def loss(self, models, batch):
        return -batch.grade * batch.mean(models.policy.logprobs(batch)), {}


@dataclass(kw_only=True)
class Following(Algorithm):
    """A reference that follows the policy."""

    data = Pairs
    decay: float = field(default=0.9, metadata={"help": "of the moving average"})

    def roles(self) -> Mapping[str, Role]:
        return {"policy": POLICY, "anchor": Role(kind=Kind.POLICY, follows=EMA(self.decay))}

    def loss(self, models, batch):
        both = batch.both
        chosen, rejected = both.sum(models.policy.logprobs(both) - models.anchor.logprobs(both)).chunk(2)
        return dpo_loss(chosen, rejected, 0.1), {}


@dataclass(kw_only=True)
class Weighted(Algorithm):
    """A term a sequence, with weights of its own: longer completions count more."""

    data = Completions

    def roles(self) -> Mapping[str, Role]:
        return {"policy": POLICY}

    def loss(self, models, batch):
        return -batch.mean(models.policy.logprobs(batch)), {}

    def weights(self, batch):
        return {"loss": batch.counted * batch.length**0.5}


@dataclass(frozen=True, eq=False, kw_only=True)
class Rewarded(Completions):
    rewards: Tensor  # (B, T)


@dataclass(kw_only=True)
class TokenRewards(OnlineAlgorithm):
    """A reward a token, weighed by what is still to come."""

    data = Prompts

    def roles(self) -> Mapping[str, Role]:
        return {"policy": POLICY, "reward": REWARD}

    def experience(self, models, batch):
        c = models.policy.generate(batch, models.sampling)
        scores = models.reward(c)
        return Rewarded(**vars(c), rewards=c.at_last(scores.total)).take(scores.usable)

    def loss(self, models, batch):
        togo = batch.rewards.flip(1).cumsum(1).flip(1)
        return -togo * models.policy.logprobs(batch), {}


@dataclass(kw_only=True)
class Silenced(OnlineAlgorithm):
    """No reward at all: it learns to imitate its own greedy answers."""

    data = Prompts
    needs_logprobs_of_samples = False

    def roles(self) -> Mapping[str, Role]:
        return {"policy": POLICY}

    def experience(self, models, batch):
        return replace(models.policy.generate(batch, models.sampling.greedy()), logprobs=None)

    def loss(self, models, batch):
        return -batch.mean(models.policy.logprobs(batch)), {}


@dataclass(kw_only=True)
class BetterOfTwo(OnlineAlgorithm):
    """Pairs of its own samples, each half of which has its reward in a call of its own; DPO on them."""

    data = Prompts

    def roles(self) -> Mapping[str, Role]:
        return {"policy": POLICY, "reference": REFERENCE, "reward": REWARD}

    def experience(self, models, batch):
        c = models.policy.generate(batch, replace(models.sampling, samples=2))
        first, second = c.take(list(range(0, len(c), 2))), c.take(list(range(1, len(c), 2)))
        a, b = models.reward(first), models.reward(second)
        better = torch.where(a.total >= b.total, 0, len(first)) + torch.arange(len(first), device=c.ids.device)
        both = Completions.cat([first, second])
        worse = (better + len(first)) % len(both)
        return Pairs(chosen=both.take(better), rejected=both.take(worse)).take(a.usable & b.usable)

    def loss(self, models, batch):
        both = batch.both
        chosen, rejected = both.sum(models.policy.logprobs(both) - models.reference.logprobs(both)).chunk(2)
        return dpo_loss(chosen, rejected, 0.1), {}


@dataclass(kw_only=True)
class RubbishWhereNothingIsScored(Algorithm):
    """What stands where the weight is 0 is of other records."""

    data = Completions

    def roles(self) -> Mapping[str, Role]:
        return {"policy": POLICY}

    def loss(self, models, batch):
        logprobs = models.policy.logprobs(batch)
        return torch.where(batch.scored, -logprobs, logprobs.detach().mean()), {}


@dataclass(kw_only=True)
class Hinge(Algorithm):
    """SLiC: its gradient does not know how far a pair is from the hinge."""

    data = Pairs

    def roles(self) -> Mapping[str, Role]:
        return {"policy": POLICY, "reference": REFERENCE}

    def loss(self, models, batch):
        both = batch.both
        chosen, rejected = both.sum(models.policy.logprobs(both) - models.reference.logprobs(both)).chunk(2)
        return (1 - 0.1 * (chosen - rejected)).clamp(min=0), {}


@dataclass(kw_only=True)
class Consistent(Algorithm):
    """One squared error trains policy and value: DRO (Richemond et al. 2024)."""

    data = Rated

    def roles(self) -> Mapping[str, Role]:
        value = Role(kind=Kind.VALUE, trained=True, needs=frozenset({"values"}))
        return {"policy": POLICY, "reference": REFERENCE, "value": value}

    def loss(self, models, batch):
        ratio = batch.sum(models.policy.logprobs(batch) - models.reference.logprobs(batch))
        first = batch.scored & (batch.scored.cumsum(1) == 1)
        value = models.value.values(batch).where(first, 0).sum(1)
        return (batch.rating - value - 0.5 * ratio) ** 2, {}


@dataclass(kw_only=True)
class Watched(Algorithm):
    """The reference is for a metric alone."""

    data = Completions

    def roles(self) -> Mapping[str, Role]:
        return {"policy": POLICY, "reference": REFERENCE}

    def loss(self, models, batch):
        logprobs = models.policy.logprobs(batch)
        return -logprobs, {"share": 0.5, "kl": batch.sum(logprobs - models.reference.logprobs(batch))}


@dataclass(kw_only=True)
class ScoredByRegression(Algorithm):
    """A scorer whose first step raises all scores."""

    data = Rated

    def roles(self) -> Mapping[str, Role]:
        return {"scorer": Role(kind=Kind.SCORER, trained=True, needs=frozenset({"scores"}))}

    def loss(self, models, batch):
        return (models.scorer.scores(batch) - batch.rating - 3) ** 2, {}


ODD: list[Algorithm] = [
    Shared(), TwoTerms(), NoReference(), Winners(), Contrast(), ByGrade(), Following(), Weighted(), TokenRewards(), Silenced(),
    BetterOfTwo(), RubbishWhereNothingIsScored(), Hinge(), Consistent(), Watched(), ScoredByRegression(),
]  # fmt: skip


@pytest.mark.parametrize("algorithm", ODD, ids=lambda a: type(a).__name__)
def test_odd_but_correct(algorithm: Algorithm, tmp_path):
    subject = Subject("odd", algorithm, tmp_path)
    failures = {r.property.name: str(r.failure) for r in conformance.run(subject) if r.failure}
    assert failures == {}
    assert issubclass(algorithm.data, Batch)


@dataclass(kw_only=True)
class Discriminator(LearningReward):
    """A reward that learns: it tells samples by a score, and is trained towards giving none."""

    def roles(self) -> Mapping[str, Role]:
        return {"judge": Role(kind=Kind.SCORER, trained=True, needs=frozenset({"scores"}))}

    def setup(self, context) -> None:
        self.models = context.models

    def __call__(self, c: Completions) -> Scores:
        return Scores(total=self.models.judge.scores(c))

    def loss(self, models, batch):
        return (models.judge.scores(batch) - 1) ** 2, {}


@dataclass(kw_only=True)
class EachToken(Reward):
    """A score a token."""

    def __call__(self, c: Completions) -> Scores:
        return Scores(total=torch.where(c.scored, (c.ids % 2).float(), 0))


@pytest.mark.parametrize("reward", [Discriminator(), EachToken()], ids=lambda r: type(r).__name__)
def test_odd_rewards(reward: Reward, tmp_path):
    part = Part("odd", "reward", reward, tmp_path)
    found = {prop.name: conformance.failure(prop, part) for prop in conformance.asked(part, ["composes"])}
    assert {name: str(failure) for name, failure in found.items() if failure} == {}
    assert {"learns", "padding", "state"} <= set(found)
