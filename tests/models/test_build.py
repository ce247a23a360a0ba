"""Modules from settings: dropout, precision, recomputation, adapters, and settings nothing can be built from."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM

from alignzoo.contracts import Kind, Role
from alignzoo.models import modules, tokenizers
from alignzoo.models.networks import Headed, PolicyNetwork
from alignzoo.runs import saving
from alignzoo.settings import Dtype, Model, Peft, UserError
from alignzoo.testing import toys
from alignzoo_plugins.dpo.dpo import DPO
from alignzoo_plugins.ppo.ppo import PPO
from alignzoo_plugins.sft.sft import SFT

GPT2 = {"model_type": "gpt2", "n_embd": 16, "n_layer": 1, "n_head": 2, "n_positions": 64}
RECORDS = toys.completions([0, 1, 2, 3])


def first_row(trainer: Any) -> dict[str, float]:
    return json.loads((Path(trainer.folder) / "metrics.jsonl").read_text().splitlines()[0])


# --- dropout ---


@pytest.mark.parametrize("dropout", [0.0, 0.5])
def test_dpo_starts_at_ln_2_unless_dropout_is_asked_for(dropout, tmp_path):
    """GPT-2's own config says 0.1."""
    model = Model(config=dict(GPT2), dropout=dropout)
    made = toys.trainer(toys.setup(DPO(beta=1.0), model=model, training={"max_steps": 1}), tmp_path)
    made.train()
    off = abs(first_row(made)["loss"] - math.log(2))
    assert off < 1e-6 if dropout == 0 else off > 1e-4


@pytest.mark.parametrize("kind", ["gpt2", "llama", "gpt_neox", "t5", "qwen2"])
def test_dropout_is_off_in_every_family(kind):
    config = modules.config(Model(config={"model_type": kind}), tokenizers.byte_level())
    rates = {name: value for name, value in config.to_dict().items() if ("drop" in name or name.endswith("pdrop")) and value}
    assert not {name: value for name, value in rates.items() if isinstance(value, float)}


# --- precision ---


@pytest.mark.parametrize("algorithm", [PPO, DPO])
@pytest.mark.parametrize("way", ["weights", "mixed"])
def test_bfloat16_trains(algorithm, way, tmp_path):
    model = Model(config=dict(toys.LLAMA), dtype=Dtype.bfloat16 if way == "weights" else Dtype.float32)
    made = toys.trainer(toys.setup(algorithm(), model=model, training={"max_steps": 1, "bf16": way == "mixed"}), tmp_path)
    before = {n: p.detach().clone() for n, p in made.trained.named_parameters()}
    assert {p.dtype for p in before.values()} == {torch.bfloat16 if way == "weights" else torch.float32}
    made.train()
    assert math.isfinite(first_row(made)["loss"]) and first_row(made)["grad_norm"] > 0
    assert any(not torch.equal(p, before[n]) for n, p in made.trained.named_parameters())
    c = made.roles.policy.generate(RECORDS.prompts, made.roles.sampling)
    with torch.no_grad():
        assert c.logprobs.dtype == made.roles.policy.logprobs(c).dtype == torch.float32


# --- recomputation ---


@pytest.mark.parametrize("lora", [False, True])
def test_recomputed_activations_give_the_same_gradients(lora, module, shared):
    gradients, runs = [], []
    for recompute in (False, True):
        made = module("llama", gradient_checkpointing=recompute)
        calls = []
        made.model.layers[0].self_attn.register_forward_hook(lambda *_, calls=calls: calls.append(1))
        made = modules.adapted(made, Peft(enabled=lora, rank=4 if lora else 16), seed=0).train()
        with torch.no_grad():
            for parameter in made.parameters():
                if parameter.requires_grad:
                    parameter.add_(0.01)
        PolicyNetwork(made, shared).logprobs(RECORDS).sum().backward()
        gradients.append({n: p.grad for n, p in made.named_parameters() if p.grad is not None})
        runs.append(len(calls))
    assert runs[1] == runs[0] + 1
    assert gradients[0].keys() == gradients[1].keys() and len(gradients[0]) > 4
    for name, gradient in gradients[0].items():
        torch.testing.assert_close(gradients[1][name], gradient)


# --- adapters ---


