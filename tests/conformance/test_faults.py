"""The suite can fail: algorithms with one planted fault each, caught by the property meant for it, with its likely cause.

The same algorithms without the fault have every property.
"""

from __future__ import annotations

import random
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import pytest
import torch
from torch import Tensor

from alignzoo.batch import Completions, Pairs, Prompts
from alignzoo.contracts import Algorithm, Couples, Kind, OnlineAlgorithm, Role, Search, require
from alignzoo.functional import dpo_loss, whiten
from alignzoo.settings import UserError
from alignzoo.testing import conformance, toys
from alignzoo.testing.conformance import Broken, Subject
from alignzoo.testing.expect import RepeatedFailure
from alignzoo.testing.toys import EOS

POLICY = Role(kind=Kind.POLICY, trained=True)
REFERENCE = Role(kind=Kind.POLICY, start="reference")
BY_NAME = {prop.name: prop for prop in conformance.PROPERTIES}


@dataclass(kw_only=True)
class Likelihood(Algorithm):
    """Sound: the mean log-likelihood of each completion, of a scale that matters."""

    data = Completions
    scale: float = field(default=1.0, metadata={"help": "of the loss"})

    def roles(self) -> Mapping[str, Role]:
        return {"policy": POLICY}

    def loss(self, models, batch):
        return -self.scale * batch.mean(models.policy.logprobs(batch)), {}


@dataclass(frozen=True, eq=False, kw_only=True)
class Moments(Completions):
    centre: Tensor
    spread: Tensor


@dataclass(kw_only=True)
class Whitened(Likelihood):
    """Sound: records coupled over the step, through `prepare`; blank ones left out."""

    couples = Couples.STEP

    def prepare(self, models, batches):
        sums = torch.cat([batch.sum(models.policy.logprobs(batch)) for batch in batches])
        sums = sums[torch.cat([batch.counted for batch in batches]) > 0]
        centre, spread = sums.mean(), sums.std(correction=0) + 1e-3
        return [Moments(**vars(b), centre=centre.expand(len(b)), spread=spread.expand(len(b))) for b in batches]

    def loss(self, models, batch):
        sums = batch.sum(models.policy.logprobs(batch))
        return self.scale * ((sums - batch.centre) / batch.spread - 1) ** 2, {}


@dataclass(kw_only=True)
class Preferring(Algorithm):
    """Sound: DPO."""

    data = Pairs
    beta: float = field(default=0.1, metadata={"help": "strength"})

    def roles(self) -> Mapping[str, Role]:
        return {"policy": POLICY, "reference": REFERENCE}

    def log_ratio(self, models, both):
        return both.sum(models.policy.logprobs(both) - models.reference.logprobs(both))

    def loss(self, models, batch):
        chosen, rejected = self.log_ratio(models, batch.both).chunk(2)
        return dpo_loss(chosen, rejected, self.beta), {}


@dataclass(frozen=True, eq=False, kw_only=True)
class Scored(Completions):
    advantage: Tensor
    reward: Tensor
    kl: Tensor


@dataclass(kw_only=True)
class Averaging(OnlineAlgorithm):
    """Sound: REINFORCE with a running mean of all rewards so far as baseline."""

    data = Prompts
    beta: float = field(default=0.5, metadata={"help": "weight of the KL"})

    def __post_init__(self) -> None:
        self.total, self.count = 0.0, 0.0

    def roles(self) -> Mapping[str, Role]:
        return {"policy": POLICY, "reference": REFERENCE, "reward": Role(kind=Kind.REWARD)}

    def sampled(self, models, prompts):
        return models.policy.generate(prompts, models.sampling)

    def kl(self, models, c):
        return c.sum(models.policy.logprobs(c) - models.reference.logprobs(c))

    def penalised(self, reward, kl):
        return reward - self.beta * kl

    def kept(self, scores):
        return scores.usable

    def experience(self, models, batch):
        c = self.sampled(models, batch)
        scores, kl = models.reward(c), self.kl(models, c)
        reward = scores.total
        advantage = self.penalised(reward, kl) - self.total / max(self.count, 1.0)
        return Scored(**vars(c), advantage=advantage, reward=reward, kl=kl).take(self.kept(scores))

    def loss(self, models, batch):
        return -batch.advantage * batch.sum(models.policy.logprobs(batch)), {}

    def after_rollout(self, metrics):
        self.total, self.count = self.total + metrics["reward"] * metrics["samples"], self.count + metrics["samples"]

    def state_dict(self):
        return {"total": self.total, "count": self.count}

    def load_state_dict(self, state):
        self.total, self.count = state["total"], state["count"]


