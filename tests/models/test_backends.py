"""Whichever loop samples, the tokens and log-probs are those of the plain one; a network gets one that it can."""

from __future__ import annotations

import logging
import sys
import threading
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import AutoConfig, AutoModelForCausalLM

from alignzoo import config
from alignzoo.common.noise import Noise
from alignzoo.models import build
from alignzoo.models.forward import attention
from alignzoo.models.networks import PolicyNetwork, Shared
from alignzoo.models.sampling import backends, generation, transformers_loop
from alignzoo.settings import Decoding, Dtype, Peft, Sampling, UserError
from tests.models.conftest import FAMILIES
from tests.models.test_decoding import ENDS, assert_equal
from tests.models.test_flat import in_double_throughout, records

try:
    from alignzoo.models.sampling import continuous_loop
except ImportError:
    continuous_loop = None
continuous = pytest.mark.skipif(continuous_loop is None, reason="transformers 5.23 is the first that can")

PROMPTS = records([1, 12, 5, 2], [(0, 1)]).prompts
SUPPORT = torch.arange(259) % 5 > 0


def both(
    network: Any,
    sampling: Sampling,
    ends: set[int] = ENDS,
    theirs: Any = transformers_loop,
    prompts: Any = PROMPTS,
    **options: Any,
) -> tuple[Any, Any]:
    """What the plain loop draws, and one of transformers: their `generate`, unless another is named."""
    own = Shared(Noise(0), ends, temperature=sampling.temperature or 1.0, support=SUPPORT)
    noise = torch.Generator().manual_seed(5)
    count = len(prompts) * sampling.samples, sampling.max_new_tokens
    uniforms = torch.rand(count, dtype=torch.float64, generator=noise)
    run = lambda loop: loop.generate(network, prompts, sampling, uniforms, ends, own.shape, **options)  # noqa: E731
    return run(generation), run(theirs)


def softened(made: Any) -> Any:
    """Nearer to uniform, so that rows differ and end all along."""
    with torch.no_grad():
        for weight in made.parameters():
            weight.mul_(0.5)
    return made


@pytest.mark.parametrize("dtype", [Dtype.float64, Dtype.float32])
@pytest.mark.parametrize("family", FAMILIES)
def test_transformers_draw_the_plain_loops_tokens(family, dtype, module):
    made = softened(module(family, dtype=dtype))
    made.generation_config.update(repetition_penalty=3.0, eos_token_id=[1, 2, 4, 5, 7, 8], max_new_tokens=2)
    tolerance = 1e-10 if dtype is Dtype.float64 else 2e-6
    made = in_double_throughout(made) if dtype is Dtype.float64 else made
    for sampling in (
        Sampling(samples=3, max_new_tokens=20, temperature=0.8),
        Sampling(max_new_tokens=6, top_k=40, top_p=0.9, min_p=0.01),
        Sampling(max_new_tokens=5).greedy(),
    ):
        plain, theirs = both(made, sampling)
        assert_equal(plain, theirs, tolerance)
        assert plain.logprobs.dtype == theirs.logprobs.dtype == getattr(torch, dtype.value)
        assert len(plain.length.unique()) > 1 or sampling.samples == 1
    assert made.generation_config.repetition_penalty == 3.0  # theirs is as it was
    assert not made._forward_hooks


@torch.no_grad()
def test_what_is_adjusted_and_when_ranks_stop(module):
    made = softened(module("llama", dtype=Dtype.float64))
    seen: list[list[int]] = []

    def adjust(scores: Tensor) -> Tensor:
        seen[-1].append(len(scores))
        return scores * 0.5

    for finished, length in ((lambda done: False, 9), (lambda done: bool(done.any()), None), (None, None)):
        seen.append([])
        plain, theirs = both(made, Sampling(samples=2, max_new_tokens=9), adjust=adjust, finished=finished)
        assert_equal(plain, theirs, 1e-10)
        assert length is None or theirs.ids.shape[1] == length
        assert seen[-1] == [8] * (2 * theirs.ids.shape[1])
    plain, theirs = both(made, Sampling(max_new_tokens=4), ends=set())
    assert_equal(plain, theirs, 1e-10)
    assert theirs.truncated.all()


