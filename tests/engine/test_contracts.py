"""The parts of the contracts that none of the five algorithms uses: several terms, coupling, followers, rewards that learn,
stopping a rollout.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field, replace

import pytest
import torch
from torch import Tensor

from alignzoo.batch import Completions, Prompts
from alignzoo.contracts import EMA, Algorithm, Couples, Every, Kind, Next, OnlineAlgorithm, Reward, Role, Scores
from alignzoo.settings import Rollout, UserError
from alignzoo.testing import toys

POLICY = Role(kind=Kind.POLICY, trained=True)


@dataclass(kw_only=True)
class NLL(Algorithm):
    """Token-level likelihood, with an optional second term and a follower."""

    data = Completions
    second: float = 0.0
    nothing: bool = False
    follows: object = None

    def roles(self):
        extra = {"shadow": Role(kind=Kind.POLICY, follows=self.follows)} if self.follows else {}
        return {"policy": POLICY, **extra}

    def loss(self, models, batch):
        logprobs = models.policy.logprobs(batch)
        terms = {"token": -logprobs}
        if self.second:
            terms["sequence"] = self.second * batch.sum(logprobs) ** 2
        return terms, {}

    def weights(self, batch):
        weights = {"sequence": 1.0 + batch.row % 3} if self.second else {}
        return weights | ({"token": torch.zeros_like(batch.scored)} if self.nothing else {})


def first_gradient(made, folder):
    """The gradient of the first update, by parameter name: SGD at learning rate 1 moves each weight by exactly that."""
    trainer = toys.trainer(made, folder)
    before = {n: p.detach().clone() for n, p in trainer.trained.named_parameters()}
    trainer.train()
    return {n: before[n] - p.detach() for n, p in trainer.trained.named_parameters()}


def one_step(algorithm, micro="auto", **changes):
    training = {"max_steps": 1, "learning_rate": 1.0, "max_grad_norm": 0, "micro_batch": micro}
    return toys.setup(algorithm, training=training, **changes)


def rows(folder):
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def test_each_term_is_a_weighted_mean_of_its_own(tmp_path):
    """sum(token NLL) / #tokens + sum(w_i s_i) / sum(w_i) over the eight records, whatever the micro-batch."""
    trainer = toys.trainer(one_step(NLL(second=0.01)), tmp_path / "oracle")
    batch = trainer.loader.order.records(0, 8)
    logprobs = trainer.roles.policy.logprobs(batch)
    token = -logprobs[batch.scored].mean()
    weight = 1.0 + batch.row % 3
    sequence = (weight * 0.01 * (logprobs * batch.scored).sum(1) ** 2).sum() / weight.sum()
    expected = torch.autograd.grad(token + sequence, list(trainer.trained.parameters()))
    names = [n for n, _ in trainer.trained.named_parameters()]
    for micro in ("8", "2"):
        got = first_gradient(one_step(NLL(second=0.01), micro), tmp_path / micro)
        for name, gradient in zip(names, expected, strict=True):
            assert torch.allclose(got[name], gradient, atol=1e-6, rtol=1e-4), name
        row = rows(tmp_path / micro)[0]
        assert row["loss"] == pytest.approx((token + sequence).item(), rel=1e-6)
        assert row["loss/token"] == pytest.approx(token.item(), rel=1e-6)


def test_a_term_without_any_weight_is_zero_and_reported(tmp_path):
    moved = first_gradient(one_step(NLL(nothing=True)), tmp_path)
    assert all((m == 0).all() for m in moved.values())
    row = rows(tmp_path)[0]
    assert (row["loss"], row["terms_without_weight"]) == (0.0, 1.0)


@dataclass(frozen=True, eq=False, kw_only=True)
class CentredBatch(Completions):
    average: Tensor


@dataclass(kw_only=True)
class Centred(Algorithm):
    """Each record's log-prob minus the mean over the whole optimizer step: a STEP coupling through `prepare`."""

    data = Completions
    couples = Couples.STEP

    def roles(self):
        return {"policy": POLICY}

    def prepare(self, models, batches):
        assert not torch.is_grad_enabled()
        total = torch.stack([batch.sum(models.policy.logprobs(batch)).sum() for batch in batches]).sum()
        total, count = models.sum(torch.stack([total, torch.tensor(float(sum(map(len, batches))))]))
        return [CentredBatch(**vars(batch), average=(total / count).expand(len(batch))) for batch in batches]

    def loss(self, models, batch):
        return (batch.sum(models.policy.logprobs(batch)) - batch.average) ** 2, {}


def test_prepare_sees_the_whole_step(tmp_path):
    whole, cut = (first_gradient(one_step(Centred(), micro), tmp_path / micro) for micro in ("8", "2"))
    for name in whole:
        assert torch.allclose(whole[name], cut[name], atol=1e-4 * whole[name].abs().max().item()), name