def test_adapters_alone_learn_and_the_final_model_is_merged(tmp_path):
    made = toys.trainer(toys.setup(SFT(), peft=Peft(enabled=True, rank=4), training={"learning_rate": 1.0}), tmp_path)
    before = {n: p.detach().clone() for n, p in made.trained.named_parameters()}
    made.train()
    after = dict(made.trained.named_parameters())
    changed = {n for n in before if not torch.equal(after[n], before[n])}
    assert changed and all("lora_" in name for name in changed)
    assert {n for n, p in after.items() if p.requires_grad} == {n for n in after if "lora_" in n}

    saving.save(made, tmp_path)
    loaded = PolicyNetwork(AutoModelForCausalLM.from_pretrained(tmp_path / "model"), made.roles.shared)
    assert type(loaded.module).__name__ == "LlamaForCausalLM"
    with torch.no_grad():
        torch.testing.assert_close(loaded.logprobs(RECORDS), made.roles.policy.logprobs(RECORDS), rtol=0, atol=1e-5)
        settings = Model(config=dict(toys.LLAMA))
        start = modules.policy(settings, modules.config(settings, made.tokenizer), seed=0)
        start_logprobs = PolicyNetwork(start, made.roles.shared).logprobs(RECORDS)
        assert (loaded.logprobs(RECORDS) - start_logprobs).abs().max() > 1e-3
    assert made.trained.policy.peft_config  # merging has left the run's own policy as it was


@pytest.mark.parametrize(("targets", "expected"), [("q_proj", {"q_proj"}), ("q_proj,v_proj", {"q_proj", "v_proj"})])
def test_target_modules(targets, expected, module):
    made = modules.adapted(module("llama"), Peft(enabled=True, target_modules=targets), seed=0)
    assert {name.split(".lora_")[0].split(".")[-1] for name, p in made.named_parameters() if p.requires_grad} == expected


def test_target_modules_that_are_not_there(module):
    with pytest.raises(UserError, match=r"peft.target_modules=q_prj does not fit the model"):
        modules.adapted(module("llama"), Peft(enabled=True, target_modules="q_prj"), seed=0)


def test_adapters_off(module):
    made = module("llama")
    assert modules.adapted(made, Peft(), seed=0) is made


# --- other roles ---


def test_fresh_weights_are_a_function_of_the_seed_and_leave_the_global_stream_alone():
    torch.manual_seed(5)
    expected = torch.rand(1)
    torch.manual_seed(5)
    settings = Model(config=dict(toys.LLAMA))
    first, again, other = (
        modules.policy(settings, modules.config(settings, tokenizers.byte_level()), seed) for seed in (0, 0, 1)
    )
    assert torch.equal(torch.rand(1), expected)
    weights = [made.model.embed_tokens.weight for made in (first, again, other)]
    assert torch.equal(weights[0], weights[1]) and not torch.equal(weights[0], weights[2])


def test_a_role_starts_from_the_policy_or_from_a_path(module, tmp_path):
    policy, other = module("llama"), module("llama", seed=1)
    other.save_pretrained(tmp_path)
    for path, origin in ((None, policy), (str(tmp_path), other)):
        teacher = modules.role_module("teacher", Role(kind=Kind.POLICY), policy, path, Model())
        value = modules.role_module("value", Role(kind=Kind.VALUE, trained=True), policy, path, Model())
        assert isinstance(value, Headed)
        for made in (teacher.model, value.trunk):
            torch.testing.assert_close(made.state_dict(), origin.model.state_dict())
        assert not any(p.requires_grad for p in teacher.parameters())
        assert all(p.requires_grad for p in value.parameters())
    assert all(a is not b for a, b in zip(policy.parameters(), teacher.parameters(), strict=True))


# --- mistakes ---


def test_what_nothing_can_be_built_from(tmp_path):
    words = tokenizers.byte_level()
    with pytest.raises(UserError, match=r"model.path=/nowhere/at/all does not exist"):
        modules.config(Model(path="/nowhere/at/all"), words)
    with pytest.raises(UserError, match=r"model.tokenizer=./none does not exist"):
        modules.tokenizer(Model(tokenizer="./none"))
    with pytest.raises(UserError, match=r"roles.teacher=/nowhere does not exist"):
        modules.role_module("teacher", Role(kind=Kind.POLICY), torch.nn.Linear(1, 1), "/nowhere", Model())
    with pytest.raises(UserError, match=r"no model at model.path"):
        modules.config(Model(path=str(tmp_path)), words)
    with pytest.raises(UserError, match=r"no tokenizer at .*model.tokenizer=PATH"):
        modules.tokenizer(Model(path=str(tmp_path)))
    with pytest.raises(UserError, match=r"neither a path nor a config"):
        modules.config(Model(), words)
    with pytest.raises(UserError, match=r"model_type=lama"):
        modules.config(Model(config={"model_type": "lama"}), words)
    settings = Model(config=dict(toys.LLAMA), context_length=129)
    with pytest.raises(UserError, match=r"model.context_length=129 is more than the model's 128"):
        modules.context_length(settings, modules.config(settings, words))