def test_the_setting_chooses_transformers_and_keeps_the_adapter(module, monkeypatch):
    made = softened(build.adapted(module("qwen2"), Peft(enabled=True, rank=2), 0))
    with torch.no_grad():
        for weight in made.parameters():
            weight.add_(0.05)  # what the adapter adds isn't zero any more
    network = PolicyNetwork(made, Shared(Noise(7), ends=ENDS))
    calls: list[int] = []
    run = transformers_loop.generate
    monkeypatch.setattr(transformers_loop, "generate", lambda *a: calls.append(1) or run(*a))
    drawn = {}
    for decoding in (Decoding.transformers, Decoding.plain, Decoding.auto):
        with network.shared.noise.during("rollout", 0):
            drawn[decoding] = network.generate(PROMPTS, Sampling(samples=2, max_new_tokens=6, decoding=decoding))
        assert len(calls) == 1
    assert_equal(drawn[Decoding.plain], drawn[Decoding.transformers])
    assert_equal(drawn[Decoding.auto], drawn[Decoding.transformers])


# --- continuous batching ---


@continuous
@pytest.mark.parametrize("family", [family for family in FAMILIES if family != "t5"])
def test_continuous_batching_draws_the_plain_loops_tokens(family, module):
    made = softened(module(family))
    made.generation_config.update(repetition_penalty=3.0, eos_token_id=[1, 2, 4, 5, 7, 8], max_new_tokens=2)
    made.train()
    made.get_output_embeddings().eval()
    assert backends.loop(made, Decoding.auto) is not continuous_loop.generate  # tried out: the attention is ours
    before = made.config._attn_implementation
    threads = threading.active_count()
    for sampling in (
        Sampling(samples=3, max_new_tokens=20, temperature=0.8),
        Sampling(max_new_tokens=6, top_k=40, top_p=0.9, min_p=0.01),
        Sampling(samples=2, max_new_tokens=5).greedy(),
    ):
        try:
            plain, theirs = both(made, sampling, theirs=continuous_loop)
        except UserError as refusal:
            if "PagedAttentionCache.update() missing 1 required positional argument" not in str(refusal):
                raise
            pytest.skip(f"this transformers gives its paged cache less than it asks for: {refusal}")  # GPT-NeoX in 5.24
        assert_equal(plain, theirs, 2e-6)
        assert len(plain.length.unique()) > 1 or sampling.samples < 3
    assert before == made.config._attn_implementation == attention.NAME
    assert made.training and not made.get_output_embeddings().training  # all is as it was
    assert threading.active_count() == threads


@continuous
@pytest.mark.parametrize("lengths", [[2, 12, 5, 3], [1, 12, 5, 2], [1, 1, 1, 1]])
def test_rows_wait_for_room_and_long_prompts_are_read_in_parts(lengths, module, monkeypatch):
    """Two rows fit into the cache, and 7 tokens into a pass."""
    monkeypatch.setattr(continuous_loop, "PAGE", 16)
    monkeypatch.setattr(continuous_loop, "TOKENS", 7)
    monkeypatch.setattr(continuous_loop, "_room", lambda network: 4)
    made, prompts = softened(module("qwen2")), records(lengths, [(0, 1)]).prompts
    for samples in (1, 3):
        drawn = both(made, Sampling(samples=samples, max_new_tokens=9), theirs=continuous_loop, prompts=prompts)
        assert_equal(*drawn, 2e-6)


@continuous
def test_continuous_batching_sees_the_weights_as_they_are_now(module):
    made = softened(build.adapted(module("llama"), Peft(enabled=True, rank=2), 0))
    first, _ = both(made, Sampling(max_new_tokens=8), ends=set(), theirs=continuous_loop)
    with torch.no_grad():
        for weight in made.parameters():
            weight.add_(0.05)
    plain, theirs = both(made, Sampling(max_new_tokens=8), ends=set(), theirs=continuous_loop)
    assert_equal(plain, theirs, 2e-6)
    assert not torch.equal(first.ids, plain.ids) and theirs.truncated.all()