@dataclass(frozen=True, eq=False, kw_only=True)
class Judged(Completions):
    returns: Tensor
    advantages: Tensor


@dataclass(kw_only=True)
class Critic(OnlineAlgorithm):
    """Sound: REINFORCE with a value of each token as baseline, all in one term."""

    data = Prompts

    def roles(self) -> Mapping[str, Role]:
        value = Role(kind=Kind.VALUE, trained=True, needs=frozenset({"values"}))
        return {"policy": POLICY, "value": value, "reward": Role(kind=Kind.REWARD)}

    def rewards(self, c, total):
        return c.at_last(total)

    def experience(self, models, batch):
        c = models.policy.generate(batch, models.sampling)
        scores = models.reward(c)
        returns = c.sum(self.rewards(c, scores.total))[:, None].expand(c.ids.shape)
        return Judged(**vars(c), returns=returns, advantages=returns - models.value.values(c)).take(scores.usable)

    def advantages(self, batch, values):
        return batch.advantages

    def loss(self, models, batch):
        values = models.value.values(batch)
        policy = -self.advantages(batch, values) * models.policy.logprobs(batch)
        return policy + 0.5 * (values - batch.returns) ** 2, {}


SOUND = [Likelihood(), Whitened(), Preferring(), Averaging(), Critic()]


@pytest.mark.parametrize("algorithm", SOUND, ids=lambda a: type(a).__name__)
def test_sound_algorithms_have_every_property(algorithm, tmp_path):
    failures = [result.failure for result in conformance.run(Subject("sound", algorithm, tmp_path)) if result.failure]
    assert failures == []


# --- one fault each; the bases are sound ---


@dataclass(kw_only=True)
class MaskForgotten(Likelihood):
    def loss(self, models, batch):
        return -self.scale * models.policy.logprobs(batch).mean(1), {}


@dataclass(kw_only=True)
class MeanInside(Likelihood):
    def loss(self, models, batch):
        return -self.scale * batch.mean(models.policy.logprobs(batch)).mean(), {}


@dataclass(kw_only=True)
class MetricsForgotten(Likelihood):
    def loss(self, models, batch):
        return super().loss(models, batch)[0]


@dataclass(kw_only=True)
class MetricInWords(Likelihood):
    def loss(self, models, batch):
        return super().loss(models, batch)[0], {"state": "good"}


@dataclass(kw_only=True)
class WrongCoupling(Likelihood):
    def loss(self, models, batch):
        sums = batch.sum(models.policy.logprobs(batch))
        return self.scale * (whiten(sums, batch.counted > 0, epsilon=1e-3) - 1) ** 2, {}


@dataclass(kw_only=True)
class Neighbours(Whitened):
    def loss(self, models, batch):
        sums = batch.sum(models.policy.logprobs(batch))
        return self.scale * (sums - sums.roll(1)) ** 2, {}


@dataclass(kw_only=True)
class OffByOne(Likelihood):
    def loss(self, models, batch):
        logprobs = models.policy.logprobs(batch)
        return -self.scale * torch.where(batch.scored[:, 1:], logprobs[:, :-1], 0).sum(1), {}


@dataclass(kw_only=True)
class LabelsShifted(Likelihood):
    def loss(self, models, batch):
        return super().loss(models, replace(batch, ids=batch.ids.roll(-1, 1)))


