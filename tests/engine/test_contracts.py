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
from alignzoo.contracts import (
    EMA,
    Algorithm,
    Couples,
    Every,
    Kind,
    LearningReward,
    Next,
    OnlineAlgorithm,
    Role,
    Scores,
)
from alignzoo.models.references import Cached
from alignzoo.settings import Optimizer, Peft, Rollout, UserError
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


@pytest.mark.parametrize("rule", [EMA(0.75), EMA(0.75, steps=2), Every(2)])
def test_followers_follow_and_are_saved(tmp_path, rule):
    """After updates w1, w2, w3 from w0: EMA takes 0.75 of itself and 0.25 of each, or of w2 alone; every 2 steps it is w2."""
    trainer = toys.trainer(toys.setup(NLL(follows=rule), training={"save_steps": 2}), tmp_path)
    weight = lambda module: module.state_dict()["model.norm.weight"].clone()  # noqa: E731
    seen, finish = [weight(trainer.trained.policy)], trainer.finish_step
    trainer.finish_step = lambda: (seen.append(weight(trainer.trained.policy)), finish())
    trainer.train()
    expected = seen[0]
    for step in (1, 2, 3):
        if step % rule.steps == 0:
            expected = 0.75 * expected + 0.25 * seen[step] if isinstance(rule, EMA) else seen[step]
    assert torch.allclose(weight(trainer.followers["shadow"][0]), expected, atol=1e-7)
    assert (tmp_path / "checkpoints/checkpoint-2/shadow/model.safetensors").exists()


@dataclass(kw_only=True)
class Bootstrapped(Algorithm):
    """V moves towards 1 where its target is 0; both on trunks of their own, or as heads on the policy and its shadow."""

    data = Completions
    shares: bool = False

    def roles(self):
        value = {"kind": Kind.VALUE, "needs": frozenset({"values"})}
        trunk, target_trunk = ("policy", "shadow") if self.shares else (None, None)
        return {
            "target": Role(**value, shares=target_trunk, follows=EMA(0.5, role="value")),
            "policy": POLICY,
            "shadow": Role(kind=Kind.POLICY, follows=Every(1)),
            "value": Role(**value, trained=True, shares=trunk),
        }

    def loss(self, models, batch):
        return (models.value.values(batch) - 1 - models.target.values(batch)) ** 2 - models.policy.logprobs(batch), {}


@pytest.mark.parametrize("shares", [False, True])
def test_a_value_network_has_a_target(tmp_path, shares):
    """After updates b1, b2, b3 of the head's bias from 0, the target has b1/8 + b2/4 + b3/2, and resumes with it."""
    trainer = toys.trainer(toys.setup(Bootstrapped(shares=shares), training={"save_steps": 2}), tmp_path)
    bias = lambda: trainer.trained.roles["value"].head.bias.item()  # noqa: E731
    seen, finish = [bias()], trainer.finish_step
    trainer.finish_step = lambda: (seen.append(bias()), finish())
    trainer.train()
    target = trainer.followers["target"][0]
    assert seen[0] == 0 and all(seen[1:])
    assert target.head.bias.item() == pytest.approx(seen[1] / 8 + seen[2] / 4 + seen[3] / 2, rel=1e-5)
    again = toys.trainer(toys.setup(Bootstrapped(shares=shares)), tmp_path / "again")
    again.train(resume_from_checkpoint=str(tmp_path / "checkpoints/checkpoint-2"))
    for name, weight in again.followers["target"][0].state_dict().items():
        assert torch.equal(weight, target.state_dict()[name]), name


@pytest.mark.parametrize(
    ("role", "changes", "message"),
    [
        (Role(kind=Kind.POLICY, follows=EMA(0.5, role="value")), {}, "the role shadow follows value: what follows is not"),
        (Role(kind=Kind.VALUE, follows=Every(2)), {}, "another kind of network"),
        (Role(kind=Kind.POLICY, start="reference", follows=Every(2)), {"reference": Cached()}, "Cached has no weights to move"),
        (Role(kind=Kind.POLICY, follows=Every(2)), {"peft": Peft(enabled=True)}, "leave peft out"),
    ],
)
def test_what_cannot_follow_is_refused(tmp_path, monkeypatch, role, changes, message):
    monkeypatch.setattr(NLL, "roles", lambda self: {"policy": POLICY, "shadow": role})
    with pytest.raises(UserError, match=message):
        toys.trainer(toys.setup(NLL(), **changes), tmp_path)


@dataclass(kw_only=True)
class Halves(Algorithm):
    """Means over some records or tokens alone."""

    data = Completions
    heard: list = field(default_factory=list)

    def roles(self):
        return {"policy": POLICY}

    def loss(self, models, batch):
        number, even = batch.row.float(), batch.row % 2 == 0
        metrics = {"row": number, "row/even": (number, even), "row/none": (number, number < 0)}
        token = batch.ids.float()
        return -models.policy.logprobs(batch), metrics | {"odd_id": (token, batch.ids % 2 == 1)}

    def after_step(self, metrics):
        self.heard.append(dict(metrics))
        return Next.CONTINUE


