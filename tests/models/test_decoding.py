"""The loop that shares prompts and drops ended rows draws what the plain loop draws."""

from __future__ import annotations

import logging
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from alignzoo.batch import Completions, Prompts
from alignzoo.contracts import DecodingRequest
from alignzoo.models.forward import attention, flat
from alignzoo.models.networks import PolicyNetwork
from alignzoo.models.sampling import backends, cascade, generation
from alignzoo.settings import Dtype, Forward, Sampling
from tests.models.test_flat import FAMILIES, module, records, shared

ENDS = set(range(0, 259, 12))  # so many that rows end all along


def both(made: Any, prompts: Prompts, sampling: Sampling, **options: Any) -> tuple[Completions, Completions]:
    uniforms = torch.rand(
        len(prompts) * sampling.samples,
        sampling.max_new_tokens,
        dtype=torch.float64,
        generator=torch.Generator().manual_seed(5),
    )
    settings = shared(Forward.auto)
    settings.temperature = sampling.temperature or 1.0
    assert backends.fastest(made) is cascade.generate
    with torch.no_grad():
        plain, fast = (
            loop(DecodingRequest(made, prompts, sampling, uniforms, ENDS, settings.shape, **options))
            for loop in (generation.generate, cascade.generate)
        )
    return plain, fast


def assert_equal(plain: Completions, fast: Completions, tolerance: float = 2e-6) -> None:
    for name in ("ids", "attended", "scored", "truncated", "prompt_of", "row"):
        assert torch.equal(getattr(plain, name), getattr(fast, name)), name
    torch.testing.assert_close(fast.logprobs, plain.logprobs, rtol=0, atol=tolerance)


@pytest.mark.parametrize("family", FAMILIES)
def test_same_tokens_and_logprobs(family):
    made = module(family, Dtype.float32)
    with torch.no_grad():
        for weight in made.parameters():
            weight.mul_(0.5)
    prompts = records([1, 12, 5, 2], [(0, 1)]).prompts
    for sampling in (Sampling(samples=5, max_new_tokens=40), Sampling(samples=1, max_new_tokens=9, temperature=0.7, top_p=0.9)):
        plain, fast = both(made, prompts, sampling)
        assert_equal(plain, fast)
        assert len(plain.length.unique()) > 1 or sampling.samples == 1
    assert_equal(*both(made, prompts, Sampling(samples=2, max_new_tokens=6).greedy()))


@pytest.mark.parametrize("family", ["llama", "gemma3", "gpt2"])
def test_same_in_double_precision(family):
    prompts = records([7, 3], [(0, 1)]).prompts
    assert_equal(*both(module(family), prompts, Sampling(samples=3, max_new_tokens=12)), tolerance=1e-10)


def test_rows_that_ended_cost_nothing():
    made, prompts = module("llama"), records([4, 6], [(0, 1)]).prompts
    rows: list[int] = []
    plain, _ = both(made, prompts, Sampling(samples=8, max_new_tokens=30))
    hook = made.model.register_forward_pre_hook(
        lambda part, inputs, keywords: rows.append(len(keywords["input_ids"])), with_kwargs=True
    )
    sampling = Sampling(samples=8, max_new_tokens=30)
    both(made, prompts, sampling)
    hook.remove()
    steps = plain.ids.shape[1]
    slow, fast = rows[:steps], rows[steps:]
    assert sum(fast) < sum(slow) / 2 and fast[0] == 1  # the prompts, in one row without padding
    alive = [int((plain.length > t).sum()) for t in range(1, steps)]
    assert all(mine <= max(1, left / cascade.SHRINK) for mine, left in zip(fast[1:], alive, strict=True))


def test_prompts_are_kept_once():
    made, prompts = module("llama"), records([4, 6], [(0, 1)]).prompts
    assert backends.fastest(made) is cascade.generate
    memory, states = cascade._read_prompts(made.model, prompts)
    memory.spread(torch.tensor([0] * 5 + [1] * 5))
    cascade._read(made.model, memory, torch.arange(10))
    keys, _ = memory.prompts[0]
    assert states.shape == (2, 16) and keys.shape == (2, 2, 6, 4)
    memory.keep(torch.tensor([7, 9]))  # the first prompt's rows have all ended
    assert memory.prompts[0][0].shape[0] == 1 and memory.written[0][0].shape[0] == 2


def test_what_is_adjusted_keeps_its_rows():
    made, prompts = module("llama"), records([4, 6], [(0, 1)]).prompts
    seen: list[int] = []

    def adjust(scores: Tensor) -> Tensor:
        seen.append(len(scores))
        return scores * 0.5

    assert_equal(*both(made, prompts, Sampling(samples=4, max_new_tokens=12), adjust=adjust), tolerance=1e-10)
    assert set(seen) == {8}


def test_ranks_that_must_go_on_go_on():
    made, prompts = module("llama"), records([4, 6], [(0, 1)]).prompts
    plain, fast = both(made, prompts, Sampling(samples=2, max_new_tokens=50), finished=lambda done: False)
    assert_equal(plain, fast, tolerance=1e-10)
    assert fast.ids.shape[1] == 50


def test_the_setting_chooses_the_loop(monkeypatch):
    made, prompts = module("llama"), records([4, 6], [(0, 1)]).prompts
    network = PolicyNetwork(made, shared(Forward.auto))
    calls: list[str] = []
    for loop in (generation, cascade):
        plain = loop.generate
        monkeypatch.setattr(loop, "generate", lambda *a, name=loop.__name__, run=plain: calls.append(name) or run(*a))
    for decoding in ("plain", "cascade", "auto"):
        backends.fastest(made)
        calls.clear()
        network.generate(prompts, Sampling(max_new_tokens=3, decoding=decoding))
        wanted = "generation" if decoding == "plain" else "cascade"
        assert calls == [f"alignzoo.models.sampling.{wanted}"]


def test_a_network_whose_cache_is_its_own_is_sampled_plainly_and_says_so(caplog):
    made = module("llama")
    for layer in made.model.layers:
        del layer.self_attn.layer_idx
    flat._known[made] = ""  # forwards of whole sequences need no layer numbers
    attention.install(made.config)
    with caplog.at_level(logging.WARNING, "alignzoo"):
        assert backends.fastest(made) is backends.fastest(made) is generation.generate
    (line,) = [record.message for record in caplog.records]
    assert "plain loop" in line and "layer_idx" in line


def test_logprobs_of_a_rollout_are_those_of_a_forward():
    network = PolicyNetwork(module("qwen2"), shared(Forward.auto))
    c = network.generate(records([4, 6, 1], [(0, 1)]).prompts, Sampling(samples=3, max_new_tokens=10))
    with torch.no_grad():
        torch.testing.assert_close(c.logprobs, network.logprobs(replace(c, logprobs=None)), rtol=0, atol=1e-10)
