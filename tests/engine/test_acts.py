"""Every setting acts, and as it declares: on the weights, on what a run keeps, or on speed alone."""

from __future__ import annotations

import dataclasses
import functools
import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from alignzoo import compose, train
from alignzoo.settings import Acts, Training
from alignzoo.setup import RunConfig
from tests.engine.test_restart import TINY, VOLATILE

BASE = [text for text in TINY if not text.startswith(("algorithm", "trainer.", "rollout."))] + [
    "trainer.batch=4", "trainer.eval_prompts=2", "trainer.max_steps=2", "trainer.learning_rate=1e-2",
]  # fmt: skip
PPO = "algorithm=ppo rollout.prompts=2 rollout.samples=4"
PAIRS = "making=pairs gold=task data.prompts=4"
STOP = "trainer.eval_steps=1 early_stop.metric=kl"
FAILING = f"algorithm=reinforce rollout.prompts=2 rollout.samples=4 reward=function reward.path={__name__}:failing"
BINARY = f"algorithm=rloo rollout.prompts=2 rollout.samples=2 reward=function reward.path={__name__}:binary"
# key: what it is set to, and beside what else
FLIPS = {
    "model.config": ("model.config.hidden_size=8", ""),
    "model.dtype": ("model.dtype=bfloat16", ""),
    "model.forward": ("model.forward=padded", ""),
    "model.dropout": ("model.dropout=0.5", ""),
    "model.gradient_checkpointing": ("model.gradient_checkpointing=true", ""),
    "peft.enabled": ("peft.enabled=false", "peft=lora peft.rank=16 peft.alpha=32 peft.target_modules=all-linear"),
    "peft.rank": ("peft.rank=2", "peft=lora"),
    "peft.alpha": ("peft.alpha=1", "peft=lora"),
    "peft.dropout": ("peft.dropout=0.5", "peft=lora"),
    "peft.target_modules": ("peft.target_modules=q_proj", "peft=lora"),
    "generation.temperature": ("generation.temperature=0.5", PPO),
    "generation.top_k": ("generation.top_k=1", f"{PPO} generation.truncation=accept"),
    "generation.top_p": ("generation.top_p=0.2", f"{PPO} generation.truncation=accept"),
    "generation.min_p": ("generation.min_p=0.9", f"{PPO} generation.truncation=accept"),
    "generation.decoding": ("generation.decoding=plain", PPO),
    "rollout.prompts": ("rollout.prompts=1", PPO),
    "rollout.samples": ("rollout.samples=2", PPO),
    "rollout.refill": ("rollout.refill=5", BINARY),
    "rollout.lag": ("rollout.lag=1", BINARY),
    "budget.unit": ("budget.unit=tokens", "budget.unit=samples budget.amount=40"),
    "budget.amount": ("budget.amount=24", "budget.unit=samples budget.amount=16"),
    "making.kind": ("making.kind=none", PAIRS),
    "making.prompts": ("making.prompts=8", PAIRS),
    "making.samples": ("making.samples=3", PAIRS),
    "making.heldout": ("making.heldout=1", PAIRS),
    "making.temperature": ("making.temperature=50", PAIRS),
    "making.flip": ("making.flip=1", PAIRS),
    "making.ties": ("making.ties=keep", f"{PAIRS} making.tie_margin=0.5 making.samples=4"),
    "making.tie_margin": ("making.tie_margin=0.5", f"{PAIRS} making.samples=4"),
    "making.raters": ("making.raters=2", f"{PAIRS} making.temperature=50 making.prompts=16"),
    "making.batch": ("making.batch=1", PAIRS),
    "making.seed": ("making.seed=5", PAIRS),
    "scoring.on_error": ("scoring.on_error=default", f"{FAILING} scoring.on_error=skip"),
    "scoring.default": ("scoring.default=-9", f"{FAILING} scoring.on_error=default"),
    "early_stop.metric": ("early_stop.metric=gap_closed", f"{STOP} early_stop.patience=1"),
    "early_stop.mode": ("early_stop.mode=max", f"{STOP} early_stop.patience=1"),
    "early_stop.limit": ("early_stop.limit=1e-5", f"{STOP} early_stop.limit=0.5"),
    "trainer.max_steps": ("trainer.max_steps=3", ""),
    "trainer.epochs": ("trainer.epochs=0.25", "trainer.max_steps=0 data.rows=32 trainer.epochs=0.125"),
    "trainer.batch": ("trainer.batch=8", ""),
    "trainer.micro_batch": ("trainer.micro_batch=1", ""),
    "trainer.learning_rate": ("trainer.learning_rate=1e-3", ""),
    "trainer.role_learning_rates": ("+trainer.role_learning_rates.policy=1e-3", ""),
    "trainer.optimizer": ("trainer.optimizer=sgd", ""),
    "trainer.schedule": ("trainer.schedule=linear", ""),
    "trainer.warmup_steps": ("trainer.warmup_steps=2", "trainer.schedule=linear"),
    "trainer.weight_decay": ("trainer.weight_decay=0.5", ""),
    "trainer.adam_beta1": ("trainer.adam_beta1=0.1", ""),
    "trainer.adam_beta2": ("trainer.adam_beta2=0.1", ""),
    "trainer.max_grad_norm": ("trainer.max_grad_norm=1e-6", ""),
    "trainer.logging_steps": ("trainer.logging_steps=1", ""),
    "trainer.eval_steps": ("trainer.eval_steps=1", ""),
    "trainer.eval_prompts": ("trainer.eval_prompts=1", ""),
    "trainer.save_steps": ("trainer.save_steps=1", ""),
    "trainer.keep_checkpoints": ("trainer.keep_checkpoints=1", "trainer.save_steps=1 trainer.max_steps=3"),
    "trainer.bf16": ("trainer.bf16=true", ""),
    "trainer.by_length": ("trainer.by_length=false", "model.forward=padded trainer.micro_batch=1"),
    "trainer.trackers": ("trainer.trackers=[tensorboard]", ""),
    "trainer.arguments": ("+trainer.arguments.adam_epsilon=1", ""),
    "seed": ("seed=1", ""),
    "label": ("label=mine", ""),
    "metrics": ("metrics=[distinct_tokens]", ""),
}
ELSEWHERE = {  # acts where no run this small can see it
    "model.path": "tests/models", "model.tokenizer": "tests/models", "model.trust_remote_code": "tests/package/test_safety.py",
    "model.context_length": "tests/data", "model.attention": "tests/models", "model.fresh": "tests/models",
    "generation.max_new_tokens": "tests/models/test_generation.py", "early_stop.patience": "tests/engine/test_stopping.py",
    "generation.truncation": "refuses, or not: tests/engine/test_unused.py", "generation.server": "tests/models/test_vllm.py",
    "generation.options": "tests/models/test_backends.py",
    "making.levels": "tests/making", "making.model": "tests/making", "scoring.timeout": "tests/rewards/test_checked.py",
    "trainer.reference_samples": "tests/engine/test_reference_rewards.py",
}  # fmt: skip
GROUPS = {f.name: f.default_factory for f in dataclasses.fields(RunConfig) if f.name in {key.split(".")[0] for key in FLIPS}}
FIELDS = {
    f"{group}.{f.name}": f
    for group, schema in GROUPS.items()
    if dataclasses.is_dataclass(schema)
    for f in dataclasses.fields(schema)
} | {f.name: f for f in dataclasses.fields(RunConfig) if f.name in ("seed", "label", "metrics")}


