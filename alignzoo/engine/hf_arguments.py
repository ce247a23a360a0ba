"""Which of `transformers.TrainingArguments` act here: `trainer.arguments` takes them, and refuses all others with a reason.

Read in transformers 5.24, against what `AlignTrainer` overrides of its Trainer.
"""

from __future__ import annotations

import math
import os
from dataclasses import fields
from typing import Any, get_args, get_origin

import torch
from transformers import TrainingArguments

from alignzoo.config import foreign_names
from alignzoo.errors import UserError, nearest, require
from alignzoo.settings import Optimizer, Schedule, Training

ADAMW, COSINE = "trainer.optimizer=adamw", "trainer.schedule=cosine"
GPU, RANKS = "a GPU", "several processes, as torchrun starts them"
TRACKER, TRACKIO = "a tracker other than tensorboard", "trainer.trackers=[trackio]"
# name: what it needs, beside a Trainer
ACTING = {
    "adam_epsilon": ADAMW, "lr_scheduler_kwargs": COSINE, "full_determinism": "", "deepspeed": "", "tf32": GPU,
    "torch_empty_cache_steps": GPU, "fsdp": RANKS, "fsdp_config": RANKS, "ddp_find_unused_parameters": RANKS,
    "ddp_bucket_cap_mb": RANKS, "ddp_broadcast_buffers": RANKS, "ddp_static_graph": RANKS, "ddp_backend": RANKS,
    "ddp_timeout": RANKS, "run_name": TRACKER, "project": TRACKIO, "trackio_space_id": TRACKIO, "trackio_bucket_id": TRACKIO,
    "trackio_static_space_id": TRACKIO,
}  # fmt: skip
# and in a trainer that is hosted, whose loss, networks and loader are its own
HOSTED = ACTING | {
    "fp16": GPU, "neftune_noise_alpha": "", "dataloader_num_workers": "", "dataloader_pin_memory": GPU,
    "dataloader_persistent_workers": "", "dataloader_prefetch_factor": "",
}  # fmt: skip
REASONS = {
    "evaluation is alignzoo's: see trainer.eval_steps, trainer.eval_prompts and generation": (
        "eval_delay", "eval_on_start", "eval_accumulation_steps", "eval_do_concat_batches", "eval_use_gather_object",
        "per_device_eval_batch_size", "prediction_loss_only", "include_for_metrics", "batch_eval_metrics", "bf16_full_eval",
        "fp16_full_eval", "do_eval", "do_predict", "label_names", "eval_strategy", "eval_steps",
    ),
    "say which weights a run leaves with early_stop.metric and early_stop.patience": (
        "load_best_model_at_end", "metric_for_best_model", "greater_is_better",
    ),
    "alignzoo sends nothing to a hub: upload the folder model/ of the run": (
        "push_to_hub", "hub_token", "hub_private_repo", "hub_model_id", "hub_strategy", "hub_always_push", "hub_revision",
    ),
    "checkpoints hold all that a run goes on from: see trainer.save_steps, trainer.keep_checkpoints and resume=RUN": (
        "save_only_model", "save_on_each_node", "enable_jit_checkpoint", "restore_callback_states_from_checkpoint",
        "resume_from_checkpoint", "save_strategy", "save_steps", "save_total_limit",
    ),
    "the order of the records follows seed": ("data_seed", "train_sampling_strategy"),
    "alignzoo's loader reads records that are in memory, in an order of its own: see trainer.by_length": (
        "dataloader_drop_last", "dataloader_num_workers", "dataloader_pin_memory", "dataloader_persistent_workers",
        "dataloader_prefetch_factor", "dataloader_multiprocessing_context", "dataloader_in_order", "length_column_name",
    ),
    "smoothing is an algorithm's: see algorithm.label_smoothing of those that have it": ("label_smoothing_factor",),
    "write trainer.bf16=true: steps that fp16 skips would count as diverged": ("fp16",),
    "write model.gradient_checkpointing=true": (
        "activation_checkpointing", "activation_checkpointing_kwargs", "gradient_checkpointing",
        "gradient_checkpointing_kwargs",
    ),
    "the forward runs an algorithm, not one network; model.forward says how it is laid out": (
        "torch_compile", "torch_compile_backend", "torch_compile_mode", "use_liger_kernel", "liger_kernel_config",
        "neftune_noise_alpha", "use_cache",
    ),
    "trainer.optimizer is adamw or sgd, which take none": ("optim_args", "optim_target_modules"),
    "sizes are trainer.batch and trainer.micro_batch": (
        "auto_find_batch_size", "average_tokens_across_devices", "accelerator_config", "parallelism_config",
        "per_device_train_batch_size", "gradient_accumulation_steps",
    ),
    "logs are alignzoo's: see trainer.logging_steps and metrics.jsonl": (
        "logging_first_step", "log_on_each_node", "log_level_replica", "include_num_input_tokens_seen", "skip_memory_metrics",
        "debug", "logging_strategy", "logging_steps", "logging_nan_inf_filter", "log_level", "disable_tqdm",
    ),
    "the devices are those that alignzoo is started on": ("local_rank",),
    "a run trains": ("do_train",),
}  # fmt: skip