@continuous
def test_continuous_batching_refuses_what_it_cannot():
    made, uniforms = foreign(), torch.rand(4, 2, dtype=torch.float64)
    for options, said in (
        ({"adjust": lambda x: x}, "logits are changed row by row"),
        ({"finished": lambda done: True}, r"all ranks must decode together.*take auto or transformers"),
        ({}, r"can't sample from MambaForCausalLM: .*take auto or transformers"),
    ):
        with pytest.raises(UserError, match=said):
            continuous_loop.generate(
                made, PROMPTS, Sampling(max_new_tokens=2), uniforms, ENDS, Shared(Noise(0), ENDS).shape, **options
            )
    with pytest.raises(UserError, match=r"decoding=continuous can't sample from Linear"):
        backends.loop(torch.nn.Linear(2, 2), Decoding.continuous)


def test_an_older_transformers_is_told(module, monkeypatch):
    monkeypatch.delattr("alignzoo.models.sampling.continuous_loop", raising=False)
    monkeypatch.setitem(sys.modules, "alignzoo.models.sampling.continuous_loop", None)
    loop = backends.loop(module("llama"), Decoding.continuous)
    with pytest.raises(UserError, match=r"decoding=continuous needs transformers 5\.23 or newer"):
        loop()


@continuous
def test_a_failure_of_the_network_is_told(module, monkeypatch):
    made = module("llama")
    monkeypatch.setattr(made, "forward", lambda **inputs: (_ for _ in ()).throw(RuntimeError("no such kernel\nat line 1")))
    loop = backends.loop(made, Decoding.continuous)
    own, uniforms = Shared(Noise(0), ENDS), torch.rand(4, 2, dtype=torch.float64)
    with pytest.raises(UserError, match=r"LlamaForCausalLM: no such kernel; take auto"):
        loop(made, PROMPTS, Sampling(max_new_tokens=2), uniforms, ENDS, own.shape, None, None)


# --- networks that our own loops don't know ---

MAMBA = {"vocab_size": 259, "hidden_size": 16, "state_size": 4, "num_hidden_layers": 2}


def foreign() -> Any:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return AutoModelForCausalLM.from_config(AutoConfig.for_model("mamba", **MAMBA)).eval()


@pytest.mark.parametrize("decoding", [Decoding.auto, Decoding.cascade])
def test_a_cache_that_nobody_else_knows(decoding, caplog):
    made = foreign()
    network = PolicyNetwork(made, Shared(Noise(7), ends=ENDS))
    with caplog.at_level(logging.WARNING, "alignzoo"), torch.no_grad():
        c = network.generate(PROMPTS, Sampling(samples=3, max_new_tokens=8, decoding=decoding))
        network.generate(PROMPTS, Sampling(max_new_tokens=2, decoding=decoding))
        again = network.logprobs(replace(c, logprobs=None))
    torch.testing.assert_close(c.logprobs, again, rtol=0, atol=1e-5)
    (line,) = [record.message for record in caplog.records if "sampled" in record.message]
    assert line.startswith("MambaForCausalLM is sampled from by transformers' generate")
    assert "fails otherwise with AttributeError" in line


def test_the_plain_loop_comes_first_and_says_so(module, caplog):
    with caplog.at_level(logging.WARNING, "alignzoo"):
        assert backends.loop(made := module("t5"), Decoding.auto) is generation.generate
        assert backends.loop(made, Decoding.plain) is generation.generate
    (line,) = [record.message for record in caplog.records if "sampled" in record.message]
    assert line == "T5ForConditionalGeneration is sampled from by the plain loop, which is slower: it is run with padding"


def test_nothing_is_right_and_says_so(caplog, monkeypatch):
    """Log-probs that differ from those of a forward are no reason to refuse, but to warn."""
    made = foreign()
    monkeypatch.setattr(backends, "differs", lambda module, loop: f"{loop.__module__} is off")
    with caplog.at_level(logging.WARNING, "alignzoo"):
        assert backends.loop(made, Decoding.auto) is generation.generate
    assert "generation is off" in caplog.records[-1].message and "transformers_loop is off" in caplog.records[-1].message


def test_a_backend_that_is_not_there_is_an_error():
    network = torch.nn.Linear(2, 2)
    with pytest.raises(UserError, match=r"decoding=transformers can't sample from Linear.*auto, plain or cascade"):
        backends.loop(network, Decoding.transformers)
    with pytest.raises(UserError, match=r"sglang.*transformers"):
        config.compose(["algorithm=rloo", "generation.decoding=sglang"])