@dataclass(kw_only=True)
class AttendedCounted(Likelihood):
    def loss(self, models, batch):
        return -self.scale * batch.sum(models.policy.logprobs(batch)) / batch.attended.sum(1).clamp(min=1), {}


@dataclass(kw_only=True)
class BlankCounted(Likelihood):
    def weights(self, batch):
        return {"loss": torch.ones(len(batch))}


@dataclass(kw_only=True)
class DividedByNothing(Whitened):
    def prepare(self, models, batches):
        means = torch.cat([batch.sum(models.policy.logprobs(batch)) / batch.length for batch in batches])
        return [Moments(**vars(b), centre=means.mean().expand(len(b)), spread=torch.ones(len(b))) for b in batches]


@dataclass(kw_only=True)
class Mutating(Likelihood):
    def loss(self, models, batch):
        batch.scored[:, -1] = False
        return super().loss(models, batch)


@dataclass(kw_only=True)
class GlobalRandomness(Likelihood):
    def loss(self, models, batch):
        loss, metrics = super().loss(models, batch)
        return loss * (1 + 1e-9 * torch.rand(len(batch))), metrics


@dataclass(kw_only=True)
class IgnoredField(Likelihood):
    margin: float = field(default=0.5, metadata={"help": "does nothing"})


@dataclass(kw_only=True)
class Refused(Likelihood):
    """A field that is refused at the default, and matters nowhere else either."""

    bounded: bool = field(default=False, metadata={"help": "doubles the scale"})
    bound: float = field(default=1.0, metadata={"help": "does nothing"})

    def __post_init__(self) -> None:
        self.scale = self.scale * 2 if self.bounded else self.scale
        if self.bound != 1.0 and not self.bounded:
            raise UserError("algorithm.bound needs algorithm.bounded=true")


@dataclass(kw_only=True)
class Silent(Likelihood):
    scale: float = 1.0


@dataclass(kw_only=True)
class DefaultOutside(Likelihood):
    scale: float = field(default=1.0, metadata={"help": "of the loss", "search": Search(2.0, 8.0)})


@dataclass(kw_only=True)
class EndRefused(Likelihood):
    scale: float = field(default=1.0, metadata={"help": "of the loss", "search": Search(0.0, 2.0)})

    def __post_init__(self) -> None:
        require(self.scale > 0, "algorithm.scale", self.scale, "> 0")


@dataclass(kw_only=True)
class HalfAPass(Likelihood):
    repeats: int = field(default=1, metadata={"help": "whole numbers alone", "search": Search(0.5, 2)})


@dataclass(kw_only=True)
class ReferenceLearns(Preferring):
    def log_ratio(self, models, both):
        return both.sum(models.policy.logprobs(both) - models.reference.view(frozen=False).logprobs(both))


@dataclass(kw_only=True)
class Unlearned(Likelihood):
    def roles(self) -> Mapping[str, Role]:
        return {"policy": POLICY, "value": Role(kind=Kind.VALUE, trained=True, needs=frozenset({"values"}))}


@dataclass(kw_only=True)
class Misspelt(Likelihood):
    def roles(self) -> Mapping[str, Role]:
        return {"policy": replace(POLICY, needs=frozenset({"logprob"}))}


@dataclass(kw_only=True)
class WrongSign(Likelihood):
    def loss(self, models, batch):
        return self.scale * batch.mean(models.policy.logprobs(batch)), {}


@dataclass(kw_only=True)
class PreferenceReversed(Preferring):
    def log_ratio(self, models, both):
        return -super().log_ratio(models, both)


@dataclass(kw_only=True)
class SaidToLeadAway(Preferring):
    leads_away = "it does not"


@dataclass(kw_only=True)
class SaidToLeaveOut(Likelihood):
    leaves_out = "it does not"


@dataclass(kw_only=True)
class RewardReversed(Averaging):
    def loss(self, models, batch):
        return batch.advantage * batch.sum(models.policy.logprobs(batch)), {}


@dataclass(kw_only=True)
class SumForTokens(Likelihood):
    def weights(self, batch):
        return {"loss": batch.scored.float()}

    def loss(self, models, batch):
        return -self.scale * batch.sum(models.policy.logprobs(batch)), {}


