"""Sampling: against brute force without a cache, against transformers, and against the probabilities themselves."""

from __future__ import annotations

from dataclasses import replace
from itertools import product
from typing import Any

import numpy as np
import pytest
import torch
from scipy import stats
from torch import Tensor
from transformers import MinPLogitsWarper, TopKLogitsWarper, TopPLogitsWarper
from transformers.generation.logits_process import LogitsProcessorList

from alignzoo.batch import Completions, Prompts
from alignzoo.common.noise import Noise, philox
from alignzoo.contracts import DecodingRequest
from alignzoo.models.forward import flat
from alignzoo.models.networks import PolicyNetwork
from alignzoo.models.sampling import backends, generation
from alignzoo.settings import Dtype, Forward, Optimizer, Sampling
from alignzoo.testing import toys
from alignzoo_plugins.sft.sft import SFT

ROWS = [0, 1, 2, 3]
SUPPORT = torch.isin(torch.arange(259), torch.tensor([2, *range(3, 12)]))


@pytest.fixture
def prompts() -> Prompts:
    return toys.completions(ROWS).prompts


def sampled(network: PolicyNetwork, prompts: Prompts, sampling: Sampling, seed: int = 7, step: int = 0) -> Completions:
    """A draw that depends on nothing but its arguments."""
    network.shared.noise = noise = Noise(seed)
    with noise.during("rollout", step):
        return network.generate(prompts, sampling)


def texts(c: Completions) -> list[list[int]]:
    return [ids[mask].tolist() for ids, mask in zip(c.ids, c.attended, strict=True)]


def unpadded(prompts: Prompts) -> list[list[int]]:
    return [ids[mask].tolist() for ids, mask in zip(prompts.ids, prompts.attended, strict=True)]