def binary(completions):
    """Often the same for both completions of a prompt."""
    return [float(text < "c") for text in completions]


def failing(completions):
    """Fails on every completion that begins with an a."""
    return [float("nan") if text.startswith("a") else float(len(text)) for text in completions]


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    place = tmp_path_factory.mktemp("acts")

    @functools.cache
    def of(overrides: str) -> Path:
        folder = place / str(len(list(place.iterdir())))
        train(compose([*BASE, *overrides.split(), f"run_dir={folder}"]))
        return folder

    return of


def weights(folder):
    return load_file(folder / "model" / "model.safetensors")


def kept(folder):
    """What a run leaves, beside the weights, its settings and what takes time."""
    rows = {
        path.name: [{k: v for k, v in json.loads(line).items() if k not in VOLATILE} for line in path.read_text().splitlines()]
        for path in folder.glob("*.jsonl")
    }
    names = {str(p.relative_to(folder)).partition(".tfevents")[0] for p in folder.rglob("*")}
    return names, rows, (folder / "config.yaml").read_text().count("\nlabel: mine")


def test_every_setting_is_here():
    assert FIELDS.keys() - FLIPS.keys() - ELSEWHERE.keys() == set()
    assert Training in GROUPS.values()


@pytest.mark.parametrize("key", FLIPS)
def test_it_acts_as_it_says(key, folders):
    override, beside = FLIPS[key]
    before, after = folders(beside), folders(f"{beside} {override}".strip())
    acts = FIELDS[key].metadata.get("acts", Acts.result)
    first, second = weights(before), weights(after)
    same_shapes = {name: w.shape for name, w in first.items()} == {name: w.shape for name, w in second.items()}
    if acts is Acts.result:
        assert not same_shapes or any(not torch.equal(w, second[name]) for name, w in first.items())
    elif acts is Acts.speed:
        torch.testing.assert_close(second, first, rtol=0, atol=1e-5)
    else:
        assert all(torch.equal(w, second[name]) for name, w in first.items())
        assert kept(before) != kept(after)