@dataclass(kw_only=True)
class OldNotDetached(Averaging):
    """The ratio to log-probs that carry gradient is constant."""

    def loss(self, models, batch):
        logprobs = batch.sum(models.policy.logprobs(batch))
        return -batch.advantage * (logprobs - logprobs).exp(), {}


@dataclass(kw_only=True)
class OldNotDetachedButEntropy(Averaging):
    """The same beside a term that has a gradient."""

    def loss(self, models, batch):
        logprobs = batch.sum(models.policy.logprobs(batch))
        entropy = batch.mean(models.policy.entropy(batch))
        return -batch.advantage * (logprobs - logprobs).exp() - 0.01 * entropy, {}


@dataclass(kw_only=True)
class AcrossGroups(Averaging):
    """Claims to compare the completions of a prompt, and compares with all."""

    def least_samples(self) -> int:
        return 2

    def experience(self, models, batch):
        made = super().experience(models, batch)
        return replace(made, advantage=made.reward - made.reward.mean())


@dataclass(kw_only=True)
class WrongGroups(AcrossGroups):
    """Samples first, prompts second: the groups are not those of the prompts."""

    def experience(self, models, batch):
        made = super().experience(models, batch)
        by_sample = made.reward.view(models.sampling.samples, -1)
        return replace(made, advantage=(by_sample - by_sample.mean(0)).flatten())


@dataclass(kw_only=True)
class SinglePrecision(Likelihood):
    def loss(self, models, batch):
        return -self.scale * batch.mean(models.policy.logprobs(batch).float()), {}


@dataclass(kw_only=True)
class OnTheCPU(Likelihood):
    def loss(self, models, batch):
        return super().loss(models, batch)[0] * torch.ones(len(batch)), {}


@dataclass(kw_only=True)
class MovedToTheCPU(Likelihood):
    def loss(self, models, batch):
        return super().loss(models, batch)[0].cpu(), {}


@dataclass(kw_only=True)
class SpreadOfTokens(Likelihood):
    """NaN for a completion of EOS alone."""

    def loss(self, models, batch):
        logprobs = models.policy.logprobs(batch)
        variance = batch.sum((logprobs - batch.mean(logprobs)[:, None]) ** 2) / (batch.length - 1)
        return variance - self.scale * batch.mean(logprobs), {}


@dataclass(kw_only=True)
class PythonRandomness(Likelihood):
    def loss(self, models, batch):
        return super().loss(models, batch)[0] * (1 + 1e-6 * random.random()), {}


@dataclass(kw_only=True)
class OwnRandomness(Likelihood):
    """A generator of its own: no global stream moves, yet nothing can be repeated."""

    def loss(self, models, batch):
        return super().loss(models, batch)[0] * (1 + 1e-3 * random.SystemRandom().random()), {}


@dataclass(kw_only=True)
class OneByOne(Likelihood):
    """A forward for each record."""

    def loss(self, models, batch):
        rows = [batch.take([row]) for row in range(len(batch))]
        return torch.cat([super(OneByOne, self).loss(models, row)[0] for row in rows]), {}


@dataclass(kw_only=True)
class EveryPair(Likelihood):
    """A tensor over all pairs of tokens of all pairs of records."""

    def loss(self, models, batch):
        logprobs = models.policy.logprobs(batch)
        pairs = logprobs[:, :, None, None] - logprobs
        return super().loss(models, batch)[0] + 0 * (pairs[..., None] * pairs.new_ones(1024)).sum((1, 2, 3, 4)), {}


@dataclass(kw_only=True)
class StateForgotten(Averaging):
    def state_dict(self):
        return {}

    def load_state_dict(self, state):
        pass


@dataclass(kw_only=True)
class StateNotRestored(Averaging):
    def load_state_dict(self, state):
        self.total = state["total"]


@dataclass(kw_only=True)
class StateUnused(Averaging):
    def state_dict(self):
        return super().state_dict() | {"rollouts": 3}


