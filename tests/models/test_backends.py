"""Whichever loop samples, the tokens and log-probs are those of the plain one; a network gets one that it can."""

from __future__ import annotations

import logging
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import AutoConfig, AutoModelForCausalLM

from alignzoo import config
from alignzoo.common.noise import Noise
from alignzoo.contracts import DecodingRequest
from alignzoo.models import modules
from alignzoo.models.networks import PolicyNetwork, Shared
from alignzoo.models.sampling import backends, generation, transformers_loop
from alignzoo.settings import Dtype, Peft, Sampling, UserError
from tests.models.conftest import FAMILIES
from tests.models.test_decoding import ENDS, assert_equal
from tests.models.test_flat import in_double_throughout, records

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
    request = DecodingRequest(network, prompts, sampling, uniforms, ends, own.shape, **options)
    return generation.generate(request), theirs.generate(request)


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
    made = softened(modules.adapted(module("qwen2"), Peft(enabled=True, rank=2), 0))
    with torch.no_grad():
        for weight in made.parameters():
            weight.add_(0.05)  # what the adapter adds isn't zero any more
    network = PolicyNetwork(made, Shared(Noise(7), ends=ENDS))
    calls: list[int] = []
    run = transformers_loop.generate
    monkeypatch.setattr(transformers_loop, "generate", lambda *a: calls.append(1) or run(*a))
    drawn = {}
    for decoding in ("transformers", "plain", "auto"):
        with network.shared.noise.during("rollout", 0):
            drawn[decoding] = network.generate(PROMPTS, Sampling(samples=2, max_new_tokens=6, decoding=decoding))
        assert len(calls) == 1
    assert_equal(drawn["plain"], drawn["transformers"])
    assert_equal(drawn["auto"], drawn["transformers"])


# --- networks that our own loops don't know ---

MAMBA = {"vocab_size": 259, "hidden_size": 16, "state_size": 4, "num_hidden_layers": 2}


def foreign() -> Any:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return AutoModelForCausalLM.from_config(AutoConfig.for_model("mamba", **MAMBA)).eval()


@pytest.mark.parametrize("decoding", ["auto", "cascade"])
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
        assert backends.fastest(made := module("t5")) is generation.generate
        assert backends.fastest(made) is generation.generate
    (line,) = [record.message for record in caplog.records if "sampled" in record.message]
    assert line == "T5ForConditionalGeneration is sampled from by the plain loop, which is slower: it is run with padding"


def test_nothing_is_right_and_says_so(caplog, monkeypatch):
    """Log-probs that differ from those of a forward are no reason to refuse, but to warn."""
    made = foreign()
    monkeypatch.setattr(backends, "_differs", lambda module, loop: f"{loop.__module__} is off")
    with caplog.at_level(logging.WARNING, "alignzoo"):
        assert backends.fastest(made) is generation.generate
    assert "generation is off" in caplog.records[-1].message and "transformers_loop is off" in caplog.records[-1].message


def test_a_backend_that_is_not_there_is_an_error():
    network = torch.nn.Linear(2, 2)
    with pytest.raises(UserError, match=r"decoding=transformers can't sample from Linear.*auto, plain or cascade"):
        transformers_loop.Transformers().generate(request_of(network))
    with pytest.raises(UserError, match=r"sglang.*transformers"):
        config.compose(["algorithm=rloo", "generation.decoding=sglang"])
    with pytest.raises(
        UserError, match=r"^there is no generation\.decoding=continuous any more: take generation\.decoding=auto"
    ):
        config.compose(["algorithm=rloo", "generation.decoding=continuous"])


def request_of(network: Any) -> DecodingRequest:
    return DecodingRequest(network, PROMPTS, Sampling(max_new_tokens=2), torch.rand(4, 2), ENDS, lambda logits: logits)


# --- samplers of others ---

STRANGER = '''"""Another backend."""
from dataclasses import dataclass, field

import torch

from alignzoo.batch import Completions
from alignzoo.contracts import DecodingRequest, Sampler, UserError


@dataclass(kw_only=True)
class Constant(Sampler):
    """Writes one token all along."""

    token: int = field(default=5, metadata={"help": "which"})

    def check(self, generation):
        if generation.top_k:
            raise UserError("constant keeps no top_k")

    def connect(self, generation):
        self.connected = True

    def generate(self, request: DecodingRequest) -> Completions:
        assert self.connected
        prompt_of = torch.arange(len(request.prompts)).repeat_interleave(request.sampling.samples)
        ids = torch.full((len(prompt_of), request.sampling.max_new_tokens), self.token)
        written = torch.ones_like(ids, dtype=torch.bool)
        return Completions(
            prompts=request.prompts, prompt_of=prompt_of, ids=ids, attended=written, scored=written,
            truncated=written[:, 0], row=request.prompts.row[prompt_of],
        )
'''


@pytest.fixture
def stranger(tmp_path: Any) -> list[str]:
    (tmp_path / "constant.py").write_text(STRANGER)
    return ["algorithm=rloo", f"plugins_dir={tmp_path}", "generation.decoding=constant", f"run_dir={tmp_path}/run"]


def test_another_backend_is_one_file(stranger, tmp_path):
    from alignzoo.engine.build import Builder
    from alignzoo.engine.callbacks import Interrupt

    setup = config.instantiate(config.compose([*stranger, "+generation.options.token=4"]))
    (tmp_path / "run").mkdir()
    trainer = Builder(setup, tmp_path / "run", tmp_path).trainer(Interrupt(), lambda step, row: None)
    with trainer.roles.shared.noise.during("rollout", 0):
        c = trainer.roles.policy.generate(PROMPTS, trainer.roles.sampling)
    assert set(c.ids.flatten().tolist()) == {4} and c.logprobs is not None


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["+generation.options.tocken=4"], r"^generation\.options of constant: no key 'tocken'.*Did you mean 'token'"),
        (["+generation.options.token=x"], r"^generation\.options of constant: token=x is not a whole number"),
        (
            ["generation.server=http://gpu:8000"],
            r"^generation\.server=http://gpu:8000 is only used with generation\.decoding=vllm$",
        ),
        (["generation.decoding=auto", "+generation.options.token=4"], r"does nothing with generation\.decoding=auto"),
    ],
)
def test_settings_of_another_backend(overrides, message, stranger):
    with pytest.raises(UserError, match=message):
        config.instantiate(config.compose([*stranger, *overrides]))


def test_a_backend_says_what_it_can_not(stranger, tmp_path):
    from alignzoo.engine.build import Builder

    setup = config.instantiate(config.compose([*stranger, "generation.top_k=3", "generation.truncation=accept"]))
    with pytest.raises(UserError, match="constant keeps no top_k"):
        Builder(setup, tmp_path, tmp_path).check(ranks=1)


def test_another_backend_is_checked(stranger, tmp_path):
    """It writes whole completions of a token allowed, and not what the network finds likely."""
    from alignzoo.testing.conformance import run
    from alignzoo.testing.find import subjects

    (constant,) = subjects(str(tmp_path / "constant.py"), tmp_path / "checked")
    assert {result.property.name for result in run(constant) if result.failure} == {"logprobs"}
