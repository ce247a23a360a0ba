"""Every registered algorithm has every property, presets the mathematical ones. At the end: what only one of them promises."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any

import pytest
import torch

from alignzoo.config.registry import Registry
from alignzoo.contracts import Algorithm, OnlineAlgorithm
from alignzoo.settings import Model
from alignzoo.testing import conformance, reshape, toys
from alignzoo.testing.subject import varied
from alignzoo.testing.training import train

REGISTRY = Registry()
BY_NAME = {prop.name: prop for prop in conformance.PROPERTIES}


def questions():
    """Every registered algorithm and preset with each property asked of it. Hosted trainers have a suite of their own."""
    for name in REGISTRY.names("algorithm"):
        kind, plugin = REGISTRY.load("algorithm", name), REGISTRY.get("algorithm", name)
        for prop in conformance.PROPERTIES if issubclass(kind, Algorithm) else ():
            if prop.scope.holds(plugin, issubclass(kind, OnlineAlgorithm)):
                yield name, prop


QUESTIONS = list(questions())


@pytest.fixture(scope="module")
def subject(tmp_path_factory):
    """Subjects by name, each made once."""
    made: dict[str, Any] = {}

    def get(name):
        if name not in made:
            made[name] = conformance.registered(name, tmp_path_factory.mktemp(name))
        return made[name]

    return get


@pytest.mark.parametrize(("name", "prop"), QUESTIONS, ids=[f"{name}-{prop.name}" for name, prop in QUESTIONS])
def test_property(subject, name, prop):
    prop.check(subject(name))


# hyperparameters under which an algorithm has state that its defaults don't have
STATEFUL = {
    "adaptive KL": ("ppo", {"kl.target": 1.0, "kl.horizon": 50.0, "epochs": 1}),
    "early stop": ("ppo", {"stop_kl": 1e-6, "epochs": 2}),
    "moving baseline": ("reinforce", {"baseline": "moving_average"}),
}


@pytest.mark.parametrize("what", STATEFUL)
def test_state_survives(subject, what, tmp_path):
    name, changes = STATEFUL[what]
    plain = subject(name)
    if "baseline" in changes:
        changes = {"baseline": type(plain.algorithm.baseline)(changes["baseline"])}
    made = conformance.Subject(name, varied(plain.algorithm, changes), tmp_path)
    for prop in ("resumes", "watching", "state"):
        BY_NAME[prop].check(made)
    without = train(plain, "without", varied(plain.algorithm, {k: v for k, v in changes.items() if k == "epochs"}), max_steps=6)
    assert without.state != train(made, "with", max_steps=6).state


def test_dpo_starts_at_ln_2(subject):
    lab = subject("dpo").build(still=True)
    assert lab.plain.value == pytest.approx(math.log(2), abs=1e-9)


def test_ppo_starts_at_ratio_1(subject):
    lab = subject("ppo").build(still=True)
    assert lab.plain.metrics["ratio"] == pytest.approx(1, abs=1e-6)
    assert lab.records.kl.abs().max().item() < 1e-6


@dataclass(kw_only=True)
class OwnTeacher(toys.ToySource):
    """The policy itself is the teacher."""

    def network(self, role, context):
        from alignzoo.models.networks import PolicyNetwork

        return PolicyNetwork(context.policy, context.shared, frozen=True)


@pytest.mark.parametrize("name", ["gkd", "kd", "on_policy_distill"])
def test_distillation_from_itself_is_nothing(subject, name):
    lab = subject(name).build(still=True, data=OwnTeacher())
    assert lab.plain.value == pytest.approx(0, abs=1e-9)
    assert lab.plain.gradient.norm().item() < 1e-6


@pytest.fixture(scope="module")
def encoder_decoder(tmp_path_factory):
    """DPO on a T5."""
    made = conformance.registered("dpo", tmp_path_factory.mktemp("t5"))
    return made.build(model=Model(config=dict(toys.T5)))


def test_t5_logprobs_are_those_of_its_decoder(encoder_decoder):
    """Compared with one forward a token, prefix by prefix, without padding or masks."""
    policy = encoder_decoder.trainer.roles.policy
    c = encoder_decoder.records.chosen
    with torch.no_grad():
        found = policy.logprobs(c)
        for row in range(3):
            prompt = c.prompts.ids[row][c.prompts.attended[row]][None]
            for t in range(int(c.attended[row].sum())):
                prefix = torch.cat([torch.tensor([[0]]), c.ids[row : row + 1, :t]], 1)
                logits = policy.module(input_ids=prompt, decoder_input_ids=prefix).logits[0, -1]
                expected = logits[2:10].log_softmax(0)[c.ids[row, t] - 2] if c.scored[row, t] else torch.tensor(0.0)
                assert found[row, t].item() == pytest.approx(expected.item(), abs=1e-5)


def test_t5_samples_have_the_logprobs_of_the_forward(encoder_decoder):
    policy, sampling = encoder_decoder.trainer.roles.policy, encoder_decoder.trainer.roles.sampling
    prompts = encoder_decoder.records.chosen.prompts
    with torch.no_grad():
        c = policy.generate(prompts, sampling)
        forward = policy.logprobs(replace(reshape.padded(c, right=0), logprobs=None))
    assert c.scored.any(1).all() and len(c) == 2 * len(prompts)
    assert torch.allclose(c.logprobs, forward, atol=1e-5)


@pytest.mark.parametrize("prop", ["padding", "order", "gradients", "nothing_scored"])
def test_t5_dpo(encoder_decoder, prop, tmp_path):
    made = conformance.registered("dpo", tmp_path)
    made.lab = encoder_decoder
    BY_NAME[prop].check(made)
