"""Log-probs, entropies, values and scores against the plain computation on single unpadded sequences."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from alignzoo.batch import Completions
from alignzoo.contracts import Kind, Role
from alignzoo.functional import forward_kl
from alignzoo.models import modules, networks
from alignzoo.models.networks import HeadedNetwork, PolicyNetwork
from alignzoo.models.roles import RoleNetworks
from alignzoo.settings import Model, Sampling
from alignzoo.testing import toys

FAMILIES = ["llama", "gpt2", "gpt_neox", "qwen2", "gemma3", "t5"]
SUPPORT = torch.isin(torch.arange(259), torch.tensor([2, *range(3, 40)]))


@pytest.fixture
def records() -> Completions:
    """Five completions over four prompts of unequal length; some tokens attended but not scored, one completion unscored."""
    c = toys.completions([0, 1, 2, 3], unscored=True).take([0, 1, 1, 2, 3])
    scored = c.scored.clone()
    scored[2] = False
    return replace(c, scored=scored)


def texts(c: Completions) -> list[tuple[list[int], list[int], Tensor]]:
    """Prompt ids, completion ids and its scored mask, unpadded."""
    prompts = [ids[mask].tolist() for ids, mask in zip(c.prompts.ids, c.prompts.attended, strict=True)]
    columns = zip(c.prompt_of.tolist(), c.ids, c.attended, c.scored, strict=True)
    return [(prompts[p], ids[a].tolist(), s[a]) for p, ids, a, s in columns]


def plainly(plain_logits: Any, module: Any, c: Completions, fn: Any) -> Tensor:
    """(B, T): fn(logits (t, V), ids (t,)) of each sequence by itself, 0 where not scored."""
    out = torch.zeros(c.ids.shape)
    for i, (prompt, written, scored) in enumerate(texts(c)):
        values = fn(plain_logits(module, prompt, written)[:-1].double(), torch.tensor(written))
        out[i, : len(written)] = torch.where(scored, values, 0)
    return out


def log_softmax_at(logits: Tensor, ids: Tensor) -> Tensor:
    return logits.log_softmax(-1)[torch.arange(len(ids)), ids]


@pytest.mark.parametrize("family", FAMILIES)
@torch.no_grad()
def test_logprobs_are_the_plain_log_softmax(family, policy, plain_logits, records):
    network = policy(family)
    expected = plainly(plain_logits, network.module, records, log_softmax_at)
    assert expected.abs().max() > 1
    torch.testing.assert_close(network.logprobs(records), expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize("family", FAMILIES)
@torch.no_grad()
def test_padding_and_batch_shape_change_nothing(family, policy, records):
    network = policy(family)
    together = network.logprobs(records)
    for i in range(len(records)):
        alone = network.logprobs(records.take([i]))
        torch.testing.assert_close(alone[0], together[i, : alone.shape[1]], rtol=0, atol=1e-5)
    torch.testing.assert_close(network.logprobs(wider(records))[:, : together.shape[1]], together, rtol=0, atol=1e-5)


def wider(c: Completions) -> Completions:
    """Three more columns of padding on either side, filled with tokens that must not be read."""
    prompts = replace(c.prompts, ids=F.pad(c.prompts.ids, (3, 0), value=9), attended=F.pad(c.prompts.attended, (3, 0)))
    padded = {n: F.pad(getattr(c, n), (0, 3), value=9 if n == "ids" else 0) for n in ("ids", "attended", "scored")}
    return replace(c, prompts=prompts, **padded)


@torch.no_grad()
def test_temperature_divides_the_logits(policy, plain_logits, records):
    network = policy("llama")
    with network.shared.at(0.5):
        found = network.logprobs(records)
    expected = plainly(plain_logits, network.module, records, lambda logits, ids: log_softmax_at(logits / 0.5, ids))
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-5)
    with network.shared.at(0):
        torch.testing.assert_close(
            network.logprobs(records), plainly(plain_logits, network.module, records, log_softmax_at), rtol=0, atol=1e-5
        )
    assert network.shared.temperature == 1


@torch.no_grad()
def test_support_renormalises(policy, plain_logits, records):
    network = policy("llama")
    network.shared.support = SUPPORT
    inside = lambda logits, ids: log_softmax_at(logits.masked_fill(~SUPPORT, -torch.inf), ids)  # noqa: E731
    torch.testing.assert_close(
        network.logprobs(records), plainly(plain_logits, network.module, records, inside), rtol=0, atol=1e-5
    )
    mass = network.tokens(records, lambda logits: logits.softmax(-1)[:, SUPPORT].sum(-1))
    torch.testing.assert_close(mass, records.scored.float())


@pytest.mark.parametrize("support", [None, SUPPORT])
@torch.no_grad()
def test_entropy(support, policy, plain_logits, records):
    network = policy("gpt2")
    network.shared.support = support

    def entropy(logits: Tensor, ids: Tensor) -> Tensor:
        kept = logits if support is None else logits[:, support]
        return torch.distributions.Categorical(logits=kept).entropy()

    torch.testing.assert_close(
        network.entropy(records), plainly(plain_logits, network.module, records, entropy), rtol=0, atol=1e-5
    )


def test_chunks_change_neither_values_nor_gradients(policy, records, monkeypatch):
    network, other = policy("llama"), policy("gpt2", seed=1, frozen=True)
    calls = []

    def measure(student: Tensor, teacher: Tensor, ids: Tensor) -> Tensor:
        calls.append(len(student))
        return forward_kl(student, teacher) + log_softmax_at(student, ids)

    def run() -> tuple[Tensor, list[Tensor]]:
        network.module.zero_grad()
        calls.clear()
        found = network.tokens(records, measure, records.ids, beside=[other])
        found.square().sum().backward()
        return found.detach(), [p.grad.clone() for p in network.module.parameters()]

    whole, gradients = run()
    assert calls == [int(records.scored.sum())]
    monkeypatch.setattr(networks, "CHUNK_BYTES", 3 * 259 * 4)
    cut, cut_gradients = run()
    assert max(calls) == 3
    torch.testing.assert_close(cut, whole, rtol=0, atol=1e-6)
    distance, size = (torch.linalg.vector_norm(torch.cat([g.flatten() for g in x])) for x in (
        [a - b for a, b in zip(cut_gradients, gradients, strict=True)], gradients,
    ))  # fmt: skip
    assert distance < 1e-5 * size
    with torch.no_grad():
        torch.testing.assert_close(network.tokens(records, measure, records.ids, beside=[other]), whole, rtol=0, atol=1e-6)


@torch.no_grad()
def test_beside_lines_up_two_networks(policy, plain_logits, records):
    student, teacher = policy("llama"), policy("t5", seed=3)
    assert student.tokens(records, forward_kl, beside=[student]).abs().max() < 1e-6
    theirs = [plain_logits(teacher.module, prompt, written)[:-1].double() for prompt, written, _ in texts(records)]
    expected = torch.zeros(records.ids.shape)
    for i, (prompt, written, scored) in enumerate(texts(records)):
        p, q = theirs[i].log_softmax(-1), plain_logits(student.module, prompt, written)[:-1].double().log_softmax(-1)
        expected[i, : len(written)] = torch.where(scored, (p.exp() * (p - q)).sum(-1), 0)
    torch.testing.assert_close(student.tokens(records, forward_kl, beside=[teacher]), expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize("family", ["llama", "t5"])
@pytest.mark.parametrize("rows", [[], [0, 1]])
def test_nothing_scored_gives_zero_and_no_gradient(family, rows, policy, records):
    network = policy(family)
    found = network.logprobs(records.blank().take(rows))
    assert found.shape[0] == len(rows) and found.abs().sum() == 0
    found.sum().backward()
    assert all(p.grad is None or p.grad.abs().sum() == 0 for p in network.module.parameters())


def test_frozen_networks_give_no_gradient(policy, records):
    network = policy("llama")
    assert network.logprobs(records).requires_grad
    assert not network.view(frozen=True).logprobs(records).requires_grad


def test_a_view_has_only_the_roles_asked_for(policy, records):
    network = policy("llama")
    models = RoleNetworks({"policy": network, "reference": network}, network.shared, Sampling())
    only = models.only({"policy"}, learning=set())
    assert not only.policy.logprobs(records).requires_grad and models.policy.logprobs(records).requires_grad
    with pytest.raises(AttributeError, match=r"no role 'reference'.*Declared: policy"):
        _ = only.reference
    with pytest.raises(AttributeError, match="no reward"):
        only.reward(records)


# --- heads ---


def headed(policy: PolicyNetwork, kind: Kind, shares: str | None = None) -> HeadedNetwork:
    role = Role(kind=kind, trained=True, shares=shares)
    made = modules.role_module(kind.value, role, policy.module, None, Model())
    return HeadedNetwork(made, policy.shared, trunk=policy.module if shares else None)


def fill(network: HeadedNetwork) -> None:
    with torch.no_grad():
        network.module.head.weight.copy_(torch.linspace(-1, 1, 16)[None])
        network.module.head.bias.fill_(0.25)


def last_states(module: Any, prompt: list[int], written: list[int]) -> Tensor:
    """(len(written) + 1, H): last hidden states before each token, and after the last."""
    if module.config.is_encoder_decoder:
        start = torch.tensor([[module.config.decoder_start_token_id, *written]])
        return module(
            input_ids=torch.tensor([prompt]), decoder_input_ids=start, output_hidden_states=True
        ).decoder_hidden_states[-1][0]
    return module(input_ids=torch.tensor([prompt + written]), output_hidden_states=True).hidden_states[-1][0, len(prompt) - 1 :]


@pytest.mark.parametrize("shares", [None, "policy"])
@pytest.mark.parametrize("family", ["llama", "gpt2", "t5"])
@torch.no_grad()
def test_values_and_scores_read_the_states_of_the_plain_forward(family, shares, policy, records):
    network = policy(family)
    value, scorer = headed(network, Kind.VALUE, shares), headed(network, Kind.SCORER, shares)
    assert value.values(records).abs().sum() == 0 and scorer.scores(records).abs().sum() == 0
    fill(value)
    fill(scorer)
    values, scores = torch.zeros(records.ids.shape), torch.zeros(len(records))
    for i, (prompt, written, scored) in enumerate(texts(records)):
        read = last_states(network.module, prompt, written) @ torch.linspace(-1, 1, 16) + 0.25
        values[i, : len(written)] = torch.where(scored, read[:-1], 0)
        scores[i] = read[-1]
    torch.testing.assert_close(value.values(records), values, rtol=0, atol=1e-5)
    torch.testing.assert_close(scorer.scores(records), scores, rtol=0, atol=1e-5)


@torch.no_grad()
def test_the_value_of_a_state_is_read_before_its_token(policy):
    value = headed(policy("llama"), Kind.VALUE)
    fill(value)
    c = toys.completions(list(range(8)))
    c = c.take(c.length > 2)
    changed = c.ids.clone()
    changed[:, 1] = (changed[:, 1] + 1) % 40
    before, after = value.values(c), value.values(replace(c, ids=changed))
    torch.testing.assert_close(after[:, :2], before[:, :2])
    assert ((after[:, 2] - before[:, 2]).abs() > 1e-3).all()


@torch.no_grad()
def test_embeddings_are_the_mean_state_after_the_completions_tokens(policy, records):
    network = policy("llama")
    found = headed(network, Kind.EMBEDDER).embed(wider(records))
    expected = torch.stack([last_states(network.module, p, w)[1:].mean(0) for p, w, _ in texts(records)])
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-5)


def test_a_shared_trunk_learns_from_its_head_and_a_separate_one_does_not(policy, records):
    for shares, learns in (("policy", True), (None, False)):
        network = policy("llama")
        value = headed(network, Kind.VALUE, shares)
        fill(value)
        value.values(records).sum().backward()
        reached = [p.grad is not None and p.grad.abs().sum() > 0 for p in network.module.parameters()]
        assert any(reached) is learns
        assert value.module.head.weight.grad is not None
        assert not value.view(frozen=True).values(records).requires_grad
