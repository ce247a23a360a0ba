"""Heads as wide as the vocabulary, and policies whose logits are adjusted by them."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from alignzoo.batch import Completions, Prompts
from alignzoo.common.noise import Noise
from alignzoo.contracts import Kind, Role
from alignzoo.functional import entropy, selective_log_softmax
from alignzoo.models import modules
from alignzoo.models.networks import HeadedNetwork, PolicyNetwork
from alignzoo.settings import Model, Sampling
from alignzoo.testing import toys


@pytest.fixture
def records() -> Completions:
    """Four completions, some tokens attended but not scored."""
    return toys.completions([0, 1, 2, 3], unscored=True)


@pytest.fixture
def prompts() -> Prompts:
    return toys.completions(list(range(4))).prompts


def headed(policy: PolicyNetwork, name: str, kind: Kind = Kind.ACTION_VALUE, shares: str | None = None) -> HeadedNetwork:
    """With weights away from zero, a function of the name."""
    role = Role(kind=kind, trained=True, shares=shares)
    made = modules.role_module(name, role, policy.module, None, Model(), seed=5)
    source = torch.Generator().manual_seed(len(name))
    with torch.no_grad():
        for weight in made.head.parameters():
            weight.add_(torch.randn(weight.shape, generator=source))
    return HeadedNetwork(made, policy.shared, trunk=policy.module if shares else None)


def same(rows: Tensor) -> Tensor:
    return rows


def forwards_of(module: Any) -> list[int]:
    calls: list[int] = []
    module.base_model.register_forward_hook(lambda *_: calls.append(1))
    return calls


@pytest.mark.parametrize("shares", [None, "policy"])
@pytest.mark.parametrize("family", ["llama", "gpt2", "t5"])
@torch.no_grad()
def test_they_are_read_off_the_state_before_the_token(family, shares, policy, records):
    """The value of a head whose weights are a row of theirs is their entry."""
    network = policy(family)
    q, value = headed(network, "q", shares=shares), headed(network, "value", Kind.VALUE, shares)
    value.module.head.weight.copy_(q.module.head.weight[7:8])
    value.module.head.bias.copy_(q.module.head.bias[7:8])
    entries = q.tokens(records, lambda rows: rows[:, 7])
    assert entries[records.scored].abs().min() > 0
    torch.testing.assert_close(entries, value.values(records), rtol=0, atol=1e-5)
    torch.testing.assert_close(value.tokens(records, lambda rows: rows[:, 0]), value.values(records))


@torch.no_grad()
def test_outside_the_support_they_are_minus_infinity_and_no_temperature_divides_them(policy, records):
    network = policy("llama")
    q = headed(network, "q")
    whole = q.tokens(records, same)[records.scored]
    network.shared.support, network.shared.temperature = torch.arange(259) < 40, 2.0
    narrow = q.tokens(records, same)[records.scored]
    torch.testing.assert_close(narrow[:, :40], whole[:, :40])
    assert narrow[:, 40:].isneginf().all()


def test_heads_differ_by_role_and_seed_and_not_otherwise(policy):
    def weight(name: str, seed: int) -> Tensor:
        made = modules.role_module(name, Role(kind=Kind.ACTION_VALUE), network.module, None, Model(), seed)
        return made.head.weight

    network = policy("llama")
    before = torch.random.get_rng_state()
    assert torch.equal(weight("q", 1), weight("q", 1))
    assert not torch.equal(weight("q", 1), weight("q", 2)) and not torch.equal(weight("q", 1), weight("twin", 1))
    assert torch.equal(torch.random.get_rng_state(), before)


def test_heads_on_one_trunk_run_it_once_with_the_gradient_of_each(policy, records):
    network = policy("llama")
    network.module.double()
    q, value = headed(network, "q", shares="policy"), headed(network, "value", Kind.VALUE, "policy")
    target = headed(network, "target", shares="policy").view(frozen=True)

    def fn(logits: Tensor, q: Tensor, value: Tensor, target: Tensor) -> Tensor:
        return logits[:, 5].sin() + q[:, 6] ** 2 + value[:, 0] ** 3 + target[:, 7]

    def gradients(loss: Tensor) -> list[Tensor]:
        for module in (network.module, q.module, value.module):
            module.zero_grad()
        loss.backward()
        return [p.grad.clone() for m in (network.module, q.module, value.module) for p in m.parameters()]

    network.tokens(records, same)  # what it can do has been tried
    calls = forwards_of(network.module)
    together = network.tokens(records, fn, beside=[q, value, target]).sum()
    assert len(calls) == 1
    apart = network.tokens(records, lambda rows: rows[:, 5].sin()).sum()
    apart = apart + q.tokens(records, lambda rows: rows[:, 6] ** 2).sum()
    apart = apart + (value.values(records) ** 3).sum() + target.tokens(records, lambda rows: rows[:, 7]).sum()
    assert together.item() == pytest.approx(apart.item(), rel=1e-5)
    for first, second in zip(gradients(together), gradients(apart), strict=True):
        assert (first - second).norm() <= 1e-5 * second.norm()  # norms are computed in float32
    assert all(p.grad is None for p in target.module.parameters())


@pytest.mark.parametrize("shares", [None, "policy"])
@pytest.mark.parametrize("family", ["llama", "gpt2", "t5"])
@torch.no_grad()
def test_adjusted_is_one_distribution_in_all_that_it_is_asked(family, shares, policy, prompts):
    """Sampling, log-probs and entropy are those of softmax(logits + q - v), with the draws of a policy told to write so."""
    network = policy(family)
    q, value = headed(network, "q", shares=shares), headed(network, "value", Kind.VALUE, shares)

    def adjust(logits: Tensor, q: Tensor, value: Tensor) -> Tensor:
        assert value.shape == (len(logits), 1)
        return logits + q - 3 * value

    adjusted = network.adjusted(adjust, [q, value])
    sampling, noise = Sampling(samples=2, max_new_tokens=6), Noise(3)
    network.shared.noise = noise
    with noise.during("rollout", 0):
        c = adjusted.generate(prompts, sampling)
    with noise.during("rollout", 0):
        told = network.generate(prompts, sampling, adjust, [q, value])
    assert torch.equal(c.ids, told.ids) and not torch.equal(c.ids, network.generate(prompts, sampling).ids[:, : c.ids.shape[1]])
    logits = network.tokens(c, same) + q.tokens(c, same) - 3 * value.values(c)[..., None]
    expected = torch.where(c.scored, selective_log_softmax(logits, c.ids), 0)
    torch.testing.assert_close(c.logprobs, expected, rtol=0, atol=1e-4)
    torch.testing.assert_close(adjusted.logprobs(replace(c, logprobs=None)), expected, rtol=0, atol=1e-4)
    torch.testing.assert_close(adjusted.entropy(c), torch.where(c.scored, entropy(logits), 0), rtol=0, atol=1e-4)


@torch.no_grad()
def test_adjusted_twice_is_adjusted_by_both(policy, records):
    network = policy("llama")
    q, twin = headed(network, "q"), headed(network, "twin")
    twice = network.adjusted(lambda logits, q: logits + q, [q]).adjusted(lambda logits, twin: 2 * logits - twin, [twin])
    expected = 2 * (network.tokens(records, same) + q.tokens(records, same)) - twin.tokens(records, same)
    torch.testing.assert_close(twice.tokens(records, same), expected)