@pytest.mark.parametrize("micro", ["8", "2"])
def test_a_metric_may_be_a_mean_over_some(tmp_path, micro):
    algorithm = Halves()
    trainer = toys.trainer(one_step(algorithm, micro), tmp_path)
    batch = trainer.loader.order.records(0, 8)
    trainer.train()
    (heard,) = trainer.algorithm.heard
    kept = [row for row in batch.row.tolist() if row % 2 == 0]
    odd = batch.scored & (batch.ids % 2 == 1)
    assert heard["row"] == pytest.approx(batch.row.double().mean().item())
    assert heard["row/even"] == pytest.approx(sum(kept) / len(kept)) == rows(tmp_path)[0]["row/even"]
    assert heard["odd_id"] == pytest.approx(batch.ids[odd].double().mean().item())
    assert "row/none" not in heard


def test_a_mask_of_another_shape_is_refused(tmp_path, monkeypatch):
    broken = lambda self, models, batch: (-models.policy.logprobs(batch), {"x": (batch.length, batch.scored)})  # noqa: E731
    monkeypatch.setattr(Halves, "loss", broken)
    with pytest.raises(UserError, match="a tuple as 'x': return a tensor, or one and a mask of its shape"):
        toys.trainer(one_step(Halves()), tmp_path).train()


def test_the_tokenizer_reads_and_writes_as_the_model(tmp_path):
    """Bytes are 3 + b; <eos> is 2. Prompts of one's own can be sampled from."""
    models = toys.trainer(one_step(NLL()), tmp_path).views[""]
    words = models.tokenizer
    assert (words.eos, words.ends) == (2, frozenset({2}))
    assert words.encode(["ab", ""]) == [[3 + 97, 3 + 98], []]
    assert words.decode([[3 + 97, 2], [3 + 98]]) == ["a", "b"]
    prompts = words.prompts(["abc", "d", ""], torch.tensor([7, 8, 9]))
    assert prompts.text == ["abc", "d", ""] and prompts.row.tolist() == [7, 8, 9]
    assert prompts.attended.tolist() == [[True] * 3, [False, False, True], [False, False, True]]
    c = models.policy.generate(prompts, models.sampling)
    assert c.row.tolist() == [7, 7, 8, 8, 9, 9]


@dataclass(kw_only=True)
class Searching(NLL):
    """Halves a step until the loss is lower; `backwards` steps never help, and are undone."""

    backwards: bool = False
    heard: list = field(default_factory=list)

    def around_step(self, models, step):
        objective = lambda models, batch: self.loss(models, batch)[0]  # noqa: E731
        for p, whole in zip(step.parameters("policy"), step.gradient(objective, "policy"), strict=True):
            assert torch.allclose(p.grad, whole, atol=1e-6)
            p.grad.mul_(-1 if self.backwards else 1)
        before = step.means(objective)["token"]
        step.take()
        way, scale = step.moved("policy"), 1.0
        while step.means(objective)["token"] >= before and scale > 1e-6:
            scale /= 2
            step.place("policy", way, scale)
        if scale <= 1e-6:
            step.undo()
        self.heard.append((before, step.means(objective)["token"]))
        return {"scale": scale}


@dataclass(kw_only=True)
class Taking(NLL):
    def around_step(self, models, step):
        step.take()
        return {}


def test_an_optimizer_step_may_be_searched_along(tmp_path):
    """A step too long to help is halved until it does; one in the wrong direction leaves the weights, to the bit."""
    made = one_step(Searching(), "2")
    made.training.learning_rate = 100.0
    trainer = toys.trainer(made, tmp_path / "forward")
    trainer.train()
    ((before, after),) = trainer.algorithm.heard
    row = rows(tmp_path / "forward")[0]
    assert after < before == pytest.approx(row["loss"], rel=1e-5) and 1e-6 < row["scale"] < 1
    still = first_gradient(one_step(Searching(backwards=True)), tmp_path / "backwards")
    assert all((moved == 0).all() for moved in still.values())


@pytest.mark.parametrize("optimizer", [Optimizer.sgd, Optimizer.adamw])
def test_a_step_that_is_only_taken_is_the_optimizers(tmp_path, optimizer):
    ends = []
    for algorithm in (NLL(), Taking()):
        made = toys.setup(algorithm, training={"optimizer": optimizer, "learning_rate": 0.01})
        trainer = toys.trainer(made, tmp_path / type(algorithm).__name__)
        trainer.train()
        ends.append(trainer.trained.state_dict())
    assert all(torch.equal(x, ends[1][name]) for name, x in ends[0].items())


@dataclass(kw_only=True)
class Discriminator(LearningReward):
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


def test_a_reward_of_contract_1_0_that_learns_still_does(tmp_path):
    """It had `roles` and `loss` as a Reward, of which LearningReward is now the one that has them."""
    with pytest.warns(DeprecationWarning, match="Early has loss, roles: make it a LearningReward, instead of a Reward"):

        @dataclass(kw_only=True)
        class Early(toys.CountReward):
            setup, __call__ = Discriminator.setup, Discriminator.__call__

            def roles(self):
                return {**super().roles(), "discriminator": Role(kind=Kind.SCORER, trained=True, needs=frozenset({"scores"}))}

            def loss(self, models, batch):
                return (models.discriminator.scores(batch) - 1) ** 2, {}

    assert not Early().teaches() and Early().apart() == frozenset()
    old, new = (first_gradient(one_step(Sampler(), reward=r), tmp_path / type(r).__name__) for r in (Early(), Discriminator()))
    assert old.keys() == new.keys() and all(torch.equal(old[name], new[name]) for name in old)
    assert type(toys.CountReward()).__mro__.count(LearningReward) == 0


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