@pytest.mark.parametrize(
    ("setting", "value", "message"),
    [
        ("hidden_size", 1.5, "can't be built for model_type=llama: Field 'hidden_size' expected int, got float (value: 1.5)"),
        ("num_attention_heads", 3, "can't be built for model_type=llama: The hidden size (16) is not a multiple"),
        ("num_attention_heads", 0, "can't be built for model_type=llama: integer division or modulo by zero"),
        ("hidden_size", -4, "makes no network of llama: Trying to create tensor with negative dimension -4"),
        ("num_key_value_heads", 0, "makes no network of llama: integer division or modulo by zero"),
    ],
)
def test_values_of_a_config_that_make_no_network(setting, value, message):
    settings = Model(config={**toys.LLAMA, setting: value})
    with pytest.raises(UserError) as caught:
        modules.policy(settings, modules.config(settings, tokenizers.byte_level()), seed=0)
    assert str(caught.value).startswith(f"model.config {message}")


def test_context_length():
    settings = Model(config=dict(toys.LLAMA), context_length=100)
    made = modules.config(settings, tokenizers.byte_level())
    assert modules.context_length(settings, made) == 100
    assert modules.context_length(Model(config=dict(toys.LLAMA)), made) == 128


def test_a_tokenizer_without_an_end(tmp_path):
    words = tokenizers.byte_level()
    words.eos_token = None
    words.save_pretrained(tmp_path)
    with pytest.raises(UserError, match="no EOS token"):
        modules.tokenizer(Model(tokenizer=str(tmp_path)))


def test_a_tokenizer_beside_the_model(tmp_path):
    tokenizers.byte_level().save_pretrained(tmp_path)
    assert modules.tokenizer(Model(path=str(tmp_path)))("ab")["input_ids"] == tokenizers.byte_level()("ab")["input_ids"]


def test_a_misspelt_setting_of_the_model_is_an_error():
    """transformers itself would keep the key and ignore it."""
    with pytest.raises(UserError, match=r"model.config.hidden_siz: llama has no such setting. Did you mean 'hidden_size'"):
        modules.config(Model(config=toys.LLAMA | {"hidden_siz": 3}), tokenizers.byte_level())


# --- roles from a path share the policy's token ids ---


def teacher(folder: Path, words: Any = None, **config: Any) -> Path:
    """A language model on disk, and a tokenizer beside it."""
    settings = Model(config=dict(toys.LLAMA) | config)
    module: Any = modules.policy(settings, modules.config(settings, tokenizers.byte_level()), seed=3)
    module.save_pretrained(folder)
    if words is not None:
        words.save_pretrained(folder)
    return folder


def swapped() -> Any:
    """The byte-level tokenizer with the ids of a and b exchanged: of equal size, and other words."""
    words = tokenizers.byte_level()
    state = json.loads(words.backend_tokenizer.to_str())
    table = state["model"]["vocab"]
    table["a"], table["b"] = table["b"], table["a"]
    return type(words)(tokenizer_object=words.backend_tokenizer.from_str(json.dumps(state)), **words.special_tokens_map)


@pytest.mark.parametrize("key", ["teacher", "value"])
def test_a_role_of_other_words_is_refused(key, tmp_path):
    from alignzoo_plugins.distill.distill import Distill

    algorithm = Distill() if key == "teacher" else PPO()
    path = teacher(tmp_path / "other", swapped())
    setup = toys.setup(algorithm, roles={key: str(path)})
    with pytest.raises(UserError, match=rf"^roles\.{key}=.*other has another vocabulary .*\('a' and 1 other tokens differ"):
        toys.trainer(setup, tmp_path / "run")
    toys.trainer(toys.setup(algorithm, roles={key: str(teacher(tmp_path / "same", tokenizers.byte_level()))}), tmp_path / "run")


def test_tables_of_other_sizes(tmp_path):
    words = tokenizers.byte_level()
    width = modules.config(Model(config=dict(toys.LLAMA)), words).vocab_size
    alone, wide = teacher(tmp_path / "alone"), teacher(tmp_path / "wide", words, vocab_size=width + 64)
    modules.check_vocabulary("roles.teacher", str(alone), words, width, Model(), distributions=True)
    modules.check_vocabulary("roles.value", str(wide), words, width, Model(), distributions=False)
    with pytest.raises(UserError, match=rf"{width + 64} output tokens and the policy {width}: their"):
        modules.check_vocabulary("roles.teacher", str(wide), words, width, Model(), distributions=True)
    with pytest.raises(UserError, match=rf"another vocabulary than the policy \({width} rows, not {width + 64}\)"):
        modules.check_vocabulary("roles.teacher", str(alone), words, width + 64, Model(), distributions=False)