def check(training: Training, hosted: bool) -> None:
    """Raises UserError for an argument that Trainer doesn't know or that would do nothing here, and for one of a wrong type."""
    types = {f.name: f.type for f in fields(TrainingArguments) if f.init}
    acting = {name: need for name, need in (HOSTED if hosted else ACTING).items() if name in types}
    trackers = {*training.trackers} - {"tensorboard"}
    fulfilled = {
        "": True, ADAMW: training.optimizer is Optimizer.adamw, COSINE: training.schedule is Schedule.cosine,
        RANKS: os.environ.get("WORLD_SIZE", "1") != "1", GPU: torch.cuda.is_available(), TRACKER: bool(trackers),
        TRACKIO: "trackio" in trackers,
    }  # fmt: skip
    for name, value in training.arguments.items():
        key = f"trainer.arguments.{name}"
        ours = foreign_names.keys(key)
        if name not in types:
            hint = f": here it is {ours}" if ours else f".{nearest(name, acting)}"
            raise UserError(f"{key}: transformers.TrainingArguments has no such argument{hint}")
        if name not in acting:
            engines = f"here it is {ours}" if ours else "the engine sets it"
            reason = next((why for why, names in REASONS.items() if name in names), engines)
            raise UserError(f"{key} is not for you to set: {reason}")
        if not fulfilled[acting[name]]:
            raise UserError(f"{key} would do nothing: it needs {acting[name]}. Leave it out")
        if name == "lr_scheduler_kwargs":
            require(isinstance(value, dict), key, value, "{num_cycles: NUMBER}")
        require(_fits(value, types[name]), key, value, f"of type {getattr(types[name], '__name__', types[name])}")
    epsilon = training.arguments.get("adam_epsilon", 0.0)
    require(0 <= epsilon < math.inf, "trainer.arguments.adam_epsilon", epsilon, ">= 0, and finite")
    for name, value in (training.arguments.get("lr_scheduler_kwargs") or {}).items():
        key = f"trainer.arguments.lr_scheduler_kwargs.{name}"
        if name != "num_cycles":
            raise UserError(f"{key}: {COSINE} has no {name!r}: it takes num_cycles")
        require(_fits(value, float) and 0 < value < math.inf, key, value, "a number > 0, and finite")


def _fits(value: Any, hint: Any) -> bool:
    kinds = [kind for kind in (get_origin(kind) or kind for kind in get_args(hint) or [hint]) if isinstance(kind, type)]
    if isinstance(value, bool):
        return bool in kinds
    return isinstance(value, (*kinds, int) if float in kinds else tuple(kinds))