@dataclass(kw_only=True)
class RandomByPlace(Averaging):
    def sampled(self, models, prompts):
        return models.policy.generate(replace(prompts, row=torch.arange(len(prompts))), models.sampling)


@dataclass(kw_only=True)
class KLOfOtherTokens(Averaging):
    def kl(self, models, c):
        shifted = replace(c, ids=torch.where(c.ids > 3, c.ids - 1, c.ids), logprobs=None)
        return c.sum(models.policy.logprobs(c) - models.reference.logprobs(shifted))


@dataclass(kw_only=True)
class OtherSidesReference(Preferring):
    """Chosen is compared with what the reference makes of rejected."""

    def log_ratio(self, models, both):
        return both.sum(models.policy.logprobs(both)) - both.sum(models.reference.logprobs(both)).roll(len(both) // 2)


@dataclass(kw_only=True)
class ReferenceOfOtherTokens(Preferring):
    """No metric tells of it."""

    def log_ratio(self, models, both):
        shifted = replace(both, ids=torch.where(both.ids > 3, both.ids - 1, both.ids))
        return both.sum(models.policy.logprobs(both) - models.reference.logprobs(shifted))


@dataclass(kw_only=True)
class K1AsLoss(Averaging):
    def penalised(self, reward, kl):
        return reward

    def loss(self, models, batch):
        return super().loss(models, batch)[0] + self.beta * self.kl(models, batch), {}


@dataclass(kw_only=True)
class KLRewarded(Averaging):
    def penalised(self, reward, kl):
        return reward + self.beta * kl


@dataclass(kw_only=True)
class EOSLeftOut(Likelihood):
    def loss(self, models, batch):
        return super().loss(models, replace(batch, scored=batch.scored & ((batch.ids != EOS) | (batch.length[:, None] < 2))))


@dataclass(kw_only=True)
class FirstLeftOut(Preferring):
    def log_ratio(self, models, both):
        ratio = models.policy.logprobs(both) - models.reference.logprobs(both)
        return both.sum(ratio) - torch.where(both.length > 1, both.sum(ratio.where(both.scored.cumsum(1) == 1, 0)), 0)


@dataclass(kw_only=True)
class TemperatureIgnored(Averaging):
    def loss(self, models, batch):
        with models.policy.shared.at(1.0):
            return super().loss(models, batch)


@dataclass(kw_only=True)
class SampledAtAnother(Averaging):
    """What is sampled at one temperature is learned at another."""

    def sampled(self, models, prompts):
        with models.policy.shared.at(0.2):
            return super().sampled(models, prompts)


@dataclass(kw_only=True)
class FailedUsed(Averaging):
    def kept(self, scores):
        return torch.ones_like(scores.usable)


@dataclass(kw_only=True)
class RewardLate(Critic):
    """At the end of the row where a completion is of full length, else on the token after its last."""

    def rewards(self, c, total):
        place = c.length.long().clamp(max=c.ids.shape[1] - 1)
        return torch.zeros_like(c.ids, dtype=total.dtype).scatter(1, place[:, None], total[:, None])


@dataclass(kw_only=True)
class ValueInAdvantage(Critic):
    """The policy's term trains the value to make the advantages small where samples are unlikely."""

    def advantages(self, batch, values):
        return batch.returns - values


@dataclass(kw_only=True)
class Embedding(Algorithm):
    data = Completions

    def roles(self) -> Mapping[str, Role]:
        return {"embedder": Role(kind=Kind.EMBEDDER, trained=True, needs=frozenset({"embed"}))}

    def loss(self, models, batch):
        return models.embedder.embed(batch).pow(2).sum(1), {}


FAULTS = [
    (MaskForgotten, "padding", "a mask is missing"),
    (MeanInside, "shapes", r"one number, a mean or sum: return one a record, \(B,\), or a token"),
    (MetricsForgotten, "shapes", r"`loss` returned Tensor: return the loss and a dict of metrics, as in `return loss, \{\}`"),
    (MetricInWords, "shapes", "`loss` returned a str as 'state': return a tensor"),
    (WrongCoupling, "rows_alone", r"declare couples = Couples\.STEP"),
    (WrongCoupling, "accumulation", "records coupled over the micro-batch"),
    (Neighbours, "order", "relates a record to its neighbour"),
    (OffByOne, "single_tokens", "off by one"),
    (LabelsShifted, "padding", "loss when padding"),
    (AttendedCounted, "context_only", "`attended` is used where `scored` is meant"),
    (BlankCounted, "nothing_scored", r"multiply by `batch\.counted`"),
    (DividedByNothing, "nothing_scored", r"use `c\.mean`"),
    (Mutating, "unchanged", "`loss` to leave its records alone; found scored changed"),
    (GlobalRandomness, "random_streams", "found one from torch"),
    (IgnoredField, "hyperparameters", "margin to matter"),
    (Refused, "hyperparameters", "bound to matter beside some other choice"),
    (DefaultOutside, "search_spaces", r"the default of scale to lie in its range, 2 to 8; found 1\.0"),
    (EndRefused, "search_spaces", r"scale to take every value of its range, 0 to 2; found \[0\.0\] refused"),
    (HalfAPass, "search_spaces", r"found \[0\.5\] refused"),
    (Silent, "help_texts", "none for scale"),
    (ReferenceLearns, "gradients", "no gradient in reference; found one"),
    (Unlearned, "gradients", "`loss` does not use value"),
    (Unlearned, "trains", "value to learn"),
    (Misspelt, "roles", "a misspelt need"),
    (WrongSign, "direction", "the sign of the loss is wrong"),
    (PreferenceReversed, "direction", "a cosine of -1.000"),
    (SaidToLeadAway, "direction", "`leads_away` is not true"),
    (SaidToLeaveOut, "every_token", "`leaves_out` is not true"),
    (RewardReversed, "direction", "a step towards what is better"),
    (SumForTokens, "shapes", r"has shape \(8,\), its weights \(8, \d\): return one value a record"),
    (OldNotDetached, "gradients", "old log-probs are to be detached"),
    (OldNotDetachedButEntropy, "direction", "log-probs meant as constants not detached"),
    (AcrossGroups, "groups", "an advantage is computed across groups"),
    (WrongGroups, "samples", "relates prompts by their place"),
    (WrongGroups, "groups", "an advantage is computed across groups"),
    (SinglePrecision, "dtype", "a dtype is hard-coded"),
    (OnTheCPU, "device", r"ones in test_faults\.py, line \d+"),
    (MovedToTheCPU, "device", r"cpu in test_faults\.py"),
    (SpreadOfTokens, "single_tokens", "a division by length - 1"),
    (PythonRandomness, "random_streams", "found one from random"),
    (OwnRandomness, "random_streams", "randomness of its own"),
    (OneByOne, "speed", "a loop over records or tokens"),
    (EveryPair, "speed", "over pairs of tokens"),
    (StateForgotten, "resumes", "`state_dict` leaves something out"),
    (StateNotRestored, "resumes", "the same end when resumed at step"),
    (StateUnused, "state", "algorithm / rollouts is changed"),
    (RandomByPlace, "samples", "draws randomness by place"),
    (KLOfOtherTokens, "at_the_start", "a KL of 0"),
    (OtherSidesReference, "reference", "the other side"),
    (ReferenceOfOtherTokens, "at_the_start", r"reference to be asked of the completions .* found \d+ others"),
    (K1AsLoss, "reference", "k1 in the loss"),
    (KLRewarded, "reference", "the KL has the wrong sign"),
    (EOSLeftOut, "every_token", "the last token"),
    (FirstLeftOut, "every_token", "the first token"),
    (TemperatureIgnored, "temperature", "logits are read around `models`, or at a temperature of their own"),
    (SampledAtAnother, "temperature", "at twice the temperature as with half the logits"),
    (FailedUsed, "failed_scores", r"`scores\.usable` is not looked at"),
    (RewardLate, "each_reward", r"use `c\.at_last`"),
    (ValueInAdvantage, "constants", "no gradient into value from the policy's term"),
    (Embedding, "roles", r"faulty must train a POLICY .* its roles: embedder \(EMBEDDER, trained\)"),
]


@pytest.mark.parametrize(("fault", "name", "told"), FAULTS, ids=[f"{f.__name__}-{n}" for f, n, _ in FAULTS])
def test_fault_is_caught(fault, name, told, tmp_path):
    with pytest.raises((Broken, UserError), match=told):
        BY_NAME[name].check(Subject("faulty", fault(), tmp_path))


def test_an_undeclared_role_is_named_once(tmp_path):
    @dataclass(kw_only=True)
    class Undeclared(Preferring):
        def roles(self) -> Mapping[str, Role]:
            return {"policy": POLICY}

    failures = [r.failure for r in conformance.run(Subject("faulty", Undeclared(), tmp_path)) if r.failure]
    first, *others = failures
    assert "no role 'reference': declare it in `roles`" in str(first)
    assert len(others) > 15
    assert all(isinstance(failure, RepeatedFailure) and failure.earlier == "shapes" for failure in others)


def test_no_property_prints_what_its_own_tampering_causes(tmp_path, capfd):
    BY_NAME["state"].check(Subject("sound", Likelihood(), tmp_path))
    captured = capfd.readouterr()
    assert "log-probs" not in captured.out + captured.err


def test_toy_completions_have_all_lengths_and_some_no_score(tmp_path):
    table = toys.ToyTable(Completions, size=24)
    assert set(table.batch(range(24)).length.tolist()) == {1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0}
    subject = Subject("sound", Averaging(), tmp_path)
    for still in (True, False):
        lab = subject.build(still=still)
        c = lab.trainer.roles.policy.generate(lab.trainer.loader.order.records(0, 24), lab.trainer.roles.sampling)
        assert set(c.length.tolist()) == {1.0, 2.0, 3.0, 4.0, 5.0, 6.0}
        assert 0 < c.truncated.float().mean() < 0.7
        assert 0 < lab.trainer.roles.reward(c).usable.float().mean() < 1


CARD = """---
family: test
summary: A likelihood
needs: [policy, reference]
data: Completions
paper: none
---
"""
PLUGIN = """from dataclasses import dataclass
from alignzoo.batch import Completions
from alignzoo.contracts import Algorithm, Kind, Role

@dataclass(kw_only=True)
class Local(Algorithm):
    data = Completions

    def roles(self):
        return {"policy": Role(kind=Kind.POLICY, trained=True)}

    def loss(self, models, batch):
        return -models.policy.logprobs(batch), {}
"""


def test_a_card_that_disagrees_is_caught(tmp_path):
    """In a folder of local plugins: the rest of the declarations hold."""
    folder = tmp_path / "plugins" / "local"
    folder.mkdir(parents=True)
    (folder / "local.py").write_text(PLUGIN)
    (folder / "README.md").write_text(CARD)
    made = conformance.registered("local", tmp_path, plugins_dir=tmp_path / "plugins")
    BY_NAME["composes"].check(made)
    with pytest.raises(Broken, match=r"`needs: \['policy'\]` in the card"):
        BY_NAME["card"].check(made)
    (folder / "README.md").write_text(CARD.replace(", reference", "").replace("paper: none\n", ""))
    with pytest.raises(Broken, match="`paper` in the card"):
        BY_NAME["card"].check(made)
    (folder / "README.md").write_text(CARD.replace(", reference", ""))
    BY_NAME["card"].check(made)


def test_the_card_of_a_single_file_stands_beside_it(tmp_path):
    (tmp_path / "local.py").write_text(PLUGIN)
    made = conformance.registered("local", tmp_path, plugins_dir=tmp_path)
    with pytest.raises(Broken, match=r"`family`, .*`paper` in the card's front matter.* local\.md or README\.md"):
        BY_NAME["card"].check(made)
    (tmp_path / "local.md").write_text(CARD.replace(", reference", ""))
    BY_NAME["card"].check(made)
