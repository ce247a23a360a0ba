"""What TRL, PEFT and transformers call the settings, as docs/migrate.md has it, and values that are no option but a path."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from pathlib import Path
from types import MappingProxyType

from alignzoo.config.quoting import written
from alignzoo.settings import Training

KEYS = {
    "model_name_or_path": "model.path",
    "lr": "trainer.learning_rate",
    "num_train_epochs": "trainer.epochs",
    "per_device_train_batch_size": "trainer.batch, of a whole optimizer step, or trainer.micro_batch, of one forward",
    "gradient_accumulation_steps": "trainer.micro_batch, the records of one forward of the trainer.batch of a step",
    "lr_scheduler_type": "trainer.schedule",
    "warmup_ratio": "trainer.warmup_steps, a number of steps",
    "report_to": "trainer.trackers",
    "gradient_checkpointing": "model.gradient_checkpointing",
    "resume_from_checkpoint": "resume",
    "disable_dropout": "model.dropout",
    "max_length": "data.max_prompt_tokens and data.max_completion_tokens",
    "num_generations": "rollout.samples",
    "max_completion_length": "generation.max_new_tokens",
    "r": "peft.rank",
    "lora_r": "peft.rank",
    "lora_alpha": "peft.alpha",
    "lora_dropout": "peft.dropout",
    "lora_target_modules": "peft.target_modules",
    "reward_funcs": "reward.path",
    "lmbda": "algorithm.lam",
}
REMOVED = {  # settings and values of earlier versions: what does the same now. None of them changes the weights
    "trainer.keep_memory": "set MALLOC_TRIM_THRESHOLD_=1073741824 and MALLOC_MMAP_THRESHOLD_=1073741824 in the environment",
    "generation.decoding=continuous": "take generation.decoding=auto, or vllm for very many rows",
}
OPTIONS = {("algorithm", "reward"): "bradley_terry"}
ROWS = {".jsonl": "jsonl", ".json": "jsonl", ".gz": "jsonl", ".parquet": "parquet"}


def keys(key: str, schemas: Mapping[str, object] = MappingProxyType({})) -> str:
    """What `key` is called here, or "". One without a group may be a field of one of `schemas`, {group: dataclass}, and one in
    trainer.arguments a field of `trainer`."""
    parent, _, name = key.rpartition(".")
    if name in KEYS:
        return KEYS[name]
    if parent == "trainer.arguments" and name in _names(Training):
        return f"trainer.{name}"
    return "" if parent else " or ".join(f"{group}.{name}" for group, schema in schemas.items() if name in _names(schema))


def option(group: str, name: str) -> str:
    """The overrides that say what `group=name` means where no option is called that, or ""."""
    role = "reward" if group == "gold" else group
    if plugin := OPTIONS.get((role, name)):
        return f"{group}={plugin}"
    folder, suffix = os.path.isdir(name), Path(name).suffix  # isdir takes names that are too long for a path
    if role == "reward" and re.fullmatch(r"[\w./]+:\w+", name):
        kind = "function"
    elif role in ("model", "reward") and ("/" in name or folder):
        kind = {"model": "hf", "reward": "model"}[role]
    elif role == "data" and suffix in ROWS:
        kind = ROWS[suffix]
    elif role == "data" and (folder or re.fullmatch(r"[\w-]+/[\w.-]+", name)):
        kind = "disk" if folder else "hub"
    else:
        return ""
    return f"{group}={kind} {group}.path={written(name) if ' ' in name else name}"


def flag(text: str) -> str:
    """The message for --NAME, which other programs take settings by."""
    flag_name, _, value = text.lstrip("-").partition("=")
    name = flag_name.replace("-", "_")
    ours = keys(f"trainer.arguments.{name}") or name
    return f"no option {text!r}: overrides are key=value: {re.split('[ ,]', ours)[0]}={value or 'VALUE'}"


def _names(schema: object) -> set[str]:
    return {f.name for f in fields(schema)} if is_dataclass(schema) else set()