def test_microbatch_coupling_refuses_accumulation(tmp_path):
    algorithm = NLL()
    algorithm.couples = Couples.MICROBATCH
    with pytest.raises(UserError, match=r"use trainer.micro_batch=8 and one process"):
        toys.trainer(one_step(algorithm, "4"), tmp_path)


@pytest.mark.parametrize("rule", [EMA(0.75), Every(2)])
def test_followers_follow_and_are_saved(tmp_path, rule):
    """After updates w1, w2, w3 from w0: EMA takes 0.75 of itself and 0.25 of each; every 2 steps it is w2."""
    trainer = toys.trainer(toys.setup(NLL(follows=rule), training={"save_steps": 2}), tmp_path)
    weight = lambda module: module.state_dict()["model.norm.weight"].clone()  # noqa: E731
    seen, finish = [weight(trainer.trained.policy)], trainer.finish_step
    trainer.finish_step = lambda: (seen.append(weight(trainer.trained.policy)), finish())
    trainer.train()
    expected = seen[0]
    for step in (1, 2, 3):
        expected = 0.75 * expected + 0.25 * seen[step] if isinstance(rule, EMA) else (seen[2] if step == 2 else expected)
    assert torch.allclose(weight(trainer.followers["shadow"][0]), expected, atol=1e-7)
    assert (tmp_path / "checkpoints/checkpoint-2/shadow/model.safetensors").exists()


@dataclass(kw_only=True)
class Discriminator(Reward):
    """A reward that learns: a score for each completion, pulled towards 1."""

    leak: bool = False
    seen: list = field(default_factory=list)

    def setup(self, context):
        self.models = context.models

    def __call__(self, c):
        return Scores(total=self.models.discriminator.scores(c))

    def roles(self):
        extra = {"policy": replace(POLICY, trained=False)} if self.leak else {}
        return {"discriminator": Role(kind=Kind.SCORER, trained=True, needs=frozenset({"scores"})), **extra}

    def loss(self, models, batch):
        score = models.discriminator.scores(batch)
        term = (score - 1) ** 2
        return {"fit": term + batch.sum(models.policy.logprobs(batch)) if self.leak else term}, {"score": score}


@dataclass(kw_only=True)
class Sampler(OnlineAlgorithm):
    """Learns the likelihood of its own samples; may ask for a new rollout after every step."""

    data = Prompts
    stop: bool = False

    def roles(self):
        return {"policy": POLICY, "reward": Role(kind=Kind.REWARD)}

    def experience(self, models, batch):
        c = models.policy.generate(batch, models.sampling)
        assert models.reward(c).total.shape == (len(c),)
        return c

    def loss(self, models, batch):
        return -models.policy.logprobs(batch), {}

    def after_step(self, metrics):
        assert metrics["loss"] != 0
        return Next.ROLLOUT if self.stop else Next.CONTINUE


def test_a_learning_reward_trains_its_own_role_and_no_other(tmp_path):
    """Its score is 0 at first, so the gradient of (s - 1)^2 by the head's bias is exactly -2; the policy moves as without
    it.
    """
    plain = first_gradient(one_step(Sampler()), tmp_path / "plain")
    for leak in (False, True):
        moved = first_gradient(one_step(Sampler(), reward=Discriminator(leak=leak)), tmp_path / f"leak{leak}")
        assert moved["roles.discriminator.head.bias"].item() == pytest.approx(-2.0, abs=1e-6)
        for name, gradient in plain.items():
            assert torch.allclose(moved[name], gradient, atol=1e-6), name
    assert rows(tmp_path / "leakFalse")[0]["loss/reward/fit"] == pytest.approx(1.0, abs=1e-6)


def test_gradients_are_clipped_role_by_role(tmp_path):
    """With a limit of 0.5 both roles' updates have norm 0.5, not the two together."""
    made = one_step(Sampler(), reward=Discriminator())
    made.training.max_grad_norm = 0.5
    moved = first_gradient(made, tmp_path)
    for role in ("policy", "discriminator"):
        norm = torch.stack([m.norm() for n, m in moved.items() if n.startswith(f"roles.{role}.")]).norm()
        assert norm.item() == pytest.approx(0.5, rel=1e-4)


@pytest.mark.parametrize(("stop", "rollouts"), [(False, 1), (True, 3)])
def test_next_rollout_drops_the_rest(tmp_path, stop, rollouts):
    """Three steps of eight from rollouts of 32: one rollout, or one a step."""
    trainer = toys.trainer(toys.setup(Sampler(stop=stop), rollout=Rollout(prompts=8, samples=4)), tmp_path)
    trainer.train()
    assert (trainer.loader.index, trainer.cost.counts["samples"]) == (rollouts, 32 * rollouts)