@pytest.mark.parametrize("family", ["llama", "gpt2", "gemma3", "t5"])
@torch.no_grad()
def test_tokens_are_the_inverse_cdf_at_the_uniforms(family, policy, plain_logits, prompts):
    network = policy(family)
    network.shared.support, network.shared.temperature = SUPPORT, 0.9
    sampling = Sampling(samples=2, max_new_tokens=10, temperature=0.9)
    uniforms = torch.rand(8, 10, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    uniforms[::3, 4] = 1e-9  # EOS, the first token of the support
    c = generation.generate(DecodingRequest(network.module, prompts, sampling, uniforms, {toys.EOS}, network.shared.shape))
    assert c.prompt_of.tolist() == [0, 0, 1, 1, 2, 2, 3, 3]
    expected = []
    for i, row in enumerate(uniforms):
        written: list[int] = []
        while len(written) < 10 and toys.EOS not in written:
            logits = plain_logits(network.module, unpadded(prompts)[i // 2], written)[-1].double() / 0.9
            kept = SUPPORT.nonzero()[:, 0]
            mass = logits[kept].softmax(-1).cumsum(-1)
            written.append(int(kept[(mass > row[len(written)]).nonzero()[0, 0]]))
        expected.append(written)
    assert texts(c) == expected
    assert any(c.truncated) and not all(c.truncated)
    assert c.truncated.tolist() == [toys.EOS not in text for text in expected]


@pytest.mark.parametrize("family", ["llama", "gpt2", "gemma3", "t5"])
@torch.no_grad()
def test_greedy_is_that_of_transformers(family, policy, prompts):
    network = policy(family)
    ends = {toys.EOS, 100, 150, 200}
    network.shared.ends = ends
    c = network.generate(prompts, Sampling(samples=3, max_new_tokens=12).greedy())
    theirs = network.module.generate(
        input_ids=prompts.ids, attention_mask=prompts.attended.long(), do_sample=False, max_new_tokens=12,
        eos_token_id=sorted(ends), pad_token_id=0,
    )  # fmt: skip
    start = 1 if network.module.config.is_encoder_decoder else prompts.ids.shape[1]
    expected = theirs[:, start:]
    assert len(c) == len(ROWS)
    torch.testing.assert_close(c.ids, expected[:, : c.ids.shape[1]])
    assert (expected[:, c.ids.shape[1] :] == 0).all()


@pytest.mark.parametrize("family", ["llama", "gpt2", "gemma3", "t5"])
@torch.no_grad()
def test_the_samplers_logprobs_are_those_of_a_forward(family, policy, prompts):
    network = policy(family)
    network.shared.support, network.shared.temperature = SUPPORT, 0.7
    c = network.generate(prompts, Sampling(samples=3, max_new_tokens=8, temperature=0.7, top_k=5))
    recomputed = network.logprobs(replace(c, logprobs=None))
    torch.testing.assert_close(c.logprobs, recomputed, rtol=0, atol=1e-5)
    assert (c.logprobs[~c.scored] == 0).all() and (c.logprobs[c.scored] < 0).any()


def test_a_draw_depends_on_its_row_alone(policy, prompts):
    network = policy("llama")
    whole = sampled(network, prompts, Sampling(samples=3, max_new_tokens=8))
    for rows in ([0, 1], [2, 3], [3, 1]):  # as two ranks cut them, and in another order
        part = sampled(network, prompts.take(rows), Sampling(samples=3, max_new_tokens=8))
        assert texts(part) == [texts(whole)[3 * row + k] for row in rows for k in range(3)]
        assert part.row.tolist() == [row for row in rows for _ in range(3)]
    fewer = sampled(network, prompts, Sampling(samples=2, max_new_tokens=8))
    assert texts(fewer) == [texts(whole)[i] for i in (0, 1, 3, 4, 6, 7, 9, 10)]
    shorter = sampled(network, prompts, Sampling(samples=3, max_new_tokens=5))
    assert texts(shorter) == [text[:5] for text in texts(whole)]


def test_another_seed_step_purpose_or_draw_differs(policy, prompts):
    network, sampling = policy("llama"), Sampling(samples=2, max_new_tokens=8)
    first = texts(sampled(network, prompts, sampling))
    assert first == texts(sampled(network, prompts, sampling))
    assert first != texts(sampled(network, prompts, sampling, seed=8))
    assert first != texts(sampled(network, prompts, sampling, step=1))
    noise = network.shared.noise = Noise(7)
    with noise.during("rollout", 0):
        again, second = (texts(network.generate(prompts, sampling)) for _ in range(2))
        with noise.during("evaluation", 0):
            evaluated = texts(network.generate(prompts, sampling))
        third = texts(network.generate(prompts, sampling))
    assert first == again
    assert len({str(x) for x in (first, second, third, evaluated)}) == 4
    assert texts(sampled(network, prompts, sampling)) == first


def test_philox_gives_its_published_words():
    """The first and third known answers of the authors' Random123 library for philox4x32-10."""
    zero = [np.zeros(1, dtype=np.uint64)] * 4
    assert [hex(int(word[0])) for word in philox(np.zeros(2, dtype=np.uint64), *zero)] == [
        "0x6627e8d5", "0xe169c58d", "0xbc57ac4c", "0x9b00dbd8",
    ]  # fmt: skip
    digits = [np.array([word], dtype=np.uint64) for word in (0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344)]
    found = philox(np.array([0xA4093822, 0x299F31D0], dtype=np.uint64), *digits)
    assert [hex(int(word[0])) for word in found] == ["0xd16cfe09", "0x94fdcceb", "0x5001e420", "0x24126ea1"]


def test_uniforms_by_position():
    noise, rows = Noise(0), torch.tensor([5, 2**33 + 5, 7])
    with noise.during("rollout", 3):
        drawn = noise.positions(rows, 40, 50)
    with noise.during("rollout", 3):
        assert torch.equal(noise.positions(rows[1:2], 30, 20), drawn[40:70, :20])
    assert drawn.shape == (120, 50) and len(drawn.unique()) == 6000
    assert stats.kstest(drawn.flatten(), "uniform").pvalue > 0.01


def test_a_purpose_has_noise_of_its_own_whatever_else_was_drawn():
    noise, rows = Noise(0), torch.tensor([5, 6])
    with noise.during("rollout", 3):
        first, again = (noise.positions(rows, 2, 9, "second opinion") for _ in range(2))
        plain = noise.positions(rows, 2, 9)
    with noise.during("rollout", 3):
        noise.positions(rows, 2, 9)
        noise.positions(rows, 2, 9, "else")
        assert torch.equal(noise.positions(rows, 2, 9, "second opinion"), first)
    assert len(torch.cat([first, again, plain]).unique()) == 3 * 36


def test_uniforms_by_token():
    noise, rows = Noise(0), torch.tensor([5, 6, 7])
    with noise.during("rollout", 3):
        drawn = noise.positions(rows, 1, 8, "mix", 0)
        assert torch.equal(noise.positions(rows[1:], 1, 5, "mix", 0), drawn[1:, :5])
        assert len(torch.cat([drawn.flatten(), noise.positions(rows, 1, 8, "flip", 0).flatten()]).unique()) == 48
    assert ((drawn >= 0) & (drawn < 1)).all()


def test_uniforms_by_name():
    noise, rows = Noise(0), torch.tensor([5, 6, 7])
    with noise.during("rollout", 3):
        drawn = noise.named("mix", rows)
        assert torch.equal(noise.named("mix", rows[1:]), drawn[1:])
        assert not torch.isin(noise.named("flip", rows), drawn).any()
    with noise.during("rollout", 4):
        assert not torch.isin(noise.named("mix", rows), drawn).any()
    assert ((drawn >= 0) & (drawn < 1)).all()


def test_completions_end_where_an_end_is_written(policy, prompts):
    network = policy("llama")
    network.shared.ends = {5, 6}
    follow = iter([[4, 4, 4, 4], [5, 4, 4, 4], [7, 6, 4, 4], [7, 7, 4, 5]])

    def force(logits: Tensor) -> Tensor:
        wanted = torch.tensor(next(follow))
        return torch.full_like(logits, -torch.inf).scatter(1, wanted[:, None], 0.0)

    c = network.generate(prompts, Sampling(max_new_tokens=4), adjust=force)
    assert texts(c) == [[4, 5], [4, 4, 6], [4, 4, 4, 4], [4, 4, 4, 5]]
    assert c.truncated.tolist() == [False, False, True, False]
    assert torch.equal(c.scored, c.attended)
    assert c.ids[0].tolist() == [4, 5, 0, 0] and c.length.tolist() == [2, 3, 4, 4]
    # what `adjust` did is not in the log-probs
    torch.testing.assert_close(c.logprobs, network.logprobs(replace(c, logprobs=None)).detach(), rtol=0, atol=1e-5)


BESIDE = [("llama", "gpt2", "auto"), ("gpt2", "llama", "transformers"), ("t5", "llama", "auto"), ("llama", "t5", "plain")]


@pytest.mark.parametrize(("leader", "follower", "decoding"), BESIDE)
@torch.no_grad()
def test_others_beside_are_read_after_the_same_tokens(leader, follower, decoding, policy, prompts):
    """What `adjust` sees of another network are its logits after prompt and tokens so far, as in a forward of the whole. Told
    to go by the other one, the first draws what that draws by itself; its log-probs are its own."""
    network, other = policy(leader), policy(follower)
    sampling, seen = Sampling(samples=2, max_new_tokens=6, decoding=decoding), []

    def adjust(logits: Tensor, beside: Tensor) -> Tensor:
        seen.append(beside)
        return beside

    noise = Noise(3)
    network.shared.noise = other.shared.noise = noise
    with noise.during("rollout", 0):
        c = network.generate(prompts, sampling, adjust, beside=[other])
    with noise.during("rollout", 0):
        alone = other.generate(prompts, sampling)
    assert texts(c) == texts(alone)
    logits = other.tokens(c, lambda rows: rows)[c.scored]
    torch.testing.assert_close(torch.stack(seen, 1)[:, : c.ids.shape[1]][c.scored], logits, rtol=0, atol=1e-4)
    torch.testing.assert_close(c.logprobs, network.logprobs(replace(c, stamp=None)), rtol=0, atol=1e-4)
    assert (c.logprobs - alone.logprobs)[c.scored].abs().max() > 1e-3


def test_sampling_stops_when_all_have_ended_unless_ranks_must_go_on(policy, prompts):
    network = policy("llama")
    forwards = count_forwards(network.module)
    network.shared.ends = set(range(259))
    assert network.generate(prompts, Sampling(max_new_tokens=6)).ids.shape == (4, 1)
    assert len(forwards) == 1
    network.shared.finished = lambda done: False
    c = network.generate(prompts, Sampling(max_new_tokens=6))
    assert len(forwards) == 1 + 6
    assert c.ids.shape == (4, 6) and c.length.tolist() == [1, 1, 1, 1]


def test_no_prompts_give_no_completions(policy, prompts):
    for family in ("llama", "gpt2", "t5"):
        c = policy(family).generate(prompts.take([]), Sampling(samples=2, max_new_tokens=4))
        assert len(c) == 0 and len(c.prompts) == 0


CUTS = [
    {"top_k": 4},
    {"top_p": 0.6},
    {"min_p": 0.2},
    {"top_k": 6, "top_p": 0.7},
    {"top_p": 0.8, "min_p": 0.3},
    {"top_k": 1},
    {"top_p": 1e-6},
]


@pytest.mark.parametrize("cut", CUTS, ids=str)
def test_truncation_keeps_the_tokens_that_transformers_keeps(cut):
    logits = torch.randn(5, 12, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    warpers = {"top_k": TopKLogitsWarper, "top_p": TopPLogitsWarper, "min_p": MinPLogitsWarper}
    warped = LogitsProcessorList([warpers[name](value) for name, value in cut.items()])(torch.empty(5, 0), logits.clone())
    grid = (torch.arange(4000) + 0.5) / 4000
    for row, expected in zip(logits, warped.softmax(-1), strict=True):
        tokens = generation.choose(row.expand(4000, -1), Sampling(**cut), grid)
        share = tokens.bincount(minlength=12) / 4000
        assert (share > 0).tolist() == (expected > 0).tolist()
        torch.testing.assert_close(share.double(), expected, rtol=0, atol=1 / 4000)


def test_frequencies_are_the_probabilities(policy, plain_logits, prompts):
    """All outcomes of two tokens out of four."""
    network, tokens = policy("gpt2"), [toys.EOS, 5, 8, 11]
    network.shared.support = torch.isin(torch.arange(259), torch.tensor(tokens))
    with torch.no_grad():
        for weight in network.module.parameters():
            weight.mul_(0.5)  # nearer to uniform, so that every outcome is expected often enough
        c = sampled(network, prompts.take([1]), Sampling(samples=4000, max_new_tokens=2))
        (prompt,) = unpadded(prompts.take([1]))
        step = lambda written: plain_logits(network.module, prompt, written)[-1, tokens].softmax(-1)  # noqa: E731
        probability = {
            (a, b): step([])[i] * step([a])[j] for (i, a), (j, b) in product(enumerate(tokens), repeat=2) if a != toys.EOS
        }
        probability[(toys.EOS,)] = step([])[0]
    outcomes = list(probability)
    observed = [sum(tuple(text) == outcome for text in texts(c)) for outcome in outcomes]
    expected = [4000 * float(probability[outcome]) for outcome in outcomes]
    assert min(expected) > 5 and sum(observed) == 4000
    assert stats.chisquare(observed, [e * 4000 / sum(expected) for e in expected]).pvalue > 0.01


# --- the sampler's log-probs stand in for a forward ---


def count_forwards(module: Any) -> list[int]:
    calls: list[int] = []
    backends.fastest(module)  # tried out once, before counting
    module.base_model.register_forward_hook(lambda *_: calls.append(1))
    return calls


def test_logprobs_need_no_forward_until_the_weights_change(policy, prompts):
    network = policy("llama")
    c = network.generate(prompts, Sampling(max_new_tokens=6))
    forwards = count_forwards(network.module)
    with torch.no_grad():
        assert torch.equal(network.logprobs(c), c.logprobs)
        part = c.take([2, 0])
        assert torch.equal(network.logprobs(part), part.logprobs)
    assert not forwards
    loss = network.logprobs(c).sum()
    assert len(forwards) == 1 and loss.requires_grad
    loss.backward()
    torch.optim.SGD(network.module.parameters(), lr=0.1).step()
    with torch.no_grad():
        assert (network.logprobs(c) - c.logprobs).abs().max() > 1e-3
    assert len(forwards) == 2


@pytest.mark.parametrize("kind", list(Optimizer))
def test_logprobs_are_computed_anew_after_a_step_of_the_engine(kind, tmp_path):
    """Fused AdamW changes weights without a trace in their version counters."""
    made = toys.trainer(toys.setup(SFT(), training={"optimizer": kind, "max_steps": 1}), tmp_path)
    policy = made.roles.policy
    c = policy.generate(toys.completions(ROWS).prompts, Sampling(max_new_tokens=6))
    made.train()
    with torch.no_grad():
        assert (policy.logprobs(c) - c.logprobs).abs().max() > 1e-4


@torch.no_grad()
def test_lower_precision_always_computes_anew(module, shared, prompts):
    network = PolicyNetwork(module("llama", dtype=Dtype.bfloat16), shared)
    c = network.generate(prompts, Sampling(max_new_tokens=6))
    forwards = count_forwards(network.module)
    assert torch.equal(network.logprobs(c), network.logprobs(replace(c, logprobs=None)))
    exact = PolicyNetwork(module("llama"), shared)
    flat.unpadded(exact.module, Forward.auto)
    with torch.autocast("cpu", torch.bfloat16):
        drawn = exact.generate(prompts, Sampling(max_new_tokens=6))
    assert (exact.logprobs(drawn) - drawn.logprobs).abs().max() > 1e-6
    assert len(forwards) == 2


@torch.no_grad()
def test_logprobs_are_computed_anew_for_another_distribution(policy, prompts):
    network = policy("llama")
    c = network.generate(prompts, Sampling(max_new_tokens=6))
    forwards = count_forwards(network.module)
    with network.shared.at(2.0):
        assert (network.logprobs(c) - c.logprobs).abs().max() > 1e-3
    other = policy("llama", seed=1)
    assert (other.logprobs(c) - c.logprobs).abs().max() > 1e-3
    with torch.autocast("cpu", torch.bfloat16):
        network.logprobs(c)
    assert len(forwards) == 2
    scored = c.scored.clone()
    scored[:, 0] = False
    assert (network.logprobs(replace(c, scored=scored))[:, 0] == 0).all()
    mixed = Completions.cat([c, replace(c, stamp="other")])
    torch.testing.assert_close(network.logprobs(mixed), torch.cat([c.logprobs, c.logprobs]), rtol=0, atol=1e-5)
    assert len(forwards) == 3


def test_a_uniform_of_zero_never_draws_a_token_without_probability():
    scores = torch.tensor([[-torch.inf, 0.0, 0.0]])
    drawn = [int(generation.choose(scores, Sampling(), torch.tensor([u], dtype=torch.float64))) for u in (0.0, 0.49, 0.51)]
    assert drawn == [1, 1, 2]
